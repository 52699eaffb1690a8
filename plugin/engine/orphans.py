"""What Docker forgot: READY here, but not in Docker's own list. Swept when two looks some minutes apart agree.

What was there already when weft started waits for less: a call that is still under way for it comes within 15 s, or
never (facts/docker-wire.md 2). So what Docker deleted while a managed plugin was away is gone half a minute later.

Docker never tells of a deletion that happened while weft was down, nor of one whose dockerd was killed in the middle
(facts/docker-wire.md 2 and 6). Its own list is the only witness, so nothing is concluded unless it was read completely,
and nothing that a container has plugged in is ever swept, whatever the list says. Pools and leases likewise: an address
that weft's IPAM driver handed out and that no endpoint, no container and no network of Docker's has any longer.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable
from typing import Final, Protocol

from plugin.deadline import Deadline
from plugin.docker import DockerNetwork, Unreachable
from plugin.engine.addresses import Forgotten
from plugin.reconciler import Reconciler
from plugin.store import EndpointRow, NetworkRow, Phase, Store

log = logging.getLogger(__name__)

APART_SECONDS: Final = 180.0
AT_START_SECONDS: Final = 20.0  # longer than Docker repeats a call
DRIVER: Final = "weft"


class DockersList(Protocol):
    """Docker's own list (:class:`plugin.docker.Docker`)."""

    def networks(self, *, driver: str) -> list[DockerNetwork]:
        """Return the networks of a driver, with their running containers."""
        ...

    def bridges(self) -> frozenset[str]:
        """Return the bridges of Docker's own networks that have names of their own."""
        ...


class Leases(Protocol):
    """Pools and their leases (:class:`plugin.engine.addresses.Addresses`)."""

    def held(self) -> list[Forgotten]:
        """Return what may turn out to be forgotten."""
        ...

    def forgotten(self, held: Iterable[Forgotten], listed: Collection[DockerNetwork]) -> list[Forgotten]:
        """Return what of it is not in Docker's list."""
        ...

    def sweep(self, one: Forgotten) -> bool:
        """Give it back, unless somebody has it by now; tell whether it was given back."""
        ...


Row = NetworkRow | EndpointRow | Forgotten


class Orphans:
    """Looks at Docker's list from a thread of its own: at each interval, and soon after something looked wrong."""

    def __init__(
        self,
        store: Store,
        docker: DockersList,
        leases: Leases,
        *,
        delete_network: Callable[[str, Deadline], None],
        delete_endpoint: Callable[[str, Deadline], None],
        is_plugged: Callable[[str], bool],
        tell_bridges: Callable[[frozenset[str] | None], None],
        interval: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Delete, by the functions given, what two looks ``APART_SECONDS`` apart did not find.

        Of what was there at the start: ``AT_START_SECONDS``.
        """
        self._store = store
        self._docker = docker
        self._leases = leases
        self._delete_network = delete_network
        self._delete_endpoint = delete_endpoint
        self._is_plugged = is_plugged
        self._tell_bridges = tell_bridges
        self._clock = clock
        self._missing_since: dict[str, float] = {}
        self._at_start: frozenset[str] = frozenset()
        self._looks = Reconciler(lambda _: self.look(), interval, name="docker-look")

    def start(self) -> None:
        """Start looking. What there is now was promised by the weft before this one."""
        rows: list[Row] = [*self._store.networks(), *self._store.endpoints(), *self._leases.held()]
        self._at_start = frozenset(row.id for row in rows)
        self._looks.start()

    def stop(self) -> None:
        """Stop, and join the thread."""
        self._looks.stop()

    def look_soon(self) -> None:
        """Look as soon as the thread is free. Never waits."""
        self._looks.dirty(None)

    def look(self) -> None:
        """Compare the store with Docker's list once."""
        networks, endpoints, held = self._store.networks(), self._store.endpoints(), self._leases.held()
        try:
            bridges = self._docker.bridges()
            listed = self._docker.networks(driver=DRIVER)
        except Unreachable as why:
            log.debug("Docker's list was not read", extra={"why": str(why)})
            self._tell_bridges(None)
            if self._at_start:  # dockerd starts a plugin before it answers itself
                self._looks.within(AT_START_SECONDS)
            return
        self._tell_bridges(bridges)
        known = {one.id for one in listed}
        in_use = {endpoint for one in listed for endpoint in one.containers}
        missing: list[Row] = [row for row in networks if row.id not in known and row.phase is Phase.READY]
        missing += [row for row in endpoints if row.id not in in_use and row.phase is Phase.READY]
        self._judge([*missing, *self._leases.forgotten(held, listed)])

    def _judge(self, missing: list[Row]) -> None:
        now = self._clock()
        self._missing_since = {row.id: self._missing_since.get(row.id, now) for row in missing}
        for row in missing:
            apart = AT_START_SECONDS if row.id in self._at_start else APART_SECONDS
            if now - self._missing_since[row.id] >= apart and not self._lives(row):
                self._sweep(row)
        young = (ident for ident, since in self._missing_since.items() if now - since < AT_START_SECONDS)
        self._at_start &= frozenset(young)
        if self._at_start:
            self._looks.within(AT_START_SECONDS)

    def _lives(self, row: Row) -> bool:
        match row:
            case EndpointRow(endpoint=endpoint):
                return self._is_plugged(endpoint.link)
            case NetworkRow():
                return any(self._is_plugged(one.endpoint.link) for one in self._store.endpoints(row.id))
            case Forgotten():
                return False

    def _sweep(self, row: Row) -> None:
        what = row if isinstance(row, Forgotten) else row.scope
        log.warning(
            "swept what Docker forgot",
            extra={"what": str(what), "missing_seconds": round(self._clock() - self._missing_since[row.id])},
        )
        match row:
            case Forgotten():
                self._leases.sweep(row)
            case NetworkRow():
                self._delete_network(row.id, Deadline())
            case EndpointRow():
                self._delete_endpoint(row.id, Deadline())
