"""Whoever is told of changes. They outlive the thread that tells, which starts when it is first needed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from drivers.contract import Dirty
from drivers.ovsdb.ledger import Changed


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Listener:
    """What is called, in the thread: it must not wait for anything.

    ``dirty``      as the contract of backends has it
    ``ports``      these ports have a number now, another one, or none any more
    ``restarted``  ovs-vswitchd has started: it has no flows
    """

    dirty: Dirty = lambda _: None
    ports: Callable[[frozenset[str]], None] = lambda _: None
    restarted: Callable[[], None] = lambda: None


class Listeners:
    """All of them. Whoever is removed is not called any more, nor being called."""

    def __init__(self) -> None:
        self._all: list[Listener] = []
        self._telling = threading.RLock()

    def add(self, listener: Listener) -> Callable[[], None]:
        """Tell one, too, and return what ends that."""
        with self._telling:
            self._all.append(listener)

        def remove() -> None:
            with self._telling:
                if listener in self._all:
                    self._all.remove(listener)

        return remove

    def tell(self, changed: Changed, *, anew: bool, restarted: bool) -> None:
        """Tell all of them; ``anew``: anything may have changed while nobody was connected."""
        with self._telling:
            for listener in tuple(self._all):
                for scope in (None,) if anew else sorted(changed.scopes):
                    listener.dirty(scope)
                if changed.ports:
                    listener.ports(changed.ports)
                if restarted:
                    listener.restarted()
