"""Frames as a container makes them that may send anything (NET_RAW, which Docker gives to all).

frames = evasions(me, you, bridge)           # by name; each carries a mark of its own
with Ear(you.spot) as ear:
    ...
    assert ear.heard() == []
"""

import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import count
from typing import Final, Self

from tests.lab.wait import await_
from tests.matrix.traffic import Spot

ARP, IPV4, IPV6 = 0x0806, 0x0800, 0x86DD
PORT: Final = 7000
BROADCAST: Final = "ff:ff:ff:ff:ff:ff"

_UDP, _ICMP6, _HOP_BY_HOP, _FRAGMENT = 17, 58, 0, 44
_ALL: Final = 3  # ETH_P_ALL
_marks = count(1)

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Station:
    """One end on the wire: a namespace with one interface, eth0, its MAC and its addresses."""

    spot: Spot
    mac: str
    v4: str
    v6: str
    link_local: str

    @classmethod
    def of(cls, spot: Spot, mac: str, v4: str, v6: str) -> Self:
        """Return the station of a namespace; its link-local address is made from its MAC (RFC 4291, appendix A)."""
        raw = bytearray(_mac(mac))
        raw[0] ^= 2
        ident = bytes(raw[:3]) + b"\xff\xfe" + bytes(raw[3:])
        return cls(spot, mac, v4, v6, str(IPv6Address(b"\xfe\x80" + bytes(6) + ident)))

    def raw(self) -> socket.socket:
        """Return a socket for whole frames, which hears all that come in."""
        sock = self.spot.make(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
        sock.bind(("eth0", _ALL))
        return sock


class Ear:
    """What a station hears: marks of frames, whatever they are wrapped in."""

    def __init__(self, station: Station) -> None:
        self._sock = station.raw()
        self._heard = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def hears(self, mark: bytes) -> bool:
        """Tell whether a mark has been heard by now."""
        while True:
            try:
                frame, address = self._sock.recvfrom(2048)
            except BlockingIOError:
                return mark in self._heard
            if address[2] != socket.PACKET_OUTGOING:
                self._heard += frame


def evade(sender: Station, receiver: Station, frames: Mapping[str, tuple[bytes, bytes]]) -> list[str]:
    """Send frames, and return which of them are heard; a last one, ARP, tells that all others would have been."""
    last = _mark()
    with Ear(receiver) as ear, sender.raw() as sock:
        for frame, _ in frames.values():
            sock.send(frame)
        sock.send(arp(sender, receiver, BROADCAST, last))
        await_(lambda: ear.hears(last), 10, "ARP to pass")
        return [name for name, (_, mark) in frames.items() if ear.hears(mark)]


def evasions(me: Station, you: Station, bridge: str, gateway: str) -> dict[str, tuple[bytes, bytes]]:
    """Return every way past the verdicts that was thought of: by its name the frame, and the mark in it."""
    found: dict[str, tuple[bytes, bytes]] = {}
    for name, to, kind, packet in _evasions(me, you, bridge, gateway):
        mark = _mark()
        found[name] = (ethernet(to, me.mac, kind, packet(mark)), mark)
    return found


def _evasions(me: Station, you: Station, bridge: str, gateway: str) -> Iterator[tuple[str, str, int, "_Packet"]]:
    for kind, mine, yours in ((IPV4, me.v4, you.v4), (IPV6, me.v6, you.v6), (IPV6, me.link_local, you.link_local)):
        multicast = "01:00:5e:00:00:fb" if kind == IPV4 else "33:33:00:00:00:fb"
        for name, to in {"his": you.mac, "the bridge's": bridge, "every": BROADCAST, "a group's": multicast}.items():
            yield f"{yours} by {name} MAC", to, kind, _Packet(mine, yours)
    groups = {
        "255.255.255.255": me.v4,
        _last_of(me.v4): me.v4,
        "224.0.0.251": me.v4,
        "ff02::1": me.v6,
        "ff02::fb": me.v6,
    }
    for group, mine in groups.items():
        kind = IPV6 if ":" in group else IPV4
        by = {BROADCAST, you.mac, bridge, "33:33:00:00:00:01" if kind == IPV6 else "01:00:5e:00:00:fb"}
        for to in sorted(by):
            yield f"{group} by {to}", to, kind, _Packet(mine, group)
    yield "with the gateway's address", you.mac, IPV4, _Packet(gateway, you.v4)
    yield "a first fragment", you.mac, IPV4, _Packet(me.v4, you.v4, fragment=0x2000)
    yield "a later fragment", you.mac, IPV4, _Packet(me.v4, you.v4, fragment=0x0100)
    yield "a later fragment, IPv6", you.mac, IPV6, _Packet(me.v6, you.v6, fragment=0x0800)
    yield "with a header between", you.mac, IPV6, _Packet(me.v6, you.v6, options=True)
    yield "IPv6 that says IPv4", you.mac, IPV4, _Packet(me.v6, you.v6)
    for vlans in ((0x8100, 0), (0x8100, 7), (0x88A8, 7), (0x88A8, 7, 0x8100, 8), (0x8100, 0, 0x8100, 0)):
        for version, mine, yours in ((IPV4, me.v4, you.v4), (IPV6, me.v6, you.v6)):
            for to in (you.mac, BROADCAST):
                yield (
                    f"{yours} in VLANs {vlans} by {to}",
                    to,
                    vlans[0],
                    _Packet(mine, yours, tags=(*vlans[1:], version)),
                )
    for kind in (0x88B5, 0x8847, 0x8864, 0x88CC, 0x8035, 0x0003):
        for to in (you.mac, BROADCAST, "01:80:c2:00:00:00"):
            yield f"type {kind:#06x} by {to}", to, kind, _Packet()
    yield "IPv4 in LLC and SNAP", you.mac, 0, _Packet(me.v4, you.v4, snap=True)


@dataclass(frozen=True, slots=True)
class _Packet:
    """What a frame carries: UDP between two addresses, or only its mark; wrapped in tags, or in LLC and SNAP."""

    source: str = ""
    target: str = ""
    fragment: int = 0
    options: bool = False
    tags: tuple[int, ...] = ()
    snap: bool = False

    def __call__(self, mark: bytes) -> bytes:
        inner = self._ip(mark) if self.source else mark
        tags = b"".join(struct.pack("!H", one) for one in self.tags)
        return tags + (b"\xaa\xaa\x03\x00\x00\x00\x08\x00" if self.snap else b"") + inner

    def _ip(self, mark: bytes) -> bytes:
        source, target = ip_address(self.source), ip_address(self.target)
        if isinstance(source, IPv4Address):
            return ipv4(source, target, udp(source, target, mark), self.fragment)
        inner, following = udp(source, target, mark), _UDP
        if self.options:
            inner, following = bytes((following, 0, 1, 4, 0, 0, 0, 0)) + inner, _HOP_BY_HOP
        if self.fragment:
            inner, following = struct.pack("!BBHI", following, 0, self.fragment, 1) + inner, _FRAGMENT
        return ipv6(source, target, inner, following)


def neighbour_discovery(me: Station, you: Station) -> dict[str, tuple[bytes, bytes]]:
    """Return what must pass: a question and an answer, to one and to all, for IPv4 and IPv6."""
    found = {}
    for name, to in {"his": you.mac, "every": BROADCAST}.items():
        mark = _mark()
        found[f"ARP by {name} MAC"] = (arp(me, you, to, mark), mark)
    for kind, name in ((135, "solicitation"), (136, "advertisement")):
        for target, to in ((you.v6, you.mac), (you.link_local, you.mac), ("ff02::1", "33:33:00:00:00:01")):
            mark = _mark()
            body = struct.pack("!BBHI", kind, 0, 0, 0) + IPv6Address(you.v6).packed
            option = bytes((253, 3)) + mark.ljust(22, b"\0")  # for experiments (RFC 4727)
            source, goal = IPv6Address(me.v6), IPv6Address(target)
            packet = ipv6(source, goal, summed(source, goal, body + option, _ICMP6, at=2), _ICMP6, hops=255)
            found[f"{name} to {target}"] = (ethernet(to, me.mac, IPV6, packet), mark)
    return found


# -- spelling -------------------------------------------------------------------------------------------------------


def _mark() -> bytes:
    return f"<weft {next(_marks):06}>".encode()


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _last_of(v4: str) -> str:
    return v4.rpartition(".")[0] + ".255"


def ethernet(to: str, source: str, kind: int, payload: bytes) -> bytes:
    """Return a frame; kind 0: with its length instead (IEEE 802.3)."""
    return _mac(to) + _mac(source) + struct.pack("!H", kind or len(payload)) + payload.ljust(46, b"\0")


def arp(me: Station, you: Station, to: str, mark: bytes) -> bytes:
    """Return a question for somebody's MAC, with a mark behind it."""
    question = struct.pack("!HHBBH", 1, IPV4, 6, 4, 1) + _mac(me.mac) + IPv4Address(me.v4).packed
    return ethernet(to, me.mac, ARP, question + bytes(6) + IPv4Address(you.v4).packed + mark)


def udp(source: Address, target: Address, payload: bytes) -> bytes:
    """Return a datagram to `PORT`."""
    return summed(source, target, struct.pack("!HHHH", PORT, PORT, 8 + len(payload), 0) + payload, _UDP, at=6)


def ipv4(source: Address, target: Address, payload: bytes, fragment: int) -> bytes:
    """Return an IPv4 packet with UDP."""
    head = (
        struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, fragment, 64, _UDP, 0) + source.packed + target.packed
    )
    return head[:10] + checksum(head) + head[12:] + payload


def ipv6(source: Address, target: Address, payload: bytes, following: int, hops: int = 64) -> bytes:
    """Return an IPv6 packet."""
    return struct.pack("!IHBB", 6 << 28, len(payload), following, hops) + source.packed + target.packed + payload


def summed(source: Address, target: Address, message: bytes, protocol: int, *, at: int) -> bytes:
    """Put the checksum into a message; IPv4 and IPv6 sum the addresses alike (RFC 768, RFC 8200)."""
    pseudo = source.packed + target.packed + struct.pack("!II", len(message), protocol)
    return message[:at] + checksum(pseudo + message) + message[at + 2 :]


def checksum(data: bytes) -> bytes:
    """Return the Internet checksum (RFC 1071)."""
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)
