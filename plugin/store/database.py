"""The SQLite file: opened, migrated, and written in transactions that say how durable they are.

SQLite goes on writing into a file that somebody deleted, or put another one in the place of, and nobody would find it
again after a restart. So before each transaction the file is looked at by its name: one that is gone is written again
from what is still open, and beside one that somebody else put there nothing is written.
"""

from __future__ import annotations

import logging
import os
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Generic, TypeVar

from drivers.errors import Refusing
from plugin.store.schema import MIGRATIONS
from plugin.storefile.copies import BESIDE, copy_into
from plugin.storefile.trouble import explained, unreadable, unwritable

log = logging.getLogger(__name__)

_STATE_DIR_MODE: Final = 0o700

T = TypeVar("T")


class Database:
    """One connection, one lock: a transaction takes half a millisecond at most, so threads take turns.

    ``commits`` counts transactions that wrote, so that tests can count the store's work per request; ``trouble`` is why
    the last one could not, "" if it could.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, make it if there is none, and bring it to this version. Raises :class:`Refusing`."""
        self.path = path
        self._log = path.with_name(f"{path.name}-wal")  # where SQLite keeps what was committed last
        self.commits = 0
        self.trouble = ""
        self._lock = threading.RLock()
        self._waiting: list[_Work[object]] = []
        self._door = threading.Lock()  # of the list above, held for an append only
        try:
            path.parent.mkdir(mode=_STATE_DIR_MODE, parents=True, exist_ok=True)
        except OSError as error:
            raise unreadable(path, error) from error
        self._open()

    def _open(self) -> None:
        try:
            self._connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=10)
        except sqlite3.Error as error:
            raise unreadable(self.path, error) from error
        try:
            self._prepare()
            self._file = _file(self.path)
        except sqlite3.Error as error:
            self._connection.close()
            raise unreadable(self.path, error) from error
        except Refusing:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA foreign_keys = ON")
        if (found := self._connection.execute("PRAGMA quick_check").fetchone()[0]) != "ok":
            raise unreadable(self.path, found)
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if version > len(MIGRATIONS):
            raise Refusing(
                f"{self.path} was written by a newer weft (schema {version}, this one knows {len(MIGRATIONS)}): "
                "start that version, or move the file away to begin with no networks"
            )
        for number in range(version, len(MIGRATIONS)):
            self._connection.executescript(f"BEGIN;{MIGRATIONS[number]};PRAGMA user_version = {number + 1};COMMIT;")

    # -- the file, which somebody may do something to -----------------------------------------------------------------

    def mind_file(self) -> None:
        """Write the file again if somebody has deleted it. Raises :class:`Refusing` if there is another one."""
        with self._lock, self._kept():
            self._mind_file()

    def _mind_file(self) -> None:
        found = _file(self.path)
        if found == self._file and _file(self._log) is not None:
            return
        if found not in (None, self._file):
            raise Refusing(
                f"{self.path} is not the file any longer that weft has open: somebody put another one there. Nothing "
                "is written to either. Restart weft to go on with that one; or move it away, and weft writes its own "
                "there again"
            )
        self._write_again()
        log.error("the store was deleted while weft runs, and is written again", extra={"path": str(self.path)})

    def _write_again(self) -> None:
        """Put all that is still open into a new file of the old name, and go on with that."""
        partial = self.path.with_name(f"{self.path.name}.partial")
        try:
            self.path.parent.mkdir(mode=_STATE_DIR_MODE, parents=True, exist_ok=True)
            partial.unlink(missing_ok=True)
            copy_into(self._connection, partial)
            self._connection.close()  # it takes what is left beside the old file away, by name
            for suffix in BESIDE:
                Path(f"{self.path}{suffix}").unlink(missing_ok=True)
            partial.rename(self.path)
        except OSError as error:
            raise unwritable(self.path, error) from error
        self._open()

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """Tell what cannot be kept: in what is raised, in the log when it begins, and by ``trouble`` while it lasts."""
        try:
            yield
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
            raise
        except sqlite3.DatabaseError as error:
            why = unwritable(self.path, error)
            self._in_trouble(str(why))
            raise why from error
        except Refusing as why:
            self._in_trouble(str(why))
            raise

    def _in_trouble(self, why: str) -> None:
        if why != self.trouble:
            log.error("the store cannot be written", extra={"why": why})
        self.trouble = why

    # -- reading and writing ------------------------------------------------------------------------------------------

    @contextmanager
    def transaction(self, *, durable: bool) -> Iterator[sqlite3.Connection]:
        """Write: all of it or nothing. Claims are checked in here, so two requests cannot both make one.

        ``durable`` True: on disk when this returns (``synchronous=FULL``), for what is promised in a reply. False: it
        outlives a crash of weft, but perhaps not a power-off.
        """
        with self._lock, self._kept():
            self._mind_file()
            self._connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # an error of the disk may have ended it
                    self._connection.execute("ROLLBACK")
                raise
            self.commits += 1
            if self.trouble:
                log.warning("the store can be written again", extra={"path": str(self.path)})
                self.trouble = ""

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
        """Return the rows of a SELECT, all of them. Raises :class:`Refusing` if one cannot be read."""
        with self._lock, explained(self.path):
            return self._connection.execute(statement, values).fetchall()

    def damaged(self, what: str) -> Refusing:
        """Return the error of a row that says what no row of weft's can say."""
        return unreadable(self.path, f"what it says of {what} makes no sense")

    def try_again(self) -> None:
        """Look after the file, and see whether it can be written again, if it could not. Never raises."""
        with suppress(Refusing):
            self.mind_file()
            if self.trouble:
                with self.transaction(durable=True) as db:
                    db.execute("INSERT OR REPLACE INTO meta SELECT key, value FROM meta WHERE key = 'store'")

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
        except sqlite3.IntegrityError as error:
            db.execute("ROLLBACK TO one")
            self.error = error
        except sqlite3.Error:  # of the disk: everybody's business
            raise
        except Exception as error:  # noqa: BLE001 - it is raised in its own thread
            db.execute("ROLLBACK TO one")
            self.error = error
        db.execute("RELEASE one")

    def outcome(self) -> T:
        """Return what it returned, or raise what it raised."""
        if self.error is not None:
            raise self.error
        return self._result[0]


def _file(path: Path) -> tuple[int, int] | None:
    """Return which file a name leads to now, ``None`` if to none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - in every transaction
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
