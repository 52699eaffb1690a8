"""What python-ovs asks of a poller, by poll(2).

Its own is made of select(2), which knows no file descriptor above 1023 (python-ovs 4.0.0). weft holds a socket for each
published port, so the connection to the database may well get a higher one.
"""

from __future__ import annotations

import select
import time
from typing import Protocol

IN = select.POLLIN


class HasFileno(Protocol):
    """A socket."""

    def fileno(self) -> int:
        """Return its file descriptor."""
        ...


class Poller:
    """Waits once for whatever it was told, in python-ovs's words. Times are in milliseconds."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._events: dict[int, int] = {}
        self._least: float | None = None

    def fd_wait(self, what: int | HasFileno, events: int) -> None:
        """Wake up when a file descriptor is ready; twice for one adds up."""
        number = what if isinstance(what, int) else what.fileno()
        self._events[number] = self._events.get(number, 0) | events
        self._poll.register(number, self._events[number])

    def timer_wait(self, delay: float) -> None:
        """Wake up after a while; at once if that has passed already (to poll(2) a negative time is for ever)."""
        delay = max(delay, 0)
        self._least = delay if self._least is None else min(self._least, delay)

    def timer_wait_until(self, when: float) -> None:
        """Wake up at a time, by the monotonic clock."""
        self.timer_wait(when - time.monotonic() * 1000)

    def immediate_wake(self) -> None:
        """Do not wait at all."""
        self._least = 0

    def block(self) -> None:
        """Wait for the first of all that."""
        self._poll.poll(self._least)
