"""What the tests of networks on several hosts rest on: the hosts, the containers, and what is seen on the wire."""

import json
import re
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Self

import pytest

from drivers.kernel.offload import compute_checksums
from drivers.naming import link_local, link_name
from tests.lab.lan import Lan, Tap, address4, address6
from tests.lab.net import RUN_NETNS
from tests.lab.node import Node
from tests.lab.ovs import Ovs
from tests.lab.wait import await_
from tests.lab.weft import Weft
from tests.libnetwork import Container, Libnetwork, Network
from tests.matrix.traffic import OPEN, PROTOCOLS, Knock, Spot, Traffic
from tests.netns import inside

BACKENDS = [
    pytest.param("bridge", id="bridge"),
    pytest.param("ovs", id="ovs", marks=pytest.mark.ovs),
    pytest.param("both", id="both", marks=pytest.mark.ovs),
]
"""What the hosts of a street have; `both`: the second one a Linux bridge, the others Open vSwitch."""

ISOLATED = {f"com.docker.network.bridge.gateway_mode_ipv{version}": "isolated" for version in (4, 6)}


@dataclass
class Host:
    """A node with weft and a played engine on it."""

    number: int
    node: Node
    weft: Weft
    docker: Libnetwork
    ovs: Ovs | None = None
    networks: dict[str, Network] = field(default_factory=dict)

    @property
    def nic(self) -> str:
        """The link that has its address on the LAN."""
        return "lan0" if self.ovs is None else "br-phy"

    def network(self, name: str, subnet: int, *, internal: bool = False, icc: bool = True, **options: str) -> Network:
        """Make this host's part of a network."""
        given = {"weft.tunnel": "vxlan", "weft.name": name} | {key.replace("_", "."): options[key] for key in options}
        if self.ovs is not None:
            given["weft.backend"] = "ovs"
        if internal:
            given |= ISOLATED
        if not icc:
            given["com.docker.network.bridge.enable_icc"] = "false"
        made = self.docker.create_network(
            subnet=f"10.8.{subnet}.0/24", subnet6=f"fd08:{subnet}::/64", internal=internal, options=given, name=name
        )
        self.networks[name] = made
        return made

    def peer(self, verb: str, peer: str, network: str = "") -> None:
        """Add or remove a peer by the command."""
        which = ("--network", self.networks[network].id) if network else ()
        self.weft.cli("peer", verb, peer, *which)

    def device(self, network: str) -> str:
        """Return the name of a network's tunnel."""
        return link_name("t", self.networks[network].id)

    def behind(self, network: str) -> set[tuple[str, str]]:
        """Return what the tunnel knows, as (MAC, peer)."""
        if self.ovs is not None:
            learnt = self.ovs.ofctl("dump-flows", "br-int", "table=31")
            found = re.findall(r"dl_dst=([0-9a-f:]+) actions=.*?load:0x([0-9a-f]+)->NXM_NX_TUN_IPV4_DST", learnt)
            return {(mac, str(ip_address(int(peer, 16)))) for mac, peer in found}
        told = json.loads(self.node.run("bridge", "-j", "fdb", "show", "dev", self.device(network)).stdout)
        return {(entry["mac"], entry["dst"]) for entry in told if "dst" in entry}

    def flooded(self, network: str) -> set[str]:
        """Return the peers to which a broadcast goes."""
        if self.ovs is None:
            return {peer for _, peer in self.behind(network)}
        return set(re.findall(r"set_field:([0-9.]+)->tun_dst", self._flows_to_peers(network)))

    def local(self, network: str) -> str:
        """Return the address that a network's tunnel packets are from."""
        if self.ovs is None:
            (told,) = json.loads(self.node.run("ip", "-j", "-d", "link", "show", self.device(network)).stdout)
            return str(told["linkinfo"]["info_data"]["local"])
        found = re.search(r"set_field:([0-9.]+)->tun_src", self._flows_to_peers(network))
        return found[1] if found else ""

    def _flows_to_peers(self, network: str) -> str:
        assert self.ovs is not None
        gateway = link_name("b", self.networks[network].id)
        entries = self.ovs.ofctl("--names", "dump-flows", "br-int", f"table=0,in_port={gateway}")
        (number,) = set(re.findall("set_field:(0x[0-9a-f]+)->reg0", entries))
        return self.ovs.ofctl("dump-flows", "br-int", f"reg0={number}")

    def healthy(self) -> bool:
        """Tell whether the host is as weft wants it."""
        return bool(json.loads(self.weft.cli("status", "--json", check=False).stdout)["healthy"])


