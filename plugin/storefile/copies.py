"""Copies of a store: whole, of one moment, and root's alone."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

BESIDE: Final = ("-wal", "-shm")
"""What SQLite keeps beside a file while it is open."""

_MODE: Final = 0o600


def copy_into(source: sqlite3.Connection, path: Path) -> None:
    """Write what ``source`` holds now into a new file, on disk when this returns.

    Others may go on writing meanwhile. Raises FileExistsError if there is something at ``path``, OSError if it cannot
    be written; nothing is left of it then.
    """
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _MODE))
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as copy:
            source.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")  # one file, with nothing beside it
        sync(path)
    except sqlite3.Error as error:
        path.unlink(missing_ok=True)
        raise OSError(f"{path} could not be written: {error}") from error
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Have a file and its name be on disk when this returns."""
    for one in (path, path.parent):
        opened = os.open(one, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
