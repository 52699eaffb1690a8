"""What is read of the host is what is there, and IPv6 forwarding does not take the host's own IPv6 away."""

import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_interface, ip_network
from pathlib import Path

import pytest

from drivers.bridge.planner import BridgePlanner
from drivers.contract import Step
from drivers.facts import HostFacts
from drivers.kernel import facts
from drivers.kernel.backend import KernelBackend
from drivers.marks import Marks
from drivers.model import Use
from drivers.naming import LINK_GROUP
from drivers.resources import (
    HOST,
    Bridge,
    Forwarding,
    HostAddress,
    Resource,
    Setting,
    Veth,
    address_key,
    link_key,
    scope_of,
    setting_key,
)
from tests.lab.wait import await_
from tests.netns import Netns, private_netns, sh, sysctl

pytestmark = pytest.mark.kernel


def ip(*args: str) -> str:
    return sh("ip", *args)


# -- reads ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def netns() -> Iterator[Netns]:
    with private_netns() as one:
        yield one


def test_forwarding_is_read_from_this_namespace(netns: Netns) -> None:
    assert not facts.forwarding4()
    assert not facts.forwarding6()
    sysctl("ipv4/ip_forward", "1")
    sysctl("ipv6/conf/all/forwarding", "1")
    assert facts.forwarding4()
    assert facts.forwarding6()


def test_force_forwarding_is_told_by_its_file() -> None:
    assert facts.force_forwarding() == Path("/proc/sys/net/ipv6/conf/all/force_forwarding").exists()


def test_links_of_the_operator_are_told_from_dockers(netns: Netns) -> None:
    dockers = {"docker0", "docker_gwbridge", "br-0123456789ab"}
    operators = {"br-lan", "br-0123456789AB", "br-0123456789a", "br0", "virbr0"}
    for name in dockers | operators:
        ip("link", "add", name, "type", "bridge")
    ip("link", "add", "br-ours", "group", str(LINK_GROUP), "type", "bridge")
    ip("link", "add", "br-veth", "type", "veth", "peer", "name", "other")
    assert facts.operator_links() == operators


def test_each_thread_reads_its_own_namespace(netns: Netns) -> None:
    ip("link", "add", "br-here", "type", "bridge")
    ip("link", "set", "br-here", "up")
    ip("address", "add", "10.1.0.1/24", "dev", "br-here")
    seen: list[object] = []

    def elsewhere() -> None:
        with private_netns():
            seen.extend([facts.operator_links(), facts.connected_subnets(), facts.epoch()])

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    here = [facts.operator_links(), facts.connected_subnets()]
    assert seen[:2] == [frozenset(), ()]
    assert here == [{"br-here"}, (("br-here", ip_network("10.1.0.0/24")),)]
    assert seen[2] != facts.epoch()


def test_the_subnets_on_links_are_told(netns: Netns) -> None:
    for name in ("br0", "br1"):
        ip("link", "add", name, "type", "bridge")
        ip("link", "set", name, "up")
    for address in ("10.1.0.1/24", "192.0.2.129/25", "169.254.7.7/16", "fd01::1/64", "fd02::1/128"):
        ip("address", "add", address, "dev", "br0", *(["nodad"] if ":" in address else []))
    ip("route", "add", "default", "via", "10.1.0.254")
    ip("route", "add", "10.2.0.0/16", "via", "10.1.0.254")
    ip("route", "add", "blackhole", "10.3.0.0/16")
    ip("route", "add", "10.4.0.0/16", "dev", "br1")
    ip("route", "add", "172.16.9.9", "dev", "br1")
    ip("-6", "route", "add", "default", "via", "fd01::fe")
    ip("-6", "route", "add", "unreachable", "fd03::/64")
    ip("-6", "route", "add", "fd04::/64", "dev", "br1")
    told = {
        "br0": {"10.1.0.0/24", "192.0.2.128/25", "fd01::/64", "fd02::1/128"},
        "br1": {"10.4.0.0/16", "172.16.9.9/32", "fd04::/64"},
    }
    assert set(facts.connected_subnets()) == {(link, ip_network(net)) for link, nets in told.items() for net in nets}


