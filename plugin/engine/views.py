"""What the commands show, as plain data: the store's rows, what differs on the host, and Docker's names where known."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Protocol

import plugin
from plugin.deadline import Deadline
from plugin.docker import DockerNetwork, Unreachable
from plugin.engine.orphans import DRIVER, DockersList
from plugin.runtime import Finding, Runtime
from plugin.store import EndpointRow, NetworkRow, Store

View = dict[str, Any]


class HostNotes(Protocol):
    """What is told of the host beside what differs."""

    def calls(self) -> Mapping[str, int]:
        """Return the operations of each backend since the start."""
        ...

    def forwarding4(self) -> bool:
        """Tell whether the host forwards IPv4."""
        ...


class Views:
    """The readers behind the commands. They change nothing, but for :meth:`reconcile`."""

    def __init__(self, store: Store, runtime: Runtime, docker: DockersList, host: HostNotes) -> None:
        """Show what is in the store and on the host."""
        self._store = store
        self._runtime = runtime
        self._docker = docker
        self._host = host

    def status(self) -> View:
        """Return the health of weft: ``healthy`` is False when the host differs from what is wanted."""
        findings = self._runtime.findings()
        networks, endpoints = self._store.networks(), self._store.endpoints()
        routed = any(row.network.speaks(4) and not row.network.internal for row in networks)
        notes = []
        if routed and not self._host.forwarding4():
            notes.append("IPv4 forwarding is off: networks have no way out; `sysctl -w net.ipv4.ip_forward=1`")
        return {
            "version": plugin.__version__,
            "pid": os.getpid(),
            "healthy": not findings,
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
        """Return one endpoint. Raises NotFound."""
        row = self._store.find_endpoint(short)
        return _endpoint(row, self._names().get(row.endpoint.network))

    def reconcile(self, *, dry_run: bool) -> list[View]:
        """Bring the host to what is wanted, or only say what that would take."""
        findings = self._runtime.findings() if dry_run else self._runtime.reconcile(Deadline())
        return [_finding(finding) for finding in findings]

    def _names(self) -> dict[str, DockerNetwork]:
        try:
            return {one.id: one for one in self._docker.networks(driver=DRIVER)}
        except Unreachable:
            return {}


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
        "masquerade": network.masquerade,
        "endpoints": endpoints,
    }


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
