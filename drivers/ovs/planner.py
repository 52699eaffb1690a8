"""What a network on Open vSwitch is made of, in three pure functions: the host's part, a network's, an endpoint's.

One bridge, br-int, carries all of them, and its flows keep them apart (:mod:`drivers.ovs.pipeline`). The host is in a
network by an internal port, which takes the place of a Linux bridge: it has its name, its addresses and its group, so
verdicts, translation and published ports are the same as there (:mod:`drivers.verdicts`, :mod:`drivers.publish`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from drivers import ruleset, verdicts
from drivers.facts import HostFacts
from drivers.model import Encapsulation, Endpoint, Network, Use
from drivers.model import Tunnel as NetworkTunnel
from drivers.naming import link_name
from drivers.ovs import pipeline
from drivers.ovs.model import Attachment, Gateway, Peer, Segment, Switch, Tunnel
from drivers.publish import published
from drivers.resources import (
    HOST,
    OVS_BRIDGE,
    TABLE_KEY,
    Fence,
    GatewayLink,
    HostAddress,
    Key,
    OvsBridge,
    OvsDevicePort,
    OvsPort,
    Resource,
    Veth,
    address_key,
    element_key,
    link_key,
    ovs_bridge_key,
    ovs_port_key,
    scope_of,
)
from drivers.verdicts import behind_fences

_BRIDGE: Final = ovs_bridge_key(OVS_BRIDGE)


class OvsPlanner:
    """The planner of ``weft.backend=ovs``."""

    def host(self, facts: HostFacts, use: Use) -> tuple[Resource, ...]:
        """Return the bridge and what all networks on it share. The verdict table is in every host's plan."""
        if not use.ovs:
            return ()
        bridge = OvsBridge(key=_BRIDGE, scope=HOST, datapath_type=facts.ovs_datapath)
        tunnels = (_tunnel_port(kind, port) for kind, port in sorted(use.ovs_tunnels))
        return (bridge, *tunnels, *_on(_BRIDGE, pipeline.host(_switch(facts))))

    def network(self, facts: HostFacts, network: Network) -> tuple[Resource, ...]:
        """Return the host's port, if it has a place in the network, with its addresses; the flows, and the verdicts."""
        scope, link, port = scope_of(network.id), link_key(network.link), ovs_port_key(network.link)
        segment = _segment(network)
        flows = pipeline.network(_switch(facts), segment)
        if segment.gateway is None:
            return behind_fences(*flows, *verdicts.of_network(network))
        return behind_fences(
            OvsPort(key=port, scope=scope, mac=network.mac, mtu=network.mtu),
            GatewayLink(
                key=link,
                scope=scope,
                needs=frozenset({port}),
                mac=network.mac,
                mtu=network.mtu,
                ipv6=any(one.version == 6 for one in segment.gateway.addresses),
                route_localnet=network.loopback,
            ),
            *(
                HostAddress(key=address_key(network.link, gateway), scope=scope, needs=frozenset({link}))
                for gateway in network.gateways
            ),
            *_on(port, flows),
            *verdicts.in_zone(facts, network),
            *verdicts.of_network(network),
        )

    def endpoint(self, facts: HostFacts, network: Network, endpoint: Endpoint) -> tuple[Resource, ...]:
        """Return the veth pair, its port, what its container may send and get, and its part of the verdicts."""
        scope, link, port = scope_of(network.id, endpoint.id), link_key(endpoint.link), ovs_port_key(endpoint.link)
        at = Attachment(
            id=endpoint.id,
            port=endpoint.link,
            mac=endpoint.mac,
            slot=endpoint.slot,
            addresses=tuple(one.ip for one in endpoint.addresses),
        )
        return behind_fences(
            Fence(key=element_key(ruleset.GUARDED, endpoint.link), scope=scope, needs=frozenset({TABLE_KEY})),
            Veth(
                key=link,
                scope=scope,
                mtu=network.mtu,
                peer=endpoint.peer,
                mac=endpoint.mac,
                checksums=facts.ovs_datapath == "netdev",
            ),
            OvsDevicePort(key=port, scope=scope, needs=frozenset({link})),
            *_on(port, pipeline.endpoint(_switch(facts), _segment(network), at)),
            *verdicts.of_endpoint(facts, network, endpoint),
            *published(network, endpoint),
        )


def _switch(facts: HostFacts) -> Switch:
    """Return the bridge; that flows answer neighbour discovery was measured in userspace only (facts/network.md 14)."""
    return Switch(bridge=OVS_BRIDGE, answers_nd=facts.ovs_datapath == "netdev")


def _segment(network: Network) -> Segment:
    addresses = tuple(gateway.ip for gateway in network.gateways)
    gateway = Gateway(port=network.link, mac=network.mac, addresses=addresses) if addresses else None
    tunnel = _tunnel(network, network.tunnel) if network.tunnel else None
    return Segment(id=network.id, number=network.number, gateway=gateway, tunnel=tunnel, icc=network.icc)


def _tunnel(network: Network, wanted: NetworkTunnel) -> Tunnel:
    peers = tuple(Peer(address=peer.address, slot=peer.number) for peer in network.peers)
    return Tunnel(port=_tunnel_name(wanted.kind, wanted.port), vni=wanted.vni, peers=peers, local=wanted.local)


def _tunnel_name(kind: Encapsulation, port: int) -> str:
    return link_name("t", f"{kind}/{port}")


def _tunnel_port(kind: Encapsulation, port: int) -> OvsPort:
    """Return the one port of a kind of tunnel: which network and which peer a packet is of, its flows say."""
    options = {"key": "flow", "remote_ip": "flow", "local_ip": "flow"} | ({"dst_port": str(port)} if port else {})
    key = ovs_port_key(_tunnel_name(kind, port))
    return OvsPort(key=key, scope=HOST, needs=frozenset({_BRIDGE}), type=kind, options=tuple(options.items()))


def _on(key: Key, flows: Iterable[Resource]) -> tuple[Resource, ...]:
    """Let flows need what they are about: without its port a flow has no number to say."""
    return tuple(replace(flow, needs=flow.needs | {key}) for flow in flows)