def test_the_epoch_stays_while_the_namespace_does(netns: Netns) -> None:
    one = facts.epoch()
    assert facts.epoch() == one
    with Netns() as other, other.entered():
        assert facts.epoch() != one
    assert one.startswith(Path("/proc/sys/kernel/random/boot_id").read_text().strip())


# -- IPv6 forwarding without harm -----------------------------------------------------------------------------------

OUTSIDE = "2001:db8:ffff::1"
PREFIX = "fd01::"
CONTAINER = "fd00::2"
HOST_MAC = "02:00:00:00:00:10"
HOST_LINK_LOCAL = "fe80::ff:fe00:10"  # what the kernel makes of that MAC
SCOPE = scope_of("n1")
BRIDGE = Bridge(key=link_key("wfb1"), scope=SCOPE, mac="02:00:00:00:00:01", ipv6=True)
GATEWAY = HostAddress(key=address_key("wfb1", ip_interface("fd00::1/64")), scope=SCOPE)
VETH = Veth(key=link_key("wfh1"), scope=SCOPE, bridge="wfb1", peer="wfc1", mac="02:00:00:00:00:02")


@dataclass
class World:
    """A router that advertises itself, a host that lives on that, and a container on the host."""

    router: Netns
    container: Netns
    backend: KernelBackend

    def build(self) -> None:
        """Make the host's part for the container, and plug the container in."""
        assert not self.backend.apply([Step(None, one) for one in (BRIDGE, GATEWAY, VETH)])
        ip("link", "set", "wfc1", "netns", self.container.path)
        with self.container.entered():
            _without_dad("wfc1")
            ip("link", "set", "wfc1", "up")
            ip("address", "add", f"{CONTAINER}/64", "dev", "wfc1", "nodad")
            ip("-6", "route", "add", "default", "via", "fd00::1")

    def forward(self, read: HostFacts) -> None:
        """Do what the planner asks for."""
        switches = [one for one in BridgePlanner().host(read, Use(networks=1, forwards6=True)) if _is_switch(one)]
        assert switches
        assert not self.backend.apply([Step(None, one) for one in sorted(switches, key=lambda one: one.rank)])

    def container_reaches_outside(self) -> bool:
        """Tell whether the container is answered from behind the router."""
        return _answered(self.container, self.router, OUTSIDE)

    def outside_reaches_container(self) -> bool:
        """Tell whether the router is answered by the container."""
        return _answered(self.router, self.container, CONTAINER)


@pytest.fixture
def world(netns: Netns) -> Iterator[World]:
    ip("link", "add", "eth0", "address", HOST_MAC, "type", "veth", "peer", "name", "r0")
    backend = KernelBackend(Marks("abc"), lambda _: None)
    with Netns() as router, Netns() as container:
        ip("link", "set", "r0", "netns", router.path)
        _without_dad("eth0")
        sysctl("ipv6/conf/eth0/accept_ra", "1")
        ip("link", "set", "eth0", "up")
        with router.entered():
            sysctl("ipv6/conf/all/forwarding", "1")
            _without_dad("r0")
            ip("link", "set", "r0", "up")
            ip("address", "add", f"{PREFIX}1/64", "dev", "r0", "nodad")
            ip("address", "add", OUTSIDE, "dev", "lo", "nodad")
            ip("-6", "route", "add", "fd00::/64", "via", HOST_LINK_LOCAL, "dev", "r0")
            sender = _router_socket("r0")
        with sender:
            await_(lambda: _advertised(sender), 10, "the default route by advertisement")
            yield World(router, container, backend)
    backend.close()


def _without_dad(link: str) -> None:
    sysctl(f"ipv6/conf/{link}/accept_dad", "0")


def _router_socket(link: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_ICMPV6)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, socket.if_nametoindex(link))
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
    return sock


def _advertise(sock: socket.socket) -> None:
    """Send a router advertisement (RFC 4861 4.2): a default route for half an hour, and a prefix for addresses."""
    router = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)
    prefix = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 3600, 3600, 0) + IPv6Address(PREFIX).packed
    sock.sendto(router + prefix, ("ff02::1", 0))


def _advertised(sock: socket.socket) -> bool:
    _advertise(sock)
    return _learnt()


