"""What the commands show, as plain data: the store's rows, what differs on the host, and Docker's names where known."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import plugin
from drivers.clashes import Clash
from drivers.errors import Conflict, InvalidRequest, NotFound
from drivers.facts import RouteInfo
from drivers.model import Address, Network
from drivers.obstacles import Obstacle
from drivers.ovsdb import Health
from drivers.verdicts import span, united
from plugin.deadline import Deadline
from plugin.docker import DockerNetwork, Unreachable
from plugin.engine.orphans import DRIVER, DockersList
from plugin.engine.peers import Peers
from plugin.engine.ports import Ports
from plugin.looks import Finding
from plugin.option_text import peer as peer_of
from plugin.ports import parse, shown
from plugin.runtime import Runtime
from plugin.store import EndpointRow, LeaseRow, NetworkRow, PoolRow, Store
from plugin.store.peers import PeerRow
from plugin.store.ports import PortRow

View = dict[str, Any]

_SHORT_ID: Final = 4  # characters of an id that a command must at least be given


OTHER_STORE: Final = (
    "if the store was lost, stop weft and put a copy back (`weft store restore FILE`); if nobody needs what it made, "
    "`weft uninstall --store ID` removes it"
)
"""What to do about links of a store that is not this one."""


class HostNotes(Protocol):
    """What is told of the host beside what differs."""

    def calls(self) -> Mapping[str, int]:
        """Return the operations of each backend since the start."""
        ...

    def forwarding4(self) -> bool:
        """Tell whether the host forwards IPv4."""
        ...

    def obstacles(self, networks: Iterable[Network]) -> list[tuple[Network, Obstacle]]:
        """Return what stops packets of networks, with what to type about it."""

    def ovs_health(self) -> Health:
        """Return how Open vSwitch is doing."""
        ...

    def other_stores(self) -> Mapping[str, int]:
        """Return the stores that have links on this host and are not this one, with how many they have."""
        ...

    def clashes(self) -> tuple[Clash, ...]:
        """Return what of containers' MACs and addresses came out of a tunnel."""
        ...

    def route_to(self, address: Address) -> RouteInfo | None:
        """Return how packets for an address leave now, or ``None`` if there is no way there."""
        ...


