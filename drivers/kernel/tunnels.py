"""Tunnels: a VXLAN device for all peers, or a link for each of them. How they are read, made, and refused.

A tunnel that differs in anything is made anew: most of what it is cannot be changed in place (VNI, port, remote), and
what is lost with it, the learnt MACs, is learnt again with the next frame. Its peers stay, see
:meth:`drivers.kernel.floods.Floods.kept`.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from typing import Final, NoReturn

from drivers.errors import Conflict, Unsupported
from drivers.kernel import requests, wire
from drivers.kernel.netlink import Netlink
from drivers.kernel.tunnel_wire import TunnelData, tunnel_data
from drivers.kernel.wire import ADDR_GEN_NONE, Link
from drivers.naming import LINK_GROUP
from drivers.resources import AGEING, Key, PeerTunnel, Scope, Vxlan

KINDS: Final = frozenset(wire.TUNNEL_KINDS)
"""The kinds of link that weft makes tunnels of, as the kernel calls them."""

Tunnel = Vxlan | PeerTunnel

_MODULES: Final = {"vxlan": "vxlan", "gretap": "ip_gre", "ip6gretap": "ip6_gre", "geneve": "geneve"}
_NO_SUCH_KIND: Final = frozenset({errno.EOPNOTSUPP, errno.ENOTSUP})


def lacking(kind: str) -> str:
    """Say that the kernel has no tunnels of this kind, and what to do."""
    return (
        f"this host's kernel has no {kind} (module {_MODULES[kind]}): load it (`modprobe {_MODULES[kind]}`), or choose "
        "another weft.tunnel; vxlan is in nearly every kernel"
    )


def seen(key: Key, scope: Scope, link: Link, name_of: Callable[[int], str]) -> Tunnel:
    """Return a tunnel of ours as it is."""
    data = tunnel_data(link) or TunnelData()
    bridge = name_of(link.master) if link.master else ""
    sound = link.up and link.group == LINK_GROUP and link.addr_gen in (None, ADDR_GEN_NONE)
    if link.kind == "vxlan":
        sound = sound and data.learns and data.ageing == AGEING and not data.serves_others and not data.remote
        return Vxlan(
            key=key,
            scope=scope,
            bridge=bridge,
            vni=data.vni,
            port=data.port,
            local=data.local,
            mtu=link.mtu,
            sound=sound,
        )
    return PeerTunnel(
        key=key,
        scope=scope,
        kind=link.kind,  # type: ignore[arg-type]  # one of KINDS
        bridge=bridge,
        vni=data.vni,
        port=data.port,
        local=data.local,
        remote=data.remote,
        mtu=link.mtu,
        sound=sound and link.isolated,
    )


def has_kind(netlink: Netlink, kind: str) -> bool:
    """Tell whether the kernel can make tunnels of this kind; its module is loaded if there is one."""
    try:
        netlink.ask(requests.probe_kind(kind))
    except OSError as error:
        return error.errno not in _NO_SUCH_KIND
    return True


def make(netlink: Netlink, new: Tunnel) -> None:
    """Make a tunnel, down, without a mark and not yet in its bridge.

    Raises :class:`Unsupported` if the kernel has no such kind of link, :class:`Conflict` if another one has the VNI.
    """
    kind = "vxlan" if isinstance(new, Vxlan) else new.kind
    try:
        if isinstance(new, Vxlan):
            netlink.ask(requests.new_vxlan(new.name, new.vni, new.port, new.local, new.mtu))
        else:
            netlink.ask(requests.new_peer_tunnel(new))
    except OSError as error:
        if error.errno in _NO_SUCH_KIND:
            raise Unsupported(f"{new.key} could not be made: {lacking(kind)}") from None
        if error.errno == errno.EBUSY or (error.errno == errno.EEXIST and not _exists(new.name)):
            _refuse(netlink, new, f"VNI {new.vni} on UDP port {new.port}" if new.port else f"key {new.vni}")
        if error.errno == errno.EPERM and kind == "geneve" and _holders(netlink, new, what := f"UDP port {new.port}"):
            _refuse(netlink, new, what)  # what VXLAN says when it is set up (EADDRINUSE), Geneve says at once, and so
        raise


def put_right(netlink: Netlink, new: Tunnel, alias: str, bridge: int) -> None:
    """Mark a tunnel, put it into the bridge of that index, and set it up.

    Raises :class:`Conflict` if its UDP port is taken.
    """
    try:
        netlink.ask(requests.set_port(new.name, alias, bridge, new.mtu))
        if isinstance(new, PeerTunnel):
            netlink.ask(requests.set_isolated(new.name))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            _refuse(netlink, new, f"UDP port {new.port}")
        raise


def on_port(netlink: Netlink, port: int) -> list[str]:
    """Return the tunnel links that have a UDP port, whoever made them."""
    return [link.name for link, _ in _on_port(netlink, port)]


def _exists(name: str) -> bool:
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True


def _refuse(netlink: Netlink, new: Tunnel, what: str) -> NoReturn:
    """Name the link that has what is asked for; a socket of a process is left to `ss`."""
    holders = _holders(netlink, new, what)
    where = f"link {', '.join(holders)}" if holders else f"a socket (`ss -lnup 'sport = :{new.port}'` tells whose)"
    raise Conflict(
        f"{new.key} could not be made: {what} is held by {where}; choose another weft.tunnel.port (WEFT_TUNNEL_PORT), "
        "the same on every host, or another weft.vni"
    )


def _holders(netlink: Netlink, new: Tunnel, what: str) -> list[str]:
    others = ((link.name, data) for link, data in _on_port(netlink, new.port) if link.name != new.name)
    whole_port = what.startswith("UDP")
    return [name for name, data in others if (data.serves_others if whole_port else data.vni == new.vni)]


def _on_port(netlink: Netlink, port: int) -> Iterator[tuple[Link, TunnelData]]:
    for link in _links(netlink):
        data = tunnel_data(link)
        if data is not None and data.port == port:
            yield link, data


def _links(netlink: Netlink) -> list[Link]:
    found = (wire.link(told) for told in netlink.ask(requests.dump_links()))
    return [link for link in found if link is not None and link.kind in KINDS]
