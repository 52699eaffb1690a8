"""The zone of weft's links in a real firewalld: made, read back, put right, left alone where it is somebody else's."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from drivers.converge import Converger
from drivers.errors import Conflict, HostFailure
from drivers.firewalld import FirewalldBackend
from drivers.resources import (
    HALF_MADE,
    HOST,
    ZONE_KEY,
    Bridge,
    Foreign,
    InZone,
    Key,
    Resource,
    Scope,
    Zone,
    in_zone_key,
    link_key,
    scope_of,
)
from tests.drivers.steps import create, delete, observed
from tests.lab.firewalld import Bus, Firewalld
from tests.lab.names import REPO
from tests.lab.node import Node
from tests.lab.wait import await_

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces are root's"),
]

NETWORK = scope_of("n" * 64)
OURS, NAMED, GONE, THEIRS = "wfb0123456789ab", "lan-of-ours", "wfbffffffffffff", "eth5"

ZONE = Zone(key=ZONE_KEY, scope=HOST)
BOUND = InZone(key=in_zone_key(OURS), scope=NETWORK, shared=True)
NAMED_BOUND = InZone(key=in_zone_key(NAMED), scope=NETWORK, shared=True)
EVERY = (ZONE, BOUND, NAMED_BOUND)

LINKS: dict[str, Resource | Foreign] = {
    OURS: Bridge(key=link_key(OURS), scope=NETWORK),
    NAMED: Bridge(key=link_key(NAMED), scope=NETWORK),
    THEIRS: Foreign(link_key(THEIRS), "link eth5 (device), something that weft did not make"),
}

REJECTED = "<zone><service/></zone>"


@pytest.fixture(scope="module")
def running() -> Iterator[Firewalld]:
    """Keep one firewalld for the module."""
    with Node("firewalld") as node, Bus(node) as bus, Firewalld(bus) as firewalld:
        yield firewalld


@pytest.fixture
def firewalld(running: Firewalld, monkeypatch: pytest.MonkeyPatch) -> Iterator[Firewalld]:
    """Yield firewalld as Debian has it, and speak to it."""
    monkeypatch.setenv(*next(iter(running.bus.beside.items())))
    yield running
    running.wake()
    running.reset()


@pytest.fixture
def backend(firewalld: Firewalld) -> Iterator[FirewalldBackend]:
    with backend_of() as backend:
        yield backend


@contextmanager
def backend_of() -> Iterator[FirewalldBackend]:
    """Yield a backend beside the links of the test."""
    backend = FirewalldBackend(LINKS.get)
    yield backend
    backend.close()


@contextmanager
def watched(backend: FirewalldBackend) -> Iterator[list[Scope | None]]:
    """Yield what a watch says, once it knows that firewalld answers."""
    told: list[Scope | None] = []
    stop = backend.watch(told.append)
    try:
        await_(lambda: told, 20, "the first answer")
        told.clear()
        yield told
    finally:
        stop()


def as_wanted(*resources: Resource) -> dict[Key, Resource | Foreign]:
    return {one.key: one for one in resources}


# -- ours -----------------------------------------------------------------------------------------------------------


def test_first_law(backend: FirewalldBackend) -> None:
    assert observed(backend, *EVERY) == {}
    assert backend.survey() == {}
    assert backend.apply(create(*EVERY)) == {}
    assert observed(backend, *EVERY) == as_wanted(*EVERY)
    assert backend.survey() == as_wanted(*EVERY)


def test_a_second_converge_has_no_step(backend: FirewalldBackend) -> None:
    converger = Converger({"firewalld": backend})
    assert [step.new for step in converger.converge(HOST, [ZONE]).taken] == [ZONE]
    assert len(converger.converge(NETWORK, [BOUND, NAMED_BOUND]).taken) == 2
    assert not converger.difference(HOST, [ZONE])
    assert not converger.difference(NETWORK, [BOUND, NAMED_BOUND])


def test_taking_steps_again_changes_nothing_and_reloads_nothing(
    backend: FirewalldBackend, firewalld: Firewalld
) -> None:
    backend.apply(create(*EVERY))
    firewalld.cmd("--zone=public", "--add-service=http")  # until the next reload
    before = firewalld.everything()
    assert backend.apply(create(*EVERY)) == {}
    assert firewalld.everything() == before
    firewalld.cmd("--zone=public", "--remove-service=http")


def test_what_is_removed_leaves_nothing_behind(backend: FirewalldBackend, firewalld: Firewalld) -> None:
    before = firewalld.everything()
    backend.apply(create(*EVERY))
    gone = delete(BOUND, NAMED_BOUND, ZONE)
    for _ in range(2):
        assert backend.apply(gone) == {}
        assert firewalld.everything() == before
        assert backend.survey() == {}


def test_the_lines_that_a_person_would_type_do_the_same(backend: FirewalldBackend, firewalld: Firewalld) -> None:
    for one in EVERY:
        firewalld.type(f"{one}")
    assert observed(backend, *EVERY) == as_wanted(*EVERY)
    firewalld.type(BOUND.undo())
    assert observed(backend, *EVERY) == as_wanted(ZONE, NAMED_BOUND)
    firewalld.type(ZONE.undo())
    assert observed(backend, *EVERY) == {}


@pytest.mark.parametrize(
    ("meddling", "seen"),
    [
        ("firewall-cmd --permanent --zone=weft --set-target=default", replace(ZONE, kept=False)),
        (
            "firewall-cmd --permanent --zone=weft --set-target=DROP; firewall-cmd --reload",
            replace(ZONE, kept=False, loaded=False),
        ),
        ("firewall-cmd --permanent --delete-policy=weft-forwarding", replace(ZONE, kept=False)),
        (ZONE.undo(), None),
        ("firewall-cmd --policy=weft-forwarding --remove-ingress-zone=ANY", replace(ZONE, loaded=False)),
    ],
)
def test_what_somebody_changed_is_put_right(
    backend: FirewalldBackend, firewalld: Firewalld, meddling: str, seen: Zone | None
) -> None:
    backend.apply(create(ZONE))
    firewalld.type(meddling)
    assert observed(backend, ZONE) == (as_wanted(seen) if seen else {})
    assert Converger({"firewalld": backend}).converge(HOST, [ZONE]).lacking == ()
    assert observed(backend, ZONE) == as_wanted(ZONE)


def test_what_somebody_added_to_the_zone_is_his(backend: FirewalldBackend, firewalld: Firewalld) -> None:
    backend.apply(create(ZONE))
    firewalld.type("firewall-cmd --permanent --zone=weft --add-service=http")
    assert observed(backend, ZONE) == as_wanted(ZONE)
    firewalld.type("firewall-cmd --permanent --zone=weft --set-target=default")
    backend.apply(create(ZONE))
    assert firewalld.cmd("--permanent", "--zone=weft", "--list-services") == "http"


def test_a_reload_takes_the_links_out_and_a_step_puts_them_back(
    backend: FirewalldBackend, firewalld: Firewalld
) -> None:
    backend.apply(create(*EVERY))
    for how in ("--reload", "--complete-reload"):
        firewalld.cmd(how)
        assert observed(backend, *EVERY) == as_wanted(ZONE)
        assert backend.apply(create(BOUND, NAMED_BOUND)) == {}
        assert observed(backend, *EVERY) == as_wanted(*EVERY)


# -- others' --------------------------------------------------------------------------------------------------------


def test_a_link_that_somebody_put_elsewhere_stays_there(backend: FirewalldBackend, firewalld: Firewalld) -> None:
    backend.apply(create(ZONE))
    firewalld.cmd("--zone=internal", f"--add-interface={OURS}")
    assert observed(backend, BOUND) == {
        BOUND.key: Foreign(BOUND.key, "firewalld's zone internal, into which somebody put it")
    }
    assert Converger({"firewalld": backend}).converge(NETWORK, [BOUND]).taken == ()
    assert isinstance(backend.apply(create(BOUND))[BOUND.key], Conflict)
    assert backend.apply(delete(BOUND)) == {}
    assert backend.zones() == {OURS: "internal"}


def test_a_strangers_link_in_the_zone_keeps_it(backend: FirewalldBackend, firewalld: Firewalld) -> None:
    backend.apply(create(*EVERY))
    firewalld.cmd("--zone=weft", f"--add-interface={THEIRS}")
    assert in_zone_key(THEIRS) not in backend.survey()
    key = in_zone_key(THEIRS)
    assert isinstance(backend.observe([key])[key], Foreign)
    failure = backend.apply(delete(ZONE))[ZONE_KEY]
    assert isinstance(failure, Conflict)
    assert THEIRS in str(failure)
    assert observed(backend, *EVERY) == as_wanted(*EVERY)


def test_a_policy_of_others_that_names_the_zone_keeps_it(backend: FirewalldBackend, firewalld: Firewalld) -> None:
    backend.apply(create(ZONE))
    firewalld.type(
        "firewall-cmd --permanent --new-policy=theirs;"
        "firewall-cmd --permanent --policy=theirs --add-ingress-zone=weft;"
        "firewall-cmd --permanent --policy=theirs --add-egress-zone=HOST"
    )
    failure = backend.apply(delete(ZONE))[ZONE_KEY]
    assert isinstance(failure, Conflict)
    assert "policy theirs" in str(failure)
    firewalld.cmd("--reload")  # which firewalld would refuse without the zone


def test_a_name_of_ours_without_a_link_is_left_over(backend: FirewalldBackend, firewalld: Firewalld) -> None:
    backend.apply(create(ZONE))
    firewalld.cmd("--zone=weft", f"--add-interface={GONE}")
    left = InZone(key=in_zone_key(GONE), scope=HALF_MADE)
    assert backend.survey() == as_wanted(ZONE, left)
    assert backend.apply(delete(left)) == {}
    assert backend.survey() == as_wanted(ZONE)


def test_a_zone_that_firewalld_refuses_to_load_is_told_in_its_words_and_the_reload_not_repeated(
    backend: FirewalldBackend, firewalld: Firewalld
) -> None:
    broken = firewalld.config / "zones/broken.xml"
    broken.parent.mkdir(exist_ok=True)
    broken.write_text(REJECTED, encoding="ascii")
    try:
        first = backend.apply(create(ZONE))[ZONE_KEY]
        assert isinstance(first, HostFailure)
        assert "Missing attribute name for service" in str(first)
        assert observed(backend, ZONE) == as_wanted(replace(ZONE, loaded=False))
        assert "is not asked again" in str(backend.apply(create(ZONE))[ZONE_KEY])
    finally:
        broken.unlink()
    firewalld.cmd("--reload")
    assert observed(backend, ZONE) == as_wanted(ZONE)
    firewalld.type("firewall-cmd --permanent --zone=weft --set-target=DROP; firewall-cmd --reload")
    assert backend.apply(create(ZONE)) == {}


# -- not there, dead, slow ------------------------------------------------------------------------------------------


def test_without_a_bus_nothing_is_there_and_nothing_is_loaded(tmp_path: Path) -> None:
    program = f"""
