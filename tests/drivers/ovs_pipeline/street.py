"""Hosts with an Open vSwitch each, joined by a wire, and containers on them; all in namespaces of the test's own.

Each host has a bridge br-phy with its address on it and the wire in it: an address on a plain link would not do for
tunnels in userspace (facts/ovs.md 2). Its br-int has the flows of the planner, put there by the backend. Between the
containers' links and the host's own kernel stands a guard (facts/ovs.md 5).
"""

import ctypes
import fcntl
import socket
import struct
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Self

from drivers.converge import Converger
from drivers.marks import Marks
from drivers.model import Address
from drivers.openflow.backend import OpenFlowBackend
from drivers.ovs import pipeline
from drivers.ovs.model import Attachment, Gateway, Peer, Segment, Switch, Tunnel, TunnelKind
from drivers.resources import HOST, Resource, Scope, scope_of
from tests.drivers.openflow.ovs import Ovs
from tests.drivers.ovs_pipeline.frames import ARP, EVERYBODY, Ear, arp, frame, mac, say
from tests.lab.wait import WaitedInVainError, await_
from tests.matrix.traffic import Spot, Traffic
from tests.netns import Netns, sh, sysctl

GATEWAY_MAC: Final = "02:5e:7a:c3:19:01"  # looked for in all that is on the wire: bytes that come by no accident
GATEWAY: Final = (ip_address("10.1.0.254"), ip_address("fd01::7a:c3fe"))
BOUND: Final = 30  # seconds
WIRE_MTU: Final = 1600  # room for every encapsulation of 1500

_SIOCETHTOOL: Final = 0x8946
_ETHTOOL_STXCSUM: Final = 0x17


@dataclass(eq=False)
class Container:
    """A namespace with one link, eth0, and addresses on it."""

    name: str
    host: "Host"
    network: int
    at: Attachment
    netns: Netns
    spot: Spot

    def address(self, version: int) -> str:
        """Return its address."""
        return next(str(one) for one in self.at.addresses if one.version == version)


@dataclass(eq=False)
class Host:
    """One host: its namespace, its Open vSwitch, and what the store would know."""

    number: int
    netns: Netns
    ovs: Ovs
    backend: OpenFlowBackend
    underlay: Address
    spot: Spot
    scopes: set[Scope] = field(default_factory=set)
    segments: dict[int, Segment] = field(default_factory=dict)
    containers: list[Container] = field(default_factory=list)

    @property
    def underlay_mac(self) -> str:
        """The MAC under which the other hosts reach it."""
        return f"06:00:00:00:00:{self.number:02x}"

    def converge(self, scope: Scope, wanted: tuple[Resource, ...]) -> None:
        """Bring one scope's flows to what is wanted."""
        self.scopes.add(scope)
        seen = self.backend.survey()
        keys = [key for key, resource in seen.items() if resource.scope == scope]
        Converger({"openflow": self.backend}).converge(scope, wanted, keys)


