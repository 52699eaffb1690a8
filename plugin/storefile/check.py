"""Whether a file is a store of weft's, and sound: as SQLite sees it, by its version, and by what refers to what.

What rows mean beyond that only the server's models know: who has them passes ``decode``.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from drivers.errors import NotFound, Refusing
from plugin.pools import parse_id
from plugin.storefile.trouble import unreadable

SCHEMA: Final = 7
"""The version that this weft writes: the number of migrations."""

Decode = Callable[[sqlite3.Row], object]
"""Raises ValueError for a row that is none."""

_IDENTITY: Final = re.compile(r"[0-9a-f]{8}")
_TABLES: Final = frozenset({"meta", "networks", "endpoints", "host_settings"})  # of every version
_SHOWN: Final = 20

_LAWS: Final = (
    ("networks", "its id is not the one in its intent", "json_extract(intent, '$[0].id') IS NOT id"),
    ("networks", "its bridge is not the one in its intent", "json_extract(intent, '$[0].link') IS NOT link"),
    (
        "networks",
        "its count of endpoints is wrong",
        "attached <> (SELECT count(*) FROM endpoints WHERE network = networks.id)",
    ),
    ("endpoints", "its id is not the one in its intent", "json_extract(intent, '$[0].id') IS NOT id"),
    ("endpoints", "its network is not the one in its intent", "json_extract(intent, '$[0].network') IS NOT network"),
    ("endpoints", "its link is not the one in its intent", "json_extract(intent, '$[0].link') IS NOT link"),
    (
        "ports",
        "it is not on its endpoint's network",
        "network <> (SELECT network FROM endpoints WHERE id = ports.endpoint)",
    ),
    ("ports", "it claims no host port", "NOT routed AND id NOT IN (SELECT id FROM port_claims)"),
    ("port_claims", "nobody publishes it", "id NOT IN (SELECT id FROM ports)"),
    ("peers", "its network is not there", "network <> '' AND network NOT IN (SELECT id FROM networks)"),
    (
        "leases",
        "it is not in its pool",
        "NOT EXISTS (SELECT 1 FROM pools WHERE number = pool AND address BETWEEN first AND last)",
    ),
    (
        "leases",
        "its address counts as free",
        "EXISTS (SELECT 1 FROM gaps WHERE gaps.pool = leases.pool AND address BETWEEN first AND last)",
    ),
)
"""Table, what is wrong with a row of it, and which rows that is."""

_ADDRESSES: Final = (("peers", "address"), ("links", "address"), ("ports", "host"))


@dataclass(frozen=True, slots=True)
class Examined:
    """What a file is: whose, of which version, how much is in it, and what is wrong with it."""

    store: str
    schema: int
    networks: int
    endpoints: int
    problems: tuple[str, ...] = ()


def opened(path: Path) -> sqlite3.Connection:
    """Open a file to read, changing nothing. Raises :class:`NotFound`, or :class:`Refusing` if SQLite cannot."""
    if not path.is_file():
        raise NotFound(f"there is no file {path}: WEFT_STATE_DIR or --state-dir says where the state is")
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10, isolation_level=None)
    except sqlite3.Error as error:
        raise unreadable(path, error) from error
    connection.row_factory = sqlite3.Row
    return connection


def examine(path: Path, decode: dict[str, Decode] | None = None) -> Examined:
    """Examine a file; ``decode`` by table.

    Raises :class:`NotFound` if there is none, :class:`Refusing` if it is no store of weft's, or a newer weft's.
    """
    with closing(opened(path)) as store:
        try:
            return _examine(store, path, decode or {})
        except sqlite3.Error as error:
            raise unreadable(path, error) from error


def _examine(store: sqlite3.Connection, path: Path, decode: dict[str, Decode]) -> Examined:
    ident, schema = _identity(store, path)
    problems = [f"SQLite: {row[0]}" for row in store.execute(f"PRAGMA integrity_check({_SHOWN})") if row[0] != "ok"]
    if not problems:  # what lies in a damaged page says nothing
        problems += [f"{row['table']}: a row refers to {row['parent']}, where nothing is" for row in _dangling(store)]
        problems += _of_rows(store, decode) if schema == SCHEMA else ()
    (networks,) = store.execute("SELECT count(*) FROM networks").fetchone()
    (endpoints,) = store.execute("SELECT count(*) FROM endpoints").fetchone()
    return Examined(ident, schema, networks, endpoints, tuple(problems))


def _identity(store: sqlite3.Connection, path: Path) -> tuple[str, int]:
    tables = {row[0] for row in store.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    version = store.execute("PRAGMA user_version").fetchone()[0]
    if not tables >= _TABLES or version < 1:
        raise Refusing(f"{path} is a database, but not one of weft's")
    if version > SCHEMA:
        raise Refusing(
            f"{path} was written by a newer weft (schema {version}, this one knows {SCHEMA}): use that version's `weft`"
        )
    ident = store.execute("SELECT value FROM meta WHERE key = 'store'").fetchone()
    if ident is None or not _IDENTITY.fullmatch(ident[0]):
        raise Refusing(f"{path} has no id of a store in it: weft did not write it, or never came to its end")
    return ident[0], version


def _dangling(store: sqlite3.Connection) -> list[sqlite3.Row]:
    return store.execute("PRAGMA foreign_key_check").fetchmany(_SHOWN)


def _of_rows(store: sqlite3.Connection, decode: dict[str, Decode]) -> Iterator[str]:
    for table, wrong, which in _LAWS:
        rows = store.execute(f"SELECT * FROM {table} WHERE {which} LIMIT {_SHOWN}")  # noqa: S608 - ours
        yield from (f"{_name(table, row)}: {wrong}" for row in rows)
    for table, column in _ADDRESSES:
        for row in store.execute(f"SELECT * FROM {table} WHERE {column} IS NOT NULL"):  # noqa: S608 - ours
            yield from _refused(ip_address, row[column], _name(table, row))
    for row in store.execute("SELECT * FROM pools"):
        yield from _refused(parse_id, row["id"], _name("pools", row))
    for table, value in decode.items():
        for row in store.execute(f"SELECT * FROM {table}"):  # noqa: S608 - ours
            yield from _refused(value, row, _name(table, row))


def _refused(parse: Callable[..., object], given: object, whose: str) -> Iterator[str]:
    try:
        parse(given)
    except ValueError as error:
        yield f"{whose}: it makes no sense to weft ({' '.join(str(error).split())[:200]})"


def _name(table: str, row: sqlite3.Row) -> str:
    """Return how a row is told of: the table's word without its plural, and the row's first column."""
    first = row[0].hex() if isinstance(row[0], bytes) else str(row[0])
    return f"{table.removesuffix('s')} {first[:12] if table in ('networks', 'endpoints') else first}"
