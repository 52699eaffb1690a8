"""The other hosts to which networks go on: those of every network with a tunnel, and those of one alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, Literal

from drivers.errors import Conflict
from drivers.model import Address, Peer
from drivers.ovs.model import PEERS
from plugin.store.database import Database
from plugin.store.numbers import free_number

MadeBy = Literal["setting", "option", "command", "docker"]
"""Who named a peer: WEFT_PEERS, weft.peers, ``weft peer add``, or Docker's discovery."""

_EVERY: Final = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerRow:
    """A peer of one network, or (``network`` None) of every one that has a tunnel of its IP version."""

    network: str | None
    address: Address
    made_by: MadeBy


class Peers:
    """The peers, in the database of the store."""

    def __init__(self, database: Database) -> None:
        """Read and write ``database``."""
        self._db = database

    def of(self, network: str, version: int) -> tuple[Address, ...]:
        """Return the peers of a network, of one IP version: its own and those of every network, each once, in order."""
        rows = self._db.read(
            "SELECT DISTINCT address FROM peers WHERE network IN (?, ?) AND version = ?", network, _EVERY, version
        )
        return tuple(sorted((ip_address(row["address"]) for row in rows), key=int))

    def numbered(self, network: str, version: int) -> tuple[Peer, ...]:
        """Return the same, each with its number."""
        rows = self._db.read(
            "SELECT DISTINCT address, number FROM peers JOIN peer_numbers USING (address) "
            "WHERE network IN (?, ?) AND version = ? ORDER BY number",
            network,
            _EVERY,
            version,
        )
        return tuple(Peer(address=ip_address(row["address"]), number=row["number"]) for row in rows)

    def rows(self) -> list[PeerRow]:
        """Return all of them, those of every network first."""
        return [_row(row) for row in self._db.read("SELECT * FROM peers ORDER BY network, version, address, made_by")]

    def add(self, network: str | None, address: Address, made_by: MadeBy) -> None:
        """Keep a peer; one that is kept already is as good."""
        with self._db.transaction(durable=True) as db:
            insert(db, network, (address,), made_by)

    def remove(self, network: str | None, address: Address, made_by: MadeBy | None = None) -> list[PeerRow]:
        """Forget a peer, whoever named it (or only where ``made_by`` did), and return what was forgotten."""
        with self._db.transaction(durable=True) as db:
            rows = db.execute(
                "DELETE FROM peers WHERE network = ? AND address = ? AND coalesce(?, made_by) = made_by RETURNING *",
                (network or _EVERY, str(address), made_by),
            ).fetchall()
        return [_row(row) for row in rows]

    def settle(self, addresses: Iterable[Address]) -> None:
        """Have these be the peers that the setting names; those that it named before keep their numbers."""
        named = tuple(addresses)
        with self._db.transaction(durable=True) as db:
            before = db.execute("SELECT address FROM peers WHERE made_by = 'setting'").fetchall()
            gone = {row["address"] for row in before} - set(map(str, named))
            db.executemany("DELETE FROM peers WHERE made_by = 'setting' AND address = ?", [(one,) for one in gone])
            insert(db, None, named, "setting")


def insert(db: sqlite3.Connection, network: str | None, addresses: Iterable[Address], made_by: MadeBy) -> None:
    """Keep peers, in a transaction under way. Raises :class:`Conflict` if there are too many."""
    addresses = tuple(addresses)
    for address in map(str, addresses):
        if not db.execute("SELECT 1 FROM peer_numbers WHERE address = ?", (address,)).fetchone():
            number = free_number(db, "SELECT number FROM peer_numbers", below=PEERS)
            if number >= PEERS:
                raise Conflict(f"{address} is one peer too many: weft has places for {PEERS - 1}; see `weft peer ls`")
            db.execute("INSERT INTO peer_numbers (address, number) VALUES (?, ?)", (address, number))
    db.executemany(
        "INSERT OR IGNORE INTO peers (network, address, version, made_by) VALUES (?, ?, ?, ?)",
        [(network or _EVERY, str(address), address.version, made_by) for address in addresses],
    )


def _row(row: sqlite3.Row) -> PeerRow:
    return PeerRow(network=row["network"] or None, address=ip_address(row["address"]), made_by=row["made_by"])