@dataclass
class Party:
    """A container, and where it is."""

    container: Container
    spot: Spot
    addresses: dict[int, str]
    mac: str


@dataclass
class Street:
    """Everybody."""

    lan: Lan
    tap: Tap
    traffic: Traffic
    hosts: dict[str, Host]
    parties: dict[str, Party] = field(default_factory=dict)

    def party(self, name: str, host: str, network: str, number: int, **options: str) -> Party:
        """Start a container with a fixed address."""
        on = self.hosts[host]
        subnet = str(on.networks[network].pools[0]).split(".")[2]
        four, six = f"10.8.{subnet}.{number}", f"fd08:{subnet}::{number:x}"
        driver_opts = {key.replace("_", "."): options[key] for key in options}
        made = on.docker.start_container(on.networks[network], ip=four, ip6=six, driver_opts=driver_opts)
        spot = self.traffic.spot(RUN_NETNS / made.netns, name)
        spot.serve()
        mac = made.endpoint(on.networks[network]).mac
        self.parties[name] = Party(made, spot, {4: four, 6: six}, mac)
        return self.parties[name]

    def knocks(self, source: str, target: str, wanted: str) -> list[Knock]:
        """Return an attempt by each protocol and IP version; who is let in is seen by his own address."""
        one, other = self.parties[source], self.parties[target]
        return [
            Knock(
                one.spot,
                other.addresses[version],
                protocol,
                wanted=f"{OPEN} from {one.addresses[version]}" if wanted == OPEN and protocol != "icmp" else wanted,
            )
            for version in (4, 6)
            for protocol in PROTOCOLS
        ]

    def surprises(self, *cells: tuple[str, str, str]) -> list[str]:
        """Make all attempts of these cells, and return those that went otherwise.

        What was in vain before leaves an unfinished look for a neighbour, whose end would end new attempts, too.
        """
        for name in {name for cell in cells for name in cell[:2]}:
            self.parties[name].container.run("ip", "neigh", "flush", "all")
        return self.traffic.surprises([knock for cell in cells for knock in self.knocks(*cell)])

    def out_of(self, host: str) -> list[tuple[str, int, bytes]]:
        """Return the tunnel packets to a host."""
        number = self.hosts[host].number
        return [one for one in self.tap.inner() if one[0] in {str(address4(number)), str(address6(number))}]


