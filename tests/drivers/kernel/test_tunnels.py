"""Tunnels on the real kernel: what is applied is observed, what differs is made anew, what is in the way is named.

This kernel (the tests' own) may lack GRE and Geneve; then their refusal is what is tested, and reading them only by
what the kernel would say (tests/drivers/test_tunnel_wire.py).
"""

import subprocess
from ipaddress import ip_address
from typing import Any

import pytest

from drivers.contract import Step
from drivers.converge import Converger
from drivers.errors import Conflict, Unsupported
from drivers.facts import RouteInfo
from drivers.kernel.backend import KernelBackend
from drivers.naming import LINK_GROUP
from drivers.resources import HALF_MADE, FloodEntry, Foreign, PeerTunnel, Scope, Vxlan, flood_key, link_key
from drivers.resources.tunnels import PeerKind
from tests.drivers.kernel.world import MARKS, NETWORK, bridge, link
from tests.drivers.steps import applied
from tests.lab.wait import await_
from tests.netns import sh

pytestmark = pytest.mark.kernel

VNI = 1 << 20
PEERS = {4: ("192.0.2.2", "192.0.2.3"), 6: ("2001:db8::2", "2001:db8::3")}


def vxlan(**wanted: Any) -> Vxlan:  # noqa: ANN401 - any field of a device
    fixed = {"key": link_key("wft1"), "scope": NETWORK, "bridge": "wfb1", "vni": VNI, "port": 4789, "mtu": 1450}
    return Vxlan(**{**fixed, **wanted})


def flood(peer: str, on: str = "wft1") -> FloodEntry:
    return FloodEntry(key=flood_key(on, peer), scope=NETWORK)


def to_peer(kind: PeerKind, remote: str) -> PeerTunnel:
    return PeerTunnel(
        key=link_key("wft2"),
        scope=NETWORK,
        kind=kind,
        bridge="wfb1",
        vni=VNI,
        port=6081 if kind == "geneve" else 0,
        local="2001:db8::1" if kind == "ip6gretap" else "",
        remote=remote,
        mtu=1430,
    )


def forwarding() -> set[tuple[str, str]]:
    """Return the device's own entries, as (MAC, peer)."""
    lines = (line.split() for line in sh("bridge", "fdb", "show", "dev", "wft1").splitlines())
    return {(line[0], line[2]) for line in lines if "self" in line}


def learn(mac: str, peer: str) -> None:
    sh("bridge", "fdb", "append", mac, "dev", "wft1", "dst", peer)


@pytest.mark.parametrize("local", ["", "192.0.2.1", "2001:db8::1"])
def test_a_vxlan_device_and_its_peers_are_observed_as_applied(backend: KernelBackend, local: str) -> None:
    wanted = vxlan(local=local)
    peers = [flood(peer) for peer in PEERS[6 if ":" in local else 4]]
    applied(backend, bridge(mtu=1450), wanted, *peers)
    keys = {one.key: one for one in (wanted, *peers)}
    assert backend.observe(keys) == keys
    assert keys.items() <= backend.survey().items()
    made = link("wft1")
    assert (made["ifalias"], made["group"], made["master"]) == (MARKS.write(NETWORK), str(LINK_GROUP), "wfb1")
    assert made["inet6_addr_gen_mode"] == "none"
    told = made["linkinfo"]["info_data"]
    assert (told["id"], told["port"], told["learning"], told["ageing"]) == (VNI, 4789, True, 300)
    assert not backend.observe([flood("192.0.2.99").key])


def test_taking_the_steps_again_is_no_change(backend: KernelBackend) -> None:
    parts = (vxlan(), flood("192.0.2.2"))
    applied(backend, bridge(), *parts)
    index = link("wft1")["ifindex"]
    applied(backend, *parts)
    assert link("wft1")["ifindex"] == index
    assert forwarding() == {("00:00:00:00:00:00", "192.0.2.2")}


