"""Whether ovs-vswitchd lives. The database does not tell: a killed one leaves its rows as they were, as does the next.

A connection to its control socket, on which nothing is ever said, ends with the process, whoever ends it; where the
socket is, its pid file says (ovs-vswitchd(8)). That works across pid namespaces, for nothing is done with the pid.
"""

from __future__ import annotations

import enum
import socket
import time
from pathlib import Path
from typing import Final

_EVERY: Final = 0.5  # seconds between two looks for one that is not there


class Event(enum.Enum):
    """What has happened since the last look."""

    STARTED = enum.auto()
    ENDED = enum.auto()


class Vswitchd:
    """The daemon in a run directory; ``None``: it is on another machine, and nothing is known about it."""

    def __init__(self, rundir: Path | None) -> None:
        self._rundir = rundir
        self._socket: socket.socket | None = None
        self._next = 0.0
        self._looked = False

    @property
    def alive(self) -> bool | None:
        """Whether it lives, as of the last look; ``None`` if that cannot be told from here."""
        if self._socket is not None:
            return True
        return False if self._rundir is not None and self._rundir.is_dir() else None

    @property
    def connection(self) -> socket.socket | None:
        """What becomes readable when it ends."""
        return self._socket

    @property
    def delay(self) -> float | None:
        """Seconds until the next look is due; ``None``: nothing is due before the connection ends."""
        if self._socket is not None or self._rundir is None:
            return None
        return max(self._next - time.monotonic(), 0)

    def look(self) -> Event | None:
        """Look whether it lives. One that was there at the first look has not started since."""
        if self._socket is not None:
            if not _has_ended(self._socket):
                return None
            self.close()
            self._next = 0.0
            return Event.ENDED
        now = time.monotonic()
        if self._rundir is None or now < self._next:
            return None
        self._next = now + _EVERY
        self._socket = _connected(self._rundir)
        first, self._looked = not self._looked, True
        return Event.STARTED if self._socket is not None and not first else None

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _connected(rundir: Path) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX)
    try:
        pid = (rundir / "ovs-vswitchd.pid").read_text(encoding="ascii").strip()
        connection.setblocking(False)  # noqa: FBT003 - takes no keyword
        connection.connect(str(rundir / f"ovs-vswitchd.{pid}.ctl"))
    except (OSError, ValueError):
        connection.close()
        return None
    return connection


def _has_ended(connection: socket.socket) -> bool:
    try:
        return not connection.recv(1)
    except BlockingIOError:
        return False
    except OSError:
        return True