@contextmanager
def opened(backend: str, *, peers: str) -> Iterator[Street]:
    """Yield a street with the hosts a, b and c, which have what `backend` of `BACKENDS` says, and no network yet.

    A host with Open vSwitch has its wire in a bridge of Open vSwitch: facts/ovs.md 2.
    """
    backends = dict.fromkeys("abc", "ovs") | {"b": "bridge"} if backend == "both" else dict.fromkeys("abc", backend)
    with ExitStack() as stack:
        lan, traffic = stack.enter_context(Lan()), stack.enter_context(Traffic())
        hosts: dict[str, Host] = {}
        for number, name in enumerate(backends, 1):
            node = stack.enter_context(Node(f"over{name}"))
            lan.plug(node, number)
            node.run("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
            ovs = stack.enter_context(Ovs(node)) if backends[name] == "ovs" else None
            if ovs is not None:
                ovs.take_nic("lan0")
            elif "ovs" in backends.values():
                with inside(RUN_NETNS / node.netns):
                    compute_checksums("lan0")  # there is no hardware that would, and userspace takes what it gets
            settings = {"WEFT_PEERS": peers, "WEFT_ADVERTISE": str(address4(number))}
            weft = stack.enter_context(Weft(node, settings=settings))
            docker = stack.enter_context(Libnetwork(weft.socket, netns=node.netns))
            hosts[name] = Host(number, node, weft, docker, ovs)
        yield Street(lan, stack.enter_context(lan.tap()), traffic, hosts)


class Talk:
    """A TCP connection that is kept open: called, it says something and is answered."""

    def __init__(self, client: Spot, server: Spot, address: str, port: int, source: int) -> None:
        self.listener = server.make(socket.AF_INET, socket.SOCK_STREAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((address, port))
        self.listener.listen()
        self.sock = client.make(socket.AF_INET, socket.SOCK_STREAM)
        self.sock.bind(("", source))
        with pytest.raises(BlockingIOError):
            self.sock.connect((address, port))
        self.served = await_(self._accepted, 10, f"a connection to {address}")

    def _accepted(self) -> socket.socket | None:
        try:
            return self.listener.accept()[0]
        except BlockingIOError:
            return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for sock in (self.sock, self.served, self.listener):
            sock.close()

    def __call__(self) -> None:
        """Say something both ways."""
        for one, other in ((self.sock, self.served), (self.served, self.sock)):
            one.setblocking(True)  # noqa: FBT003 - takes no keyword
            other.settimeout(10)
            one.sendall(b"?")
            assert other.recv(1) == b"?"


def talk_of(street: Street, client: str, server: str, port: int = 7072) -> Talk:
    """Open a TCP connection between two parties: always the same tuple for one pair of addresses and port."""
    one, other = street.parties[client], street.parties[server]
    return Talk(one.spot, other.spot, other.addresses[4], port, 40000 + port)


def ear(spot: Spot) -> socket.socket:
    """Return a socket that hears broadcasts on port 7070."""
    sock = spot.make(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("", 7070))
    return sock


def is_bare(host: Host) -> bool:
    """Tell whether no link of weft's is left on a host."""
    return "wf" not in host.node.run("ip", "-br", "link").stdout


def mss(tap: Tap, to: str) -> int | None:
    """Return the MSS of a SYN on the wire: the first option of its TCP header (RFC 9293)."""
    for frame in tap.look():
        if frame[30:34] == ip_address(to).packed and frame[23] == socket.IPPROTO_TCP:
            kind, _, size = struct.unpack_from("!BBH", frame, 54)
            return int(size) if kind == 2 else None
    return None


def drain(sock: socket.socket) -> list[bytes]:
    """Return what a socket has heard so far."""
    found = []
    while True:
        try:
            found.append(sock.recv(64))
        except BlockingIOError:
            return found


def is_announcement(frame: bytes, mac: str) -> bool:
    """Tell whether a frame is a gratuitous ARP of this MAC: sender and target are one address."""
    arp = frame[12:14] == b"\x08\x06" and frame[6:12] == bytes.fromhex(mac.replace(":", ""))
    return arp and frame[28:32] == frame[38:42]


def is_about(frame: bytes, mac: str) -> bool:
    """Tell whether a frame is from or to the gateway's MAC, or asks for or tells of its addresses."""
    raw = bytes.fromhex(mac.replace(":", ""))
    four, six = ip_address("10.8.1.1").packed, (ip_address("fd08:1::1").packed, link_local(mac).packed)
    if raw in (frame[:6], frame[6:12]):
        return True
    kind = struct.unpack_from("!H", frame, 12)[0]
    if kind == 0x0806:
        return four in (frame[28:32], frame[38:42])
    return kind == 0x86DD and frame[20] == 58 and frame[54] in (135, 136) and frame[62:78] in six