@pytest.mark.parametrize("changed", [{"local": "192.0.2.1"}, {"port": 4790}, {"vni": 7}, {"mtu": 1400}])
def test_a_device_that_differs_is_made_anew_and_keeps_its_peers(
    backend: KernelBackend, changed: dict[str, object]
) -> None:
    old, new = vxlan(), vxlan(**changed)
    applied(backend, bridge(), old, *map(flood, PEERS[4]))
    assert not backend.apply([Step(old, new)])
    assert backend.observe([new.key]) == {new.key: new}
    assert forwarding() == {("00:00:00:00:00:00", peer) for peer in PEERS[4]}


@pytest.mark.parametrize(
    "line",
    [
        ("link", "set", "wft1", "down"),
        ("link", "set", "wft1", "nomaster"),
        ("link", "set", "wft1", "group", "0"),
        ("link", "set", "wft1", "type", "vxlan", "nolearning"),
        ("link", "set", "wft1", "type", "vxlan", "ageing", "5"),
        ("link", "set", "wft1", "addrgenmode", "eui64"),
    ],
    ids=" ".join,
)
def test_what_somebody_changed_is_put_right(
    backend: KernelBackend, converger: Converger, line: tuple[str, ...]
) -> None:
    wanted = [bridge(), vxlan(), *map(flood, PEERS[4])]
    converger.converge(NETWORK, wanted)
    if subprocess.run(["ip", *line], check=False, capture_output=True).returncode:
        pytest.skip("this kernel does not change that")
    assert backend.observe([wanted[1].key]) != {wanted[1].key: wanted[1]}
    converger.converge(NETWORK, wanted)
    assert converger.converge(NETWORK, wanted).taken == ()
    assert forwarding() == {("00:00:00:00:00:00", peer) for peer in PEERS[4]}


def test_a_peer_that_somebody_removed_comes_back_and_one_that_somebody_added_goes(converger: Converger) -> None:
    wanted = [bridge(), vxlan(), flood("192.0.2.2")]
    converger.converge(NETWORK, wanted)
    sh("bridge", "fdb", "del", "00:00:00:00:00:00", "dev", "wft1", "dst", "192.0.2.2")
    learn("00:00:00:00:00:00", "192.0.2.66")
    seen = converger.survey()[NETWORK]
    converger.converge(NETWORK, wanted, seen)
    assert forwarding() == {("00:00:00:00:00:00", "192.0.2.2")}


def test_the_macs_learnt_behind_a_peer_go_with_it_and_no_others(backend: KernelBackend) -> None:
    first, second = map(flood, PEERS[4])
    applied(backend, bridge(), vxlan(), first, second)
    learn("02:00:00:00:00:77", "192.0.2.2")
    learn("02:00:00:00:00:78", "192.0.2.3")
    assert not backend.apply([Step(first, None)])
    assert forwarding() == {("00:00:00:00:00:00", "192.0.2.3"), ("02:00:00:00:00:78", "192.0.2.3")}
    assert not backend.apply([Step(first, None)])


def test_a_peer_of_the_operators_own_device_is_not_ours(backend: KernelBackend) -> None:
    sh("ip", "link", "add", "vx0", "type", "vxlan", "id", "7", "dstport", "4789")
    sh("bridge", "fdb", "append", "00:00:00:00:00:00", "dev", "vx0", "dst", "192.0.2.2")
    key = flood_key("vx0", "192.0.2.2")
    assert isinstance(backend.observe([key])[key], Foreign)
    assert backend.survey() == {}


def test_a_device_that_a_crash_left_without_a_mark_is_whoever_asks_for_it(converger: Converger) -> None:
    sh(*["ip", "link", "add", "wft1", "group", "22511", "type", "vxlan", "id", "9", "dstport", "4789"])
    assert {one.scope for one in converger.observe([link_key("wft1")]).values() if not isinstance(one, Foreign)} == {
        HALF_MADE
    }
    wanted = [bridge(), vxlan()]
    converger.converge(NETWORK, wanted)
    assert converger.converge(NETWORK, wanted).taken == ()


