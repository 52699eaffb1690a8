"""Hears firewalld come, go and reload, from a thread of its own that has a connection of its own.

A firewalld that has just come loads its rules first and answers later, and one that hangs may wake up: it counts as
present when it has answered a ping, however long that took. Changes of the operator's zones are not listened to.
"""

from __future__ import annotations

import os
import selectors
import threading
from collections.abc import Callable
from typing import Final

from drivers import system_bus
from drivers.firewalld.client import NAME, PING, Client
from drivers.system_bus import Answer, Method, Refused, Signal, SystemBus

_LOOK: Final = 5.0  # seconds between two looks for a bus, where there is none
_BUS: Final = "org.freedesktop.DBus"
_HAS_OWNER: Final = Method(_BUS, "/org/freedesktop/DBus", _BUS, "NameHasOwner", "s")
_RULES: Final = (
    f"type='signal',sender='{NAME}',interface='{NAME}',member='Reloaded'",
    f"type='signal',sender='{_BUS}',interface='{_BUS}',member='NameOwnerChanged',arg0='{NAME}'",
)


class Watch:
    """A thread that listens from the moment it finds a bus until :meth:`stop`.

    ``came`` and ``reloaded`` are called when firewalld has: links are in no zone then, and it may have emptied
    iptables' chains. When it goes, nothing stands in the way any more, and there is nothing to do.
    """

    def __init__(self, client: Client, *, came: Callable[[], None], reloaded: Callable[[], None]) -> None:
        self._client = client
        self._came, self._reloaded = came, reloaded
        self._wake = os.eventfd(0)
        self._stopping = False
        self._ping: int | None = None
        client.watched(lambda: os.eventfd_write(self._wake, 1))
        self._thread = threading.Thread(target=self._run, name="firewalld-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread and wait for it. A second time is fine."""
        if not self._stopping:
            self._stopping = True
            os.eventfd_write(self._wake, 1)
            self._thread.join()
            os.close(self._wake)

    def _run(self) -> None:
        try:
            while not self._stopping:
                try:
                    if system_bus.exists():
                        with SystemBus() as bus:
                            self._listen(bus)
                except (OSError, Refused):  # the bus is gone, or was never there for us
                    self._client.present = False
                if not self._stopping:
                    self._sleep()
        finally:
            self._client.watched(None)  # from now on nobody knows but firewalld itself

    def _sleep(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake, selectors.EVENT_READ)
            if selector.select(_LOOK) and not self._stopping:
                os.eventfd_read(self._wake)

    def _listen(self, bus: SystemBus) -> None:
        for rule in _RULES:
            bus.subscribe(rule)
        (there,) = bus.ask(_HAS_OWNER, NAME)
        self._take_note(bus, there=there)
        with selectors.DefaultSelector() as selector:
            selector.register(bus, selectors.EVENT_READ)
            selector.register(self._wake, selectors.EVENT_READ)
            while True:
                for told in bus.heard():
                    self._hear(bus, told)
                if any(key.fd == self._wake for key, _ in selector.select()):
                    if self._stopping:
                        return
                    os.eventfd_read(self._wake)
                    self._ping = bus.send(PING)

    def _hear(self, bus: SystemBus, told: Signal | Answer) -> None:
        match told:
            case Signal(interface=interface, member="Reloaded") if interface == NAME:
                self._reloaded()
            case Signal(member="NameOwnerChanged", body=(_, _, owner)):
                self._take_note(bus, there=bool(owner))
            case Answer(serial=serial, error=None) if serial == self._ping:
                self._client.present = True
                self._came()
            case _:
                pass

    def _take_note(self, bus: SystemBus, *, there: bool) -> None:
        if there:
            self._ping = bus.send(PING)
        else:
            self._client.present = False
