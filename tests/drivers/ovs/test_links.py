"""A link that goes, or comes back under its name, below a port: OVS says that all is well, and nothing passes."""

from collections.abc import Iterator

import pytest

from drivers.contract import Step
from drivers.converge import Converger
from drivers.ovsdb import OvsdbBackend
from drivers.resources import OvsDevicePort
from tests.drivers.ovs.world import (
    BRIDGE,
    ENDPOINT,
    NETWORK,
    Watcher,
    Wire,
    backend_of,
    device,
    ip,
    noticed,
    port,
    veth,
)
from tests.drivers.steps import applied
from tests.lab.net import NetNs
from tests.lab.ovs import Ovs

pytestmark = pytest.mark.kernel

ONE, TWO = device("wfh1"), device("wfh2")


@pytest.fixture
def containers() -> Iterator[tuple[NetNs, NetNs]]:
    with NetNs("c1") as one, NetNs("c2") as two:
        yield one, two


@pytest.fixture
def wire(backend: OvsdbBackend, ovs: Ovs, containers: tuple[NetNs, NetNs]) -> Wire:
    """Give two containers on one bridge, of which every frame of one reaches the other."""
    one, two = containers
    veth("wfh1", "eth0", one.netns)
    veth("wfh2", "eth0", two.netns)
    applied(backend, BRIDGE)
    applied(backend, ONE, TWO)
    ovs.ofctl("add-flow", "br-int", "actions=NORMAL")
    return Wire((one, "eth0"), (two, "eth0"))


def anew(container: NetNs) -> None:
    """Make the first container's link anew, under its name."""
    ip("link", "del", "wfh1")
    veth("wfh1", "eth0", container.netns)


def test_frames_pass(wire: Wire) -> None:
    assert wire.passes()


def test_a_link_that_was_made_anew_is_seen_at_once_and_put_right(
    backend: OvsdbBackend, converger: Converger, ovs: Ovs, containers: tuple[NetNs, NetNs], wire: Wire
) -> None:
    anew(containers[0])
    found = backend.observe([ONE.key])[ONE.key]
    assert isinstance(found, OvsDevicePort)
    assert not found.sound, "by the kernel, before OVS has a word of it"
    assert not wire.passes(), "OVS heals it by itself: then weft need not"
    assert ovs.vsctl("get", "Interface", "wfh1", "error") == "[]"
    calls = backend.calls
    assert converger.converge(ENDPOINT, [ONE, TWO]).taken == (Step(found, ONE),)
    assert backend.calls == calls + 2, "in one transaction it would stay dead"
    assert wire.passes()
    assert converger.converge(ENDPOINT, [ONE, TWO]).taken == ()


def test_a_link_that_was_made_anew_is_told(
    backend: OvsdbBackend, converger: Converger, containers: tuple[NetNs, NetNs], wire: Wire
) -> None:
    with Watcher(backend) as watcher:
        anew(containers[0])
        watcher.heard(ENDPOINT)
        converger.converge(ENDPOINT, [ONE, TWO])
        assert wire.passes()
        backend.ofports(["wfh1"])
        assert watcher.told == [], "what weft does about it is no news"


def test_a_link_that_is_made_anew_while_weft_is_away_is_put_right(
    backend: OvsdbBackend, ovs: Ovs, containers: tuple[NetNs, NetNs], wire: Wire
) -> None:
    backend.close()
    anew(containers[0])
    with backend_of(ovs) as later:
        assert len(Converger({"ovsdb": later}).converge(ENDPOINT, [ONE, TWO]).taken) == 1
    assert wire.passes()


def test_a_link_that_goes_with_its_port_and_comes_back_at_once_works(
    backend: OvsdbBackend, containers: tuple[NetNs, NetNs], wire: Wire
) -> None:
    """A container that leaves and joins: ovs-vswitchd must have seen the port go before it comes back."""
    for _ in range(5):
        assert backend.apply([Step(ONE, None)]) == {}
        anew(containers[0])
        applied(backend, ONE)
        assert wire.passes()


def test_a_link_that_is_gone_is_seen_and_told(backend: OvsdbBackend, wire: Wire) -> None:
    with Watcher(backend) as watcher:
        ip("link", "del", "wfh1")
        found = backend.observe([ONE.key])[ONE.key]
        assert isinstance(found, OvsDevicePort)
        assert not found.sound
        watcher.heard(ENDPOINT)
    assert "No such device" in str(backend.apply([Step(found, ONE)])[ONE.key])


def test_the_link_of_an_internal_port_is_made_again(backend: OvsdbBackend, converger: Converger) -> None:
    """OVS 3.1 does not notice, and burns a whole processor reading from what is not there."""
    gateway = port("wfg1", mac="02:00:00:00:00:09")
    applied(backend, BRIDGE)
    applied(backend, gateway)
    with Watcher(backend) as watcher:
        ip("link", "del", "wfg1")
        watcher.heard(NETWORK)
        noticed(backend, gateway)
        assert len(converger.converge(NETWORK, [gateway]).taken) == 1
    assert "02:00:00:00:00:09" in ip("link", "show", "dev", "wfg1")
    ip("link", "set", "wfg1", "up")
    assert converger.converge(NETWORK, [gateway]).taken == ()
