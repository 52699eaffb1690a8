"""Pools and leases on disk: every address has one holder, and the next free one is found in one step.

Beside the leases their complement is kept, the *gaps*: runs of free addresses. To take an address cuts a gap, to give
one back closes one; both are a few rows, whatever the size of the pool (a /8 and an IPv6 /64 as well as a /24). Leases
and gaps change in one transaction, and together they are always the whole pool.
"""

from __future__ import annotations

import enum
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Final

from drivers.errors import Conflict
from drivers.model import Address, IPNetwork
from plugin.pools import PoolId, Span, address, packed, parse_id, unpacked
from plugin.store.database import Database


class Kind(enum.StrEnum):
    """What an address was asked for."""

    GATEWAY = "gateway"
    RESERVED = "reserved"
    """Asked for by name before weft had a network on the pool: an auxiliary address, or of another driver's network."""
    CONTAINER = "container"


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRow:
    """A pool. ``network`` is weft's own on it; ``made`` is in seconds since 1970; ``used`` counts its leases."""

    number: int
    id: PoolId
    network: str | None
    made: float
    used: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRow:
    """An address and what it was asked for. ``endpoint`` and ``link`` are of weft's endpoint that holds it now."""

    pool: int
    address: Address
    kind: Kind
    made: float
    endpoint: str | None = None
    link: str | None = None


class Full:
    """Every address of the pool is held."""


class Unknown:
    """There is no pool of that name."""


FULL: Final = Full()
UNKNOWN: Final = Unknown()

Taken = Address | LeaseRow | Full | Unknown
"""What came of asking for an address: it, or who holds it, or none is left."""

Choose = Callable[[Sequence[IPNetwork]], IPNetwork]
"""Picks a subnet that overlaps none of these, or raises."""


