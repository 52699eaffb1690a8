"""Making, joining, leaving and removing endpoints. An attach is a check, a commit, a converge and a commit."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from ipaddress import ip_interface

from drivers.contract import Step
from drivers.errors import Conflict, InvalidRequest, NotFound
from drivers.model import Endpoint, Network
from drivers.naming import LINK_GROUP, endpoint_mac, link_name
from drivers.resources import BRIDGE_PORTS, Key, Rank, Scope, scope_of
from drivers.tunnels import ports
from plugin.deadline import Deadline
from plugin.engine.networks import HostLooks
from plugin.requests import EndpointRequest, Joined
from plugin.routes import check_routes
from plugin.runtime import Runtime
from plugin.store import OVS, EndpointRow, NetworkRow, Phase, Store

log = logging.getLogger(__name__)


class Endpoints:
    """The use cases of endpoints."""

    def __init__(self, store: Store, runtime: Runtime, host: HostLooks) -> None:
        """Make endpoints on the networks of ``store``."""
        self._store = store
        self._runtime = runtime
        self._host = host

    def create(self, request: EndpointRequest, deadline: Deadline) -> str:
        """Make an endpoint and return its MAC. Making an equal one again is a success.

        An address whose holder is dead (Docker lost track of it: facts/docker-wire.md 6) is taken over; a live holder
        is a :class:`Conflict` that names it.
        """
        network = self.network(request.network).network
        self._check_bridge(network, deadline)
        self._check_links_near(network, request)
        row = EndpointRow(endpoint=self._decide(network, request), ports=request.ports, settings=request.settings)
        known = self._store.endpoint(request.id)
        if known and known.phase is not Phase.DELETING:
            same = replace(row, endpoint=replace(row.endpoint, slot=known.endpoint.slot))
            if (known.endpoint, known.ports, known.settings) != (same.endpoint, same.ports, same.settings):
                raise Conflict(
                    f"endpoint {row.id[:12]} exists and differs: {known.endpoint}; asked for: {row.endpoint}"
                )
            return known.endpoint.mac
        dead = self._dead_holders(row.endpoint)
        self._make_room(network, dead, deadline)
        linked = self._linked_to([holder.id for holder in dead])
        self._store.add_endpoint(row, instead_of=dead)
        try:
            for holder in dead:
                self._runtime.converge(holder.scope, deadline)
                log.warning("dead endpoint replaced", extra={"endpoint": holder.id[:12], "by": row.id[:12]})
            self._close(linked, deadline)
            self._runtime.converge(row.scope, deadline)
            self._store.endpoint_ready(row.id)
        except BaseException:
            self._withdraw(row)
            raise
        self._tell(row)
        return row.endpoint.mac

    def delete(self, ident: str, deadline: Deadline) -> None:
        """Remove an endpoint; removing what is unknown is a success.

        Everything but the bare link is gone when this returns: the kernel takes 20 ms to delete a veth pair, and that
        is left to the reconciler.
        """
        row = self._store.endpoint(ident)
        if row is None:
            return
        with self._runtime.holding(row.scope, deadline):  # or a link to it could be opened in between
            linked = self._linked_to([ident])
            self._store.withdraw_endpoints([ident])
            self._runtime.converge(row.scope, deadline, defer=_is_bare_link)
            self._close(linked, deadline)
        log.info("endpoint deleted", extra={"endpoint": ident[:12], "network": row.endpoint.network[:12]})

    def join(self, ident: str, sandbox: str) -> Joined:
        """Take note of the container's namespace, say what Docker has to move there, and announce its addresses.

        They may be known by another MAC: that of a container which had them before.
        """
        row = self.ready(ident)
        network = self.network(row.endpoint.network)
        self._store.set_sandbox(ident, sandbox)
        self._host.announce(
            network.network,
            row.endpoint,
            count=network.settings.announce_count,
            interval=network.settings.announce_ms / 1000,
            wanted=lambda: self._is_joined(ident),
        )
        routes = {route.destination: route for route in (*network.settings.routes, *row.settings.routes)}
        speaks = {address.version for address in row.endpoint.addresses}
        gwbridge = network.settings.gwbridge
        return Joined(
            link=row.endpoint.peer,
            prefix=network.settings.interface_prefix,
            name=row.settings.ifname,
            gateway4=None if gwbridge else network.network.gateway_for(row.endpoint.ipv4),
            gateway6=None if gwbridge else network.network.gateway_for(row.endpoint.ipv6),
            routes=tuple(route for route in routes.values() if route.destination.version in speaks),
            gwbridge=gwbridge,
        )

    def leave(self, ident: str) -> None:
        """Take note that the container has left; of the unknown there is nothing to note."""
        self._store.set_sandbox(ident, None)

    def network(self, ident: str) -> NetworkRow:
        """Return a network that was promised. Raises :class:`NotFound`."""
        row = self._store.network(ident)
        if row is None or row.phase is not Phase.READY:
            raise NotFound(
                f"weft has no network {ident[:12]}: it was made by another driver, or its state was lost; "
                "see `weft network ls`, then remove it with `docker network rm` and create it again"
            )
        return row

    def ready(self, ident: str) -> EndpointRow:
        """Return an endpoint that was promised. Raises :class:`NotFound`."""
        row = self._store.endpoint(ident)
        if row is None or row.phase is not Phase.READY:
            raise NotFound(f"weft has no endpoint {ident[:12]}; see `weft endpoint ls`, then start the container again")
        return row

    def _is_joined(self, ident: str) -> bool:
        row = self._store.endpoint(ident)
        return row is not None and row.phase is Phase.READY and row.sandbox is not None

    def _check_bridge(self, network: Network, deadline: Deadline) -> None:
        """Plug into nobody else's bridge, and into one that is gone not before it is there again."""
        if network.backend == OVS and not network.gateways:
            return  # the host has no link in it
        bridge = self._host.link(network.link)
        if bridge is None:
            self._runtime.converge(scope_of(network.id), deadline)
        elif not network.adopted and bridge.group != LINK_GROUP:
            raise Conflict(
                f"network {network.id[:12]}: the link {network.link} is not weft's any longer, but somebody's "
                f"{bridge.kind}; remove it (`ip link del`), and weft makes its own again"
            )

    def _make_room(self, network: Network, dead: Sequence[EndpointRow], deadline: Deadline) -> None:
        """Refuse one container more than the bridge has ports; links that are only waiting to be deleted go first.

        Those of ``dead`` holders, which it takes the place of, do not count. Tunnels are ports, too.
        """
        if network.backend == OVS:
            return
        peers = self._store.peers.of(network.id, network.tunnel.version) if network.tunnel else ()
        most = BRIDGE_PORTS - ports(network, len(peers)) + len(dead)
        if self._store.attached(network.id) < most:
            return
        for row in self._store.endpoints(network.id):
            if row.phase is Phase.DELETING:
                self._runtime.converge(row.scope, deadline)
        if self._store.attached(network.id) >= most:
            raise Conflict(
                f"network {network.id[:12]} has {most} containers, as many as a Linux bridge has ports: stop "
                "some, put further ones on another network, or make the network with -o weft.backend=ovs, which has "
                "no such limit"
            )

    def _check_links_near(self, network: Network, request: EndpointRequest) -> None:
        """Refuse a link to another host's container: that host judges what reaches it, and does not know the link."""
        if network.icc or network.tunnel is None:
            return
        for address in dict.fromkeys(link.address for link in request.settings.links):
            if not self._store.holders(network.id, [ip_interface(address)]):
                raise InvalidRequest(
                    f"endpoint {request.id[:12]}: weft.link={address}: with enable_icc=false a link is between "
                    f"containers of one host, and none of network {network.id[:12]} has that address on this one; "
                    "start that one first, on this host, or leave enable_icc on"
                )

    def _linked_to(self, targets: Iterable[str]) -> Mapping[Scope, frozenset[Key]]:
        """Return who has a link to these endpoints, each with where its resources are before they go."""
        sources = (self._store.endpoint(source) for target in targets for source in self._store.links.to(target))
        scopes = {row.scope for row in sources if row}
        return {scope: self._runtime.keys(scope) for scope in scopes}

    def _close(self, linked: Mapping[Scope, frozenset[Key]], deadline: Deadline) -> None:
        """Close links whose target has gone, before its address can be somebody else's."""
        for scope, before in linked.items():
            self._runtime.converge(scope, deadline, also=before)

    @staticmethod
    def _decide(network: Network, request: EndpointRequest) -> Endpoint:
        """Return the endpoint with every choice made: its links and its MAC."""
        for address in (request.ipv4, request.ipv6):
            if address is None or not network.subnets:  # without subnets there is no IPAM: weft.ip says what it says
                continue
            if not any(address.ip in subnet.network for subnet in network.subnets):
                allowed = ", ".join(str(subnet.network) for subnet in network.subnets)
                raise InvalidRequest(
                    f"endpoint {request.id[:12]}: {address.ip} is not in network {network.id[:12]}; allowed: {allowed}"
                )
        whose = f"endpoint {request.id[:12]}"
        check_routes(request.settings.routes, network.subnets, whose)
        if not network.icc:
            _check_links(network, request, whose)
        return Endpoint(
            id=request.id,
            network=network.id,
            link=link_name("h", request.id),
            peer=link_name("c", request.id),
            mac=request.mac or endpoint_mac(network.identity, request.ipv4 or request.ipv6, request.id),
            ipv4=request.ipv4,
            ipv6=request.ipv6,
            allow=request.settings.allow or network.allow,
            links=request.settings.links,
        )

    def _dead_holders(self, endpoint: Endpoint) -> list[EndpointRow]:
        """Return who holds the endpoint's addresses and is dead; a live one is a conflict.

        A container that lives has the other end of its veth pair: an endpoint whose end lies in the host's namespace,
        or nowhere, was given up by Docker without a word (facts/docker-wire.md 6).
        """
        holders = self._store.holders(endpoint.network, endpoint.addresses)
        for holder in holders:
            if self._host.is_plugged(holder.endpoint.link):
                raise Conflict(
                    f"endpoint {endpoint.id[:12]}: {' '.join(str(one.ip) for one in endpoint.addresses)} is in use by "
                    f"endpoint {holder.id[:12]} of network {endpoint.network[:12]} ({holder.sandbox or 'running'}); "
                    "stop that container, or choose another --ip"
                )
        return holders

    def _withdraw(self, row: EndpointRow) -> None:
        """Take an endpoint back after a failure. What cannot be removed now is removed by the reconciler."""
        self._runtime.withdraw(row.scope, partial(self._store.withdraw_endpoints, [row.id]))

    @staticmethod
    def _tell(row: EndpointRow) -> None:
        endpoint = row.endpoint
        said = {"endpoint": row.id[:12], "network": endpoint.network[:12]}
        said["addresses"] = ",".join(str(address.ip) for address in endpoint.addresses) or "none"
        log.info("endpoint created", extra=said)


def _check_links(network: Network, request: EndpointRequest, whose: str) -> None:
    """Refuse a link that cannot be: what is between containers kept apart goes by the host, which judges it."""
    for link in request.settings.links:
        version = link.address.version
        said = f"{whose}: weft.link={link.address}"
        if not any(link.address in subnet.network for subnet in network.subnets):
            allowed = ", ".join(str(subnet.network) for subnet in network.subnets) or "none, without subnets"
            raise InvalidRequest(f"{said} is not in network {network.id[:12]}; allowed: an address in {allowed}")
        if (request.ipv4 if version == 4 else request.ipv6) is None:
            raise InvalidRequest(f"{said}: the container itself has no IPv{version} address to use it from")
        if not network.is_routed_by_host(version):
            raise InvalidRequest(
                f"{said}: with enable_icc=false a link goes by the host, which has no IPv{version} address on this "
                "network (isolated, inhibit_ipv4, or no gateway): give it one, or leave enable_icc on"
            )


def _is_bare_link(step: Step) -> bool:
    return step.new is None and step.rank is Rank.LINK
