"""The SQLite file: opened, migrated, and written in transactions that say how durable they are."""

from __future__ import annotations

import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Generic, TypeVar

from drivers.errors import Refusing
from plugin.store.schema import MIGRATIONS

_STATE_DIR_MODE: Final = 0o700

T = TypeVar("T")


class Database:
    """One connection, one lock: a transaction takes half a millisecond at most, so threads take turns.

    ``commits`` counts transactions that wrote, so that tests can count the store's work per request.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, make it if there is none, and bring it to this version. Raises :class:`Refusing`."""
        self.path = path
        self.commits = 0
        self._lock = threading.RLock()
        self._waiting: list[_Work[object]] = []
        self._door = threading.Lock()  # of the list above, held for an append only
        try:
            path.parent.mkdir(mode=_STATE_DIR_MODE, parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
        except (OSError, sqlite3.Error) as error:
            raise Refusing(_unreadable(path, error)) from error
        try:
            self._prepare()
        except sqlite3.Error as error:
            self._connection.close()
            raise Refusing(_unreadable(path, error)) from error
        except Refusing:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA foreign_keys = ON")
        if (found := self._connection.execute("PRAGMA quick_check").fetchone()[0]) != "ok":
            raise Refusing(_unreadable(self.path, found))
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if version > len(MIGRATIONS):
            raise Refusing(
                f"{self.path} was written by a newer weft (schema {version}, this one knows {len(MIGRATIONS)}): "
                "start that version, or move the file away to begin with no networks"
            )
        for number in range(version, len(MIGRATIONS)):
            self._connection.executescript(f"BEGIN;{MIGRATIONS[number]};PRAGMA user_version = {number + 1};COMMIT;")

    @contextmanager
    def transaction(self, *, durable: bool) -> Iterator[sqlite3.Connection]:
        """Write: all of it or nothing. Claims are checked in here, so two requests cannot both make one.

        ``durable`` True: on disk when this returns (``synchronous=FULL``), for what is promised in a reply. False: it
        outlives a crash of weft, but perhaps not a power-off.
        """
        with self._lock:
            self._connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")
            self.commits += 1

    def together(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Write durably, in one commit with whatever other threads have to write at this moment.

        A commit waits for the disk, and while it does more work gathers behind the lock; whoever gets the lock next
        takes all of it along. What fails is undone alone; if the commit itself fails, every thread is told.
        """
        mine: _Work[T] = _Work(work)
        with self._door:
            self._waiting.append(mine)  # type: ignore[arg-type]  # what it returns is its own thread's business
        with self._lock:
            if not mine.done:
                with self._door:
                    batch, self._waiting = self._waiting, []
                self._commit(batch)
        return mine.outcome()

    def _commit(self, batch: Sequence[_Work[object]]) -> None:
        try:
            with self.transaction(durable=True) as db:
                for work in batch:
                    work.run(db)
        except Exception as error:  # noqa: BLE001 - it is raised in each thread
            for work in batch:
                work.error = error
        finally:
            for work in batch:
                work.done = True

    def read(self, statement: str, *values: object) -> list[sqlite3.Row]:
        """Return the rows of a SELECT."""
        with self._lock:
            return self._connection.execute(statement, values).fetchall()

    def meta(self, key: str) -> str | None:
        """Return a fact about the store itself."""
        rows = self.read("SELECT value FROM meta WHERE key = ?", key)
        return str(rows[0]["value"]) if rows else None

    def set_meta(self, key: str, value: str) -> None:
        """Keep a fact about the store itself."""
        with self.transaction(durable=True) as db:
            db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (key, value))

    def identity(self) -> str:
        """Return the store's own id, made when it is first asked for: it is in every mark on the host."""
        if known := self.meta("store"):
            return known
        self.set_meta("store", secrets.token_hex(4))
        return self.identity()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()


class _Work(Generic[T]):
    """What one thread wants written, and what came of it."""

    def __init__(self, work: Callable[[sqlite3.Connection], T]) -> None:
        self._work = work
        self._result: list[T] = []
        self.error: Exception | None = None
        self.done = False

    def run(self, db: sqlite3.Connection) -> None:
        """Do it, or leave nothing of it."""
        db.execute("SAVEPOINT one")
        try:
            self._result = [self._work(db)]
        except Exception as error:  # noqa: BLE001 - it is raised in its own thread
            db.execute("ROLLBACK TO one")
            self.error = error
        db.execute("RELEASE one")

    def outcome(self) -> T:
        """Return what it returned, or raise what it raised."""
        if self.error is not None:
            raise self.error
        return self._result[0]


def _unreadable(path: Path, why: object) -> str:
    return (
        f"the state in {path} cannot be read ({why}); networks and traffic are left as they are. Put back a copy of "
        "the file, or move it away to begin with no networks, then restart weft"
    )