class Pools:
    """The pools of a store, their leases and gaps."""

    def __init__(self, database: Database) -> None:
        """Read and write ``database``."""
        self._db = database

    # -- pools ------------------------------------------------------------------------------------------------------

    def all(self) -> list[PoolRow]:
        """Return all pools, with the number of their leases."""
        rows = self._db.read(f"{_POOLS} ORDER BY version, first, space, name")
        return [_pool(row, row["used"]) for row in rows]

    def find(self, pool: str) -> PoolRow | None:
        """Return one pool by its id, with the number of its leases."""
        rows = self._db.read(f"{_POOLS} WHERE id = ?", pool)
        return _pool(rows[0], rows[0]["used"]) if rows else None

    def overlapping(self, wanted: PoolId) -> list[PoolRow]:
        """Return the pools of the same space and name that share an address with one."""
        return [_pool(row) for row in self._db.read(_OVERLAPPING, *_asked(wanted))]

    def add(self, wanted: PoolId, now: float, *, instead_of: Sequence[PoolRow] = ()) -> PoolRow:
        """Make a pool. ``instead_of`` are dead ones, which go with their leases. Raises :class:`Conflict`."""

        def work(db: sqlite3.Connection) -> PoolRow:
            db.executemany(
                "DELETE FROM pools WHERE number = ? AND made = ?", [(row.number, row.made) for row in instead_of]
            )
            if held := db.execute(_OVERLAPPING, _asked(wanted)).fetchone():
                raise Conflict(f"pool {wanted} overlaps pool {held['id']}, which was made at this moment")
            return _insert(db, wanted, now)

        return self._db.together(work)

    def add_free(self, space: str, name: str, now: float, choose: Choose) -> PoolRow:
        """Make a pool on a subnet that overlaps no other pool's and no network's of this store."""

        def work(db: sqlite3.Connection) -> PoolRow:
            held = [parse_id(row["id"]).subnet for row in db.execute("SELECT id FROM pools")]
            return _insert(db, PoolId(space, choose([*held, *_network_subnets(db)]), None, name), now)

        return self._db.together(work)

    def remove(self, pool: str, *, if_empty: bool = False) -> bool:
        """Remove a pool and all its leases; tell whether it was removed."""
        condition = " AND NOT EXISTS (SELECT 1 FROM leases WHERE pool = number)" if if_empty else ""

        def work(db: sqlite3.Connection) -> bool:
            return db.execute(f"DELETE FROM pools WHERE id = ?{condition}", (pool,)).rowcount > 0  # noqa: S608 - ours

        return self._db.together(work)

    def sweep(self, pool: PoolRow) -> bool:
        """Remove a pool that Docker forgot, unless it is another one by now; tell whether it was removed."""

        def work(db: sqlite3.Connection) -> bool:
            statement = "DELETE FROM pools WHERE number = ? AND made = ? AND network IS NULL"
            return db.execute(statement, (pool.number, pool.made)).rowcount > 0

        return self._db.together(work)

    # -- leases -----------------------------------------------------------------------------------------------------

    def take(self, pool: str, number: int | None, *, gateway: bool, now: float) -> Taken:
        """Lease an address, on disk when this returns; ``None``: the next free one.

        The next one is looked for behind the last one chosen, so one just given back is not handed out again at once.
        A gateway that is not named is the lowest free address. ``number`` must be usable.
        """

        def work(db: sqlite3.Connection) -> Taken:
            row = db.execute("SELECT * FROM pools WHERE id = ?", (pool,)).fetchone()
            if row is None:
                return UNKNOWN
            if gateway and number is None and (held := _gateway(db, row)):
                return held
            found = _choose(db, row, lowest=gateway) if number is None else number
            if found is None:
                return FULL
            raw = packed(row["version"], found)
            if not _carve(db, row["number"], row["version"], raw):
                return _lease(db, row, raw)
            kind = Kind.GATEWAY if gateway else Kind.CONTAINER
            if number is not None and not gateway and row["network"] is None:
                kind = Kind.RESERVED
            db.execute(
                "INSERT INTO leases (pool, address, kind, made) VALUES (?, ?, ?, ?)", (row["number"], raw, kind, now)
            )
            if number is None and not gateway:
                db.execute("UPDATE pools SET cursor = ? WHERE number = ?", (raw, row["number"]))
            return address(row["version"], found)

        return self._db.together(work)

    def take_over(self, dead: LeaseRow, *, now: float) -> bool:
        """Give a lease whose holder is dead to who asks; tell whether it was still that lease."""

        def work(db: sqlite3.Connection) -> bool:
            statement = "UPDATE leases SET made = ? WHERE pool = ? AND address = ? AND made = ?"
            return db.execute(statement, (now, dead.pool, dead.address.packed, dead.made)).rowcount > 0

        return self._db.together(work)

    def give_back(self, pool: str, released: Address) -> None:
        """End a lease, unless an endpoint of weft's holds the address: then it was somebody else's, long gone."""

        def work(db: sqlite3.Connection) -> None:
            row = db.execute("SELECT * FROM pools WHERE id = ? AND version = ?", (pool, released.version)).fetchone()
            if row is not None:
                _end(db, row, released.packed)

        self._db.together(work)

    def sweep_lease(self, lease: LeaseRow) -> bool:
        """End a lease that nobody holds, unless it is another one by now; tell whether it ended."""

        def work(db: sqlite3.Connection) -> bool:
            row = db.execute("SELECT * FROM pools WHERE number = ?", (lease.pool,)).fetchone()
            if row is None:
                return False
            held = db.execute(
                "SELECT made FROM leases WHERE pool = ? AND address = ?", (lease.pool, lease.address.packed)
            ).fetchone()
            return held is not None and held["made"] == lease.made and _end(db, row, lease.address.packed)

        return self._db.together(work)

    def leases(self, pool: PoolRow, *, unheld: bool = False, limit: int = -1) -> list[LeaseRow]:
        """Return the leases of a pool by address; ``unheld``: no gateways, and none that weft's endpoints hold."""
        condition = " AND e.id IS NULL AND l.kind <> 'gateway'" if unheld else ""
        rows = self._db.read(_LEASES[pool.id.version] + condition + " ORDER BY l.address LIMIT ?", pool.number, limit)
        return [_lease_row(row, pool.id.version) for row in rows]


