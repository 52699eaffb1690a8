"""Publishing: which host ports an endpoint gets, and from when to when.

Docker publishes nothing for a remote driver. Between ProgramExternalConnectivity and RevokeExternalConnectivity weft
does: the ports are claimed in the store first, so two containers never race for one, then held and translated.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Protocol

from drivers.errors import Conflict, InvalidRequest, NotFound
from drivers.model import Endpoint, Network, Publication, Transport
from drivers.resources import RELAYED_AT_MOST, Key, scope_of
from plugin.deadline import Deadline
from plugin.engine.endpoints import Endpoints
from plugin.ports import opened, publication, shown, spelled, versions
from plugin.requests import PortRequest
from plugin.runtime import Runtime
from plugin.store import EndpointRow, Store
from plugin.store.ports import PortRow

log = logging.getLogger(__name__)

_TRIES: Final = 16
_PORTS_END: Final = 65536
_ANY: Final = {4: "0.0.0.0", 6: "::"}  # noqa: S104 - what Docker binds by default


class FreePorts(Protocol):
    """What is looked up on the host before a port is chosen."""

    def free_port(self, transport: Transport, addresses: Sequence[str], candidates: range | None) -> int:
        """Return a port that can be bound on all addresses now. Raises :class:`Conflict` if there is none."""
        ...

    def speaks6(self) -> bool:
        """Tell whether this host has IPv6 at all."""
        ...

    def is_plugged(self, link: str) -> bool:
        """Tell whether the other end of a veth pair is in another network namespace: a container has it."""
        ...


class Ports:
    """The use cases of published ports."""

    def __init__(self, store: Store, runtime: Runtime, host: FreePorts, endpoints: Endpoints) -> None:
        """Publish the ports of ``endpoints``."""
        self._store = store
        self._runtime = runtime
        self._host = host
        self._endpoints = endpoints

    def program(self, ident: str, deadline: Deadline) -> None:
        """Publish what an endpoint was made with. Doing it again is a success.

        What fails is withdrawn: Docker fails the start then, without a Revoke (facts/docker-wire.md 6).
        """
        with self._runtime.holding(self._endpoints.ready(ident).scope, deadline):
            row = self._endpoints.ready(ident)
            if row.external:
                return
            try:
                if row.ports:
                    self._claim(row, row.ports, deadline, live=False)
                self._store.set_external(row.id, external=True)
                if row.ports:
                    self._open(row, deadline, frozenset())
                    self._tell(row)
            except BaseException:
                self.revoke(ident, Deadline(None))
                raise

    def revoke(self, ident: str, deadline: Deadline) -> None:
        """Publish nothing of an endpoint any longer; comes without a Program too. Of the unknown, succeed."""
        row = self._store.endpoint(ident)
        if row is None:
            return
        with self._runtime.holding(row.scope, deadline):
            published = self._store.ports.rows(row.id)
            before = self._runtime.keys(row.scope) if published else frozenset()
            self._store.set_external(row.id, external=False)
            if published:
                self._close(row, before, published, deadline)
                self._store.ports.release(row.id)

    def add(self, short: str, request: PortRequest, deadline: Deadline) -> list[PortRow]:
        """Publish one more run on a running container; it stays published until the container stops."""
        row = self._store.find_endpoint(short)
        if not row.external:
            raise InvalidRequest(
                f"endpoint {row.id[:12]} is not its container's way out, so nothing is published on it; "
                "`weft endpoint inspect` shows which one is"
            )
        known, before = self._store.ports.rows(row.id), self._runtime.keys(row.scope)
        self._claim(row, [request], deadline, live=True)
        added = [one for one in self._store.ports.rows(row.id) if one not in known]
        try:
            self._open(row, deadline, before)
        except BaseException:
            self._let_go(row, added, Deadline(None))
            raise
        self._tell(row)
        return added

    def remove(self, short: str, request: PortRequest, deadline: Deadline) -> list[PortRow]:
        """Publish a run no longer, whoever published it."""
        row = self._store.find_endpoint(short)
        gone = [one for one in self._store.ports.rows(row.id) if _is(one.publication, request)]
        if not gone:
            raise NotFound(f"endpoint {row.id[:12]} does not publish {spelled(request)}; see `weft port ls`")
        self._let_go(row, gone, deadline)
        self._tell(row)
        return gone

    def _let_go(self, row: EndpointRow, gone: Sequence[PortRow], deadline: Deadline) -> None:
        before = self._runtime.keys(row.scope)
        self._store.ports.close(gone)
        self._close(row, before, gone, deadline)
        self._store.ports.release_closed(row.id)

    def _open(self, row: EndpointRow, deadline: Deadline, before: frozenset[Key]) -> None:
        """Bring the host to what is published now; the bridge first, which may have to route loopback from now on.

        ``before``: where it was until now, for a run of ports that another one joins is an element of another name.
        """
        if _serves_loopback(self._store.ports.rows(row.id)):
            self._runtime.converge(scope_of(row.endpoint.network), deadline)
        self._runtime.converge(row.scope, deadline, also=before)

    def _close(self, row: EndpointRow, before: frozenset[Key], gone: Sequence[PortRow], deadline: Deadline) -> None:
        """Bring the host to what is published now, when that is less; the bridge last."""
        self._runtime.converge(row.scope, deadline, also=before)
        if _serves_loopback(gone):
            self._runtime.converge(scope_of(row.endpoint.network), deadline)

    def _claim(self, row: EndpointRow, asked: Sequence[PortRequest], deadline: Deadline, *, live: bool) -> None:
        """Choose what is left to weft, claim all of it at once. A dead holder is withdrawn, a live one a conflict.

        Another way out of the same container is withdrawn, too: it has one at a time, and Docker gives the old one back
        before it takes away a new one to whose Program it got no answer (moby's sbJoin, 20.10 to 28).
        """
        owner = self._endpoints.network(row.endpoint.network)
        binding = owner.settings.host_binding
        bound = [replace(one, host=binding) if one.host is None else one for one in asked]
        for attempt in range(_TRIES):
            chosen: list[Publication] = []
            for request in sorted(bound, key=_is_fixed, reverse=True):
                chosen += self._choose(request, owner.network, row.endpoint, chosen)
            for holder in self._store.ports.holders(chosen) - {row.id}:
                self._make_way(holder, row, deadline)
            try:
                self._store.ports.claim(row.id, chosen, live=live)
            except Conflict:
                if attempt == _TRIES - 1 or all(map(_is_fixed, asked)):
                    raise
            else:
                return

    def _make_way(self, ident: str, row: EndpointRow, deadline: Deadline) -> None:
        """Withdraw what is published by a holder that is dead, or that is another way out of the same container."""
        holder = self._store.endpoint(ident)
        if holder and holder.sandbox is not None and holder.sandbox == row.sandbox:
            log.warning("way out moved without a word", extra={"endpoint": row.id[:12], "was": ident[:12]})
            self.revoke(ident, deadline)
        elif holder and not self._host.is_plugged(holder.endpoint.link):
            log.warning("dead endpoint holds a port: withdrawn", extra={"endpoint": ident[:12]})
            self.revoke(ident, deadline)  # its claims would stay as long as its link does
            self._endpoints.delete(ident, deadline)

    def _choose(
        self, request: PortRequest, network: Network, endpoint: Endpoint, beside: Sequence[Publication]
    ) -> list[Publication]:
        """Return what a run comes to; a host port that weft chooses is clear of ``beside`` and of every claim."""
        has = frozenset(address.version for address in endpoint.addresses)
        routed = frozenset(version for version in has if network.mode(version) == "routed")
        served = [
            version
            for version in versions(request, has=has, relay=network.relay, routed=routed)
            if version == 4 or self._host.speaks6()
        ]
        direct = [opened(request, version) for version in served if version in routed]
        return direct + self._translated(request, [version for version in served if version not in routed], beside)

    def _translated(
        self, request: PortRequest, served: Sequence[int], beside: Sequence[Publication]
    ) -> list[Publication]:
        """Return what is published on the host's ports, to clients of these IP versions."""
        if not served:
            return []
        if _is_fixed(request):
            return [publication(request, version, request.host_first) for version in served]
        addresses = [str(request.host) if request.host else _ANY[version] for version in served]
        candidates = range(request.host_first, request.host_last + 1) if request.host_first else None
        while True:
            first = self._host.free_port(request.transport, addresses, candidates)
            chosen = [publication(request, version, first) for version in served]
            if not self._store.ports.holders(chosen) and not any(_meet(one, two) for one in chosen for two in beside):
                return chosen
            candidates = range(first + 1, request.host_last + 1 if request.host_first else _PORTS_END)

    def _tell(self, row: EndpointRow) -> None:
        published = [one for one in self._store.ports.of(row.id) if one.opens]
        if published:
            said = ",".join(f"{shown(one)}/{one.transport}" for one in published)
            log.info("ports published", extra={"endpoint": row.id[:12], "ports": said})
        network = self._endpoints.network(row.endpoint.network).network
        for one in row.ports:
            if one.host and one.host.is_loopback and network.mode(one.host.version) == "routed":
                log.warning(
                    "bound to loopback on a routed network: open to nobody",
                    extra={
                        "endpoint": row.id[:12],
                        "port": spelled(one),
                        "why": "a routed network has no host ports; the host reaches the container at its own address",
                    },
                )
        if any(one.count > RELAYED_AT_MOST and one.host is None for one in row.ports):
            log.info(
                "long ranges are not relayed",
                extra={
                    "endpoint": row.id[:12],
                    "why": f"more than {RELAYED_AT_MOST} ports",
                    "unserved": "clients of [::1], and of the IP version that the container does not have",
                },
            )


def _is_fixed(request: PortRequest) -> bool:
    return bool(request.host_first) and request.host_last - request.host_first + 1 == request.count


def _serves_loopback(rows: Sequence[PortRow]) -> bool:
    """Tell whether clients of 127.0.0.0/8 are among those served: their packets leave by the bridge."""
    return any(row.publication.serves_loopback for row in rows)


def _meet(one: Publication, two: Publication) -> bool:
    """Tell whether two publications claim a host port of one another's."""
    return (
        (one.transport, one.version) == (two.transport, two.version)
        and (one.host is None or two.host in (None, one.host))
        and one.first <= two.last
        and two.first <= one.last
    )


def _is(one: Publication, request: PortRequest) -> bool:
    """Tell whether a publication is what a request names; host ports left out match any."""
    if one.routed:
        return opened(request, one.version) == one and (request.host is None or request.host.version == one.version)
    host = None if request.host is None or request.host.is_unspecified else request.host
    return (
        (one.transport, one.to, one.count, one.host)
        == (request.transport, request.container_first, request.count, host)
        and request.host_first in (0, one.first)
        and (request.host is None or request.host.version == one.version)
    )
