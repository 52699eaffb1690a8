"""Interfaces by name, and their OpenFlow numbers on one bridge. A number is a handle: asked for, never stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from drivers.errors import HostFailure
from drivers.naming import is_link_name

OfPort = Callable[[str], int | None]
"""Returns the OpenFlow number of an interface, as OVSDB has it; ``None`` or a negative one: it has none."""

_FIRST_RESERVED: Final = 0xFF00  # OVSDB numbers ports with 16 bits, with LOCAL and its like at the top (OpenFlow 1.0)
_WIDENED: Final = 0xFFFF0000


class NoPort(HostFailure):
    """A flow names an interface that has no OpenFlow number."""


class Ports:
    """Maps names to numbers, and back. Not thread-safe.

    ``listing`` returns all numbers and names of the bridge; it is called when a flow has a number that is new.
    """

    def __init__(self, bridge: str, ofport: OfPort, listing: Callable[[], Iterable[tuple[int, str]]]) -> None:
        self._bridge = bridge
        self._ofport = ofport
        self._listing = listing
        self._names: dict[int, str] = {}
        self._last: dict[str, int] = {}
        self._asked: set[int] = set()
        self._numberless: set[str] = set()
        self._listed = False
        self._renumbered = False

    def forget(self) -> None:
        """Start anew: the numbers are another process' now."""
        self._names.clear()
        self._last.clear()
        self._asked.clear()
        self._listed = False

    def ask_again(self) -> None:
        """Let names that had no number be asked for again: whoever has them may be waited for, so once in a call."""
        self._numberless.clear()

    def look_again(self) -> None:
        """Let the next unknown number be looked up once."""
        self._listed = False

    def let_go(self) -> None:
        """Forget the numbers that nobody has asked about since the last time: no flow has them any longer."""
        self._names = {number: name for number, name in self._names.items() if number in self._asked}
        self._last = {name: number for name, number in self._last.items() if number in self._asked}
        self._asked.clear()

    def renumbered(self) -> bool:
        """Tell whether an interface was found with another number than before, since this was asked last.

        Open vSwitch gives a link that comes back another one. Flows at the old number are at nobody's.
        """
        renumbered, self._renumbered = self._renumbered, False
        return renumbered

    def number(self, name: str) -> int:
        """Return the number of an interface. Raises :class:`NoPort`: a flow without it would mean something else."""
        found = self._now(name)
        if found is None:
            raise NoPort(
                f"interface {name} has no OpenFlow number on bridge {self._bridge}: it is not a port there, or Open "
                f"vSwitch could not open it; see: ovs-vsctl get interface {name} ofport error"
            )
        return self._note(found, name)

    def number_at_last(self, name: str) -> int:
        """Return the number of an interface, or the one that it had when last seen. Raises :class:`NoPort`."""
        try:
            return self.number(name)
        except NoPort:
            if name in self._last:
                return self._last[name]
            raise

    def name(self, number: int) -> str | None:
        """Return the interface with a number; ``None`` if it is not known, or has got another number since.

        Of an interface that is gone only the last number has its name: it is what a name leads back to.
        """
        self._asked.add(number)
        if number not in self._names and not self._listed:
            self._listed = True
            for each, called in self._listing():
                if is_link_name(called):  # what an operator calls his port may be none
                    self._note(each, called)
        name = self._names.get(number)
        if name is None:
            return None
        now = self._now(name)
        return name if (self._last.get(name) if now is None else _widened(now)) == number else None

    def _now(self, name: str) -> int | None:
        found = None if name in self._numberless else self._ofport(name)
        if found is None or found < 0:
            self._numberless.add(name)
            return None
        return found

    def _note(self, number: int, name: str) -> int:
        number = _widened(number)
        self._renumbered |= self._last.get(name, number) != number
        self._asked.add(number)
        self._names[number] = name
        self._last[name] = number
        return number


def _widened(number: int) -> int:
    return number + _WIDENED if _FIRST_RESERVED <= number < 1 << 16 else number
