"""What carries a network to other hosts: a VXLAN device with an entry for each peer, or a link for each peer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, Literal

from drivers.naming import LINK_GROUP
from drivers.resources.base import Key, Rank, Resource

AGEING: Final = 300
"""Seconds after which a MAC that was learnt behind a peer is forgotten, if nothing came from it."""

PeerKind = Literal["gretap", "ip6gretap", "geneve"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Vxlan(Resource):
    """A VXLAN device, up, a port of ``bridge``: it learns which MAC is behind which peer, and floods to all of them.

    ``local`` is the address it sends from; empty: the kernel's choice for each peer (IPv4).
    ``sound`` False is only ever seen: it is down, out of our group, does not learn, or serves others' VNIs, too.
    """

    rank: ClassVar[Rank] = Rank.LINK
    bridge: str = ""
    vni: int = 0
    port: int = 0
    local: str = ""
    mtu: int = 0
    sound: bool = True

    @property
    def name(self) -> str:
        """The link's name."""
        return self.key.at[0]

    def __str__(self) -> str:
        local = f" local {self.local}" if self.local else ""
        return (
            f"ip link add {self.name} group {LINK_GROUP} master {self.bridge} mtu {self.mtu} up"
            f" type vxlan id {self.vni} dstport {self.port}{local} learning ageing {AGEING}"
        )

    def undo(self) -> str:
        """Return the line that removes it."""
        return f"ip link del {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerTunnel(Resource):
    """A tunnel to one peer, up, a port of ``bridge`` that is isolated: what comes from one peer goes to no other.

    ``vni`` is GRE's key, ``port`` the UDP port (0 for GRE); ``local`` empty: the kernel's choice. The kernel itself
    takes only what comes from ``remote``.
    ``sound`` False is only ever seen: it is down, out of our group, or not isolated.
    """

    rank: ClassVar[Rank] = Rank.LINK
    kind: PeerKind = "gretap"
    bridge: str = ""
    vni: int = 0
    port: int = 0
    local: str = ""
    remote: str = ""
    mtu: int = 0
    sound: bool = True

    @property
    def name(self) -> str:
        """The link's name."""
        return self.key.at[0]

    def __str__(self) -> str:
        local = f" local {self.local}" if self.local else ""
        told = f"key {self.vni}{local}" if self.kind != "geneve" else f"id {self.vni} dstport {self.port}"
        return (
            f"ip link add {self.name} group {LINK_GROUP} master {self.bridge} mtu {self.mtu} up"
            f" type {self.kind} remote {self.remote} {told}; bridge link set dev {self.name} isolated on"
        )

    def undo(self) -> str:
        """Return the line that removes it."""
        return f"ip link del {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FloodEntry(Resource):
    """A peer to which a VXLAN device sends what is for all, or for a MAC that it has not learnt yet.

    It has no room for a mark: on a device of ours it is ours. The MACs learnt behind the peer go with it.
    """

    rank: ClassVar[Rank] = Rank.ADDRESS

    @property
    def link(self) -> str:
        """The VXLAN device's name."""
        return self.key.at[0]

    @property
    def peer(self) -> str:
        """The peer's address."""
        return self.key.at[1]

    def __str__(self) -> str:
        return f"bridge fdb append 00:00:00:00:00:00 dev {self.link} dst {self.peer}"

    def undo(self) -> str:
        """Return the lines that remove it."""
        return (
            f"bridge fdb del 00:00:00:00:00:00 dev {self.link} dst {self.peer};"
            f" bridge fdb flush dev {self.link} self dst {self.peer}"
        )


def flood_key(link: str, peer: str) -> Key:
    """Return the key of a peer of a VXLAN device."""
    return Key("kernel", "flood", (link, peer))
