"""What others change in our rows is heard; what we change ourselves is not."""

import threading
from dataclasses import replace

import pytest

from drivers.contract import Step
from drivers.ovsdb import OvsdbBackend
from drivers.resources import HOST, Scope
from tests.drivers.ovs.world import (
    BRIDGE,
    ENDPOINT,
    FLOW,
    NETWORK,
    OTHER,
    SOON,
    Watcher,
    backend_of,
    device,
    port,
    tunnel,
    veth,
)
from tests.drivers.steps import applied, create, delete
from tests.lab.ovs import Ovs
from tests.lab.wait import await_

pytestmark = pytest.mark.kernel

GATEWAY = port("wfg1", mac="02:00:00:00:00:09")


@pytest.fixture
def plugged(backend: OvsdbBackend) -> OvsdbBackend:
    """Make something of each scope."""
    veth("wfh1")
    applied(backend, BRIDGE)
    applied(backend, GATEWAY, device(), tunnel())
    return backend


@pytest.mark.parametrize(
    ("meddling", "scopes"),
    [
        (("del-port", "wfh1"), {ENDPOINT}),
        (("del-port", "wftvxlan"), {HOST}),
        (("del-br", "br-int"), {HOST, NETWORK, ENDPOINT}),
        (("set", "Bridge", "br-int", "fail_mode=standalone"), {HOST}),
        (("remove", "Bridge", "br-int", "other_config", "disable-in-band"), {HOST}),
        (("set", "Interface", "wfg1", "mtu_request=1300"), {NETWORK}),
        (("set", "Interface", "wftvxlan", "options:key=7"), {HOST}),
        (("set", "Interface", "wfg1", "type=gre", "options:remote_ip=192.0.2.1"), {NETWORK}),
        (("clear", "Port", "wfg1", "external_ids"), {NETWORK}),
        (("set", "Port", "wfh1", "external_ids:weft-ifindex=9999"), {ENDPOINT}),
        (("set", "Port", "wfg1", 'external_ids:weft="weft:0123456789abcdef:n2:"'), {NETWORK, OTHER}),
        (("del-port", "wfg1", "--", "add-port", "br-int", "wfg1"), {NETWORK}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_done_behind_our_back_is_told(
    plugged: OvsdbBackend, ovs: Ovs, meddling: tuple[str, ...], scopes: set[Scope | None]
) -> None:
    with Watcher(plugged) as watcher:
        ovs.vsctl("--no-wait", *meddling)
        assert set(watcher.heard(*scopes)) == scopes


def test_own_changes_wake_nobody(plugged: OvsdbBackend, ovs: Ovs) -> None:
    with Watcher(plugged) as watcher:
        assert plugged.apply([Step(GATEWAY, replace(GATEWAY, mtu=1300))]) == {}
        assert plugged.apply([Step(tunnel(), tunnel(options=(*FLOW, ("dst_port", "4790"))))]) == {}
        assert plugged.apply(delete(GATEWAY, device(), tunnel())) == {}
        assert plugged.apply(create(GATEWAY, device(), tunnel())) == {}
        assert plugged.apply(create(device("wfh9"))).keys() == {device("wfh9").key}
        assert plugged.apply(delete(device("wfh9"), GATEWAY, tunnel(), device())) == {}
        assert plugged.apply([Step(BRIDGE, replace(BRIDGE, mac="02:00:00:00:00:02"))]) == {}
        ovs.vsctl("set", "Bridge", "br-int", "fail_mode=standalone")  # the first thing that others do
        assert watcher.heard(HOST) == [HOST]


def test_what_does_not_concern_us_wakes_nobody(plugged: OvsdbBackend, ovs: Ovs) -> None:
    with Watcher(plugged) as watcher:
        ovs.vsctl("add-br", "br-theirs", "--", "set", "Bridge", "br-theirs", "datapath_type=netdev")
        ovs.vsctl("add-port", "br-int", "theirs", "--", "set", "Interface", "theirs", "type=internal")
        ovs.vsctl("set", "Bridge", "br-int", "other_config:mac-table-size=4096")
        ovs.vsctl("set", "Interface", "wfg1", "external_ids:iface-id=x", "ingress_policing_rate=1000")
        ovs.vsctl("del-port", "theirs", "--", "del-br", "br-theirs")
        with backend_of(ovs, "b") as other:
            applied(other, replace(BRIDGE, key=replace(BRIDGE.key, at=("br-b",))))
        ovs.vsctl("del-port", "wfh1")  # the first that does
        assert watcher.heard(ENDPOINT) == [ENDPOINT]


def test_a_change_in_the_moment_of_our_own_is_put_right_by_it(plugged: OvsdbBackend, ovs: Ovs) -> None:
    """Somebody who sets the MTU back as often as we set it: in the end one of us has the last word, and it is told."""
    stop = threading.Event()

    def meddle() -> None:
        while not stop.is_set():
            ovs.vsctl("--no-wait", "set", "Interface", "wfg1", "mtu_request=1234")

    thread = threading.Thread(target=meddle)
    thread.start()
    try:
        for mtu in range(1300, 1320):
            failures = plugged.apply(create(replace(GATEWAY, mtu=mtu)))
            assert all("somebody else" in str(error) for error in failures.values())
    finally:
        stop.set()
        thread.join()
    with Watcher(plugged) as watcher:
        assert plugged.apply(create(replace(GATEWAY, mtu=1400))) == {}
        ovs.vsctl("set", "Interface", "wfg1", "mtu_request=1234")
        assert set(watcher.heard(NETWORK)) == {NETWORK}


def test_a_watch_ends_and_the_next_one_hears(plugged: OvsdbBackend, ovs: Ovs) -> None:
    with Watcher(plugged) as first:
        pass
    with Watcher(plugged) as second, Watcher(plugged) as third:
        ovs.vsctl("del-port", "wfh1")
        assert second.heard(ENDPOINT) == third.heard(ENDPOINT) == [ENDPOINT]
    assert first.told == []


def test_a_watch_that_is_stopped_tells_nothing_more(plugged: OvsdbBackend, ovs: Ovs) -> None:
    """Also what is just being told is waited for."""
    telling, go_on, told = threading.Event(), threading.Event(), list[Scope | None]()

    def slow(scope: Scope | None) -> None:
        telling.set()
        go_on.wait(SOON)
        told.append(scope)

    stop = plugged.watch(slow)
    ovs.vsctl("del-port", "wfh1")
    assert telling.wait(SOON)
    stopping = threading.Thread(target=stop)
    stopping.start()
    assert stopping.is_alive()
    go_on.set()
    stopping.join(SOON)
    assert told == [ENDPOINT]
    ovs.vsctl("del-port", "wfg1")
    await_(lambda: not plugged.observe([GATEWAY.key]), SOON, "the word of it")
    assert told == [ENDPOINT]
