"""What weft asks of rtnetlink, spelled by pyroute2: the only file that imports it.

Only its message classes are used. ``IPRoute`` keeps an event loop and a socket per calling thread (0.9.7), which a
pool of request threads would open and close at every call; :mod:`drivers.kernel.netlink` has one socket for all.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from socket import AF_INET, AF_INET6, AF_UNSPEC, htons
from typing import Any, Final, Protocol, cast

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from drivers.kernel.tunnel_wire import NTF_SELF
from drivers.kernel.wire import ADDR_GEN_NONE, IFF_NOARP, IFF_UP, NUD_STALE, OUR_PROTO
from drivers.model import Address, Interface
from drivers.naming import LINK_GROUP
from drivers.resources import AGEING, PeerTunnel


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
_route: Final = cast("Callable[[], _Spelling]", rtmsg)

_NEWLINK, _DELLINK, _GETLINK, _NEWADDR, _DELADDR, _GETADDR = 16, 17, 18, 20, 21, 22  # RTM_*
_GETROUTE, _NEWNEIGH, _DELNEIGH, _GETNEIGH = 26, 28, 29, 30
_REQUEST, _ACK, _DUMP, _REPLACE, _EXCL, _CREATE = 0x1, 0x4, 0x300, 0x100, 0x200, 0x400  # NLM_F_*
_APPEND = 0x800
_AF_BRIDGE = 7
_NUD_PERMANENT = 0x80
_GRE_KEY = 0x2000
_PMTU_DISCOVERY = 1
_IGNORE_ENCAP_LIMIT = 0x1  # IP6_TNL_F_IGN_ENCAP_LIMIT: 8 bytes less
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
    return _set_port_mode(name, ("IFLA_BRPORT_MODE", int(on)))


def new_vxlan(name: str, vni: int, port: int, local: str, mtu: int) -> bytes:
    """Make a VXLAN device, down, that learns. ``local`` decides the IP version; empty: IPv4, from any address."""
    own = [("IFLA_VXLAN_LOCAL6" if ":" in local else "IFLA_VXLAN_LOCAL", local)] if local else []
    kind = _kind(
        "vxlan",
        ("IFLA_VXLAN_ID", vni),
        ("IFLA_VXLAN_PORT", port),
        ("IFLA_VXLAN_LEARNING", 1),
        ("IFLA_VXLAN_AGEING", AGEING),
        *own,
    )
    return _spell(_link(), _NEWLINK, _MAKE, *_named(name, mtu), kind)


def new_peer_tunnel(new: PeerTunnel) -> bytes:
    """Make a tunnel to one peer, down: GRE with one key both ways, or Geneve, which has no local address."""
    told = _geneve(new) if new.kind == "geneve" else _gre(new)
    return _spell(_link(), _NEWLINK, _MAKE, *_named(new.name, new.mtu), _kind(new.kind, *told))


def _geneve(new: PeerTunnel) -> list[Attribute]:
    to = "IFLA_GENEVE_REMOTE6" if ":" in new.remote else "IFLA_GENEVE_REMOTE"
    return [("IFLA_GENEVE_ID", new.vni), ("IFLA_GENEVE_PORT", new.port), (to, new.remote)]


def _gre(new: PeerTunnel) -> list[Attribute]:
    if new.kind == "gretap":
        start, flag, more = "IFLA_GRE", _GRE_KEY, ("PMTUDISC", _PMTU_DISCOVERY)
    else:
        start, flag, more = "IFLA_IP6GRE", htons(_GRE_KEY), ("FLAGS", _IGNORE_ENCAP_LIMIT)
    told = {"IFLAGS": flag, "OFLAGS": flag, "IKEY": new.vni, "OKEY": new.vni, "REMOTE": new.remote, more[0]: more[1]}
    told |= {"LOCAL": new.local} if new.local else {}
    return [(f"{start}_{name}", value) for name, value in told.items()]


def probe_kind(kind: str) -> bytes:
    """Ask for a link of this kind with a MAC that none can have, so that nothing is made, whatever the kernel knows.

    A kernel that has the kind refuses the MAC (EADDRNOTAVAIL), else the kind (EOPNOTSUPP); it loads modules on the way.
    """
    return _spell(_link(), _NEWLINK, _MAKE, ("IFLA_ADDRESS", "00:00:00:00:00:00"), _kind(kind))


def set_isolated(name: str) -> bytes:
    """Give a port nothing that came from another isolated one. It must be a port by then, as for hairpin mode."""
    return _set_port_mode(name, ("IFLA_BRPORT_ISOLATED", 1))


def dump_forwarding(index: int) -> bytes:
    """Ask for the forwarding entries of one link: its own, and its bridge's for it."""
    return _spell(_at(_neighbour(), family=_AF_BRIDGE, ifindex=index), _GETNEIGH, _REQUEST | _DUMP)


def append_forwarding(index: int, mac: str, peer: Address) -> bytes:
    """Let a VXLAN device send what is for a MAC to this peer, too."""
    message = _at(_neighbour(), family=_AF_BRIDGE, ifindex=index, state=_NUD_PERMANENT, flags=NTF_SELF)
    return _spell(message, _NEWNEIGH, _REQUEST | _ACK | _CREATE | _APPEND, *_behind(mac, peer))


def delete_forwarding(index: int, mac: str, peer: Address) -> bytes:
    """Let a VXLAN device send what is for a MAC to this peer no longer."""
    message = _at(_neighbour(), family=_AF_BRIDGE, ifindex=index, flags=NTF_SELF)
    return _spell(message, _DELNEIGH, _REQUEST | _ACK, *_behind(mac, peer))


def get_route(to: Address) -> bytes:
    """Ask how packets for an address leave."""
    message = _at(_route(), family=_family(to), dst_len=to.max_prefixlen)
    return _spell(message, _GETROUTE, _REQUEST, ("RTA_DST", str(to)))


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


def _set_port_mode(name: str, mode: Attribute) -> bytes:
    info = {"attrs": [("IFLA_INFO_SLAVE_KIND", "bridge"), ("IFLA_INFO_SLAVE_DATA", {"attrs": [mode]})]}
    return _spell(_link(), _NEWLINK, _REQUEST | _ACK, ("IFLA_IFNAME", name), ("IFLA_LINKINFO", info))


def _behind(mac: str, peer: Address) -> list[Attribute]:
    return [("NDA_LLADDR", mac), ("NDA_DST", str(peer))]


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