_POOLS: Final = "SELECT *, (SELECT count(*) FROM leases WHERE pool = number) AS used FROM pools"

_OVERLAPPING: Final = (
    "SELECT * FROM pools WHERE space = ? AND name = ? AND version = ? AND first <= ? AND last >= ? ORDER BY first"
)

_LEASES: Final[Mapping[int, str]] = {
    version: (
        "SELECT l.*, e.id AS endpoint, e.link AS link FROM leases l JOIN pools p ON p.number = l.pool "  # noqa: S608 - ours
        "LEFT JOIN endpoints e ON e.network = p.network AND e.phase <> 'deleting' "
        f"AND e.ipv{version} IS NOT NULL AND e.ipv{version} = l.address WHERE l.pool = ?"
    )
    for version in (4, 6)
}


def link_pools(db: sqlite3.Connection, network: str, pools: Iterable[tuple[str, IPNetwork]]) -> None:
    """Note that pools, by space and subnet, are a network's: of several of that subnet it is the one made last."""
    for space, subnet in pools:
        db.execute(
            "UPDATE pools SET network = ? WHERE number = (SELECT number FROM pools WHERE space = ? AND version = ? "
            "AND first = ? AND last = ? AND network IS NULL ORDER BY made DESC, number DESC LIMIT 1)",
            (network, space, subnet.version, *_ends(subnet)),
        )


def _insert(db: sqlite3.Connection, wanted: PoolId, now: float) -> PoolRow:
    version, first, last = wanted.version, *_ends(wanted.subnet)
    number = db.execute(
        "INSERT INTO pools (id, space, name, version, first, last, made) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (str(wanted), wanted.space, wanted.name, version, first, last, now),
    ).lastrowid
    assert number is not None  # noqa: S101 - an INSERT has one
    _add_gap(db, number, version, wanted.usable)
    return PoolRow(number=number, id=wanted, network=None, made=now)


def _asked(wanted: PoolId) -> tuple[str, str, int, bytes, bytes]:
    """Return what ``_OVERLAPPING`` asks with."""
    first, last = _ends(wanted.subnet)
    return wanted.space, wanted.name, wanted.version, last, first


def _network_subnets(db: sqlite3.Connection) -> list[IPNetwork]:
    rows = db.execute("SELECT version, first, last FROM subnets").fetchall()
    return [
        ip_network(
            (row["first"], 8 * len(row["first"]) - (unpacked(row["first"]) ^ unpacked(row["last"])).bit_length())
        )
        for row in rows
    ]


def _choose(db: sqlite3.Connection, pool: sqlite3.Row, *, lowest: bool) -> int | None:
    """Return the next free address, or ``None``: from behind the cursor to the end, then from the beginning."""
    span = parse_id(pool["id"]).choice
    if span is None:
        return None
    behind = span.first if lowest or pool["cursor"] is None else unpacked(pool["cursor"]) + 1
    if behind not in span:
        behind = span.first
    found = _free_from(db, pool, behind)
    if found is None or found not in span:
        found = _free_from(db, pool, span.first)
    return found if found is not None and found in span else None


def _free_from(db: sqlite3.Connection, pool: sqlite3.Row, number: int) -> int | None:
    """Return the lowest free address that is not below ``number``."""
    raw = packed(pool["version"], number)
    around = _gap_below(db, pool["number"], raw)
    if around and around[1] >= raw:
        return number
    above = db.execute(
        "SELECT first FROM gaps WHERE pool = ? AND first > ? ORDER BY first LIMIT 1", (pool["number"], raw)
    ).fetchone()
    return unpacked(above["first"]) if above else None


