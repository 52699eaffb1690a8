"""How a network goes on at other hosts: its VNI, port, address and MTU, decided once, when it is made."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from typing import Final, Protocol

from drivers.errors import InvalidRequest
from drivers.facts import RouteInfo
from drivers.model import Address, Encapsulation, Network, Tunnel
from drivers.naming import vni_of
from drivers.resources import DEFAULT_MTU
from drivers.tunnels import link_kind, overhead
from plugin.requests import IPV6_MTU, MTU, NetworkRequest, NetworkSettings
from plugin.store import OVS, NetworkRow, Store

log = logging.getLogger(__name__)

GENEVE_PORT: Final = 6081  # RFC 8926

_ANYWHERE: Final[dict[int, Address]] = {4: IPv4Address("192.0.2.1"), 6: IPv6Address("2001:db8::1")}
"""Nobody's addresses (RFC 5737, RFC 3849): the route to them is the way to everybody one knows nothing of."""


class Routes(Protocol):
    """What is looked up on the host."""

    def route_to(self, address: Address) -> RouteInfo | None:
        """Return how packets for an address leave now, or ``None`` if there is no way there."""
        ...

    def check_tunnel(self, kind: str) -> None:
        """Raise ``Unsupported`` if the kernel can make no tunnels of this kind."""
        ...


@dataclass(frozen=True, slots=True)
class Path:
    """The narrowest way to the peers: its size in bytes, and which it is."""

    mtu: int
    to: str


class Tunnels:
    """The decisions. ``advertise`` is this host's address, if one is set; ``port`` is VXLAN's."""

    def __init__(self, store: Store, routes: Routes, *, advertise: Address | None = None, port: int = 4789) -> None:
        """Look at ``routes``; peers that are named for every network are in ``store``."""
        self._store = store
        self._routes = routes
        self._advertise = advertise
        self._port = port

    def decide(self, request: NetworkRequest, backend: str) -> tuple[Tunnel | None, int | None]:
        """Return the tunnel of a network, and its MTU. Raises :class:`InvalidRequest` or ``Unsupported``.

        Open vSwitch is asked later whether it can make one, in its place.
        """
        asked = request.settings
        if asked.tunnel is None:
            return None, asked.mtu
        whose = f"network {request.id[:12]}"
        version = self._version(asked)
        if backend != OVS:
            self._routes.check_tunnel(link_kind(asked.tunnel, version))
        peers = asked.peers or self._store.peers.of(request.id, version)
        tunnel = Tunnel(
            kind=asked.tunnel,
            vni=asked.vni if asked.vni is not None else vni_of(asked.name),
            port=self._port_of(asked.tunnel, asked),
            version=version,
            local=self._local(version, peers),
        )
        if version == 6 and tunnel.local is None:
            raise InvalidRequest(
                f"{whose}: there is no route to {', '.join(map(str, peers)) or 'any peer'}, so this host's address in "
                "the tunnel is not known: say it by WEFT_ADVERTISE"
            )
        return tunnel, self._mtu(request, tunnel, peers)

    def settle(self) -> None:
        """Bring stored tunnels to this host's address of now: another WEFT_ADVERTISE, or one that the host has lost."""
        for row in self._store.networks():
            tunnel = row.network.tunnel
            if tunnel is None:
                continue
            local = self._local_of_now(row, tunnel)
            if local != tunnel.local:
                log.info(
                    "tunnel has another address",
                    extra={"network": row.id[:12], "address": local or "any", "was": tunnel.local or "any"},
                )
                self._store.set_tunnel(row, replace(tunnel, local=local))

    def fits(self, network: Network, peer: Address) -> None:
        """Warn of a peer to which less fits than the network's packets: only TCP is told of it."""
        tunnel, route = network.tunnel, self._routes.route_to(peer)
        if tunnel is None or network.mtu is None or route is None or route.own:
            return
        most = route.mtu - overhead(tunnel.kind, tunnel.version)
        if most < network.mtu:
            log.warning(
                "the way to a peer is narrower than its network",
                extra={
                    "network": network.id[:12],
                    "peer": peer,
                    "mtu": network.mtu,
                    "fits": most,
                    "fix": f"raise the MTU of {route.link}, or make the network again",
                },
            )

    def _version(self, asked: NetworkSettings) -> int:
        """Return the IP version of the peers: theirs, else that of WEFT_ADVERTISE, of the host's list, or 4."""
        if asked.peers:
            return asked.peers[0].version
        if self._advertise is not None:
            return self._advertise.version
        return 6 if self._store.peers.of("", 6) and not self._store.peers.of("", 4) else 4

    def _port_of(self, kind: Encapsulation, asked: NetworkSettings) -> int:
        usual = {"vxlan": self._port, "geneve": GENEVE_PORT, "gre": 0}[kind]
        return asked.port if asked.port is not None else usual

    def _own(self, version: int) -> Address | None:
        """Return the address that was said to be ours: WEFT_ADVERTISE, or the swarm's if the host has it."""
        if self._advertise is not None and self._advertise.version == version:
            return self._advertise
        known_as = self._store.swarm_address
        if known_as is None or known_as.version != version:
            return None
        route = self._routes.route_to(known_as)
        return known_as if route is not None and route.own else None

    def _local(self, version: int, peers: Iterable[Address]) -> Address | None:
        """Return this host's address in a tunnel; ``None`` where nothing tells it yet."""
        if (own := self._own(version)) is not None:
            return own
        routes = (self._routes.route_to(peer) for peer in peers)
        return next((route.source for route in routes if route and route.source and not route.own), None)

    def _local_of_now(self, row: NetworkRow, tunnel: Tunnel) -> Address | None:
        if (own := self._own(tunnel.version)) is not None:
            return own
        if tunnel.local is None:
            return None  # the kernel chooses well
        kept = self._routes.route_to(tunnel.local)
        if kept is not None and kept.own:
            return tunnel.local
        return self._local(tunnel.version, self._store.peers.of(row.id, tunnel.version)) or tunnel.local

    def _mtu(self, request: NetworkRequest, tunnel: Tunnel, peers: Iterable[Address]) -> int:
        """Return what fits through the tunnel, or less if less is asked for."""
        path = self._path(tunnel.version, peers)
        more = overhead(tunnel.kind, tunnel.version)
        most, asked, whose = path.mtu - more, request.settings.mtu, f"network {request.id[:12]}"
        sum_ = f"{path.to} carries {path.mtu} bytes, less {more} for {tunnel.kind} over IPv{tunnel.version} is {most}"
        if asked is not None and asked > most:
            raise InvalidRequest(f"{whose}: {MTU}={asked} is too large: {sum_}; allowed is {most} or less, or none")
        if most < IPV6_MTU and any(subnet.version == 6 for subnet in request.subnets):
            raise InvalidRequest(f"{whose}: IPv6 needs an MTU of {IPV6_MTU} (RFC 8200): {sum_}; leave IPv6 out")
        return asked or most

    def _path(self, version: int, peers: Iterable[Address]) -> Path:
        found = [
            Path(route.mtu, f"the route to {peer} ({route.link})")
            for peer in peers
            if (route := self._routes.route_to(peer)) and not route.own
        ]
        if not found and (route := self._routes.route_to(_ANYWHERE[version])):
            found = [Path(route.mtu, f"the way out ({route.link})")]
        return min(found, key=lambda one: one.mtu, default=Path(DEFAULT_MTU, "Ethernet"))