class Views:
    """What the commands ask for. Only ``reconcile`` and what adds or removes something change anything."""

    def __init__(
        self, store: Store, runtime: Runtime, ports: Ports, docker: DockersList, host: HostNotes, *, peers: Peers
    ) -> None:
        """Show what is in the store and on the host."""
        self._store = store
        self._runtime = runtime
        self._ports = ports
        self._peers = peers
        self._docker = docker
        self._host = host

    def status(self) -> View:
        """Return the health of weft: ``healthy`` is False when the host differs from what is wanted."""
        findings = self._runtime.findings()
        networks, endpoints = self._store.networks(), self._store.endpoints()
        routed = any(row.network.is_forwarded(4) for row in networks)
        notes = []
        if routed and not self._host.forwarding4():
            notes.append("IPv4 forwarding is off: networks have no way out; `sysctl -w net.ipv4.ip_forward=1`")
        in_the_way = self._host.obstacles(row.network for row in networks)
        notes += [f"network {network.id[:12]}: {one.what}; `{one.fix}`" for network, one in in_the_way]
        if self._store.use().ovs:
            notes += _ovs_notes(self._host.ovs_health())
        notes += [
            f"{links} links are another store's ({other}, this is {self._store.id}), and left alone: {OTHER_STORE}"
            for other, links in self._host.other_stores().items()
        ]
        if any(row.network.tunnel for row in networks):
            notes += [_clash(clash) for clash in self._host.clashes()]
        return {
            "version": plugin.__version__,
            "pid": os.getpid(),
            "healthy": not findings and not self._store.trouble,
            "trouble": self._store.trouble,
            "store": self._store.id,
            "networks": len(networks),
            "endpoints": len(endpoints),
            "differs": [_finding(finding) for finding in findings],
            "host_settings": self._store.host_settings(),
            "notes": notes,
            "operations": {**self._host.calls(), "store": self._store.commits},
        }

    def networks(self) -> list[View]:
        """Return all networks."""
        names = self._names()
        counts: dict[str, int] = {}
        for row in self._store.endpoints():
            counts[row.endpoint.network] = counts.get(row.endpoint.network, 0) + 1
        return [_network(row, names.get(row.id), counts.get(row.id, 0)) for row in self._store.networks()]

    def network(self, short: str) -> View:
        """Return one network and its endpoints. Raises NotFound."""
        row = self._store.find_network(short)
        docker = self._names().get(row.id)
        endpoints = [_endpoint(one, docker) for one in self._store.endpoints(row.id)]
        return {**_network(row, docker, len(endpoints)), "on": endpoints}

    def endpoints(self) -> list[View]:
        """Return all endpoints."""
        names = self._names()
        return [_endpoint(row, names.get(row.endpoint.network)) for row in self._store.endpoints()]

    def endpoint(self, short: str) -> View:
        """Return one endpoint, with what is open to it by links. Raises NotFound."""
        row = self._store.find_endpoint(short)
        links = united((*row.endpoint.links, *self._store.links.of(row.id)))
        shown = [f"{one.address} {span(one)}/{one.transport}" for one in links]
        return {**_endpoint(row, self._names().get(row.endpoint.network)), "links": shown}

    def pools(self) -> list[View]:
        """Return all pools, and how full they are."""
        names = self._names()
        return [_pool(row, _on(row, names)) for row in self._store.pools.all()]

    def pool(self, which: str) -> View:
        """Return one pool and who holds its addresses. Raises NotFound, or Conflict if several are meant."""
        row = self._find_pool(which)
        docker = _on(row, self._names())
        held = [_lease(lease, docker) for lease in self._store.pools.leases(row)]
        return {**_pool(row, docker), "held": held}

    def _find_pool(self, which: str) -> PoolRow:
        """Return the pool of that id, subnet or name, or of the network whose id begins so."""
        rows = self._store.pools.all()
        for found in (
            [row for row in rows if which == str(row.id)],
            [row for row in rows if which in {str(row.id.subnet), row.id.name}],
            [row for row in rows if len(which) >= _SHORT_ID and (row.network or "").startswith(which)],
        ):
            if len(found) > 1:
                ids = ", ".join(str(row.id) for row in found)
                raise Conflict(f"several pools are called {which}: {ids}; give the whole id")
            if found:
                return found[0]
        raise NotFound(f"weft has no pool {which}: give its id, subnet, name or network; see `weft pool ls`")

    def ports(self) -> list[View]:
        """Return all published ports: Docker shows none of a remote driver's (all engines)."""
        names = self._names()
        return [self._port(row, names) for row in self._store.ports.rows() if row.publication.opens]

    def add_port(self, which: str, text: str) -> list[View]:
        """Publish a run of ports on a running container. Raises InvalidRequest, NotFound or Conflict."""
        names = self._names()
        added = self._ports.add(self._endpoint_id(which, names), parse(text), Deadline())
        return [self._port(row, names) for row in added]

    def remove_port(self, which: str, text: str) -> list[View]:
        """Publish a run of ports no longer. Raises InvalidRequest or NotFound."""
        names = self._names()
        removed = self._ports.remove(self._endpoint_id(which, names), parse(text), Deadline())
        return [self._port(row, names) for row in removed]

    def peers(self) -> list[View]:
        """Return the other hosts to which networks go on."""
        names = self._names()
        return [self._peer(row, names) for row in self._store.peers.rows()]

    def add_peer(self, peer: str, network: str) -> list[View]:
        """Let the networks, or one, go on at another host. Raises InvalidRequest or NotFound."""
        names = self._names()
        address = _peer_address(peer)
        route = self._host.route_to(address)
        if route is not None and route.own:
            raise InvalidRequest(f"{peer} is this host's own address: name the other hosts")
        return [self._peer(self._peers.add(self._network_id(network, names), address, Deadline()), names)]

    def remove_peer(self, peer: str, network: str) -> list[View]:
        """Let them go on there no longer. Raises InvalidRequest or NotFound."""
        names = self._names()
        gone = self._peers.remove(self._network_id(network, names), _peer_address(peer), Deadline())
        return [self._peer(row, names) for row in gone]

    def _peer(self, row: PeerRow, names: Mapping[str, DockerNetwork]) -> View:
        docker, route = names.get(row.network or ""), self._host.route_to(row.address)
        return {
            "peer": str(row.address),
            "network": row.network,
            "network_name": docker.name if docker else None,
            "by": row.made_by,
            "link": route.link if route and not route.own else None,
            "mtu": route.mtu if route and not route.own else None,
            "own": bool(route and route.own),
        }

    def _network_id(self, which: str, names: Mapping[str, DockerNetwork]) -> str | None:
        """Return the network of that name, or whose id begins so; ``None`` for an empty text: every network."""
        if not which:
            return None
        named = [ident for ident, docker in names.items() if docker.name == which and self._store.network(ident)]
        return named[0] if len(named) == 1 else self._store.find_network(which).id

    def _port(self, row: PortRow, names: Mapping[str, DockerNetwork]) -> View:
        endpoint = self._store.endpoint(row.endpoint)
        docker = names.get(endpoint.endpoint.network) if endpoint else None
        one = row.publication
        last = one.to + one.count - 1
        return {
            "endpoint": row.endpoint,
            "container": docker.containers.get(row.endpoint) if docker else None,
            "network_name": docker.name if docker else None,
            "host": shown(one if not one.routed else replace(one, host=_own(endpoint, one.version))),
            "routed": one.routed,
            "container_ports": f"{one.to}-{last}" if one.count > 1 else f"{one.to}",
            "transport": one.transport,
            "by": "command" if row.live else "docker",
        }

    def _endpoint_id(self, which: str, names: Mapping[str, DockerNetwork]) -> str:
        """Return the endpoint of that id, or the one that is the way out of the container of that name."""
        named = [
            row.id
            for row in self._store.endpoints()
            if row.external and (docker := names.get(row.endpoint.network)) and docker.containers.get(row.id) == which
        ]
        return named[0] if named else self._store.find_endpoint(which).id

    def reconcile(self, *, dry_run: bool) -> list[View]:
        """Bring the host to what is wanted, or only say what that would take."""
        findings = self._runtime.findings() if dry_run else self._runtime.reconcile(Deadline())
        return [_finding(finding) for finding in findings]

    def _names(self) -> dict[str, DockerNetwork]:
        try:
            return {one.id: one for one in self._docker.networks(driver=DRIVER)}
        except Unreachable:
            return {}