class Street:
    """Hosts on one wire; ``kind`` of tunnel between them, over IPv4 or IPv6."""

    def __init__(self, hosts: int, kind: TunnelKind = "vxlan", underlay: int = 4, *, answers_nd: bool = True) -> None:
        self._stack = ExitStack()
        self.traffic = self._stack.enter_context(Traffic())
        self.wire = self._stack.enter_context(Netns())
        self.wire_spot = self._spot(self.wire, "wire")
        self.switch = Switch(answers_nd=answers_nd)
        self.kind = kind
        self.version = underlay
        with self.wire.entered():
            sh("ip", "link", "add", "wire", "mtu", str(WIRE_MTU), "type", "bridge")
            sh("ip", "link", "set", "wire", "up")
        try:
            self.hosts = [self._host(number) for number in range(1, hosts + 1)]
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def containers(self) -> list[Container]:
        """All containers of all hosts."""
        return [one for host in self.hosts for one in host.containers]

    def of(self, network: int) -> list[Container]:
        """Return the containers of a network."""
        return [one for one in self.containers if one.network == network]

    # -- what is wanted ---------------------------------------------------------------------------------------------

    def network(self, number: int, *, icc: bool = True, peers: dict[int, list[int]] | None = None) -> None:
        """Have a network on every host; each is a peer of all others, unless ``peers`` says who lists whom."""
        for host in self.hosts:
            known = [one for one in self.hosts if one is not host]
            if peers is not None:
                known = [one for one in known if one.number in peers[host.number]]
            port = f"wfg{number:012x}"
            with host.netns.entered():
                host.ovs.add_port(port, "type=internal")
                sh("ip", "link", "set", port, "address", GATEWAY_MAC, "addrgenmode", "none", "up")
                sh("ip", "address", "add", f"{GATEWAY[0]}/24", "dev", port)
                sh("ip", "address", "add", f"{GATEWAY[1]}/64", "dev", port, "nodad")
            host.segments[number] = Segment(
                id=f"n{number}",
                number=number,
                icc=icc,
                gateway=Gateway(port=port, mac=GATEWAY_MAC, addresses=GATEWAY),
                tunnel=Tunnel(
                    port="wft",
                    vni=0x100000 + number,
                    peers=tuple(Peer(address=one.underlay, slot=one.number) for one in known),
                ),
            )
            self.plan_network(host, number)

    def plan_network(self, host: Host, number: int) -> None:
        """Bring a network's flows to what is wanted."""
        segment = host.segments[number]
        host.converge(scope_of(segment.id), pipeline.network(self.switch, segment))

    def container(self, host: Host, network: int, last: int) -> Container:
        """Have a container with the addresses 10.1.0.LAST and fd01::LAST."""
        name = f"{host.number}n{network}c{last}"
        port = f"wfh{host.number:04x}{network:04x}{last:04x}"
        slot = 31 + len(host.containers)  # on two pages
        at = Attachment(
            id=name,
            port=port,
            mac=f"02:{network:02x}:00:00:{host.number:02x}:{last:02x}",
            slot=slot,
            addresses=(ip_address(f"10.1.0.{last}"), ip_address(f"fd01::{last:x}")),
        )
        netns = self._stack.enter_context(Netns())
        with host.netns.entered():
            sh("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", netns.path)
            sh("ip", "link", "set", port, "addrgenmode", "none", "up")
            _guard(port)
            host.ovs.add_port(port, "type=system")
        with netns.entered():
            no_checksum_offload("eth0")
            sysctl("ipv6/conf/eth0/accept_dad", "0")
            sh("ip", "link", "set", "eth0", "address", at.mac, "up")
            sh("ip", "address", "add", f"{at.addresses[0]}/24", "dev", "eth0")
            sh("ip", "address", "add", f"{at.addresses[1]}/64", "dev", "eth0")
        one = Container(name, host, network, at, netns, self._spot(netns, name))
        host.containers.append(one)
        host.converge(scope_of(f"n{network}", name), pipeline.endpoint(self.switch, host.segments[network], at))
        return one

    def plan_all(self, host: Host) -> None:
        """Bring all flows of a host to what is wanted, as after a restart of its Open vSwitch."""
        host.converge(HOST, pipeline.host(self.switch))
        for number, segment in host.segments.items():
            self.plan_network(host, number)
            for one in host.containers:
                if one.network == number:
                    host.converge(scope_of(segment.id, one.at.id), pipeline.endpoint(self.switch, segment, one.at))

    def without_peer(self, host: Host, network: int, gone: Host) -> None:
        """Let a host forget a peer, and wait until no megaflow that Open vSwitch has cached leads there any more."""
        segment = host.segments[network]
        assert segment.tunnel is not None
        peers = tuple(peer for peer in segment.tunnel.peers if peer.address != gone.underlay)
        host.segments[network] = replace(segment, tunnel=replace(segment.tunnel, peers=peers))
        self.plan_network(host, network)
        host.ovs.appctl("revalidator/wait")

    def warm(self) -> None:
        """Wait until every host's tunnels carry what its containers send to all.

        The first packets are lost, while Open vSwitch asks for the MAC of the peer.
        """
        wire = Ear.at(self.wire_spot)
        for host in self.hosts:
            for number, segment in host.segments.items():
                senders = [one for one in host.containers if one.network == number]
                if senders and segment.tunnel is not None:
                    peers = {peer.address for peer in segment.tunnel.peers}
                    macs = {mac(other.underlay_mac) for other in self.hosts if other.underlay in peers}
                    await_(partial(_carried, wire, senders[0], macs), BOUND, f"the tunnels of host {host.number}")

    # -- what is there ----------------------------------------------------------------------------------------------

    def _host(self, number: int) -> Host:
        netns = self._stack.enter_context(Netns())
        underlay = ip_address(f"192.0.2.{number}" if self.version == 4 else f"2001:db8::{number}")
        length, nodad = (24, ()) if self.version == 4 else (64, ("nodad",))
        with netns.entered():
            ovs = self._stack.enter_context(Ovs())
            sh("nft", "add", "table", "netdev", "guard")
            mtu = ("mtu", str(WIRE_MTU))
            sh("ip", "link", "add", "u0", *mtu, "type", "veth", "peer", "name", f"u{number}", "netns", self.wire.path)
            no_checksum_offload("u0")
            _guard("u0")
            sh("ip", "link", "set", "u0", "up")
            ovs.vsctl(
                *("add-br", "br-phy", "--", "set", "bridge", "br-phy", "datapath_type=netdev"),
                f"other_config:hwaddr=06:00:00:00:00:{number:02x}",
                *("--", "add-port", "br-phy", "u0"),
            )
            sh("ip", "address", "add", f"{underlay}/{length}", "dev", "br-phy", *nodad)
            sh("ip", "link", "set", "br-phy", "up")
            ovs.add_bridge()
            ovs.add_port("wft", f"type={self.kind}", "options:key=flow", "options:remote_ip=flow")
        with self.wire.entered():
            sh("ip", "link", "set", f"u{number}", "master", "wire", "mtu", str(WIRE_MTU), "up")
        scopes: set[Scope] = set()
        backend = OpenFlowBackend(Marks(f"host{number}"), lambda: scopes, ovs.ofport, rundir=ovs.rundir)
        self._stack.callback(backend.close)
        host = Host(number, netns, ovs, backend, underlay, self._spot(netns, f"host{number}"), scopes)
        host.converge(HOST, pipeline.host(self.switch))
        return host

    def _spot(self, netns: Netns, name: str) -> Spot:
        return self.traffic.spot(Path(netns.path), name)


def _carried(wire: Ear, sender: Container, macs: set[bytes]) -> bool:
    """Ask all for an address that nobody has; tell whether that went to all these hosts."""
    question = arp(sender.at.mac, sender.address(4), "10.1.0.250")
    (sent,) = say(sender.spot, "eth0", [frame(sender.at.mac, EVERYBODY, ARP, question)])
    with suppress(WaitedInVainError):
        await_(lambda: macs <= {one[:6] for one in wire.listen().frames if sent in one}, 0.3, "it to be on the wire")
        return True
    return False


def no_checksum_offload(link: str) -> None:
    """Let the kernel compute the checksums of what leaves a link: OVS passes on what it gets (facts/ovs.md 2)."""
    off = ctypes.create_string_buffer(struct.pack("II", _ETHTOOL_STXCSUM, 0))
    request = struct.pack("16sP8x", link.encode(), ctypes.addressof(off))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SIOCETHTOOL, request)


def _guard(link: str) -> None:
    """Let nothing that comes in by a link reach this host's own kernel; Open vSwitch sees it before."""
    hook = f'{{ type filter hook ingress device "{link}" priority 0; policy drop; }}'
    sh("nft", f"add chain netdev guard {link} {hook}")
