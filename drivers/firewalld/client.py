"""firewalld's end of the bus: is it there, does it answer, and what it says, each within a bound.

firewalld is one thread. While it loads its rules, or hangs, nothing is answered, and a container's start must not wait
for that. So after one answer that did not come in time, it counts as silent and is not asked again, until the watch
has heard it answer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

from drivers import system_bus
from drivers.errors import HostFailure
from drivers.system_bus import PATIENCE, Body, Method, Refused, SystemBus

NAME: Final = "org.fedoraproject.FirewallD1"
PATH: Final = "/org/fedoraproject/FirewallD1"
PING: Final = Method(NAME, PATH, "org.freedesktop.DBus.Peer", "Ping")

_NOT_THERE: Final = ("org.freedesktop.DBus.Error.ServiceUnknown", "org.freedesktop.DBus.Error.NameHasNoOwner")


def method(interface: str, member: str, signature: str = "", *, path: str = PATH) -> Method:
    """Return a method of firewalld's; ``interface`` is what stands behind its name: ``zone``, ``config.policy``."""
    return Method(NAME, path, f"{NAME}.{interface}".rstrip("."), member, signature)


class Client:
    """Asks firewalld. Thread-safe. ``calls`` counts the questions.

    ``present`` is what a watch knows; ``None``: nobody watches, so firewalld itself is asked.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bus: SystemBus | None = None
        self._fell_silent: Callable[[], None] | None = None
        self.present: bool | None = None
        self.calls = 0

    def answers(self) -> bool:
        """Tell whether firewalld is there and answers. Where there is no bus, or a watch knows, nobody is asked."""
        if self.present is not None:
            return self.present
        try:
            self.ask(PING)
        except (HostFailure, Refused):
            return False
        return True

    def watched(self, fell_silent: Callable[[], None] | None) -> None:
        """Have a watch from now on, which is told when an answer did not come.

        ``None``: no longer. A question on its way is waited for, so who was told before is told nothing after this.
        """
        with self._lock:
            self._fell_silent = fell_silent
            self.present = None

    def ask(self, asked: Method, *arguments: object, patience: float = PATIENCE) -> Body:
        """Call a method. Raises :class:`Refused` with firewalld's words, or :class:`HostFailure` if it is silent."""
        with self._lock:
            if self.present is False or not system_bus.exists():
                raise HostFailure("firewalld does not answer on the system bus")
            self.calls += 1
            try:
                return self._ask(asked, arguments, patience)
            except OSError as silent:
                self._hang_up()
                if self._fell_silent is not None:
                    self.present = False
                    self._fell_silent()
                raise HostFailure(f"firewalld does not answer on the system bus ({asked.member}: {silent})") from None

    def first(self, asked: Method, *arguments: object) -> Any:  # noqa: ANN401 - D-Bus is as untyped as JSON
        """Call a method and return the first part of the answer."""
        return self.ask(asked, *arguments)[0]

    def close(self) -> None:
        """Hang up; the next question connects again."""
        with self._lock:
            self._hang_up()

    def _ask(self, asked: Method, arguments: Body, patience: float) -> Body:
        if self._bus is not None:
            try:
                return self._refusing(self._bus, asked, arguments, patience)
            except ConnectionError:  # the bus was restarted since
                self._hang_up()
        self._bus = SystemBus(patience)
        return self._refusing(self._bus, asked, arguments, patience)

    @staticmethod
    def _refusing(bus: SystemBus, asked: Method, arguments: Body, patience: float) -> Body:
        """Ask, and take the bus's word that there is no firewalld for its silence."""
        try:
            return bus.ask(asked, *arguments, patience=patience)
        except Refused as refused:
            if refused.name in _NOT_THERE:
                raise ProcessLookupError(str(refused)) from None
            raise

    def _hang_up(self) -> None:
        if self._bus is not None:
            self._bus.close()
            self._bus = None
