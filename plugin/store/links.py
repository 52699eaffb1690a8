"""What Docker's links open: kept, so that a restart closes nothing, and gone with either end."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from drivers.model import OpenPorts
from plugin.store.database import Database

_OF_LIVING: Final = (
    "SELECT links.* FROM links JOIN endpoints ON endpoints.id = target "
    "WHERE endpoint = ? AND endpoints.phase <> 'deleting' ORDER BY address, transport, first"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkRow:
    """Ports of an endpoint, ``target``, that are open to another one."""

    target: str
    ports: OpenPorts


class Links:
    """The links, in the database of the store."""

    def __init__(self, database: Database) -> None:
        """Read and write ``database``."""
        self._db = database

    def of(self, endpoint: str) -> tuple[OpenPorts, ...]:
        """Return what is open to an endpoint, of targets that are not being deleted."""
        return tuple(row.ports for row in self.rows(endpoint))

    def rows(self, endpoint: str) -> list[LinkRow]:
        """Return the links of an endpoint to targets that are not being deleted, in a fixed order."""
        return [_row(row) for row in self._db.read(_OF_LIVING, endpoint)]

    def to(self, target: str) -> list[str]:
        """Return the endpoints that have a link to ``target``."""
        rows = self._db.read("SELECT DISTINCT endpoint FROM links WHERE target = ? ORDER BY endpoint", target)
        return [str(row["endpoint"]) for row in rows]

    def keep(self, endpoint: str, links: Iterable[LinkRow]) -> None:
        """Have these be the links of an endpoint, those left out whose end is gone by now."""
        with self._db.transaction(durable=False) as db:
            db.execute("DELETE FROM links WHERE endpoint = ?", (endpoint,))
            for link in links:
                _insert(db, endpoint, link)


def _insert(db: sqlite3.Connection, endpoint: str, link: LinkRow) -> None:
    ports = link.ports
    db.execute(
        "INSERT OR IGNORE INTO links (endpoint, target, address, transport, first, last) SELECT ?, id, ?, ?, ?, ? "
        "FROM endpoints WHERE id = ? AND EXISTS (SELECT 1 FROM endpoints WHERE id = ?)",
        (endpoint, str(ports.address), ports.transport, ports.first, ports.last, link.target, endpoint),
    )


def _row(row: sqlite3.Row) -> LinkRow:
    ports = OpenPorts(
        address=ip_address(row["address"]), transport=row["transport"], first=row["first"], last=row["last"]
    )
    return LinkRow(target=row["target"], ports=ports)
