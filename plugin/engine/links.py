"""Docker's links on networks whose containers are kept apart: a private way from one container to another.

A driver is told of links by none of its calls (facts/docker-wire.md 4), and Docker's API cannot be asked inside one: it
waits for the start that waits for the call. So they are read afterwards, from a thread of its own, when Docker tells by
its events that a container got on a network. A link opens what the target exposes, by TCP, UDP or SCTP, to the
container that has the link, in each IP version that both have. It is kept in the store, so a restart of weft closes
nothing, and goes with either end: :mod:`plugin.engine.endpoints` closes it before the address can be another's.

Which of two containers starts first does not matter, nor with which address the target comes back: each look compares
the whole network. Without Docker's socket nothing is opened or closed here; ``weft.link`` says the same by address.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final, Protocol, get_args

from drivers.model import OpenPorts, Transport
from drivers.resources import Scope
from drivers.verdicts import united
from plugin.deadline import Deadline
from plugin.docker import DockerContainer, Events, Unreachable
from plugin.reconciler import Reconciler
from plugin.runtime import Runtime
from plugin.store import EndpointRow, NetworkRow, Phase, Store
from plugin.store.links import LinkRow

log = logging.getLogger(__name__)

_PATIENCE: Final = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # seconds until Docker's socket is tried again
_SHORT_ID: Final = 12
_TRANSPORTS: Final[Mapping[str, Transport]] = {one: one for one in get_args(Transport)}


class Docker(Protocol):
    """What is asked of Docker (:class:`plugin.docker.Docker`)."""

    def attached(self, network: str) -> dict[str, tuple[str, str]]:
        """Return the running containers on a network, by endpoint: each one's id and name."""
        ...

    def container(self, ident: str, endpoint: str) -> DockerContainer | None:
        """Return a container as the network of an endpoint has it."""
        ...

    def events(self) -> Events:
        """Return Docker's events from now on."""
        ...


@dataclass(frozen=True, slots=True)
class _Party:
    """An endpoint with its container."""

    row: EndpointRow
    name: str
    container: DockerContainer

    def is_called(self, target: str) -> bool:
        """Tell whether a link means this one: by name, alias or id, as Docker's DNS finds it."""
        by_id = len(target) >= _SHORT_ID and self.container.id.startswith(target)
        return target in {self.name, *self.container.aliases} or by_id


