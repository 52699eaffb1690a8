"""What the planner of the pipeline is told. Every value is a decision already made, and nothing is a handle.

Numbers (of a network, of a slot) are claimed in the store, as host ports are: the smallest one that is free.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from drivers.errors import InvalidRequest
from drivers.model import Address
from drivers.naming import VNIS
from drivers.resources import OVS_BRIDGE

TunnelKind = Literal["vxlan", "geneve", "gre"]

SLOTS: Final = 2048
"""Ports that a network can have on one host."""
PEERS: Final = 1024
"""Peers that a network can have. OVS drops a packet after 4,096 resubmits (3.1), and a full network takes 3,300."""
LAST_NETWORK: Final = (1 << 32) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """The one bridge of a host.

    ``answers_nd``  flows answer neighbour discovery; where the datapath cannot (``system``: not tried), each question
                    goes to the one it is about, and to nobody else
    """

    bridge: str = OVS_BRIDGE
    answers_nd: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """The host's own place in a network: an internal port of the bridge, with the same MAC and addresses on each host.

    ``addresses`` are without the link-local one, which follows from the MAC.
    """

    port: str
    mac: str
    addresses: tuple[Address, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Another host of a network: the address that its tunnel packets come from, and its number among the peers."""

    address: Address
    slot: int

    def __post_init__(self) -> None:
        _within("the number of a peer", self.slot, range(PEERS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunnel:
    """What joins a network's hosts: the bridge's one port of that kind, the VNI (GRE: key) and the peers.

    VXLAN (RFC 7348) and Geneve (RFC 8926) carry 24 bits; GRE's key would carry 32 (RFC 2890). ``local`` is the address
    that packets are sent from; ``None``: the one by which the peer is reached.
    """

    port: str
    vni: int
    peers: tuple[Peer, ...] = ()
    local: Address | None = None

    def __post_init__(self) -> None:
        _within("a VNI", self.vni, VNIS)
        if len({peer.address.version for peer in self.peers}) > 1:
            raise InvalidRequest("the peers of a network are reached by IPv4 or by IPv6, not by both")

    @property
    def version(self) -> int:
        """4 or 6: the IP version between the hosts."""
        known = [*(peer.address for peer in self.peers), *((self.local,) if self.local else ())]
        return known[0].version if known else 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A network, as the bridge sees it.

    ``number``   tells it from the other networks of this host, in a register
    ``gateway``  ``None``: the host has no place in it
    ``tunnel``   ``None``: it is on this host only
    ``icc``      False: its containers reach each other only as far as the host's rules let them
    """

    id: str
    number: int
    gateway: Gateway | None = None
    tunnel: Tunnel | None = None
    icc: bool = True

    def __post_init__(self) -> None:
        _within("the number of a network", self.number, range(1, LAST_NETWORK + 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """An endpoint on this host: its port of the bridge, and what its container may say that it is.

    Without addresses (a layer-2 network) only its MAC is its own. ``slot`` is its number among its network's ports.
    """

    id: str
    port: str
    mac: str
    slot: int
    addresses: tuple[Address, ...] = ()

    def __post_init__(self) -> None:
        _within("the number of a port", self.slot, range(SLOTS))


def _within(what: str, value: int, allowed: range) -> None:
    if value not in allowed:
        raise InvalidRequest(f"{what} is from {allowed.start} to {allowed.stop - 1}, not {value}")
