"""What rtnetlink says of tunnels, as values. Pure: the inner bytes of a link in, of a forwarding entry in.

Numbers are those of <linux/if_link.h>, <linux/if_tunnel.h>, <linux/neighbour.h> and <linux/rtnetlink.h>.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from drivers.kernel.wire import Link, Message, attributes
from drivers.model import Address

_NEIGHBOUR: Final = struct.Struct("=BxxxiHBB")
_ROUTE: Final = struct.Struct("=BBBBBBBBI")
_BE16: Final = struct.Struct("!H")
_BE32: Final = struct.Struct("!I")
_U32: Final = struct.Struct("=I")

_VXLAN_ID, _VXLAN_GROUP, _VXLAN_LINK, _VXLAN_LOCAL, _VXLAN_LEARNING, _VXLAN_AGEING = 1, 2, 3, 4, 7, 8
_VXLAN_PORT, _VXLAN_GROUP6, _VXLAN_LOCAL6, _VXLAN_COLLECT_METADATA = 15, 16, 17, 25
_GENEVE_ID, _GENEVE_REMOTE, _GENEVE_PORT, _GENEVE_COLLECT_METADATA, _GENEVE_REMOTE6 = 1, 2, 5, 6, 7
_GRE_IKEY, _GRE_LOCAL, _GRE_REMOTE = 4, 6, 7
_NDA_DST, _NDA_LLADDR = 1, 2
_RTA_OIF, _RTA_PREFSRC, _RTA_METRICS = 4, 7, 8
_RTAX_MTU = 2
_RTN_LOCAL = 2
NTF_SELF: Final = 0x02

ALL_ZERO: Final = "00:00:00:00:00:00"
"""The MAC of the entries to which a VXLAN device sends what it knows no other place for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelData:
    """What a tunnel's link is set to. ``serves_others``: it takes packets for any VNI (``external``).

    ``learns`` is True and ``ageing`` 0 where the kind of link knows neither.
    """

    vni: int = 0
    port: int = 0
    local: str = ""
    remote: str = ""
    learns: bool = True
    ageing: int = 0
    serves_others: bool = False


@dataclass(frozen=True, slots=True)
class ForwardingEntry:
    """Where a VXLAN device sends what is for a MAC. ``own``: it is the device's own, not its bridge's."""

    index: int
    mac: str
    peer: Address | None
    own: bool


@dataclass(frozen=True, slots=True)
class Route:
    """How packets for an address leave. ``mtu`` 0: the link's."""

    index: int
    source: Address | None
    mtu: int
    own: bool


def tunnel_data(link: Link) -> TunnelData | None:
    """Return what a link of one of our kinds of tunnel is set to, or ``None``."""
    read = _READERS.get(link.kind)
    return None if read is None else read(attributes(link.data))


def forwarding_entry(message: Message) -> ForwardingEntry:
    """Return the entry that an RTM_NEWNEIGH of family AF_BRIDGE is about."""
    _, index, _, flags, _ = _NEIGHBOUR.unpack_from(message.body)
    said = attributes(message.body[_NEIGHBOUR.size :])
    peer = said.get(_NDA_DST)
    return ForwardingEntry(
        index, said.get(_NDA_LLADDR, b"").hex(":"), ip_address(peer) if peer else None, bool(flags & NTF_SELF)
    )


def route(message: Message) -> Route:
    """Return the route that an RTM_NEWROUTE is about."""
    kind = _ROUTE.unpack_from(message.body)[7]
    said = attributes(message.body[_ROUTE.size :])
    metrics = attributes(said.get(_RTA_METRICS, b""))
    source = said.get(_RTA_PREFSRC)
    return Route(
        _number(_U32, said.get(_RTA_OIF)),
        ip_address(source) if source else None,
        _number(_U32, metrics.get(_RTAX_MTU)),
        kind == _RTN_LOCAL,
    )


def _vxlan(said: Mapping[int, bytes]) -> TunnelData:
    fixed = (_VXLAN_GROUP, _VXLAN_GROUP6, _VXLAN_LINK)
    return TunnelData(
        vni=_number(_U32, said.get(_VXLAN_ID)),
        port=_number(_BE16, said.get(_VXLAN_PORT)),
        local=_address(said.get(_VXLAN_LOCAL) or said.get(_VXLAN_LOCAL6)),
        remote=next((said[one].hex() for one in fixed if any(said.get(one, b""))), ""),
        learns=any(said.get(_VXLAN_LEARNING, b"")),
        ageing=_number(_U32, said.get(_VXLAN_AGEING)),
        serves_others=any(said.get(_VXLAN_COLLECT_METADATA, b"")),
    )


def _geneve(said: Mapping[int, bytes]) -> TunnelData:
    return TunnelData(
        vni=_number(_U32, said.get(_GENEVE_ID)),
        port=_number(_BE16, said.get(_GENEVE_PORT)),
        remote=_address(said.get(_GENEVE_REMOTE) or said.get(_GENEVE_REMOTE6)),
        serves_others=_GENEVE_COLLECT_METADATA in said,  # a flag: it is there, and empty
    )


def _gre(said: Mapping[int, bytes]) -> TunnelData:
    return TunnelData(
        vni=_number(_BE32, said.get(_GRE_IKEY)),
        local=_address(said.get(_GRE_LOCAL)),
        remote=_address(said.get(_GRE_REMOTE)),
    )


_READERS: Final[Mapping[str, Callable[[Mapping[int, bytes]], TunnelData]]] = {
    "vxlan": _vxlan,
    "geneve": _geneve,
    "gretap": _gre,
    "ip6gretap": _gre,
}


def _address(data: bytes | None) -> str:
    return str(ip_address(data)) if data and any(data) else ""


def _number(kind: struct.Struct, data: bytes | None) -> int:
    number: int = kind.unpack_from(data)[0] if data and len(data) >= kind.size else 0
    return number
