"""How long a request may take: Docker gives up on a managed plugin after 30 s and cleans nothing up."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from drivers.errors import DeadlineExceeded

REQUEST_SECONDS: Final = 20.0
_FOREVER: Final = threading.TIMEOUT_MAX


class Deadline:
    """A moment after which a request is withdrawn; ``None`` seconds: never."""

    def __init__(self, seconds: float | None = REQUEST_SECONDS) -> None:
        """Start the clock."""
        self._seconds = seconds
        self._end = None if seconds is None else time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds that are left, not below 0."""
        return _FOREVER if self._end is None else max(0.0, self._end - time.monotonic())

    def check(self) -> None:
        """Raise :class:`DeadlineExceeded` if it has passed."""
        if not self.left():
            raise self._exceeded("the host to take its steps")

    @contextmanager
    def holding(self, lock: threading.RLock, what: str) -> Iterator[None]:
        """Hold a lock, or raise :class:`DeadlineExceeded` saying what was waited for."""
        if not lock.acquire(timeout=self.left()):
            raise self._exceeded(what)
        try:
            yield
        finally:
            lock.release()

    def _exceeded(self, what: str) -> DeadlineExceeded:
        return DeadlineExceeded(f"gave up after {self._seconds:g} s of waiting for {what}; it is withdrawn: try again")