def _ovs_notes(health: Health) -> list[str]:
    """Say what is wrong with Open vSwitch, on which networks are."""
    if not health.connected:
        return [f"Open vSwitch does not answer at {health.remote} ({health.why}): networks on it may not forward"]
    if health.vswitchd is False:
        return ["ovs-vswitchd does not run: networks on Open vSwitch do not forward; systemctl status ovs-vswitchd"]
    if health.cur_cfg < health.next_cfg:
        return [f"ovs-vswitchd is behind: told {health.next_cfg} changes, has made {health.cur_cfg}"]
    return []


def _finding(finding: Finding) -> View:
    return {
        "scope": str(finding.scope),
        "steps": [str(step) for step in finding.steps],
        "problems": list(finding.problems),
    }


def _network(row: NetworkRow, docker: DockerNetwork | None, endpoints: int) -> View:
    network = row.network
    return {
        "id": network.id,
        "name": docker.name if docker else None,
        "phase": str(row.phase),
        "backend": network.backend,
        "link": network.link,
        "adopted": network.adopted,
        "subnets": [
            {"subnet": str(one.network), "gateway": str(one.gateway.ip) if one.gateway else None}
            for one in network.subnets
        ],
        "mtu": network.mtu,
        "internal": network.internal,
        "gateway_modes": {f"ipv{version}": network.mode(version) for version in (4, 6) if network.speaks(version)},
        "icc": network.icc,
        "trusted": list(network.trusted),
        "masquerade": network.masquerade,
        "tunnel": _tunnel(network),
        "endpoints": endpoints,
    }


def _tunnel(network: Network) -> View | None:
    tunnel = network.tunnel
    if tunnel is None:
        return None
    local = str(tunnel.local) if tunnel.local else None
    return {"kind": tunnel.kind, "vni": tunnel.vni, "port": tunnel.port or None, "local": local}


def _clash(clash: Clash) -> str:
    return (
        f"{clash.scope}: its {clash.what} was also seen on another host: stop one of the two containers, or give it "
        "another --ip (or --mac-address)"
    )


def _peer_address(text: str) -> Address:
    try:
        return peer_of(text)
    except ValueError:
        raise InvalidRequest(
            f"{text!r} cannot be a peer: allowed is the IPv4 or IPv6 address of another host, not one local to a link"
        ) from None


def _endpoint(row: EndpointRow, docker: DockerNetwork | None) -> View:
    endpoint = row.endpoint
    return {
        "id": endpoint.id,
        "network": endpoint.network,
        "network_name": docker.name if docker else None,
        "container": docker.containers.get(endpoint.id) if docker else None,
        "phase": str(row.phase),
        "link": endpoint.link,
        "mac": endpoint.mac,
        "ipv4": str(endpoint.ipv4.ip) if endpoint.ipv4 else None,
        "ipv6": str(endpoint.ipv6.ip) if endpoint.ipv6 else None,
        "sandbox": row.sandbox,
        "way_out": row.external,
    }


def _own(row: EndpointRow | None, version: int) -> Address | None:
    """Return an endpoint's own address."""
    addresses = row.endpoint.addresses if row else ()
    return next((one.ip for one in addresses if one.version == version), None)


def _on(row: PoolRow, networks: Mapping[str, DockerNetwork]) -> DockerNetwork | None:
    """Return the network on a pool: weft's own, or another driver's that Docker lists with this subnet."""
    if row.network is not None:
        return networks.get(row.network)
    listed = (one for one in networks.values() if row.id.subnet in one.subnets and one.pool == row.id.name)
    return next(listed, None)


def _pool(row: PoolRow, docker: DockerNetwork | None) -> View:
    size = row.id.usable.size
    return {
        "id": str(row.id),
        "subnet": str(row.id.subnet),
        "range": str(row.id.within) if row.id.within else None,
        "name": row.id.name or None,
        "space": row.id.space,
        "network": row.network or (docker.id if docker else None),
        "network_name": docker.name if docker else None,
        "driver": docker.driver if docker else None,
        "used": row.used,
        "size": size,
        "percent": round(100 * row.used / size, 1),
    }


def _lease(lease: LeaseRow, docker: DockerNetwork | None) -> View:
    said = docker.addresses.get(lease.address) if docker else None
    name = docker.containers.get(lease.endpoint) if docker and lease.endpoint else said
    return {
        "address": str(lease.address),
        "kind": str(lease.kind),
        "endpoint": lease.endpoint,
        "name": name if name != "gateway" else None,
        "since": datetime.fromtimestamp(lease.made, UTC).isoformat(timespec="seconds"),
    }
