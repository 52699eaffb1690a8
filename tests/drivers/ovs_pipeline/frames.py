"""Frames made by hand, each with a token at its end, and ears that tell who heard which token how often.

The token stands behind what the headers count, as padding does, so any frame can carry one.
"""

import socket
import struct
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import count
from typing import Final, Self

from tests.matrix.frames import checksum, ipv6, summed
from tests.matrix.traffic import Spot

ARP, IP, IPV6, OTHER, TAGGED = 0x0806, 0x0800, 0x86DD, 0x88B5, 0x8100
ASK, ANSWER = 1, 2
RA, NS, NA, REDIRECT = 134, 135, 136, 137
SLL, TLL = 1, 2
EVERYBODY: Final = "ff:ff:ff:ff:ff:ff"
ALL_NODES: Final = "ff02::1"

_MARK: Final = b"weft-token-"
_TOKEN: Final = len(_MARK) + 6
_UDP: Final = 17
_ICMPV6: Final = 58
_ETH_P_ALL: Final = 3
_PACKET_OUTGOING: Final = 4
_tokens = count(1)


def token() -> bytes:
    """Return bytes that no other frame has."""
    return _MARK + b"%06d" % next(_tokens)


def mac(text: str) -> bytes:
    """Return a MAC's bytes."""
    return bytes.fromhex(text.replace(":", ""))


def frame(source: str, target: str, ethertype: int, payload: bytes = b"") -> bytes:
    """Return an Ethernet frame."""
    return mac(target) + mac(source) + struct.pack("!H", ethertype) + payload


def tagged(whole: bytes, vlan: int = 5) -> bytes:
    """Put an 802.1Q header into a frame."""
    return whole[:12] + struct.pack("!HH", TAGGED, vlan) + whole[12:]


def arp(sha: str, spa: str, tpa: str, *, op: int = ASK, tha: str = "00:00:00:00:00:00") -> bytes:
    """Return an ARP message."""
    addresses = mac(sha) + IPv4Address(spa).packed + mac(tha) + IPv4Address(tpa).packed
    return struct.pack("!HHBBH", 1, IP, 6, 4, op) + addresses


def udp(source: str, target: str) -> bytes:
    """Return an IPv4 or IPv6 packet with a UDP datagram in it."""
    datagram = struct.pack("!HHHH", 4000, 4001, 8, 0)
    one, other = ip_address(source), ip_address(target)
    if isinstance(one, IPv6Address):
        return ipv6(one, IPv6Address(target), datagram, _UDP, hops=255)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(datagram), 0, 0, 64, _UDP, 0) + one.packed + other.packed
    return head[:10] + checksum(head) + head[12:] + datagram


def nd(kind: int, source: str, target: str, about: str, *options: tuple[int, str]) -> bytes:
    """Return a message of neighbour discovery about an address, in IPv6."""
    one, other = IPv6Address(source), IPv6Address(target)
    told = b"".join(struct.pack("!BB", option, 1) + mac(address) for option, address in options)
    body = struct.pack("!BBHI", kind, 0, 0, 0x20000000 if kind == NA else 0) + IPv6Address(about).packed + told
    return ipv6(one, other, summed(one, other, body, _ICMPV6, at=2), _ICMPV6, hops=255)


def group_mac(address: str) -> str:
    """Return the MAC that IPv6 multicast goes to."""
    return (b"\x33\x33" + IPv6Address(address).packed[-4:]).hex(":")


def solicited(address: str) -> str:
    """Return the group that is asked for an address (RFC 4291, 2.7.1)."""
    return str(IPv6Address(IPv6Address("ff02::1:ff00:0").packed[:13] + IPv6Address(address).packed[-3:]))


@dataclass(eq=False)
class Ear:
    """Hears all frames that come in by a link, or by any link of a namespace."""

    name: str
    sock: socket.socket
    heard: Counter[bytes] = field(default_factory=Counter)
    frames: list[bytes] = field(default_factory=list)

    @classmethod
    def at(cls, spot: Spot, link: str = "") -> Self:
        """Start to listen."""
        sock = spot.make(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        if link:
            sock.bind((link, _ETH_P_ALL))
        spot.traffic.selector.register(sock, 1, lambda: None)  # so that it is closed with the others
        return cls(f"{spot.name} {link}".strip(), sock)

    def listen(self) -> Self:
        """Take what has come in."""
        with suppress(BlockingIOError):
            while True:
                data, (_, _, kind, *_) = self.sock.recvfrom(65536)
                if kind == _PACKET_OUTGOING:
                    continue
                self.frames.append(data)
                at = data.find(_MARK)
                if at >= 0:
                    self.heard[data[at : at + _TOKEN]] += 1
        return self


def say(spot: Spot, link: str, frames: Iterable[bytes]) -> list[bytes]:
    """Send frames out of a link, each with a token, which is returned."""
    tokens = []
    with spot.make(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.setblocking(True)  # noqa: FBT003 - takes no keyword
        sock.bind((link, 0))
        for one in frames:
            tokens.append(token())
            sock.send(one + tokens[-1])
    return tokens