import sys
from pathlib import Path
from drivers import system_bus
system_bus.SOCKET = Path({str(tmp_path / "none")!r})
from drivers.host import FirewalldBackend
from drivers.resources import ZONE_KEY
backend = FirewalldBackend(lambda _: None)
stop = backend.watch(lambda _: None)
assert not backend.answers()
assert backend.observe([ZONE_KEY]) == backend.survey() == {{}}
stop()
backend.close()
assert backend.calls == 0
print("jeepney" in sys.modules)
"""
    env = {name: value for name, value in os.environ.items() if name != "DBUS_SYSTEM_BUS_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, cwd=REPO, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("False\n", "")


@pytest.mark.parametrize("address", ["unix:path=/nonexistent/bus", "tcp:host=192.0.2.1,port=1", "nonsense"])
def test_an_address_without_a_bus_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
    with backend_of() as backend:
        assert not backend.answers()
        assert backend.survey() == {}
        stop = backend.watch(lambda _: None)
        assert isinstance(backend.apply(create(ZONE))[ZONE_KEY], HostFailure)
        stop()


def test_a_firewalld_that_is_switched_off_is_not_started_by_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    with Node("bus") as node:
        bus = Bus(node)
        bus.services.mkdir()
        started = node.disk / "started"
        (bus.services / "firewalld.service").write_text(
            f"[D-BUS Service]\nName=org.fedoraproject.FirewallD1\nUser=root\nExec=/usr/bin/touch {started}\n",
            encoding="ascii",
        )
        with bus, backend_of() as backend:
            monkeypatch.setenv(*next(iter(bus.beside.items())))
            assert not backend.answers()
            assert isinstance(backend.apply(create(ZONE))[ZONE_KEY], HostFailure)
            stop = backend.watch(lambda _: None)
            await_(lambda: not backend.answers(), 10, "the watch to know")
            stop()
            assert not started.exists()


def test_a_firewalld_that_hangs_costs_one_time_out_and_is_found_again_when_it_wakes(
    backend: FirewalldBackend, firewalld: Firewalld
) -> None:
    with watched(backend) as told:
        backend.apply(create(ZONE))
        told.clear()
        firewalld.hang()
        try:
            calls = backend.calls
            assert isinstance(backend.apply(create(BOUND))[BOUND.key], HostFailure)
            assert not backend.answers()
            assert isinstance(backend.apply(create(BOUND))[BOUND.key], HostFailure)
            assert observed(backend, *EVERY) == {}
            assert backend.survey() == {}
            assert backend.calls == calls + 1
        finally:
            firewalld.wake()
        await_(lambda: None in told, 20, "its answer")
        assert backend.answers()
        assert backend.apply(create(BOUND)) == {}
        assert observed(backend, BOUND) == as_wanted(BOUND)


# -- what others change ---------------------------------------------------------------------------------------------


def test_a_reload_is_heard_and_nothing_else_is(backend: FirewalldBackend, firewalld: Firewalld) -> None:
    backend.apply(create(*EVERY))
    with watched(backend) as told:
        calls = backend.calls
        firewalld.cmd("--zone=public", "--add-service=http")
        firewalld.cmd("--permanent", "--zone=public", "--add-service=https")
        firewalld.cmd("--permanent", "--zone=public", "--remove-service=https")
        firewalld.cmd("--reload")
        await_(lambda: told, 20, "the reload to be heard")
        assert told == [None]
        assert backend.calls == calls


def test_a_restart_is_heard_when_firewalld_answers_again(backend: FirewalldBackend, firewalld: Firewalld) -> None:
    backend.apply(create(*EVERY))
    with watched(backend) as told:
        firewalld.stop()
        await_(lambda: not backend.answers(), 20, "its end")
        assert observed(backend, *EVERY) == {}
        assert told == []
        firewalld.start()
        await_(lambda: None in told, 20, "its answer")
        assert observed(backend, *EVERY) == as_wanted(ZONE)


def test_what_was_read_is_remembered_until_a_reload(backend: FirewalldBackend, firewalld: Firewalld) -> None:
    with watched(backend) as told:
        backend.apply(create(ZONE))
        await_(lambda: told, 20, "the reload that it takes")
        told.clear()
        assert observed(backend, ZONE) == as_wanted(ZONE)
        calls = backend.calls
        assert observed(backend, ZONE) == as_wanted(ZONE)
        assert backend.calls == calls
        firewalld.type("firewall-cmd --permanent --zone=weft --set-target=DROP; firewall-cmd --reload")
        await_(lambda: told, 20, "the reload")
        assert observed(backend, ZONE) == as_wanted(replace(ZONE, kept=False, loaded=False))
        assert backend.apply(create(ZONE)) == {}


def test_a_bus_that_comes_back_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with Node("bus") as node:
        bus = Bus(node)
        monkeypatch.setenv(*next(iter(bus.beside.items())))
        monkeypatch.setattr("drivers.firewalld.watch._LOOK", 0.1)
        with backend_of() as backend:
            told: list[Scope | None] = []
            stop = backend.watch(told.append)
            try:
                for _ in range(2):
                    with bus, Firewalld(bus):
                        await_(lambda: None in told, 20, "firewalld to be found")
                        assert backend.apply(create(ZONE, BOUND)) == {}
                    await_(lambda: not backend.answers(), 20, "its end")
                    told.clear()
            finally:
                stop()