def test_whoever_has_the_vni_is_named(backend: KernelBackend) -> None:
    sh("ip", "link", "add", "swarm7", "type", "vxlan", "id", str(VNI), "dstport", "4789")
    applied(backend, bridge())
    failed = backend.apply([Step(None, vxlan())])[vxlan().key]
    assert isinstance(failed, Conflict)
    assert f"VNI {VNI} on UDP port 4789 is held by link swarm7" in str(failed)
    assert not backend.apply([Step(None, vxlan(port=4790))])


def test_whoever_has_the_udp_port_is_named(backend: KernelBackend) -> None:
    """A device that takes every VNI of a port is alone on it (facts/network.md 11)."""
    sh("ip", "link", "add", "vxsys", "type", "vxlan", "external", "dstport", "4789")
    sh("ip", "link", "set", "vxsys", "up")
    assert (backend.tunnels_on(4789), backend.tunnels_on(4790)) == (["vxsys"], [])
    applied(backend, bridge())
    failed = backend.apply([Step(None, vxlan())])[vxlan().key]
    assert isinstance(failed, Conflict)
    assert "UDP port 4789 is held by link vxsys" in str(failed)


@pytest.mark.parametrize(
    ("kind", "remote"), [("gretap", "192.0.2.2"), ("ip6gretap", "2001:db8::2"), ("geneve", "192.0.2.2")]
)
def test_a_tunnel_to_one_peer_is_observed_as_applied_or_the_kernel_lacks_it(
    backend: KernelBackend, kind: PeerKind, remote: str
) -> None:
    wanted = to_peer(kind, remote)
    applied(backend, bridge())
    failures = backend.apply([Step(None, wanted)])
    if not failures:
        backend.check_tunnel(kind)
        assert backend.observe([wanted.key]) == {wanted.key: wanted}
        return
    assert isinstance(failures[wanted.key], Unsupported)
    with pytest.raises(Unsupported, match=f"no {kind} .*modprobe"):
        backend.check_tunnel(kind)


def test_asking_for_a_kind_of_tunnel_makes_nothing(backend: KernelBackend) -> None:
    before = sh("ip", "-br", "link")
    backend.check_tunnel("vxlan")
    assert sh("ip", "-br", "link") == before


def test_the_route_to_a_peer_tells_link_source_and_mtu(backend: KernelBackend) -> None:
    for line in (
        "link add lan0 mtu 1400 type veth peer name lan1",
        "address add 192.0.2.1/24 dev lan0",
        "address add 2001:db8::1/64 dev lan0 nodad",
        "link set lan0 up",
        "link set lan1 up",
        "route add 198.51.100.0/24 via 192.0.2.9 mtu 1300",
    ):
        sh("ip", *line.split())
    four, six = map(ip_address, ("192.0.2.1", "2001:db8::1"))
    wanted = {
        "192.0.2.5": RouteInfo(link="lan0", mtu=1400, source=four),
        "2001:db8::5": RouteInfo(link="lan0", mtu=1400, source=six),
        "198.51.100.5": RouteInfo(link="lan0", mtu=1300, source=four),
        "203.0.113.5": None,
        "2001:db8:9::5": None,
    }
    assert {text: backend.route_to(ip_address(text)) for text in wanted} == wanted
    for own in (four, six):  # the kernel gives an IPv6 address its local route a moment after the link is up
        await_(lambda own=own: (found := backend.route_to(own)) and found.own, 10, f"{own} to be this host's")  # type: ignore[misc]


def test_a_tunnel_that_goes_is_told_of(backend: KernelBackend) -> None:
    told: list[Scope | None] = []
    applied(backend, bridge(), vxlan())
    stop = backend.watch(told.append)
    try:
        sh("ip", "link", "set", "wft1", "nomaster")
        await_(lambda: NETWORK in told, 10, "word of a tunnel that left its bridge")
        told.clear()
        sh("ip", "link", "del", "wft1")
        await_(lambda: NETWORK in told, 10, "word of a tunnel that is gone")
    finally:
        stop()
