"""What rtnetlink says, as values. Pure: bytes in, links, addresses and neighbours out.

Read by hand and not by pyroute2, which spends 0.1 to 0.5 ms of the interpreter's lock on each link (0.9.7, measured),
while a survey reads all links of the host and the monitor every change of one. This takes some 10 us.
Numbers are those of <linux/rtnetlink.h>, <linux/if_link.h>, <linux/if_addr.h>, <linux/neighbour.h>, <linux/ip.h> and
<linux/ipv6.h>.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface, ip_network
from typing import Final

from drivers.model import Interface
from drivers.naming import LINK_GROUP, PREFIX

NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3
RTM_NEWLINK: Final = 16
RTM_DELLINK: Final = 17
RTM_NEWADDR: Final = 20
RTM_DELADDR: Final = 21

IFF_UP: Final = 0x1
IFF_NOARP: Final = 0x80

OUR_PROTO: Final = 0x57
"""``IFA_PROTO`` of the addresses that weft adds: shown by ``ip address`` as ``proto 0x57``."""

ADDR_GEN_NONE: Final = 1  # IN6_ADDR_GEN_MODE_NONE

NUD_STALE: Final = 0x04

_HEADER: Final = struct.Struct("=IHHII")
_ERROR: Final = struct.Struct("=i")
_LINK: Final = struct.Struct("=BxHiII")
_ADDRESS: Final = struct.Struct("=BBBBI")
_NEIGHBOUR: Final = struct.Struct("=B3xiHBB")
_ATTRIBUTE: Final = struct.Struct("=HH")
_U32: Final = struct.Struct("=I")
_NESTED_BITS: Final = 0x3FFF  # NLA_F_NESTED and NLA_F_NET_BYTEORDER are flags in the type
_AF_UNSPEC: Final = 0
_AF_INET: Final = 2
_AF_INET6: Final = 10
_ACK_TLVS: Final = 0x200  # NLM_F_ACK_TLVS

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_LINKINFO = 1, 3, 4, 10, 18
_IFLA_IFALIAS, _IFLA_AF_SPEC, _IFLA_GROUP, _IFLA_LINK_NETNSID = 20, 26, 27, 37
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _IFLA_INFO_SLAVE_KIND, _IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
_IFLA_BRPORT_MODE, _IFLA_BRPORT_ISOLATED = 4, 33
_IFLA_INET_CONF = 1
_DEVCONF_ROUTE_LOCALNET = 25  # IPV4_DEVCONF_ROUTE_LOCALNET - 1: the array of IPv4 begins at 1
_IFLA_INET6_CONF, _IFLA_INET6_ADDR_GEN_MODE = 2, 8
_DEVCONF_ACCEPT_RA, _DEVCONF_DISABLE_IPV6 = 3, 26
_IFA_ADDRESS, _IFA_LOCAL, _IFA_PROTO = 1, 2, 11
_NDA_LLADDR, _NDA_FLAGS_EXT = 2, 15
_NUD_LEARNT: Final = 0x02 | NUD_STALE | 0x08 | 0x10  # REACHABLE, STALE, DELAY, PROBE: not NOARP, PERMANENT, FAILED
_NTF_EXT_LEARNED: Final = 0x10
_NTF_EXT_MANAGED: Final = 0x1
_NLMSGERR_ATTR_MSG = 1

_KERNEL_PROTOS: Final = frozenset({1, 2, 3})  # IFAPROT_KERNEL_LO, _RA, _LL
_LINK_LOCAL: Final = ip_network("fe80::/64")  # what kernels before 5.18 made does not say who made it


TUNNEL_KINDS: Final = ("vxlan", "gretap", "ip6gretap", "geneve")


@dataclass(frozen=True, slots=True)
class Message:
    """One netlink message: its type, header flags, the sequence number it answers, and what follows the header."""

    type: int
    flags: int
    sequence: int
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A link as the kernel tells of it.

    ``elsewhere``      its other end is in another network namespace (``IFLA_LINK_NETNSID``)
    ``changed``        the flags that a change has just touched (all bits at its making); meaningless in an answer
    ``accept_ra``, ``disable_ipv6``, ``addr_gen``  its IPv6 switches; ``None`` where it has no IPv6 at all (MTU below
                       1280, or a kernel without)
    ``route_localnet``  its IPv4 switch of that name, as set for this link alone
    ``master``         the bridge that it is a port of; 0 on Open vSwitch, whose kernel datapath makes itself the master
                       of its ports (``ovs-system``): OVSDB says which bridge it is
    ``hairpin``        as a port of a bridge, it may be given back what came from it
    ``isolated``       as a port of a bridge, it is given nothing that came from another port that is isolated, too
    ``data``           what only its kind knows, as it was told (:mod:`drivers.kernel.tunnel_wire`)
    """

    index: int
    name: str
    kind: str = ""
    alias: str = ""
    group: int = 0
    up: bool = False
    arp: bool = True
    changed: int = 0
    mac: str = ""
    mtu: int = 0
    master: int = 0
    accept_ra: int | None = None
    disable_ipv6: int | None = None
    addr_gen: int | None = None
    route_localnet: bool = False
    hairpin: bool = False
    isolated: bool = False
    data: bytes = b""
    elsewhere: bool = False

    @property
    def half_made(self) -> bool:
        """Whether a crash left it between its making and its marking. Tunnels have names of ours, never another one."""
        ours = self.kind in ("bridge", "veth") or (self.kind in TUNNEL_KINDS and self.name.startswith(f"{PREFIX}t"))
        return self.group == LINK_GROUP and not self.alias and ours

    @property
    def kind_shown(self) -> str:
        """Its kind in words; the kernel has none for hardware."""
        return self.kind or "device"


