"""What SQLite's errors mean to an operator: a disk that is full is not a file that is damaged."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from drivers.errors import Refusing

LEFT: Final = "networks and traffic are left as they are"

_FULL: Final = "the disk under {folder} is full ({why})"
_READ_ONLY: Final = "the disk under {folder} is read-only ({why})"
_WHATS_WRONG: Final = (
    ("SQLITE_FULL", _FULL, "free some space"),
    ("SQLITE_READONLY", _READ_ONLY, "see dmesg, and mount it for writing"),
    ("SQLITE_IOERR", "the disk under {folder} fails ({why})", "see dmesg, and `weft store check`"),
    ("SQLITE_BUSY", "another program keeps {path} locked ({why})", "end it: `fuser -v {path}` shows it"),
)
"""By the beginning of SQLite's name of the error: what it is, and what to do about it."""

_RESTORE: Final = (
    "`weft store check` says what is wrong with it. Put back a copy of the file (`weft store restore FILE`), or move "
    "it away to begin with no networks, then restart weft"
)


def unreadable(path: Path, why: object) -> Refusing:
    """Return the error of a store that cannot be opened or read."""
    told = _told(path, why)
    if told is not None:
        what, fix = told
        return Refusing(f"{what}, so the state in {path} cannot be read; {LEFT}. First {fix}, then restart weft")
    return Refusing(f"the state in {path} cannot be read ({why}); {LEFT}. {_RESTORE}")


def unwritable(path: Path, why: sqlite3.Error | OSError) -> Refusing:
    """Return the error of something that could not be kept."""
    told = _told(path, why)
    if told is not None:
        what, fix = told
        return Refusing(f"{what}, so weft can keep nothing new; {LEFT}. First {fix}, then try again")
    return Refusing(f"the state in {path} cannot be read or written ({why}); {LEFT}. {_RESTORE}")


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Raise :class:`Refusing` for what SQLite cannot read. A claim that fails (IntegrityError) is no such thing."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
        raise
    except sqlite3.DatabaseError as error:
        raise unreadable(path, error) from error


def _told(path: Path, why: object) -> tuple[str, str] | None:
    """Return what is wrong with the disk, and what to do about it; ``None`` if it is the file."""
    words = _words(path, why)
    if words is None:
        return None
    what, fix = words
    return what.format(folder=path.parent, path=path, why=why), fix.format(path=path)


def _words(path: Path, why: object) -> tuple[str, str] | None:
    match why:
        case sqlite3.Error():
            name = getattr(why, "sqlite_errorname", "")
            if name.startswith(("SQLITE_CANTOPEN", "SQLITE_IOERR")):  # also where there is no room for the -shm file
                name = _name_by_disk(path) or name
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            name = "SQLITE_FULL"
        case OSError(errno=errno.EROFS):
            name = "SQLITE_READONLY"
        case OSError(errno=errno.EIO):
            name = "SQLITE_IOERR"
        case _:
            name = ""
    return next(((what, fix) for begins, what, fix in _WHATS_WRONG if name.startswith(begins)), None)


def _name_by_disk(path: Path) -> str:
    try:
        disk = os.statvfs(path.parent)
    except OSError:
        return ""
    if disk.f_flag & os.ST_RDONLY:
        return "SQLITE_READONLY"
    return "" if disk.f_bavail and disk.f_favail else "SQLITE_FULL"
