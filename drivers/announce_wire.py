"""The frames by which an address is announced, unasked. Pure: a MAC and an address in, bytes out.

IPv4: an ARP announcement, a broadcast request in which sender and target are the address (RFC 5227, section 3). IPv6:
an unsolicited neighbor advertisement to all nodes, with the override flag and the MAC (RFC 4861, section 7.2.6). Both
come from the MAC that they announce, so switches learn where it is, too.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

from drivers.model import Address

_ARP, _IPV4, _IPV6 = 0x0806, 0x0800, 0x86DD  # EtherTypes
_BROADCAST: Final = b"\xff" * 6
_ALL_NODES: Final = IPv6Address("ff02::1").packed
_ALL_NODES_MAC: Final = bytes.fromhex("333300000001")  # RFC 2464, section 7

_ARP_HEADER: Final = struct.Struct("!HHBBH")
_ETHERNET, _REQUEST = 1, 1
_NOBODY: Final = bytes(6)

_IPV6_HEADER: Final = struct.Struct("!IHBB")
_PSEUDO_HEADER: Final = struct.Struct("!II")
_VERSION: Final = 6 << 28  # no traffic class, no flow label
_ICMPV6: Final = 58
_HOP_LIMIT: Final = 255  # anything less came from beyond a router and is dropped (RFC 4861, section 7.1.2)
_ADVERTISEMENT: Final = struct.Struct("!BBHI")  # type, code, checksum, flags
_NEIGHBOR_ADVERTISEMENT: Final = 136
_OVERRIDE: Final = 0x2000_0000
_TARGET_LINK_LAYER_ADDRESS: Final = b"\x02\x01"  # the option, and its length in units of 8 bytes


class Frame(NamedTuple):
    """An Ethernet frame without its checksum, and its EtherType."""

    protocol: int
    data: bytes


def announcement(mac: str, address: Address) -> Frame:
    """Return the frame that tells everybody on the segment that ``address`` is at ``mac``."""
    hardware = bytes.fromhex(mac.replace(":", ""))
    match address:
        case IPv4Address():
            return Frame(_ARP, _ethernet(_BROADCAST, hardware, _ARP) + _arp(hardware, address.packed))
        case IPv6Address():
            message = _advertisement(hardware, address.packed)
            header = _IPV6_HEADER.pack(_VERSION, len(message), _ICMPV6, _HOP_LIMIT) + address.packed + _ALL_NODES
            return Frame(_IPV6, _ethernet(_ALL_NODES_MAC, hardware, _IPV6) + header + message)


def _ethernet(to: bytes, source: bytes, protocol: int) -> bytes:
    return to + source + protocol.to_bytes(2, "big")


def _arp(mac: bytes, address: bytes) -> bytes:
    header = _ARP_HEADER.pack(_ETHERNET, _IPV4, len(mac), len(address), _REQUEST)
    return header + mac + address + _NOBODY + address


def _advertisement(mac: bytes, address: bytes) -> bytes:
    rest = address + _TARGET_LINK_LAYER_ADDRESS + mac
    blank = _ADVERTISEMENT.pack(_NEIGHBOR_ADVERTISEMENT, 0, 0, _OVERRIDE) + rest
    pseudo = address + _ALL_NODES + _PSEUDO_HEADER.pack(len(blank), _ICMPV6)
    return _ADVERTISEMENT.pack(_NEIGHBOR_ADVERTISEMENT, 0, _checksum(pseudo + blank), _OVERRIDE) + rest


def _checksum(data: bytes) -> int:
    """Return the internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