@dataclass(frozen=True, slots=True)
class Address:
    """An address on a link. ``proto`` tells who set it (``IFA_PROTO``; 0: unknown, 1 to 3: the kernel itself)."""

    index: int
    interface: Interface
    proto: int

    @property
    def the_kernels(self) -> bool:
        """Whether the kernel made it by itself: link-local, loopback, or from a router advertisement."""
        return self.proto in _KERNEL_PROTOS or (self.proto == 0 and self.interface in _LINK_LOCAL)


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An entry of a neighbour table. ``learnt``: the kernel has it from the neighbour itself, nobody set it."""

    mac: str
    learnt: bool


def messages(data: bytes) -> Iterator[Message]:
    """Take a datagram apart."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, type_, flags, sequence, _ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            return
        yield Message(type_, flags, sequence, data[at + _HEADER.size : at + length])
        at += (length + 3) & ~3


def error(message: Message) -> tuple[int, str]:
    """Return the errno of an NLMSG_ERROR or NLMSG_DONE (0: it is an acknowledgement) and the kernel's own words."""
    if len(message.body) < _ERROR.size:
        return 0, ""
    code = -_ERROR.unpack_from(message.body)[0]
    if message.type != NLMSG_ERROR or not message.flags & _ACK_TLVS:
        return code, ""
    words = attributes(message.body[_ERROR.size + _HEADER.size :]).get(_NLMSGERR_ATTR_MSG, b"")
    return code, _text(words)


def link(message: Message) -> Link | None:
    """Return the link that an RTM_NEWLINK or RTM_DELLINK is about; ``None`` if it is about its port of a bridge.

    A bridge tells of its ports by messages of family AF_BRIDGE: their RTM_DELLINK means "left the bridge".
    """
    family, _, index, flags, changed = _LINK.unpack_from(message.body)
    if family != _AF_UNSPEC:
        return None
    said = attributes(message.body[_LINK.size :])
    info = attributes(said.get(_IFLA_LINKINFO, b""))
    port_of = _text(info.get(_IFLA_INFO_SLAVE_KIND, b""))
    as_port = attributes(info.get(_IFLA_INFO_SLAVE_DATA, b"") if port_of == "bridge" else b"")
    kind = _text(info.get(_IFLA_INFO_KIND, b""))
    spec = attributes(said.get(_IFLA_AF_SPEC, b""))
    inet, inet6 = attributes(spec.get(_AF_INET, b"")), attributes(spec.get(_AF_INET6, b""))
    conf = inet6.get(_IFLA_INET6_CONF, b"")
    return Link(
        index=index,
        name=_text(said.get(_IFLA_IFNAME, b"")),
        kind=kind,
        alias=_text(said.get(_IFLA_IFALIAS, b"")),
        group=_number(said.get(_IFLA_GROUP)) or 0,
        up=bool(flags & IFF_UP),
        arp=not flags & IFF_NOARP,
        changed=changed,
        mac=said.get(_IFLA_ADDRESS, b"").hex(":"),
        mtu=_number(said.get(_IFLA_MTU)) or 0,
        master=0 if port_of == "openvswitch" else _number(said.get(_IFLA_MASTER)) or 0,
        accept_ra=_number(conf, _DEVCONF_ACCEPT_RA),
        disable_ipv6=_number(conf, _DEVCONF_DISABLE_IPV6),
        addr_gen=next(iter(inet6.get(_IFLA_INET6_ADDR_GEN_MODE, b"")), None),
        route_localnet=bool(_number(inet.get(_IFLA_INET_CONF), _DEVCONF_ROUTE_LOCALNET)),
        hairpin=any(as_port.get(_IFLA_BRPORT_MODE, b"")),
        isolated=any(as_port.get(_IFLA_BRPORT_ISOLATED, b"")),
        data=info.get(_IFLA_INFO_DATA, b"") if kind in TUNNEL_KINDS else b"",
        elsewhere=_IFLA_LINK_NETNSID in said,
    )


def address(message: Message) -> Address:
    """Return the address that an RTM_NEWADDR or RTM_DELADDR is about."""
    _, prefix, _, _, index = _ADDRESS.unpack_from(message.body)
    said = attributes(message.body[_ADDRESS.size :])
    ip = ip_address(said.get(_IFA_LOCAL) or said[_IFA_ADDRESS])
    return Address(index, ip_interface(f"{ip}/{prefix}"), next(iter(said.get(_IFA_PROTO, b"")), 0))


def neighbour(message: Message) -> Neighbour:
    """Return the entry that an RTM_NEWNEIGH is about."""
    _, _, state, flags, _ = _NEIGHBOUR.unpack_from(message.body)
    said = attributes(message.body[_NEIGHBOUR.size :])
    managed = (_number(said.get(_NDA_FLAGS_EXT)) or 0) & _NTF_EXT_MANAGED
    learnt = bool(state & _NUD_LEARNT) and not flags & _NTF_EXT_LEARNED and not managed
    return Neighbour(said.get(_NDA_LLADDR, b"").hex(":"), learnt)


def attributes(data: bytes) -> dict[int, bytes]:
    """Take a row of attributes apart, whatever they mean: the last of each type, without its flags."""
    found: dict[int, bytes] = {}
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, type_ = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            break
        found[type_ & _NESTED_BITS] = data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3
    return found


def _number(data: bytes | None, at: int = 0) -> int | None:
    offset = at * _U32.size
    if data is None or len(data) < offset + _U32.size:
        return None
    number: int = _U32.unpack_from(data, offset)[0]
    return number


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="replace")
