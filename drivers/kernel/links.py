"""Links: how one of ours is told from others', made, put right and removed. Tunnels have a file of their own.

A link of ours is in the group 0x57ef and carries its scope's mark as alias. The kernel takes no alias at a link's
making, so it is made down and without a mark, and marked and set up by a second message. What a crash leaves in
between is in our group without an alias, and belongs to whoever asks for its name.
"""

from __future__ import annotations

import errno
import socket
from collections import Counter
from collections.abc import Callable
from typing import Final

from drivers.errors import Conflict, HostFailure
from drivers.kernel import offload, requests, settings, tunnels, wire
from drivers.kernel.netlink import Netlink
from drivers.kernel.tunnels import Tunnel
from drivers.kernel.wire import ADDR_GEN_NONE, Link
from drivers.marks import Marks, describe
from drivers.naming import LINK_GROUP, PREFIX
from drivers.resources import (
    BRIDGE_PORTS,
    DEFAULT_MTU,
    HALF_MADE,
    Bridge,
    FloodEntry,
    Foreign,
    GatewayLink,
    HostAddress,
    PeerTunnel,
    Resource,
    Scope,
    Veth,
    Vxlan,
    link_key,
)

Made = Bridge | Veth | Tunnel

_OVS_MADE: Final = ("tun", "openvswitch")  # kinds of an internal port's link: userspace datapath, kernel datapath
_GATEWAY: Final = f"{PREFIX}b"
_GONE: Final = frozenset({errno.ENODEV, errno.ENXIO})


class Links:
    """The links of one store."""

    def __init__(self, netlink: Netlink, marks: Marks) -> None:
        self._netlink = netlink
        self._marks = marks

    def find(self, name: str) -> Link | None:
        """Return the link that the kernel knows by this name; one that has it as an alternative name has another."""
        try:
            (told,) = self._netlink.ask(requests.get_link(name))
        except OSError as error:
            if error.errno in _GONE:
                return None
            raise
        return wire.link(told)

    def at(self, index: int) -> Link | None:
        """Return the link of this index."""
        try:
            (told,) = self._netlink.ask(requests.get_link_at(index))
        except OSError as error:
            if error.errno in _GONE:
                return None
            raise
        return wire.link(told)

    def dump(self) -> dict[int, Link]:
        """Return all links of the host by index."""
        found = (wire.link(told) for told in self._netlink.ask(requests.dump_links()))
        return {link.index: link for link in found if link is not None}

    def owner(self, link: Link) -> Scope | None:
        """Return the scope whose mark the link carries, or ``None`` if it carries none of this store's."""
        return self._marks.read(link.alias)

    def strangers(self) -> Counter[str]:
        """Count the links of our group that carry another store's mark, by that store."""
        ours = (link for link in self.dump().values() if link.group == LINK_GROUP)
        return Counter(other for link in ours if (other := self._marks.stranger(link.alias)))

    def seen(self, name: str, link: Link, name_of: Callable[[int], str]) -> Resource | Foreign:
        """Return what the link is at the key of ``name``. ``name_of`` says how the link of an index is called."""
        key = link_key(name)
        scope = HALF_MADE if link.half_made else self.owner(link)
        if link.name != name:
            return Foreign(key, f"link {link.name} ({link.kind_shown}), which has {name} as another name")
        if scope is None and link.kind in _OVS_MADE and not link.alias and name.startswith(_GATEWAY):
            scope = HALF_MADE  # Open vSwitch has just made it, for weft
        if scope is not None and (link.kind == "bridge" or link.kind in _OVS_MADE):
            speaks = link.disable_ipv6 == 0
            sound = link.up and link.group == LINK_GROUP and not (speaks and link.accept_ra)
            localnet = link.route_localnet
            kind = Bridge if link.kind == "bridge" else GatewayLink
            return kind(
                key=key, scope=scope, mac=link.mac, mtu=link.mtu, ipv6=speaks, route_localnet=localnet, sound=sound
            )
        if scope is not None and link.kind == "veth":
            quiet = link.addr_gen in (None, ADDR_GEN_NONE) and link.arp == bool(link.master)
            sound = link.up and link.group == LINK_GROUP and quiet
            bridge = name_of(link.master) if link.master else ""
            return Veth(key=key, scope=scope, bridge=bridge, hairpin=link.hairpin, mtu=link.mtu, sound=sound)
        if scope is not None and link.kind in tunnels.KINDS:
            return tunnels.seen(key, scope, link, name_of)
        return Foreign(key, f"link {name} ({link.kind_shown}), {describe(link.alias)}")

    def change(self, old: Resource | None, new: Made) -> None:
        """Make a link, or put it right: in place if it is of the same kind, else by making it anew."""
        if old is None:
            try:
                self._make(new)
            except FileExistsError:
                self._make_over(new)
        elif isinstance(new, GatewayLink):
            self._put_right(new)
        elif old.scope == HALF_MADE or type(old) is not type(new) or isinstance(new, Vxlan | PeerTunnel):
            self.remove(new.name)
            self._make(new)
        else:
            self._put_right(new, hairpin=isinstance(old, Veth) and old.hairpin)

    def remove(self, name: str) -> None:
        """Delete a link; one that is gone is as good."""
        try:
            self._netlink.ask(requests.delete_link(name))
        except OSError as error:
            if error.errno not in _GONE:
                raise

    def _make_over(self, new: Made) -> None:
        """Deal with a name that was taken between the look and the making: by us, if the step is taken again."""
        link = self.find(new.name)
        found = None if link is None else self.seen(new.name, link, index_to_name)
        if found is None:
            other = f"link {new.peer}, the name for its other end," if isinstance(new, Veth) else "it"
            raise Conflict(f"{new.key} could not be made: {other} exists already")
        if isinstance(found, Foreign):
            raise Conflict(f"{new.key} is taken by {found.what}")
        if found.scope not in (new.scope, HALF_MADE):
            raise Conflict(f"{new.key} is taken by {found.scope}")
        if found != new:
            self.change(found, new)

    def _make(self, new: Made) -> None:
        mtu = new.mtu or DEFAULT_MTU
        match new:
            case GatewayLink():
                there = self.find(new.name)
                if there is None or there.kind not in _OVS_MADE:
                    raise HostFailure(f"{new.key} is not there: Open vSwitch has not made it")
            case Bridge():
                self._netlink.ask(requests.new_bridge(new.name, new.mac, mtu))
            case Veth():
                _port_of(new)  # before anything is made
                self._netlink.ask(requests.new_veth(new.name, new.peer, new.mac, mtu))
                if new.checksums:
                    offload.compute_checksums(new.peer)
            case Vxlan() | PeerTunnel():
                tunnels.make(self._netlink, new)
        self._put_right(new)

    def _put_right(self, new: Made, *, hairpin: bool = False) -> None:
        """Give a link of the right kind all that is wanted; ``hairpin``: a port is in that mode now."""
        alias, mtu = self._marks.write(new.scope), new.mtu or DEFAULT_MTU
        match new:
            case Bridge():
                _switch(new)
                self._netlink.ask(requests.set_bridge(new.name, alias, new.mac, mtu))
            case Veth():
                try:
                    self._netlink.ask(requests.set_port(new.name, alias, _port_of(new), mtu))
                except OSError as error:
                    raise _no_port_left(new) if error.errno == errno.EXFULL else error from None
                if new.hairpin or hairpin:
                    self._netlink.ask(requests.set_hairpin(new.name, on=new.hairpin))
            case Vxlan() | PeerTunnel():
                tunnels.put_right(self._netlink, new, alias, _port_of(new))


