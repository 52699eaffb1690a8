"""OVS is killed and comes back: what a caller sees in the meantime, and that what was asked for is done."""

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

import pytest

from drivers.contract import Step
from drivers.converge import Converger
from drivers.errors import HostFailure
from drivers.ovsdb import OvsdbBackend
from drivers.resources import HOST, Key
from tests.drivers.ovs.world import BRIDGE, FLOW, SOON, Watcher, backend_of, device, port, tunnel, veth
from tests.drivers.steps import applied, create, delete
from tests.lab.ovs import Ovs
from tests.lab.wait import await_

pytestmark = pytest.mark.kernel


@pytest.fixture
def ovs(mortal: Ovs) -> Ovs:
    return mortal


Answer = Mapping[Key, Exception]

KILL: Final[Mapping[str, Callable[[Ovs], None]]] = {
    "ovsdb-server": Ovs.kill_database,
    "ovs-vswitchd": Ovs.kill_vswitchd,
    "both": Ovs.kill,
}
START: Final[Mapping[str, Callable[[Ovs], None]]] = {
    "ovsdb-server": Ovs.start_database,
    "ovs-vswitchd": Ovs.start_vswitchd,
    "both": Ovs.start,
}


@contextmanager
def asked(backend: OvsdbBackend, *steps: Step) -> Iterator[Future[Answer]]:
    """Ask for steps in another thread, and wait for its answer at the end."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(backend.apply, steps)


def noticed_death(backend: OvsdbBackend, who: str) -> None:
    """Wait until the backend knows that a daemon is dead."""
    health = backend.health
    dead = (lambda: not health().connected) if who == "ovsdb-server" else (lambda: health().vswitchd is False)
    await_(dead, SOON, f"the end of {who} to be seen")


@pytest.mark.parametrize("who", KILL)
def test_what_is_asked_for_in_the_meantime_is_done_afterwards(backend: OvsdbBackend, ovs: Ovs, who: str) -> None:
    veth("wfh1")
    applied(backend, BRIDGE)
    applied(backend, tunnel())
    KILL[who](ovs)
    noticed_death(backend, who)
    with asked(backend, *create(device(), port("wfg1")), *delete(tunnel())) as answer:
        assert not answer.done()
        START[who](ovs)
        assert answer.result(SOON) == {}
    assert backend.survey() == {one.key: one for one in (BRIDGE, device(), port("wfg1"))}
    assert set(ovs.vsctl("list-ports", "br-int").split()) == {"wfh1", "wfg1"}
    assert backend.ofports(["wfh1", "wfg1"])


@pytest.mark.parametrize(
    ("who", "words"),
    [
        ("ovsdb-server", "ovsdb-server does not answer at unix:.*db.sock: Connection refused; is Open vSwitch"),
        ("ovs-vswitchd", "in the database, but ovs-vswitchd has not made it so in 1 s: it has taken configuration"),
        ("both", "ovsdb-server does not answer at unix:.*db.sock: Connection refused; is Open vSwitch"),
    ],
)
def test_who_does_not_come_back_is_named(ovs: Ovs, who: str, words: str) -> None:
    with backend_of(ovs, patience=1) as backend:
        applied(backend, BRIDGE)
        KILL[who](ovs)
        noticed_death(backend, who)
        answer = backend.apply(create(port("wfg1"), tunnel()))
        assert answer.keys() == {port("wfg1").key, tunnel().key}
        for error in answer.values():
            with pytest.raises(HostFailure, match=words):
                raise error
        again = backend.apply(create(port("wfg1"), tunnel()))
        assert again.keys() == answer.keys(), "nor is it said to be done when it is asked for again"
        START[who](ovs)
        await_(lambda: backend.apply(create(port("wfg1"), tunnel())) == {}, SOON, "OVS to be found again")
        assert len(backend.survey()) == 3


@pytest.mark.parametrize(
    ("who", "words"),
    [
        ("ovsdb-server", "ovsdb-server does not answer at .*: it accepts a connection, and says nothing"),
        ("ovs-vswitchd", "ovs-vswitchd has not made it so"),
    ],
)
def test_who_hangs_is_named(ovs: Ovs, who: str, words: str) -> None:
    daemon = ovs.database if who == "ovsdb-server" else ovs.vswitchd
    assert daemon is not None
    with backend_of(ovs, patience=1) as backend:
        applied(backend, BRIDGE)
        daemon.signal(signal.SIGSTOP)
        try:
            with pytest.raises(HostFailure, match=words):
                raise backend.apply(create(tunnel()))[tunnel().key]
            health = backend.health()
            assert health.connected
            assert health.vswitchd
            assert (health.next_cfg > health.cur_cfg) is (who == "ovs-vswitchd")
        finally:
            daemon.signal(signal.SIGCONT)
        await_(lambda: backend.apply(create(tunnel())) == {}, SOON, "it to go on")
        assert backend.observe([tunnel().key]) == {tunnel().key: tunnel()}


def test_while_the_database_is_away_nothing_is_said_about_it(ovs: Ovs) -> None:
    """An empty answer would mean that all is gone: what is being withdrawn would be forgotten."""
    with backend_of(ovs, patience=1) as backend:
        applied(backend, BRIDGE)
        ovs.kill_database()
        noticed_death(backend, "ovsdb-server")
        with pytest.raises(HostFailure, match="ovsdb-server does not answer"):
            backend.observe([BRIDGE.key])
        with pytest.raises(HostFailure, match="ovsdb-server does not answer"):
            backend.ofports(["br-int"])
        assert backend.survey() == {}
        with ThreadPoolExecutor(1) as pool:
            seen = pool.submit(lambda: await_(lambda: _seen(backend), SOON, "an answer"))
            ovs.start_database()
            assert seen.result(SOON) == {BRIDGE.key}


def _seen(backend: OvsdbBackend) -> set[Key]:
    try:
        return set(backend.observe([BRIDGE.key]))
    except HostFailure:
        return set()


def test_after_a_reconnect_everything_may_have_changed(backend: OvsdbBackend, ovs: Ovs) -> None:
    applied(backend, BRIDGE)
    applied(backend, tunnel())
    with Watcher(backend) as watcher:
        ovs.kill()
        noticed_death(backend, "ovsdb-server")
        ovs.forget()
        ovs.start()
        assert watcher.heard(None) == [None]
        assert backend.observe([BRIDGE.key, tunnel().key]) == {}
        taken = Converger({"ovsdb": backend}).converge(HOST, [BRIDGE, tunnel()]).taken
        assert len(taken) == 2
        assert watcher.told == []
    assert ovs.vsctl("list-ports", "br-int") == tunnel().name


def test_a_daemon_that_dies_is_no_news_for_what_is_written(backend: OvsdbBackend, ovs: Ovs) -> None:
    veth("wfh1")
    applied(backend, BRIDGE)
    applied(backend, device(), tunnel())
    with Watcher(backend) as watcher:
        ovs.kill_vswitchd()
        ovs.start_vswitchd()
        ovs.vsctl("del-port", tunnel().name)  # the first that is
        assert watcher.heard(HOST) == [HOST]
    assert backend.observe([device().key]) == {device().key: device()}


@pytest.mark.parametrize("who", KILL)
def test_restarts_in_the_middle_of_everything_lose_nothing(backend: OvsdbBackend, ovs: Ovs, who: str) -> None:
    """Callers that attach and detach all the time see no failure; each has its answer, and it is true."""
    applied(backend, BRIDGE)
    over = threading.Event()

    def attach_and_detach(caller: int) -> tuple[int, list[Exception]]:
        one = tunnel(key=port(f"wft{caller}").key, options=(*FLOW[1:], ("key", f"{caller}")))
        rounds, failures = 0, list[Exception]()
        while not over.is_set():
            rounds += 1
            failures += backend.apply(create(one)).values()
            assert backend.observe([one.key]) == {one.key: one}
            failures += backend.apply(delete(one)).values()
            assert backend.observe([one.key]) == {}
        failures += backend.apply(create(one)).values()
        return rounds, failures

    with ThreadPoolExecutor(4) as pool:
        callers = [pool.submit(attach_and_detach, caller) for caller in range(4)]
        try:
            for _ in range(3):
                calls = backend.calls
                await_(lambda calls=calls: backend.calls > calls + 5, SOON, "something to go on")  # type: ignore[misc]
                KILL[who](ovs)
                START[who](ovs)
        finally:
            over.set()
        for caller in callers:
            rounds, failures = caller.result(SOON)
            assert rounds > 1
            assert failures == []
    assert len(backend.survey()) == 5
    assert len(ovs.vsctl("list-ports", "br-int").split()) == 4


def test_what_was_written_while_the_daemon_was_dead_works_when_it_is_back(ovs: Ovs) -> None:
    veth("wfh1")
    with backend_of(ovs, patience=1) as backend:
        applied(backend, BRIDGE)
        ovs.kill_vswitchd()
        assert backend.apply(create(device())).keys() == {device().key}
        found = backend.observe([device().key])[device().key]
        assert found != device(), "it does not work yet"
        ovs.start_vswitchd()
        assert backend.ofports(["wfh1"])
        calls = backend.calls
        assert backend.apply(create(device())) == {}
        assert backend.calls == calls
