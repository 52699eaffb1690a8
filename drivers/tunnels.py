"""How a network goes on at other hosts: its tunnel, who is let in, and what never gets through. Pure.

VXLAN is one device, which floods to each peer and learns who is behind whom; GRE and Geneve are a link for each peer,
all of them isolated ports, so that what one peer sends is not sent on to another. Every host sends to every other one:
a broadcast arrives once.

*Who is let in.* A VXLAN device takes packets from anybody, so what has our port and VNI is dropped before it gets
there, unless a peer of this network sent it (table ``inet weft``). VNIs that are not ours, Swarm's on the same port
perhaps, are never looked at. A link for one peer takes only what comes from that peer.

*What never gets through.* A subnet on several hosts has one gateway address and MAC on each of them, so nothing from,
to or about the gateway may be in a tunnel: one frame is enough for the kernel to give up its IPv6 address
("dadfailed"), and for a container to lose its way out (facts/network.md 10). Neither is anything that the host
itself says: its MAC is the gateway's. That is in table ``bridge weft`` before any of the links is up.

*What is noticed.* A container's own MAC or address that comes out of the tunnel is somebody else's too: counted there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from drivers import ruleset, ruleset_bridge
from drivers.model import Encapsulation, Endpoint, Network, Tunnel
from drivers.naming import link_local, link_name
from drivers.resources import (
    BRIDGE_TABLE_KEY,
    DEFAULT_MTU,
    TABLE_KEY,
    Fence,
    FloodEntry,
    PeerTunnel,
    Permit,
    Resource,
    Vxlan,
    element_key,
    flood_key,
    link_key,
    scope_of,
)
from drivers.resources.tunnels import PeerKind
from drivers.verdicts import apart, bridge_fence

_OVERHEAD: Final[dict[Encapsulation, int]] = {"vxlan": 50, "geneve": 50, "gre": 42}
_IPV6_MORE: Final = 20
_PEER_KINDS: Final[dict[tuple[Encapsulation, int], PeerKind]] = {
    ("gre", 4): "gretap",
    ("gre", 6): "ip6gretap",
    ("geneve", 4): "geneve",
    ("geneve", 6): "geneve",
}
_TABLES: Final = frozenset({TABLE_KEY, BRIDGE_TABLE_KEY})


def overhead(kind: Encapsulation, version: int) -> int:
    """Return the bytes that a tunnel adds to an IP packet of a container: inner Ethernet header and all outer ones.

    IPv4: 20, UDP: 8, VXLAN and Geneve: 8, GRE with a key: 8, Ethernet: 14; IPv6 instead of IPv4: 20 more.
    """
    return _OVERHEAD[kind] + (_IPV6_MORE if version == 6 else 0)


def link_kind(kind: Encapsulation, version: int) -> str:
    """Return what the kernel calls the links of such a tunnel."""
    return _PEER_KINDS.get((kind, version), "vxlan")


def ports(network: Network, peers: int) -> int:
    """Return how many ports of the bridge a network's tunnel takes, with so many peers."""
    if network.tunnel is None:
        return 0
    return 1 if network.tunnel.kind == "vxlan" else peers


def of_network(network: Network) -> Iterator[Resource]:
    """Return the tunnel of a network and its peers; nothing if it has none."""
    if network.tunnel is None:
        return
    if network.tunnel.kind == "vxlan":
        yield from _vxlan(network, network.tunnel)
        return
    for peer in network.peers:
        yield from _to_peer(network, network.tunnel, str(peer.address))


def of_endpoint(network: Network, endpoint: Endpoint) -> Iterator[Resource]:
    """Return what is counted when it comes out of the tunnel, though it is the endpoint's own.

    VXLAN only: with a link for each peer it would be an element for each peer.
    """
    if network.tunnel is None or network.tunnel.kind != "vxlan":
        return
    scope, link = scope_of(network.id, endpoint.id), _link(network)
    yield bridge_fence(scope, ruleset_bridge.OWN_MACS, link, endpoint.mac)
    for address in endpoint.addresses:
        yield bridge_fence(scope, ruleset_bridge.OWN[address.version], link, str(address.ip))


def _link(network: Network, peer: str = "") -> str:
    return link_name("t", f"{network.id}/{peer}" if peer else network.id)


def _vxlan(network: Network, tunnel: Tunnel) -> Iterator[Resource]:
    scope, key = scope_of(network.id), link_key(_link(network))
    on_wire = str(tunnel.port), str(tunnel.vni)
    yield Vxlan(
        key=key,
        scope=scope,
        needs=_TABLES | {link_key(network.link)},
        bridge=network.link,
        vni=tunnel.vni,
        port=tunnel.port,
        local=str(tunnel.local or ""),
        mtu=network.mtu or DEFAULT_MTU,
    )
    yield from _kept_out(network, key.at[0])
    yield Fence(key=element_key(ruleset.VNIS, *on_wire), scope=scope, needs=frozenset({TABLE_KEY}))
    for peer in network.peers:
        address = str(peer.address)
        let_in = element_key(ruleset.PEERS[tunnel.version], *on_wire, address)
        yield Permit(key=let_in, scope=scope, needs=frozenset({TABLE_KEY}))
        yield FloodEntry(key=flood_key(key.at[0], address), scope=scope, needs=frozenset({key}))


def _to_peer(network: Network, tunnel: Tunnel, peer: str) -> Iterator[Resource]:
    link = _link(network, peer)
    yield PeerTunnel(
        key=link_key(link),
        scope=scope_of(network.id),
        needs=_TABLES | {link_key(network.link)},
        kind=_PEER_KINDS[tunnel.kind, tunnel.version],
        bridge=network.link,
        vni=tunnel.vni,
        port=tunnel.port,
        local="" if tunnel.kind == "geneve" else str(tunnel.local or ""),  # a geneve device has none
        remote=peer,
        mtu=network.mtu or DEFAULT_MTU,
    )
    yield from _kept_out(network, link)


def _kept_out(network: Network, link: str) -> Iterator[Resource]:
    """Keep the gateway and the host itself out of a tunnel; keep containers apart from its far side, too (ICC off)."""
    scope = scope_of(network.id)
    yield bridge_fence(scope, ruleset_bridge.TUNNELS, link)
    yield bridge_fence(scope, ruleset_bridge.GATEWAY_MACS, link, network.mac)
    yield from apart(network, link, scope)
    addresses = [one.ip for one in network.gateways]
    if network.speaks(6):
        addresses.append(link_local(network.mac))
    for address in addresses:
        spelled = str(address) if address.version == 4 else f"{int(address):#x}"
        yield bridge_fence(scope, ruleset_bridge.GATEWAYS[address.version], link, spelled)