def index_to_name(index: int) -> str:
    """Return the name of the link of this index; empty if it is gone."""
    try:
        return socket.if_indextoname(index)
    except OSError:
        return ""


def index_of_link(new: HostAddress | FloodEntry) -> int:
    """Return the index of the link on which something is to be. Raises :class:`HostFailure` if there is none."""
    try:
        return socket.if_nametoindex(new.link)
    except OSError:
        raise HostFailure(f"{new.key} could not be added: there is no link {new.link}") from None


def _no_port_left(veth: Veth) -> Conflict:
    return Conflict(
        f"{veth.key}: the bridge {veth.bridge} has {BRIDGE_PORTS} ports, as many as a Linux bridge can have, those that"
        " are not weft's included: take some away, or make the network with -o weft.backend=ovs: it has no such limit"
    )


def _port_of(new: Veth | Tunnel) -> int:
    """Return the index of the bridge that a link is to be a port of; 0: of none."""
    if not new.bridge:
        return 0
    try:
        return socket.if_nametoindex(new.bridge)
    except OSError:
        raise HostFailure(f"{new.key} could not be made a port of {new.bridge}: there is no such bridge") from None


def _switch(bridge: Bridge) -> None:
    """Set a bridge's switches, which must be right before it is up."""
    switches = settings.of_bridge(bridge.name, ipv6=bridge.ipv6, route_localnet=bridge.route_localnet)
    for path, value in switches.items():
        found = settings.read(path)
        if found is None and bridge.ipv6 and path.startswith("net/ipv6"):
            raise HostFailure(f"{bridge.key} cannot speak IPv6: this host has no {path} (is IPv6 off in its kernel?)")
        if found is None and bridge.route_localnet and path.endswith("route_localnet"):
            raise HostFailure(f"{bridge.key} cannot be reached from 127.0.0.1: this host has no {path}")
        if found not in (None, value):
            settings.write(path, value)
