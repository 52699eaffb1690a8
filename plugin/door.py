"""What is done before anything heavy is loaded: one weft per state directory, and both sockets bound.

dockerd looks for a managed plugin's socket half a second after it has started the process, and then not for another
three seconds (moby, plugin/manager_linux.go; 20.10.24 to 28.5.2). flask and pydantic alone take longer than that to
load on a small machine. So the sockets are there first; what comes meanwhile waits in their queues.
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

from drivers.errors import HostFailure, Refusing

if TYPE_CHECKING:
    from plugin.config import Settings

log = logging.getLogger(__name__)

LOCK: Final = "serve.lock"

_BACKLOG: Final = 2048  # gunicorn's own
_ROOTS_ALONE: Final = 0o077  # umasks: folders are 0700,
_SOCKETS: Final = 0o177  # sockets 0600


class AlreadyRunning(Refusing):
    """Another weft serves this state directory."""


@dataclass(frozen=True, slots=True)
class Door:
    """What a weft holds from before its start: the lock of its state directory, and its sockets' file descriptors.

    No descriptors: systemd has bound the sockets (sd_listen_fds(3)), and gunicorn takes them from it.
    """

    lock: TextIO | None = None
    listeners: tuple[int, ...] = ()


def open_door(settings: Settings) -> Door:
    """Take the lock, then bind. Raises :class:`AlreadyRunning` and binds nothing if another weft is there.

    Raises OSError, and has bound nothing, where no lock can be had: the state directory cannot be used.
    """
    lock = hold(settings)
    return bound(settings, lock)


def bound(settings: Settings, lock: TextIO | None) -> Door:
    """Bind what systemd has not bound. Raises :class:`HostFailure`, and lets go of the lock."""
    try:
        return Door(lock, () if bound_by_systemd(os.environ) else (bind(settings.socket), bind(settings.control)))
    except HostFailure:
        if lock:
            lock.close()
        raise


def hold(settings: Settings, whose: str = "") -> TextIO:
    """Make the state directory and take its lock, with our pid in it, and ``whose`` that is."""
    settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = settings.state_dir / LOCK
    try:
        lock = path.open("a+", encoding="ascii")
    except OSError as error:  # a disk that cannot be written: a lock that is there can be held all the same
        if not path.is_file():
            raise
        lock = path.open("r", encoding="ascii")
        log.error("the state directory cannot be written", extra={"path": str(path), "why": str(error)})  # noqa: TRY400 - the reason says it
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read().strip()
        lock.close()
        raise AlreadyRunning(f"already running, pid {holder} ({path})") from None
    with suppress(OSError):  # the pid is only told
        os.ftruncate(lock.fileno(), 0)
        os.write(lock.fileno(), f"{os.getpid()}{whose}\n".encode("ascii"))
    return lock


def is_held(state_dir: Path) -> bool:
    """Tell whether a weft serves a state directory now. Nothing is made."""
    try:
        with (state_dir / LOCK).open("r", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def bind(path: Path) -> int:
    """Bind and listen on a unix socket that root alone may use; return its descriptor. A dead socket is replaced.

    Raises :class:`HostFailure`.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(_ROOTS_ALONE)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.umask(_SOCKETS)
        if path.is_socket():
            path.unlink()
        listener.bind(str(path))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise HostFailure(f"weft cannot listen at {path}: {error.strerror}") from error
    finally:
        os.umask(before)
    return listener.detach()


def bound_by_systemd(environment: Mapping[str, str]) -> bool:
    """Tell whether sockets were handed to this process (sd_listen_fds(3))."""
    return environment.get("LISTEN_PID") == str(os.getpid()) and environment.get("LISTEN_FDS", "0") != "0"
