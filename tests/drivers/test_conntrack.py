"""Flows that began before a port led where it leads now, on the real kernel.

neighbour  192.0.2.2, 2001:db8::2  ----  the host  192.0.2.1, 2001:db8::1; 203.0.113.0/24 is behind the containers
two containers of one more machine  10.0.0.2, .3, fd00::2, ::3  ----  the host  10.0.0.1, fd00::1
"""

import logging
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from drivers import conntrack_wire, ruleset
from drivers.conntrack import Conntrack
from drivers.contract import Step
from drivers.kernel.netlink import Netlink
from drivers.marks import Marks
from drivers.nft import NftBackend
from drivers.resources import HOST, TABLE_KEY, Permit, Table, element_key
from tests.drivers.nft_world import publish
from tests.drivers.steps import create, delete
from tests.lab.wait import await_
from tests.netns import Netns, private_netns, sh, sysctl

pytestmark = pytest.mark.kernel

TEXT: Final = """
    map publish4 { type inet_proto . inet_service : ipv4_addr . inet_service; }
    map publish_at4 { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
    map range4 { type inet_proto . inet_service : ipv4_addr; flags interval; }
    map publish6 { type inet_proto . inet_service : ipv6_addr . inet_service; }
    chain prerouting {
        type nat hook prerouting priority -105;
        fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @publish_at4
        fib daddr type local dnat ip to meta l4proto . th dport map @publish4
        fib daddr type local dnat ip to meta l4proto . th dport map @range4
        fib daddr type local dnat ip6 to meta l4proto . th dport map @publish6
    }
"""
HOSTS: Final = {4: "192.0.2.1", 6: "2001:db8::1"}
CLIENT_PORT: Final = 5555
UNKNOWN: Final = 99  # past the kernel's last attribute


class World:
    """The host in this thread's namespace, its neighbour, and the machine of the containers."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        stack.enter_context(private_netns())
        for path in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            sysctl(path, "1")
        self.neighbour = self._machine("lan", "192.0.2.1/24", "2001:db8::1/64")
        with self.neighbour.entered():
            sh("ip", "-batch", "-", text=_addresses("peer", "192.0.2.2/24", "2001:db8::2/64", via=HOSTS))
        self.containers = self._machine("net", "10.0.0.1/24", "fd00::1/64")
        with self.containers.entered():
            inside = ("10.0.0.2/24", "10.0.0.3/24", "203.0.113.9/32", "fd00::2/64", "fd00::3/64")
            sh("ip", "-batch", "-", text=_addresses("peer", *inside, via={4: "10.0.0.1", 6: "fd00::1"}))
        sh("ip", "route", "add", "203.0.113.0/24", "via", "10.0.0.2")
        self.conntrack = Conntrack()
        self.nft = NftBackend(Marks("a"), self.conntrack.after)
        stack.callback(self.conntrack.close)
        stack.callback(self.nft.close)
        self.apply(*create(Table(key=TABLE_KEY, scope=HOST, text=TEXT)))

    def _machine(self, link: str, *addresses: str) -> Netns:
        netns = self._stack.enter_context(Netns())
        sh("ip", "link", "add", link, "type", "veth", "peer", "name", "peer", "netns", netns.path)
        sh("ip", "-batch", "-", text=_addresses(link, *addresses))
        return netns

    def apply(self, *steps: Step) -> None:
        """Take steps on published ports, and what follows."""
        failures = self.nft.apply(steps)
        assert not failures, failures

    def udp(self, netns: Netns | None, address: str, port: int) -> socket.socket:
        """Return a bound UDP socket of a machine, the host's own for ``None``."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with netns.entered() if netns else ExitStack():
            udp = self._stack.enter_context(closing(socket.socket(family, socket.SOCK_DGRAM)))
        udp.settimeout(10)
        udp.bind((address, port))
        return udp

    def flows(self, port: int) -> list[str]:
        """Return the flows of a client's port, as the kernel shows them."""
        table = Path("/proc/thread-self/net/nf_conntrack").read_text().splitlines()
        return [line for line in table if f" sport={port} " in line]


def _addresses(link: str, *addresses: str, via: dict[int, str] | None = None) -> str:
    lines = [f"link set {link} up"]
    lines += [f"address add {one} dev {link}" + (" nodad" if ":" in one else "") for one in addresses]
    lines += [f"route add default via {gateway}" for gateway in (via or {}).values()]
    return "\n".join(lines) + "\n"


@pytest.fixture
def world() -> Iterator[World]:
    with ExitStack() as stack:
        yield World(stack)


