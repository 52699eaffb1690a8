"""The kernel's links, their addresses, and the switches under /proc/sys."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Final

from drivers.model import Interface
from drivers.naming import LINK_GROUP
from drivers.resources.base import HOST, Key, Rank, Resource

BRIDGE_PORTS: Final = 1023
"""Ports that a Linux bridge can have (``BR_MAX_PORTS``, less one that is never used; Linux 6.18)."""

DEFAULT_MTU: Final = 1500  # of Ethernet; what ``mtu=None`` is made with


def _drop_default_mtu(link: Bridge | Veth) -> None:
    """Make a default that is spelled out equal to one that is not."""
    if link.mtu == DEFAULT_MTU:
        object.__setattr__(link, "mtu", None)


def link_key(name: str) -> Key:
    """Return the key of a link. One name space for all kinds of link, as in the kernel."""
    return Key("kernel", "link", (name,))


@dataclass(frozen=True, slots=True, kw_only=True)
class Bridge(Resource):
    """A Linux bridge, up, in our link group. An adopted one is compared by existence only.

    ``ipv6`` True: speaks IPv6 and ignores router advertisements (``accept_ra=0``), for a container must not give the
    host a default route; False: IPv6 is off on it (``disable_ipv6=1``), so the host has no link-local address there.
    ``route_localnet`` True: packets from 127.0.0.0/8 leave by it (a port is published to loopback).
    ``sound`` False is only ever seen: it is down, out of our group, or accepts router advertisements.
    """

    rank: ClassVar[Rank] = Rank.DEVICE
    mac: str = ""
    mtu: int | None = None
    ipv6: bool = False
    route_localnet: bool = False
    sound: bool = True

    def __post_init__(self) -> None:
        _drop_default_mtu(self)

    @property
    def name(self) -> str:
        """The link's name."""
        return self.key.at[0]

    def __str__(self) -> str:
        if self.adopted:
            return f"ip link add {self.name} type bridge"
        mtu = f" mtu {self.mtu}" if self.mtu else ""
        loopback = f"; sysctl -w net.ipv4.conf.{self.name}.route_localnet=1" if self.route_localnet else ""
        return f"ip link add {self.name} group {LINK_GROUP} address {self.mac}{mtu} type bridge{loopback}"

    def undo(self) -> str:
        """Return the line that removes it."""
        return f"ip link del {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayLink(Bridge):
    """The host's own port of a network on Open vSwitch, as the kernel has it: all but its making is a bridge's.

    Open vSwitch makes the link with its port, and takes it away with it (:class:`drivers.resources.ovs.OvsPort`).
    """

    rank: ClassVar[Rank] = Rank.LINK

    def __str__(self) -> str:
        mtu = f" mtu {self.mtu}" if self.mtu else ""
        loopback = f"; sysctl -w net.ipv4.conf.{self.name}.route_localnet=1" if self.route_localnet else ""
        return f"ip link set {self.name} group {LINK_GROUP} address {self.mac}{mtu} up{loopback}"

    def undo(self) -> str:
        """Return what a person would call it."""
        return f"# link {self.name} goes with its port"


@dataclass(frozen=True, slots=True, kw_only=True)
class Veth(Resource):
    """A veth pair: the host's end, up, is a port of ``bridge``; the other end waits for its container.

    ``bridge`` "": it is a port of Open vSwitch, which the kernel knows nothing of. It has no ARP of its own then, or
    the host would answer on it for every address that it has (facts/ovs.md 5).
    ``checksums`` True: the container's end computes checksums itself. On Open vSwitch's datapath in userspace what is
    left to hardware that is not there never becomes right (facts/ovs.md 2).
    ``peer`` and ``mac`` are of the container's end. They cannot be read back once the container has it (it is renamed
    in another namespace), so they do not take part in the comparison.
    ``hairpin`` True: a frame may go back by the port it came from, so that a container reaches its own published port.
    ``sound`` False is only ever seen: it is down, out of our group, or may have a link-local address.
    """

    rank: ClassVar[Rank] = Rank.LINK
    bridge: str = ""
    hairpin: bool = False
    mtu: int | None = None
    sound: bool = True
    peer: str = field(default="", compare=False)
    mac: str = field(default="", compare=False)
    checksums: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        _drop_default_mtu(self)

    @property
    def name(self) -> str:
        """The name of the host's end."""
        return self.key.at[0]

    def __str__(self) -> str:
        mtu = f" mtu {self.mtu}" if self.mtu else ""
        hairpin = f"; bridge link set dev {self.name} hairpin on" if self.hairpin else ""
        place = f"master {self.bridge}" if self.bridge else "arp off"
        checksums = f"; ethtool -K {self.peer} tx off" if self.checksums else ""
        return (
            f"ip link add {self.name} group {LINK_GROUP} {place}{mtu} up"
            f" type veth peer name {self.peer} address {self.mac}{mtu}{hairpin}{checksums}"
        )

    def undo(self) -> str:
        """Return the line that removes it."""
        return f"ip link del {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostAddress(Resource):
    """An address of the host on a link, IPv6 without duplicate address detection.

    An address has no room for a mark of ours. On a bridge of ours it is ours; on an adopted one ``IFA_PROTO``
    (Linux 5.18) tells ours from the operator's, and the store tells whose bridge it is.
    """

    rank: ClassVar[Rank] = Rank.ADDRESS

    @property
    def link(self) -> str:
        """The link's name."""
        return self.key.at[0]

    @property
    def address(self) -> str:
        """The address with its prefix length."""
        return self.key.at[1]

    def __str__(self) -> str:
        return f"ip address add {self.address} dev {self.link}" + (" nodad" if ":" in self.address else "")

    def undo(self) -> str:
        """Return the line that removes it."""
        return f"ip address del {self.address} dev {self.link}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting(Resource):
    """A switch of the host under /proc/sys that must have a value; always ``adopted``.

    What may be one is a closed list in spec/ownership.md. The value found is stored before it is changed, and given
    back at uninstall, not when the last network goes: others may rely on it by then.
    """

    rank: ClassVar[Rank] = Rank.ADDRESS
    value: str = ""

    @property
    def path(self) -> str:
        """The path under /proc/sys, with slashes: ``net/ipv6/conf/eth0/accept_ra``."""
        return self.key.at[0]

    def __str__(self) -> str:
        return f"sysctl -w {self.path}={self.value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Forwarding(Setting):
    """A switch that makes the host forward: set after every other one."""

    rank: ClassVar[Rank] = Rank.FORWARD


def setting(path: str, value: str, needs: frozenset[Key] = frozenset()) -> Setting:
    """Return the switch at a path: those that make links forward which exist already are :class:`Forwarding`."""
    kind = Forwarding if path.endswith(("forwarding", "ip_forward")) and "/default/" not in path else Setting
    return kind(key=setting_key(path), scope=HOST, adopted=True, value=value, needs=needs)


def address_key(link: str, address: Interface) -> Key:
    """Return the key of a host's address on a link."""
    return Key("kernel", "address", (link, address.with_prefixlen))


def setting_key(path: str) -> Key:
    """Return the key of a switch under /proc/sys."""
    return Key("kernel", "setting", (path,))
