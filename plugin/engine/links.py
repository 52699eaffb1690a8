"""Docker's links on networks whose containers are kept apart: a private way from one container to another.

A driver is told of links by none of its calls (facts/docker-wire.md 4), and Docker's API cannot be asked inside one: it
waits for the start that waits for the call. So they are read afterwards, from a thread of its own, when Docker tells by
its events that a container got on a network. A link opens what the target exposes, by TCP, UDP or SCTP, to the
container that has the link, in each IP version that both have. It is kept in the store, so a restart of weft closes
nothing, and goes with either end: :mod:`plugin.engine.endpoints` closes it before the address can be another's.

Which of two containers starts first does not matter, nor with which address the target comes back: for each container
that comes, its own links are looked at and those that name it. When weft or dockerd has started, everything is. Without
Docker's socket nothing is opened or closed here; ``weft.link`` says the same by address.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final, Protocol

from drivers.errors import WeftError
from drivers.model import OpenPorts
from drivers.verdicts import span, united
from plugin.deadline import Deadline
from plugin.docker import DockerContainer, Event, Events, Unreachable
from plugin.ports import TRANSPORTS
from plugin.runtime import Runtime
from plugin.store import EndpointRow, NetworkRow, Phase, Store
from plugin.store.links import LinkRow

log = logging.getLogger(__name__)

_PATIENCE: Final = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # seconds until Docker's socket is tried again
_SHORT_ID: Final = 12


class Docker(Protocol):
    """What is asked of Docker (:class:`plugin.docker.Docker`)."""

    def attached(self, network: str) -> list[str]:
        """Return the ids of the running containers on a network."""
        ...

    def container(self, ident: str, network: str) -> DockerContainer | None:
        """Return a container as a network has it."""
        ...

    def events(self) -> Events:
        """Return Docker's events from now on."""
        ...


@dataclass(frozen=True, slots=True)
class _Party:
    """An endpoint with its container."""

    row: EndpointRow
    container: DockerContainer

    def is_called(self, target: str) -> bool:
        """Tell whether a link means this one: by name, alias or id, as Docker's DNS finds it."""
        by_id = len(target) >= _SHORT_ID and self.container.id.startswith(target)
        return target in {self.container.name, *self.container.aliases} or by_id

    def targets(self) -> Iterator[str]:
        """Yield what its links name."""
        for text in self.container.links:
            yield text.partition(":")[0].removeprefix("/")