def _learnt() -> bool:
    return "proto ra" in ip("-6", "route", "show", "default")


def _is_switch(one: Resource) -> bool:
    return isinstance(one, Setting)


def _answered(asking: Netns, answering: Netns, address: str) -> bool:
    """Tell whether a datagram gets through, and its answer back."""
    with answering.entered():
        server = _datagrams()
    with asking.entered():
        client = _datagrams()
    with server, client:
        server.bind((address, 7))
        try:
            client.connect((address, 7))
            client.send(b"there")
            _, (host, port, *_) = server.recvfrom(16)
            server.sendto(b"back", (host, port))
            return client.recv(16) == b"back"
        except OSError:
            return False


def _datagrams() -> socket.socket:
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sock.settimeout(1)
    return sock


def test_the_links_that_live_on_advertisements_are_told(world: World) -> None:
    assert facts.ra_links() == {"eth0"}
    sysctl("ipv6/conf/eth0/accept_ra", "2")
    assert not facts.ra_links()
    sysctl("ipv6/conf/eth0/accept_ra", "1")
    ip("-6", "route", "del", "default")
    ip("-6", "route", "add", "default", "via", "fe80::1", "dev", "eth0")
    assert not facts.ra_links()


def test_the_global_switch_alone_takes_the_hosts_route(world: World) -> None:
    sysctl("ipv6/conf/all/forwarding", "1")
    assert not _learnt()


def test_without_a_switch_nothing_is_forwarded(world: World, netns: Netns) -> None:
    world.build()
    await_(lambda: _answered(netns, world.router, OUTSIDE), 10, "an answer to the host itself")
    assert not world.container_reaches_outside()


needs_force_forwarding = pytest.mark.skipif(
    not facts.force_forwarding(), reason="Linux 6.17 has force_forwarding, this kernel has not"
)


def _force_forwarding(*links: str) -> dict[str, str]:
    return {link: Path("/proc/sys/net/ipv6/conf", link, "force_forwarding").read_text().strip() for link in links}


@needs_force_forwarding
def test_force_forwarding_of_all_means_the_links_that_exist_and_that_of_default_those_to_come(netns: Netns) -> None:
    ip("link", "add", "before", "type", "bridge")
    sysctl("ipv6/conf/all/force_forwarding", "1")
    ip("link", "add", "after", "type", "bridge")
    sysctl("ipv6/conf/all/force_forwarding", "1")
    assert _force_forwarding("all", "default", "before", "after") == {
        "all": "1",
        "default": "0",
        "before": "1",
        "after": "0",  # and writing what "all" is already does nothing
    }
    sysctl("ipv6/conf/default/force_forwarding", "1")
    ip("link", "add", "later", "type", "bridge")
    assert _force_forwarding("after", "later") == {"after": "0", "later": "1"}


@needs_force_forwarding
@pytest.mark.parametrize("first", ["links", "switch"])
def test_force_forwarding_forwards_and_leaves_the_hosts_route(world: World, first: str) -> None:
    if first == "links":
        world.build()
    for path in ("net/ipv6/conf/default/force_forwarding", "net/ipv6/conf/all/force_forwarding"):
        switch = Forwarding(key=setting_key(path), scope=HOST, adopted=True, value="1")
        assert not world.backend.apply([Step(None, switch)])
    if first == "switch":
        world.build()
    assert not facts.forwarding6()
    assert _learnt()
    await_(world.container_reaches_outside, 10, "an answer from outside")
    await_(world.outside_reaches_container, 10, "an answer from the container")
    assert _learnt()


@pytest.mark.parametrize("first", ["links", "switch"])
def test_the_global_switch_with_accept_ra_2_forwards_and_leaves_the_hosts_route(world: World, first: str) -> None:
    if first == "links":
        world.build()
    world.forward(HostFacts(force_forwarding=False, may_forward=True, ra_links=facts.ra_links()))
    if first == "switch":
        world.build()
    assert facts.forwarding6()
    assert _learnt()
    await_(world.container_reaches_outside, 10, "an answer from outside")
    await_(world.outside_reaches_container, 10, "an answer from the container")
    assert _learnt()
