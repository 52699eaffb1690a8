"""Claims on host ports: two that overlap are never both in the store. Found by an R-tree, whatever their number.

A routed publication has no host port: it is kept here, and claims nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from drivers.errors import Conflict
from drivers.model import Publication, Transport
from plugin.store.database import Database

_LANES: Final[dict[tuple[Transport, int], int]] = {
    ("tcp", 4): 1,
    ("tcp", 6): 2,
    ("udp", 4): 3,
    ("udp", 6): 4,
    ("sctp", 4): 5,
    ("sctp", 6): 6,
}
"""The other axis of the tree: ports of different transports or IP versions never meet."""

_ALL: Final = "SELECT * FROM ports WHERE NOT closing ORDER BY transport, first, version, host"
_OF_ENDPOINT: Final = "SELECT * FROM ports WHERE endpoint = ? AND NOT closing ORDER BY transport, first, version, host"
_OVERLAPPING: Final = (
    "SELECT endpoint, host FROM port_claims JOIN ports USING (id) "
    "WHERE port_claims.first <= ? AND port_claims.last >= ? AND lane_low <= ? AND lane_high >= ?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PortRow:
    """A publication and whose it is; ``live``: by `weft port add`, not by Docker."""

    id: int
    endpoint: str
    publication: Publication
    live: bool


class Ports:
    """The claims, in the database of the store."""

    def __init__(self, database: Database) -> None:
        """Read and write ``database``."""
        self._db = database

    def claim(self, endpoint: str, publications: Iterable[Publication], *, live: bool = False) -> None:
        """Claim host ports for an endpoint, all or none. Raises :class:`Conflict` naming the holder."""
        with self._db.transaction(durable=True) as db:
            for one in publications:
                _claim(db, endpoint, one, live=live)

    def release(self, endpoint: str) -> None:
        """Let go of an endpoint's claims."""
        with self._db.transaction(durable=False) as db:
            db.execute("DELETE FROM ports WHERE endpoint = ?", (endpoint,))

    def close(self, rows: Iterable[PortRow]) -> None:
        """Want publications no longer; the claims stay until they are let go of, when the host is free of them."""
        with self._db.transaction(durable=True) as db:
            db.executemany("UPDATE ports SET closing = 1 WHERE id = ?", [(row.id,) for row in rows])

    def release_closed(self, endpoint: str) -> None:
        """Let go of an endpoint's claims that are wanted no longer."""
        with self._db.transaction(durable=False) as db:
            db.execute("DELETE FROM ports WHERE endpoint = ? AND closing", (endpoint,))

    def release_idle(self) -> None:
        """Let go of claims that nobody wants: a crash came between closing and letting go."""
        with self._db.transaction(durable=False) as db:
            db.execute("DELETE FROM ports WHERE closing OR endpoint IN (SELECT id FROM endpoints WHERE NOT external)")

    def of(self, endpoint: str) -> tuple[Publication, ...]:
        """Return what an endpoint publishes, in a fixed order."""
        return tuple(row.publication for row in self.rows(endpoint))

    def rows(self, endpoint: str | None = None) -> list[PortRow]:
        """Return what an endpoint publishes, or what all do."""
        if endpoint is None:
            return [_row(row) for row in self._db.read(_ALL)]
        return [_row(row) for row in self._db.read(_OF_ENDPOINT, endpoint)]

    def holders(self, publications: Iterable[Publication]) -> set[str]:
        """Return the endpoints whose claims overlap."""
        return {holder for one in publications for holder in self._overlapping(one)}

    def _overlapping(self, one: Publication) -> list[str]:
        return [] if one.routed else _holders(self._db.read(_OVERLAPPING, *_overlap(one)), one)

    def to_loopback(self, network: str) -> bool:
        """Tell whether some endpoint of a network publishes a port that clients of 127.0.0.0/8 can use."""
        rows = self._db.read(
            "SELECT 1 FROM ports JOIN endpoints ON endpoints.id = endpoint "
            "WHERE ports.network = ? AND loopback AND NOT closing AND external AND phase <> 'deleting' LIMIT 1",
            network,
        )
        return bool(rows)


def _claim(db: sqlite3.Connection, endpoint: str, one: Publication, *, live: bool) -> None:
    for holder in () if one.routed else _holders(db.execute(_OVERLAPPING, _overlap(one)), one):
        raise Conflict(
            f"endpoint {endpoint[:12]}: host port {_span(one)}/{one.transport} is published by endpoint {holder[:12]}; "
            "see `weft port ls`, then choose another host port"
        )
    host = None if one.host is None else str(one.host)
    row = db.execute(
        "INSERT INTO ports (endpoint, network, transport, version, host, first, last, container_first, loopback, live, "
        "routed) SELECT id, network, ?, ?, ?, ?, ?, ?, ?, ?, ? FROM endpoints WHERE id = ?",
        (
            *(one.transport, one.version, host, one.first, one.last, one.to),
            *(one.serves_loopback, live, one.routed, endpoint),
        ),
    )
    if one.routed:
        return
    lane = _LANES[one.transport, one.version]
    db.execute("INSERT INTO port_claims VALUES (?, ?, ?, ?, ?)", (row.lastrowid, one.first, one.last, lane, lane))


def _row(row: sqlite3.Row) -> PortRow:
    publication = Publication(
        transport=row["transport"],
        version=row["version"],
        host=None if row["host"] is None else ip_address(row["host"]),
        first=row["first"],
        last=row["last"],
        to=row["container_first"],
        routed=bool(row["routed"]),
    )
    return PortRow(id=row["id"], endpoint=row["endpoint"], publication=publication, live=bool(row["live"]))


def _overlap(one: Publication) -> tuple[int, int, int, int]:
    lane = _LANES[one.transport, one.version]
    return one.last, one.first, lane, lane


def _holders(rows: Iterable[sqlite3.Row], one: Publication) -> list[str]:
    """Return whose claims overlap in the address too; a claim without an address overlaps those with one."""
    host = None if one.host is None else str(one.host)
    return [str(row["endpoint"]) for row in rows if host is None or row["host"] in (None, host)]


def _span(one: Publication) -> str:
    return f"{one.first}-{one.last}" if one.count > 1 else f"{one.first}"