class Links:
    """Keeps the store, and so the host, at what Docker's links say. Idle until some network keeps containers apart."""

    def __init__(self, store: Store, runtime: Runtime, docker: Docker) -> None:
        """Open what links on the networks of ``store`` ask for."""
        self._store = store
        self._runtime = runtime
        self._docker = docker
        self._thread = threading.Thread(target=self._run, name="links")
        self._wake = threading.Condition()
        self._needed = False
        self._stopping = False
        self._events: Events | None = None
        self._parties: defaultdict[str, dict[str, _Party]] = defaultdict(dict)  # by network and container
        self._again: set[tuple[str, str]] = set()  # network and container: not read while it was being started

    # -- life -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread; it does nothing until it is needed."""
        self._needed = self._store.use().apart
        self._thread.start()

    def stop(self) -> None:
        """Stop, and join the thread."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
            if self._events is not None:
                self._events.close()
        self._thread.join()

    def joined(self, network: str) -> None:
        """Take note that a container has joined a network: from now on Docker may have to be listened to."""
        if self._needed:
            return
        row = self._store.network(network)
        if row is not None and not row.network.icc:
            with self._wake:
                self._needed = True
                self._wake.notify_all()

    def _run(self) -> None:
        failed = 0
        while self._wait(_PATIENCE[min(failed, len(_PATIENCE)) - 1] if failed else 0):
            try:
                with self._wake:
                    if self._stopping:
                        return
                    self._events = events = self._docker.events()
                self._look()  # what happened before is told by nobody
            except Unreachable as why:
                log.debug("links are not read", extra={"why": str(why)})
                failed += 1
                continue
            for event in events:
                self._hear(event)
            failed = 1  # the engine has ended

    def _wait(self, seconds: float) -> bool:
        """Wait until there is need, and at least ``seconds``; tell whether to go on."""
        with self._wake:
            self._wake.wait_for(lambda: self._stopping or self._needed)
            if seconds:
                self._wake.wait_for(lambda: self._stopping, timeout=seconds)
            return not self._stopping

    # -- what is looked at ------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Look at every network that keeps its containers apart. Raises :class:`Unreachable`."""
        self._parties.clear()
        self._again.clear()
        for network in self._store.networks():
            if network.network.icc or network.phase is not Phase.READY:
                continue
            for container in self._docker.attached(network.id):
                self._meet(network, container)
            self._bring(network, self._parties[network.id].values())

    def _hear(self, event: Event) -> None:
        """Look at one container: it came or went, or whatever kept Docker from answering about it is over."""
        if event.network is None:
            for network, container in [one for one in self._again if one[1] == event.container]:
                self._hear(Event(container, network))
            return
        if not event.on:
            there = self._parties[event.network]
            there.pop(event.container, None)
            if not there:  # most networks are none of weft's
                del self._parties[event.network]
            return
        row = self._store.network(event.network)
        if row is None or row.network.icc or row.phase is not Phase.READY:
            return
        party = self._meet(row, event.container)
        if party is not None:
            others = self._parties[row.id].values()
            naming = [one for one in others if one is not party and any(map(party.is_called, one.targets()))]
            self._bring(row, [party, *naming])

    def _meet(self, network: NetworkRow, ident: str) -> _Party | None:
        """Take note of a container on a network; ``None`` if it is not there (any more), or Docker does not answer."""
        self._again.discard((network.id, ident))
        try:
            container = self._docker.container(ident, network.id)
        except Unreachable as why:
            self._again.add((network.id, ident))
            log.debug("a container's links are not read yet", extra={"container": ident[:12], "why": str(why)})
            return None
        row = self._store.endpoint(container.endpoint) if container else None
        if container is None or row is None or row.phase is not Phase.READY:
            return None
        party = self._parties[network.id][ident] = _Party(row, container)
        return party

    # -- what follows -----------------------------------------------------------------------------------------------

    def _bring(self, network: NetworkRow, parties: Iterable[_Party]) -> None:
        """Bring every one of these that differs to what its links say."""
        for party in list(parties):
            wanted = frozenset(_links(network, party, self._parties[network.id].values()))
            try:
                with self._runtime.holding(network.scope, Deadline()):
                    if wanted != frozenset(self._store.links.rows(party.row.id)):
                        self._open(party, wanted)
            except (WeftError, ExceptionGroup):
                log.exception("a link could not be opened", extra={"endpoint": party.row.id[:12]})
                self._runtime.dirty(party.row.scope)

    def _open(self, party: _Party, wanted: AbstractSet[LinkRow]) -> None:
        scope = party.row.scope
        before = self._runtime.keys(scope)
        self._store.links.keep(party.row.id, wanted)
        self._runtime.converge(scope, Deadline(), also=before)
        opened = sorted(f"{row.ports.address} {span(row.ports)}/{row.ports.transport}" for row in wanted)
        said = {"container": party.container.name, "open": ",".join(opened) or "nothing"}
        log.info("links", extra={"endpoint": party.row.id[:12], **said})


def _links(network: NetworkRow, source: _Party, parties: Iterable[_Party]) -> Iterator[LinkRow]:
    """Yield what the links of a container open: the exposed ports of each target, at each of its addresses."""
    names = list(source.targets())
    if names:
        for target in parties:
            if target is not source and any(map(target.is_called, names)):
                yield from _ports(network, source, target)


def _ports(network: NetworkRow, source: _Party, target: _Party) -> Iterator[LinkRow]:
    speaks = {address.version for address in source.row.endpoint.addresses}
    for address in target.row.endpoint.addresses:
        if address.version not in speaks or not network.network.is_routed_by_host(address.version):
            continue  # what is between containers kept apart goes by the host
        ports = (
            OpenPorts(address=address.ip, transport=TRANSPORTS[transport], first=port, last=port)
            for transport, port in target.container.exposed
            if transport in TRANSPORTS
        )
        for run in united(ports):
            yield LinkRow(target=target.row.id, ports=run)
