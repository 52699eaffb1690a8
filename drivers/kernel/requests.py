"""What weft asks of rtnetlink, spelled by pyroute2: the only file that imports it.

Only its message classes are used. ``IPRoute`` keeps an event loop and a socket per calling thread (0.9.7), which a
pool of request threads would open and close at every call; :mod:`drivers.kernel.netlink` has one socket for all.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from socket import AF_INET, AF_INET6, AF_UNSPEC
from typing import Any, Final, Protocol, cast

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg

from drivers.kernel.wire import ADDR_GEN_NONE, IFF_NOARP, IFF_UP, NUD_STALE, OUR_PROTO
from drivers.model import Address, Interface
from drivers.naming import LINK_GROUP


class _Spelling(Protocol):
    """What is used of a pyroute2 message: a mapping of fields that encodes itself."""

    data: bytearray

    def __getitem__(self, field: str) -> Any: ...  # noqa: ANN401 - a header or a list of attributes
    def __setitem__(self, field: str, value: object) -> None: ...
    def encode(self) -> None:
        """Put the message into ``data``."""


Attribute = tuple[str, object]

_link: Final = cast("Callable[[], _Spelling]", ifinfmsg)
_address: Final = cast("Callable[[], _Spelling]", ifaddrmsg)
_neighbour: Final = cast("Callable[[], _Spelling]", ndmsg)

_NEWLINK, _DELLINK, _GETLINK, _NEWADDR, _DELADDR, _GETADDR = 16, 17, 18, 20, 21, 22  # RTM_*
_NEWNEIGH, _GETNEIGH = 28, 30
_REQUEST, _ACK, _DUMP, _REPLACE, _EXCL, _CREATE = 0x1, 0x4, 0x300, 0x100, 0x200, 0x400  # NLM_F_*
_SKIP_STATS = 8  # RTEXT_FILTER_SKIP_STATS: a third of an answer, and of its cost
_IFA_F_NODAD = 0x02


def get_link(name: str) -> bytes:
    """Ask for one link, by name."""
    return _spell(_link(), _GETLINK, _REQUEST, ("IFLA_IFNAME", name), ("IFLA_EXT_MASK", _SKIP_STATS))


def get_link_at(index: int) -> bytes:
    """Ask for one link, by index."""
    return _spell(_at(_link(), index=index), _GETLINK, _REQUEST, ("IFLA_EXT_MASK", _SKIP_STATS))


def dump_links() -> bytes:
    """Ask for all links."""
    return _spell(_link(), _GETLINK, _REQUEST | _DUMP, ("IFLA_EXT_MASK", _SKIP_STATS))


def dump_bridges() -> bytes:
    """Ask for all bridges: the kernel leaves the other links out."""
    return _spell(_link(), _GETLINK, _REQUEST | _DUMP, ("IFLA_EXT_MASK", _SKIP_STATS), _kind("bridge"))


def new_bridge(name: str, mac: str, mtu: int) -> bytes:
    """Make a bridge, down, with an MTU beside the one it is to have.

    A bridge takes the smallest MTU of its ports unless it was once *changed* by hand (``br_change_mtu``, Linux 6.18):
    the MTU given at the making does not count, nor does one that is set again.
    """
    return _spell(_link(), _NEWLINK, _MAKE, *_named(name, mtu ^ 1), ("IFLA_ADDRESS", mac), _kind("bridge"))


def new_veth(name: str, peer: str, mac: str, mtu: int) -> bytes:
    """Make a veth pair, both ends down and in our group; ``mac`` is of the peer.

    The host's end has the same with ``fe`` for its first byte: a bridge without a MAC of its own takes the lowest of
    its ports' (``br_stp_recalculate_bridge_id``), and the host behind an adopted bridge must not change its.
    """
    ours, theirs = (([("IFLA_ADDRESS", one)] if one else []) for one in (mac and f"fe{mac[2:]}", mac))
    other = {"attrs": [*_named(peer, mtu), *theirs]}
    return _spell(_link(), _NEWLINK, _MAKE, *_named(name, mtu), *ours, _kind("veth", ("VETH_INFO_PEER", other)))


def set_bridge(name: str, alias: str, mac: str, mtu: int) -> bytes:
    """Mark a bridge, give it MAC, MTU and group, and set it up."""
    return _up(name, alias, mtu, ("IFLA_ADDRESS", mac))


def set_port(name: str, alias: str, bridge: int, mtu: int) -> bytes:
    """Mark a port, put it into the bridge of that index, and set it up without an IPv6 address of its own.

    ``bridge`` 0: it is a port of Open vSwitch, and has no ARP of its own either.
    """
    none = {"attrs": [("AF_INET6", {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", ADDR_GEN_NONE)]})]}
    quiet = 0 if bridge else IFF_NOARP
    return _up(name, alias, mtu, ("IFLA_MASTER", bridge), ("IFLA_AF_SPEC", none), flags=quiet)


def set_hairpin(name: str, *, on: bool) -> bytes:
    """Let a port have back what came from it, or not.

    It must be a port by then: in one message with its bridge, the kernel asks the bridge that it had before
    (``rtnl_newlink``, Linux 6.18).
    """
    mode = {"attrs": [("IFLA_BRPORT_MODE", int(on))]}
    info = {"attrs": [("IFLA_INFO_SLAVE_KIND", "bridge"), ("IFLA_INFO_SLAVE_DATA", mode)]}
    return _spell(_link(), _NEWLINK, _REQUEST | _ACK, ("IFLA_IFNAME", name), ("IFLA_LINKINFO", info))


def delete_link(name: str) -> bytes:
    """Delete a link."""
    return _spell(_link(), _DELLINK, _REQUEST | _ACK, ("IFLA_IFNAME", name))


def dump_addresses(index: int = 0) -> bytes:
    """Ask for the addresses of one link (0: of all). The socket must ask for strict checks: else all are told."""
    return _spell(_at(_address(), family=AF_UNSPEC, index=index), _GETADDR, _REQUEST | _DUMP)


def new_address(index: int, address: Interface) -> bytes:
    """Add an address, marked as ours, IPv6 without duplicate address detection."""
    flags = [("IFA_FLAGS", _IFA_F_NODAD)] if address.version == _IPV6 else []
    return _spell(_at_address(index, address), _NEWADDR, _MAKE, *_ip(address), *flags, ("IFA_PROTO", OUR_PROTO))


def add_again(told: bytes) -> bytes:
    """Add an address as the kernel has told of it, with all it carries."""
    return struct.pack("=IHHII", 16 + len(told), _NEWADDR, _REQUEST | _ACK | _CREATE, 0, 0) + told


def delete_address(index: int, address: Interface) -> bytes:
    """Delete an address with exactly this prefix length."""
    return _spell(_at_address(index, address), _DELADDR, _REQUEST | _ACK, *_ip(address))


def get_neighbour(index: int, address: Address) -> bytes:
    """Ask for the entry of an address in the neighbour table of one link (Linux 5.0)."""
    return _spell(_at_neighbour(index, address), _GETNEIGH, _REQUEST, ("NDA_DST", str(address)))


def change_neighbour(index: int, address: Address, mac: str) -> bytes:
    """Give an entry another MAC, which is yet to be confirmed; where there is none, the kernel says ENOENT."""
    message = _at_neighbour(index, address, state=NUD_STALE)
    return _spell(message, _NEWNEIGH, _REQUEST | _ACK | _REPLACE, ("NDA_DST", str(address)), ("NDA_LLADDR", mac))


_MAKE: Final = _REQUEST | _ACK | _CREATE | _EXCL
_IPV6: Final = 6


def _named(name: str, mtu: int) -> list[Attribute]:
    return [("IFLA_IFNAME", name), ("IFLA_MTU", mtu), ("IFLA_GROUP", LINK_GROUP)]


def _kind(kind: str, *data: Attribute) -> Attribute:
    info: list[Attribute] = [("IFLA_INFO_KIND", kind)]
    if data:
        info.append(("IFLA_INFO_DATA", {"attrs": list(data)}))
    return ("IFLA_LINKINFO", {"attrs": info})


def _up(name: str, alias: str, mtu: int, *attributes: Attribute, flags: int = 0) -> bytes:
    message = _at(_link(), flags=IFF_UP | flags, change=IFF_UP | flags)
    return _spell(message, _NEWLINK, _REQUEST | _ACK, *_named(name, mtu), ("IFLA_IFALIAS", alias), *attributes)


def _ip(address: Interface) -> list[Attribute]:
    return [("IFA_LOCAL", str(address.ip)), ("IFA_ADDRESS", str(address.ip))]


def _at_address(index: int, address: Interface) -> _Spelling:
    return _at(_address(), family=_family(address), prefixlen=address.network.prefixlen, index=index)


def _at_neighbour(index: int, address: Address, state: int = 0) -> _Spelling:
    return _at(_neighbour(), family=_family(address), ifindex=index, state=state)


def _family(address: Address | Interface) -> int:
    return AF_INET6 if address.version == _IPV6 else AF_INET


def _at(message: _Spelling, **fields: int) -> _Spelling:
    for field, value in fields.items():
        message[field] = value
    return message


def _spell(message: _Spelling, type_: int, flags: int, *attributes: Attribute) -> bytes:
    message["header"]["type"] = type_
    message["header"]["flags"] = flags
    message["attrs"] = list(attributes)
    message.encode()
    return bytes(message.data)
