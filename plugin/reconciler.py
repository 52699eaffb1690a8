"""The thread that brings the host back to what is wanted: the set of scopes that may differ, and when to look.

Monitors only say which scope may differ. A burst of changes to one scope costs one look, because the set forgets how
often it was told; the interval brings one look at everything, whether or not anybody said anything.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from drivers.resources import Scope

log = logging.getLogger(__name__)

QUIET_SECONDS: Final = 0.05  # how long a burst of changes is let run before the look


class Reconciler:
    """Calls ``heal`` with a scope, or with ``None`` for everything, from one thread of its own.

    The look at Docker's own list is kept by another of these.
    """

    def __init__(self, heal: Callable[[Scope | None], None], interval: float, *, name: str = "reconciler") -> None:
        """Look at everything each ``interval`` seconds, and at a scope whenever it is said to be dirty."""
        self._heal = heal
        self._interval = interval
        self._wake = threading.Condition()
        self._dirty: set[Scope | None] = {None}
        self._stopping = False
        self._rounds = 0
        self._due = 0.0
        self._thread = threading.Thread(target=self._run, name=name)

    def start(self) -> None:
        """Start with a look at everything."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after the look under way, and join the thread."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def dirty(self, scope: Scope | None) -> None:
        """Look at a scope soon; ``None``: at everything. Safe from any thread, and never waits."""
        with self._wake:
            self._dirty.add(scope)
            self._wake.notify_all()

    def within(self, seconds: float) -> None:
        """Let the next look at everything come after ``seconds`` at most; for the look itself to say."""
        self._due = min(self._due, time.monotonic() + seconds)

    def settled(self, seconds: float) -> bool:
        """Wait until everything was looked at once since the start, ``seconds`` at most; tell whether it was."""
        with self._wake:
            return self._wake.wait_for(lambda: self._rounds > 0, timeout=seconds)

    def _run(self) -> None:
        self._due = time.monotonic() + self._interval
        while (scopes := self._next()) is not None:
            if not scopes or None in scopes:
                self._due = time.monotonic() + self._interval
                self._look(None)
                with self._wake:
                    self._rounds += 1
                    self._wake.notify_all()
                continue
            for scope in sorted(filter(None, scopes)):
                self._look(scope)

    def _next(self) -> set[Scope | None] | None:
        """Return the scopes to look at, none if the interval has passed, and ``None`` to stop."""
        with self._wake:
            self._wake.wait_for(lambda: self._stopping or self._dirty, timeout=max(0.0, self._due - time.monotonic()))
            if self._dirty and self._rounds:
                self._wake.wait_for(lambda: self._stopping, timeout=QUIET_SECONDS)
            if self._stopping:
                return None
            scopes, self._dirty = self._dirty, set()
            return scopes

    def _look(self, scope: Scope | None) -> None:
        try:
            self._heal(scope)
        except Exception:
            told = {"by": self._thread.name, "scope": str(scope or "everything"), "next": "at the next interval"}
            log.exception("a look failed", extra=told)