class Links:
    """Keeps the store, and so the host, at what Docker's links say. Idle until some network keeps containers apart."""

    def __init__(self, store: Store, runtime: Runtime, docker: Docker, *, interval: float) -> None:
        """Look at each network at every ``interval`` seconds, and whenever Docker tells of a container on it."""
        self._store = store
        self._runtime = runtime
        self._docker = docker
        self._looks = Reconciler(self._look, interval, name="links")
        self._listener = threading.Thread(target=self._listen, name="docker-events")
        self._wake = threading.Condition()
        self._needed = False
        self._stopping = False
        self._events: Events | None = None
        self._known: dict[str, DockerContainer] = {}  # by endpoint: it does not change while the endpoint is there
        self._again: set[Scope] = set()  # networks of which not all could be read

    # -- life -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the threads; they do nothing until they are needed."""
        self._needed = self._store.use().apart
        self._looks.start()
        self._listener.start()

    def stop(self) -> None:
        """Stop, and join the threads."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
            if self._events is not None:
                self._events.close()
        self._listener.join()
        self._looks.stop()

    def look_soon(self, network: str) -> None:
        """Look at a network as soon as the thread is free: a container has just joined it. Never waits."""
        row = self._store.network(network)
        if row is None or row.network.icc:
            return
        with self._wake:
            self._needed = True
            self._wake.notify_all()
        self._looks.dirty(row.scope)

    # -- when to look -----------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        failed = 0
        while self._wait(_PATIENCE[min(failed, len(_PATIENCE)) - 1] if failed else 0):
            try:
                with self._wake:
                    if self._stopping:
                        return
                    self._events = events = self._docker.events()
            except Unreachable as why:
                log.debug("Docker's events are not heard", extra={"why": str(why)})
                failed += 1
                continue
            failed = 0
            self._looks.dirty(None)  # what happened before is told by nobody
            for network in events:
                self._hear(network)
            failed = 1  # the engine has ended

    def _wait(self, seconds: float) -> bool:
        """Wait until there is need, and at least ``seconds``; tell whether to go on."""
        with self._wake:
            self._wake.wait_for(lambda: self._stopping or self._needed)
            if seconds:
                self._wake.wait_for(lambda: self._stopping, timeout=seconds)
            return not self._stopping

    def _hear(self, network: str | None) -> None:
        if network is None:  # a container has started: whatever kept Docker from answering is over
            for scope in tuple(self._again):
                self._looks.dirty(scope)
            return
        row = self._store.network(network)
        if row is not None and not row.network.icc:
            self._looks.dirty(row.scope)

    # -- a look -----------------------------------------------------------------------------------------------------

    def _look(self, scope: Scope | None) -> None:
        rows = [row for row in self._store.networks() if not row.network.icc and row.phase is Phase.READY]
        for row in rows:
            if scope in (None, row.scope):
                self._again.discard(row.scope)
                try:
                    self._look_at(row)
                except Unreachable as why:
                    self._again.add(row.scope)
                    log.debug("links were not read", extra={"network": row.id[:12], "why": str(why)})
        if scope is None:
            there = {one.id for row in rows for one in self._store.endpoints(row.id)}
            self._known = {ident: known for ident, known in self._known.items() if ident in there}

    def _look_at(self, network: NetworkRow) -> None:
        """Compare a network's links with what is open, and bring every endpoint that differs to what they say."""
        rows = {row.id: row for row in self._store.endpoints(network.id) if row.phase is Phase.READY}
        parties = []
        for endpoint, (ident, name) in self._docker.attached(network.id).items():
            if endpoint in rows and (container := self._container(ident, endpoint)) is not None:
                parties.append(_Party(rows[endpoint], name, container))
        for party in parties:
            wanted = frozenset(_links(network, party, parties))
            with self._runtime.holding(network.scope, Deadline()):
                if wanted != frozenset(self._store.links.rows(party.row.id)):
                    self._open(party, wanted)

    def _container(self, ident: str, endpoint: str) -> DockerContainer | None:
        if endpoint not in self._known:
            container = self._docker.container(ident, endpoint)
            if container is None:
                return None
            self._known[endpoint] = container
        return self._known[endpoint]

    def _open(self, party: _Party, wanted: AbstractSet[LinkRow]) -> None:
        scope = party.row.scope
        before = self._runtime.keys(scope)
        self._store.links.keep(party.row.id, wanted)
        self._runtime.converge(scope, Deadline(), also=before)
        shown = sorted(
            f"{one.ports.address} {one.ports.first}-{one.ports.last}/{one.ports.transport}" for one in wanted
        )
        said = ", ".join(shown) or "nothing"
        log.info("links", extra={"endpoint": party.row.id[:12], "container": party.name, "open": said})


def _links(network: NetworkRow, source: _Party, parties: list[_Party]) -> Iterator[LinkRow]:
    """Yield what the links of a container open: the exposed ports of each target, at each of its addresses."""
    for text in source.container.links:
        name = text.partition(":")[0].removeprefix("/")
        targets = [one for one in parties if one is not source and one.is_called(name)]
        for target in targets:
            yield from _ports(network, source, target)


def _ports(network: NetworkRow, source: _Party, target: _Party) -> Iterator[LinkRow]:
    speaks = {address.version for address in source.row.endpoint.addresses}
    for address in target.row.endpoint.addresses:
        if address.version not in speaks or not network.network.is_routed_by_host(address.version):
            continue  # what is between containers kept apart goes by the host
        ports = (
            OpenPorts(address=address.ip, transport=_TRANSPORTS[transport], first=port, last=port)
            for transport, port in target.container.exposed
            if transport in _TRANSPORTS
        )
        for run in united(ports):
            yield LinkRow(target=target.row.id, ports=run)