def heard(udp: socket.socket) -> bytes:
    """Wait for a packet, and answer it, as a server does."""
    data, sender = udp.recvfrom(100)
    udp.sendto(data, sender)
    return data


PORTS_OF: Final = {4: ("publish4", "10.0.0.2 80", "10.0.0.3 90"), 6: ("publish6", "fd00::2 80", "fd00::3 90")}


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("at_once", [True, False], ids=["changed", "withdrawn and published"])
def test_a_client_that_goes_on_sending_reaches_the_new_container(world: World, version: int, *, at_once: bool) -> None:
    name, first, second = PORTS_OF[version]
    old, new = publish(name, "udp 8080", first), publish(name, "udp 8080", second)
    a, b = (world.udp(world.containers, *address(one)) for one in (first, second))
    client = world.udp(world.neighbour, "::" if version == 6 else "", CLIENT_PORT)
    world.apply(*create(old))
    client.sendto(b"one", (HOSTS[version], 8080))
    assert heard(a) == b"one"
    client.recv(100)
    if at_once:
        world.apply(Step(old, new))
    else:
        world.apply(*delete(old))
        client.sendto(b"between", (HOSTS[version], 8080))
        await_(lambda: world.flows(CLIENT_PORT), 10, "the flow to nobody")
        world.apply(*create(new))
    client.sendto(b"two", (HOSTS[version], 8080))
    assert heard(b) == b"two"
    assert client.recv(100) == b"two"


def test_other_flows_of_both_containers_survive(world: World) -> None:
    old, other = publish("publish4", "udp 8080", "10.0.0.2 80"), publish("publish4", "udp 9090", "10.0.0.2 80")
    world.apply(*create(old, other, publish("publish4", "udp 7070", "10.0.0.3 90")))
    kept = {
        6001: ("192.0.2.1", 9090),  # another port to the same one of the same container
        6002: ("10.0.0.2", 80),  # the container's own address
        6003: ("192.0.2.1", 7070),
        6004: ("203.0.113.9", 8080),  # the same port of somebody else
        6005: ("192.0.2.1", 8081),  # the host's own
    }
    for port, target in {**kept, CLIENT_PORT: ("192.0.2.1", 8080)}.items():
        world.udp(world.neighbour, "", port).sendto(b"x", target)
        await_(partial(world.flows, port), 10, "a flow")
    world.apply(Step(old, replace(old, value=("10.0.0.3", "90"))))
    assert not world.flows(CLIENT_PORT)
    assert all(world.flows(port) for port in kept)
    world.apply(*create(publish("publish4", "udp 8081", "10.0.0.3 90")))
    assert not world.flows(6005)
    del kept[6005]
    assert all(world.flows(port) for port in kept)


def test_of_one_host_address_only_its_flows_are_forgotten(world: World) -> None:
    sh("ip", "address", "add", "192.0.2.9/24", "dev", "lan")
    for port, target in ((6001, "192.0.2.1"), (6002, "192.0.2.9")):
        world.udp(world.neighbour, "", port).sendto(b"x", (target, 8080))
        await_(partial(world.flows, port), 10, "a flow")
    at = publish("publish_at4", "192.0.2.9 udp 8080", "10.0.0.2 80")
    world.apply(*create(at))
    assert world.flows(6001)
    assert not world.flows(6002)
    world.udp(world.neighbour, "", 6003).sendto(b"x", ("192.0.2.9", 8080))
    await_(lambda: world.flows(6003), 10, "a flow")
    world.apply(*delete(at))
    assert not world.flows(6003)
    assert world.flows(6001)


@pytest.mark.parametrize("singles", [True, False], ids=["shifted", "one element"])
def test_a_run_of_ports_is_a_pass_or_two_and_not_one_for_each(world: World, *, singles: bool) -> None:
    ports = range(20000, 30000) if not singles else range(20000, 21000)
    run = (
        [publish("publish4", f"udp {port}", f"10.0.0.2 {port + 10000}") for port in ports]
        if singles
        else [publish("range4", f"udp {ports[0]}-{ports[-1]}", "10.0.0.2")]
    )
    other = publish("publish4", "udp 8080", "10.0.0.2 80")
    world.apply(*create(other))
    client = world.udp(world.neighbour, "", CLIENT_PORT)
    for port in (8080, *ports[:100]):
        client.sendto(b"x", ("192.0.2.1", port))
    await_(lambda: len(world.flows(CLIENT_PORT)) == 101, 10, "a flow for each")
    calls = world.conntrack.calls
    world.apply(*create(*run))
    assert len(world.flows(CLIENT_PORT)) == 1
    assert world.conntrack.calls - calls <= 2 + 100, "a dump of flows, of addresses, and each flow"
    for port in ports[:100]:
        client.sendto(b"x", ("192.0.2.1", port))
    await_(lambda: len(world.flows(CLIENT_PORT)) == 101, 10, "a flow for each")
    calls = world.conntrack.calls
    world.apply(*delete(*run))
    assert len(world.flows(CLIENT_PORT)) == 1
    assert world.conntrack.calls - calls <= 1 + 100
    world.apply(*delete(other))
    world.apply(*create(*run))
    for port in ports[:100]:
        client.sendto(b"x", ("192.0.2.1", port))
    await_(lambda: len(world.flows(CLIENT_PORT)) == 100, 10, "a flow for each")
    calls = world.conntrack.calls
    world.apply(*delete(*run))
    assert not world.flows(CLIENT_PORT)
    assert world.conntrack.calls - calls == 2, "all that led to the container went by these ports"