def _gap_below(db: sqlite3.Connection, pool: int, raw: bytes) -> tuple[bytes, bytes] | None:
    """Return the gap that begins last of those that do not begin above an address."""
    row = db.execute(
        "SELECT first, last FROM gaps WHERE pool = ? AND first <= ? ORDER BY first DESC LIMIT 1", (pool, raw)
    ).fetchone()
    return (row["first"], row["last"]) if row else None


def _carve(db: sqlite3.Connection, pool: int, version: int, raw: bytes) -> bool:
    """Take an address out of its gap; tell whether it lay in one."""
    gap = _gap_below(db, pool, raw)
    if gap is None or gap[1] < raw:
        return False
    number, first, last = unpacked(raw), unpacked(gap[0]), unpacked(gap[1])
    db.execute("DELETE FROM gaps WHERE pool = ? AND first = ?", (pool, gap[0]))
    _add_gap(db, pool, version, Span(first, number - 1))
    _add_gap(db, pool, version, Span(number + 1, last))
    return True


def _end(db: sqlite3.Connection, pool: sqlite3.Row, raw: bytes) -> bool:
    """End a lease that no endpoint holds, and close the gap; tell whether it ended."""
    version, number = pool["version"], unpacked(raw)
    lease = db.execute(_LEASES[version] + " AND l.address = ?", (pool["number"], raw)).fetchone()
    if lease is None or lease["endpoint"] is not None:
        return False
    db.execute("DELETE FROM leases WHERE pool = ? AND address = ?", (pool["number"], raw))
    first = last = number
    below = _gap_below(db, pool["number"], raw)
    if below and unpacked(below[1]) == number - 1:
        first = unpacked(below[0])
    above = (
        _gap_below(db, pool["number"], packed(version, last + 1)) if last + 1 in parse_id(pool["id"]).usable else None
    )
    if above and unpacked(above[0]) == number + 1:
        last = unpacked(above[1])
        db.execute("DELETE FROM gaps WHERE pool = ? AND first = ?", (pool["number"], above[0]))
    if first != number:
        db.execute("DELETE FROM gaps WHERE pool = ? AND first = ?", (pool["number"], packed(version, first)))
    _add_gap(db, pool["number"], version, Span(first, last))
    return True


def _add_gap(db: sqlite3.Connection, pool: int, version: int, span: Span) -> None:
    if span.first <= span.last:
        db.execute(
            "INSERT INTO gaps (pool, first, last) VALUES (?, ?, ?)",
            (pool, packed(version, span.first), packed(version, span.last)),
        )


def _gateway(db: sqlite3.Connection, pool: sqlite3.Row) -> LeaseRow | None:
    statement = _LEASES[pool["version"]] + " AND l.kind = 'gateway' LIMIT 1"
    row = db.execute(statement, (pool["number"],)).fetchone()
    return _lease_row(row, pool["version"]) if row else None


def _lease(db: sqlite3.Connection, pool: sqlite3.Row, raw: bytes) -> LeaseRow:
    row = db.execute(_LEASES[pool["version"]] + " AND l.address = ?", (pool["number"], raw)).fetchone()
    return _lease_row(row, pool["version"])


def _lease_row(row: sqlite3.Row, version: int) -> LeaseRow:
    return LeaseRow(
        pool=row["pool"],
        address=address(version, unpacked(row["address"])),
        kind=Kind(row["kind"]),
        made=row["made"],
        endpoint=row["endpoint"],
        link=row["link"],
    )


def _pool(row: sqlite3.Row, used: int = 0) -> PoolRow:
    return PoolRow(number=row["number"], id=parse_id(row["id"]), network=row["network"], made=row["made"], used=used)


def _ends(subnet: IPNetwork) -> tuple[bytes, bytes]:
    return subnet.network_address.packed, subnet.broadcast_address.packed
