"""Open vSwitch in memory does what the real one does: ports need their links, and bridges take their ports along."""

from dataclasses import replace

import pytest

from drivers.contract import Step
from drivers.converge import Converger
from drivers.errors import Conflict, HostFailure
from drivers.fake import Crash, FakeHost
from drivers.resources import (
    HOST,
    Foreign,
    Key,
    OvsPort,
    Resource,
    Scope,
    Veth,
    link_key,
    ovs_bridge_key,
)
from tests.drivers.kernel.world import host_address
from tests.drivers.ovs.world import BRIDGE, ENDPOINT, NETWORK, OTHER, device, port, tunnel
from tests.drivers.steps import create, delete

LINK = Veth(key=link_key("wfh1"), scope=ENDPOINT)
PLUG = device("wfh1", needs=frozenset({LINK.key}))
GATEWAY = port("wfg1", mac="02:00:00:00:00:09")
EVERY = (BRIDGE, tunnel(), GATEWAY, PLUG)


@pytest.fixture
def host() -> FakeHost:
    host = FakeHost()
    host.plant(LINK, host.marks.write(ENDPOINT))
    return host


@pytest.fixture
def made(host: FakeHost) -> FakeHost:
    assert not host.backends["ovsdb"].apply(create(*EVERY))
    return host


def seen(host: FakeHost, *resources: Resource) -> dict[Key, Resource | Foreign]:
    return dict(host.backends["ovsdb"].observe([one.key for one in resources]))


def test_what_is_applied_is_observed_and_again_is_no_step(made: FakeHost) -> None:
    assert seen(made, *EVERY) == {one.key: one for one in EVERY}
    assert made.backends["ovsdb"].survey() == {one.key: one for one in EVERY}
    converger = Converger(made.backends)
    assert not converger.difference(HOST, [BRIDGE, tunnel()])
    assert not converger.difference(ENDPOINT, [LINK, PLUG])
    assert not made.backends["ovsdb"].apply(delete(*reversed(EVERY)))
    assert seen(made, *EVERY) == {}
    assert made.objects.keys() == {LINK.key}


def test_a_link_of_ovss_own_comes_and_goes_with_it_and_takes_its_addresses_along(made: FakeHost) -> None:
    address = host_address("10.0.0.1/24", on="wfg1")
    assert isinstance(made.backends["kernel"].observe([link_key("wfg1")])[link_key("wfg1")], Foreign)
    assert not made.backends["kernel"].apply(create(address))
    made.remove(BRIDGE.key)
    assert made.objects.keys() == {LINK.key}


@pytest.mark.parametrize("back", [True, False])
def test_a_port_whose_link_was_taken_away_is_dead_until_it_is_made_anew(made: FakeHost, *, back: bool) -> None:
    told: list[Scope | None] = []
    made.backends["ovsdb"].watch(told.append)
    made.remove(LINK.key)
    if back:
        made.plant(LINK, made.marks.write(ENDPOINT))
    dead = replace(PLUG, sound=False)
    assert seen(made, PLUG) == {PLUG.key: dead}
    assert told == [ENDPOINT]
    failures = made.backends["ovsdb"].apply([Step(dead, PLUG)])
    assert [type(error) for error in failures.values()] == ([] if back else [HostFailure])
    assert seen(made, PLUG) == {PLUG.key: PLUG if back else dead}


def test_a_gateway_whose_link_was_taken_away_is_made_anew(made: FakeHost) -> None:
    made.remove(link_key("wfg1"))
    assert seen(made, GATEWAY) == {GATEWAY.key: replace(GATEWAY, sound=False)}
    assert len(Converger(made.backends).converge(NETWORK, [GATEWAY]).taken) == 1
    assert link_key("wfg1") in made.objects


def test_a_crash_between_the_two_transactions_leaves_no_port(made: FakeHost) -> None:
    made.remove(LINK.key)
    made.plant(LINK, made.marks.write(ENDPOINT))
    made.crash_after = 1
    with pytest.raises(Crash):
        made.backends["ovsdb"].apply([Step(replace(PLUG, sound=False), PLUG)])
    assert seen(made, PLUG) == {}
    assert not made.backends["ovsdb"].apply(create(PLUG))


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (port("wfg2", bridge="nosuch"), HostFailure),
        (port("wfg2", bridge="br-theirs"), Conflict),
        (device("wfh9"), HostFailure),
        (port("wfh1"), FileExistsError),
        (replace(GATEWAY, scope=OTHER), FileExistsError),
    ],
    ids=str,
)
def test_what_ovs_refuses_is_refused_and_the_others_are_taken(
    host: FakeHost, wrong: OvsPort, error: type[Exception]
) -> None:
    host.plant(replace(BRIDGE, key=ovs_bridge_key("br-theirs")))
    failures = host.backends["ovsdb"].apply(create(BRIDGE, GATEWAY, wrong, tunnel()))
    assert {key: type(one) for key, one in failures.items()} == {wrong.key: error}
    assert seen(host, BRIDGE, GATEWAY, tunnel()) == {one.key: one for one in (BRIDGE, GATEWAY, tunnel())}


def test_strangers_stay(made: FakeHost) -> None:
    theirs = port("theirs")
    made.plant(theirs)
    assert isinstance(seen(made, theirs)[theirs.key], Foreign)
    assert isinstance(made.backends["ovsdb"].apply(delete(BRIDGE))[BRIDGE.key], Conflict)
    assert not made.backends["ovsdb"].apply(delete(theirs))
    assert seen(made, BRIDGE, theirs).keys() == {BRIDGE.key, theirs.key}


def test_ports_are_changed_in_place_where_that_can_be(made: FakeHost) -> None:
    address = host_address("10.0.0.1/24", on="wfg1")
    assert not made.backends["kernel"].apply(create(address))
    wanted = replace(GATEWAY, mtu=1400)
    assert not made.backends["ovsdb"].apply([Step(GATEWAY, wanted)])
    assert seen(made, wanted) == {wanted.key: wanted}
    assert address.key in made.objects
    other = replace(GATEWAY, type="vxlan", mac="")
    assert not made.backends["ovsdb"].apply([Step(wanted, other)])
    assert not made.objects.keys() & {address.key, link_key("wfg1")}