def test_links_from_one_container_to_another_are_one_pass_however_many_ports_they_open(world: World) -> None:
    client = world.udp(world.neighbour, "", CLIENT_PORT)
    for port in (80, 90):
        client.sendto(b"x", ("10.0.0.2", port))
    world.udp(world.neighbour, "", 6001).sendto(b"x", ("10.0.0.3", 80))
    await_(lambda: len(world.flows(CLIENT_PORT)) == 2 and world.flows(6001), 10, "a flow for each")
    opened = (("udp", "80"), ("udp", "90-99"), ("tcp", "80"), ("tcp", "90-99"))
    keys = [element_key(ruleset.LINKED[4], "192.0.2.2", "10.0.0.2", *one) for one in opened]
    calls = world.conntrack.calls
    world.conntrack.after(delete(*(Permit(key=key, scope=HOST) for key in keys)))
    assert not world.flows(CLIENT_PORT)
    assert world.flows(6001)
    assert world.conntrack.calls - calls == 2, "one pass for each transport"


def test_a_connection_to_the_host_itself_outlives_the_publishing_of_its_port(world: World) -> None:
    """As `ssh` of the operator who publishes port 22."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("192.0.2.1", 8080)))
        with world.neighbour.entered():
            client = stack.enter_context(socket.create_connection(("192.0.2.1", 8080), 10))
        accepted = stack.enter_context(closing(server.accept()[0]))
        client.sendall(b"one")
        assert accepted.recv(100) == b"one"
        world.apply(*create(publish("publish4", "tcp 8080", "10.0.0.2 80")))
        client.sendall(b"two")
        accepted.settimeout(10)
        assert accepted.recv(100) == b"two"


def test_a_connection_to_a_container_ends_with_its_port(world: World) -> None:
    port = publish("publish4", "tcp 8080", "10.0.0.2 80")
    world.apply(*create(port))
    with ExitStack() as stack:
        with world.containers.entered():
            stack.enter_context(socket.create_server(("10.0.0.2", 80)))
        with world.neighbour.entered():
            client = stack.enter_context(socket.create_connection(("192.0.2.1", 8080), 10))
        source = client.getsockname()[1]
        assert world.flows(source)
        world.apply(*delete(port))
        assert not world.flows(source)


def test_linux_before_6_11_is_asked_for_the_flows(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    pass_over(monkeypatch, "delete_all", "_FILTER")
    test_other_flows_of_both_containers_survive(world)


def test_linux_before_5_8_tells_of_every_flow(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("dump", "delete_all"):
        pass_over(monkeypatch, name, "_FILTER", "_STATUS", "_STATUS_MASK")
    test_other_flows_of_both_containers_survive(world)


def pass_over(monkeypatch: pytest.MonkeyPatch, request: str, *attributes: str) -> None:
    """Let the kernel pass over attributes of a request, as an older one does with those it does not know."""
    spelled = getattr(conntrack_wire, request)

    def older(pattern: conntrack_wire.Pattern) -> bytes:
        with monkeypatch.context() as patched:
            for name in attributes:
                patched.setattr(conntrack_wire, name, UNKNOWN)
            told: bytes = spelled(pattern)
            return told

    monkeypatch.setattr(conntrack_wire, request, older)


def test_without_conntrack_one_warning_is_all(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: Netlink, __: bytes) -> Any:  # noqa: ANN401 - it raises
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(Netlink, "ask", refuse)
    port = publish("publish4", "udp 8080", "10.0.0.2 80")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            world.apply(*create(port))
            world.apply(*delete(port))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "nf_conntrack_netlink" in str(caplog.records[0].__dict__)


def address(value: str) -> tuple[str, int]:
    """Return an address and a port from the value of a map."""
    host, port = value.split()
    return host, int(port)
