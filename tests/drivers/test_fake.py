"""The host in memory refuses what the real one refuses: maps, ranges, and ports that are held."""

import errno
from dataclasses import replace

import pytest

from drivers import ruleset
from drivers.contract import Step
from drivers.converge import Converger
from drivers.errors import Conflict, InvalidRequest
from drivers.fake import Crash, FakeHost
from drivers.resources import HOST, TABLE_KEY, Fence, Hold, Permit, Resource, Table, element_key, hold_key, scope_of
from tests.drivers.nft_world import ENDPOINT, OTHER, PORTS, PUBLISH4, RANGE4, TABLE, publish
from tests.drivers.steps import create, delete

HELD = Hold(key=hold_key("tcp", "0.0.0.0", 8080, 8080), scope=ENDPOINT)  # noqa: S104 - a key


@pytest.fixture
def host() -> FakeHost:
    host = FakeHost()
    assert not host.backends["nft"].apply(create(TABLE))
    return host


def held(transport: str, address: str, first: int, last: int = 0) -> Hold:
    return Hold(key=hold_key(transport, address, first, last or first), scope=OTHER)


# -- nft ------------------------------------------------------------------------------------------------------------


def test_published_ports_are_observed_as_applied_and_changed_in_place(host: FakeHost) -> None:
    converger = Converger(host.backends)
    converger.converge(ENDPOINT, [one for one in PORTS if one.scope == ENDPOINT])
    elsewhere = replace(PUBLISH4, value=("10.0.0.3", "80"))
    assert converger.converge(ENDPOINT, [elsewhere]).taken == (Step(PUBLISH4, elsewhere),)
    assert host.backends["nft"].observe([PUBLISH4.key]) == {PUBLISH4.key: elsewhere}


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (publish("nosuch", "tcp 80", "10.0.0.2 80"), OSError),
        (publish("publish4", "tcp 080", "10.0.0.2 80"), InvalidRequest),
        (publish("publish4", "tcp 80", "10.0.0.2"), InvalidRequest),
        (Permit(key=element_key("publish4", "tcp", "80"), scope=ENDPOINT), InvalidRequest),
        (Permit(key=element_key("allowed4", "10.0.0.2", "10.0.0.3/32"), scope=ENDPOINT), InvalidRequest),
        (publish("range4", "udp 29999-30000", "10.0.0.2"), Conflict),
        (replace(PUBLISH4, scope=OTHER, value=("10.0.0.3", "80")), OSError),
    ],
    ids=str,
)
def test_what_nft_refuses_is_refused(host: FakeHost, wrong: Resource, error: type[Exception]) -> None:
    host.backends["nft"].apply(create(PUBLISH4, RANGE4))
    assert isinstance(host.backends["nft"].apply(create(wrong))[wrong.key], error)


def test_a_table_without_the_maps_takes_no_ports(host: FakeHost) -> None:
    older = Table(key=TABLE_KEY, scope=HOST, text="set same { type ifname . ifname; }")
    host.backends["nft"].apply([Step(TABLE, older)])
    assert host.backends["nft"].apply(create(PUBLISH4)).keys() == {PUBLISH4.key}
    assert host.backends["nft"].apply(create(Fence(key=element_key(ruleset.INTERNAL, "wfb1"), scope=OTHER)))


# -- sockets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "meets"),
    [
        (held("tcp", "192.0.2.1", 8080), True),
        (held("tcp", "127.0.0.1", 8000, 8100), True),
        (held("tcp", "0.0.0.0", 8080, 8090), True),  # noqa: S104 - a key
        (held("tcp", "0.0.0.0", 8081), False),  # noqa: S104 - a key
        (held("udp", "0.0.0.0", 8080), False),  # noqa: S104 - a key
        (held("tcp", "::", 8080), False),
    ],
    ids=str,
)
@pytest.mark.parametrize("ours", [True, False])
def test_a_port_is_held_once(host: FakeHost, other: Hold, *, meets: bool, ours: bool) -> None:
    sockets = host.backends["sockets"]
    if ours:
        assert not sockets.apply(create(other))
    else:
        host.plant(other)
        assert not sockets.observe([other.key])
    failures = sockets.apply(create(HELD))
    assert failures.keys() == ({HELD.key} if meets else set())
    assert all(isinstance(error, OSError) and error.errno == errno.EADDRINUSE for error in failures.values())
    assert (HELD.key in sockets.observe([HELD.key])) is not meets


def test_two_host_addresses_are_apart(host: FakeHost) -> None:
    assert not host.backends["sockets"].apply(create(held("tcp", "192.0.2.1", 80), held("tcp", "192.0.2.2", 80)))


def test_a_hold_at_the_very_key_of_somebody_elses_is_refused(host: FakeHost) -> None:
    host.plant(replace(HELD, scope=OTHER))
    sockets = host.backends["sockets"]
    assert sockets.apply(create(HELD)).keys() == {HELD.key}
    assert not sockets.apply(delete(HELD))
    assert HELD.key in host.objects


def test_what_a_hold_relays_is_changed_without_letting_go(host: FakeHost) -> None:
    sockets = host.backends["sockets"]
    assert not sockets.apply(create(HELD))
    relayed = replace(HELD, relay=("10.0.0.2", 80))
    assert not sockets.apply([Step(HELD, relayed)])
    assert sockets.survey() == {HELD.key: relayed}
    assert not sockets.apply(delete(relayed))
    assert sockets.survey() == {}


@pytest.mark.parametrize("crashes", [True, False])
def test_what_a_process_holds_ends_with_it(host: FakeHost, *, crashes: bool) -> None:
    sockets = host.backends["sockets"]
    theirs = held("udp", "192.0.2.1", 53)
    host.plant(theirs)
    assert not sockets.apply(create(HELD))
    if crashes:
        host.crash_after = 0
        with pytest.raises(Crash):
            host.backends["nft"].apply(create(PUBLISH4))
    else:
        host.restart()
    assert sockets.survey() == {}
    assert sockets.apply(create(replace(theirs, scope=scope_of("n1")))).keys() == {theirs.key}
    assert host.backends["nft"].survey().keys() == {TABLE_KEY}
