"""One thread that waits for many sockets: epoll, calls from other threads, and deadlines.

By hand and not by asyncio: there is no half-closed stream with one bounded buffer in asyncio, no ``recvmsg``, and no
way to be told of a reset while one does not want to read; and it is 5 MB more in a process that may never relay.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Final, Protocol

from drivers.errors import HostFailure

log = logging.getLogger(__name__)

IN: Final = select.EPOLLIN
OUT: Final = select.EPOLLOUT
GONE: Final = select.EPOLLERR
HUNG_UP: Final = select.EPOLLHUP

_PATIENCE: Final = 10.0  # seconds; nothing in the thread waits for anybody
_SELDOM: Final = 10.0  # seconds between two lines about the same thing


class Handler(Protocol):
    """What is told of a socket's events. It must bear with an event that is not true any more."""

    def ready(self, sock: socket.socket, events: int) -> None:
        """Deal with the events of one socket, without waiting."""
        ...

    def give_up(self) -> None:
        """Let go of everything: it failed in a way that nobody thought of."""
        ...


class Part(Protocol):
    """What has deadlines."""

    def due(self) -> float | None:
        """Return when :meth:`expire` has to be called next, by ``time.monotonic()``."""
        ...

    def expire(self, now: float) -> None:
        """End what has waited long enough."""
        ...


class Poll:
    """The thread, from the moment this is made until :meth:`stop`. Only :meth:`call` and ``stop`` are for others."""

    def __init__(self, name: str) -> None:
        self.parts: Sequence[Part] = ()
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake, IN)
        self._calls: SimpleQueue[tuple[Callable[[], None], Future[None]]] = SimpleQueue()
        self._watched: dict[int, tuple[socket.socket, Handler]] = {}
        self._buried: list[socket.socket] = []
        self._told: dict[str, float] = {}
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    # -- from other threads -----------------------------------------------------------------------------------------

    def call(self, what: Callable[[], None]) -> None:
        """Have ``what`` done by the thread, and wait for it; what it buries is closed by then. Raises its error."""
        done: Future[None] = Future()
        self._calls.put((what, done))
        os.eventfd_write(self._wake, 1)
        try:
            done.result(_PATIENCE)
        except TimeoutError:
            raise HostFailure(
                "the relay does not answer: restart weft, and tell its authors what the log says"
            ) from None

    def stop(self) -> None:
        """End the thread. What it still watched stays open: it belongs to whoever watched it."""
        self._stopping = True
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        self._epoll.close()
        os.close(self._wake)

    # -- in the thread ----------------------------------------------------------------------------------------------

    def watch(self, sock: socket.socket, events: int, handler: Handler) -> None:
        """Tell ``handler`` of ``events``, and always of errors and hang-ups, from now on."""
        if sock.fileno() in self._watched:
            self._epoll.modify(sock.fileno(), events)
        else:
            self._epoll.register(sock.fileno(), events)
        self._watched[sock.fileno()] = (sock, handler)

    def leave(self, sock: socket.socket) -> None:
        """Tell nobody of this socket any more."""
        if self._watched.pop(sock.fileno(), None):
            self._epoll.unregister(sock.fileno())

    def bury(self, sock: socket.socket) -> None:
        """Leave a socket and close it, after the events at hand: until then nobody else is given its number."""
        self.leave(sock)
        self._buried.append(sock)

    def seldom(self, event: str, extra: Mapping[str, object]) -> None:
        """Log a warning that strangers can cause at will: once in ten seconds."""
        now = time.monotonic()
        if now >= self._told.get(event, 0.0):
            self._told[event] = now + _SELDOM
            log.warning(event, extra=extra)

    def _run(self) -> None:
        while not self._stopping:
            for number, events in self._epoll.poll(self._timeout()):
                if number == self._wake:
                    with contextlib.suppress(BlockingIOError):
                        os.eventfd_read(self._wake)
                elif number in self._watched:
                    self._tell(*self._watched[number], events)
            self._expire()
            self._close_buried()
            self._answer()

    def _tell(self, sock: socket.socket, handler: Handler, events: int) -> None:
        try:
            handler.ready(sock, events)
        except Exception:
            log.exception("relay failed, this connection ends")
            self.leave(sock)
            try:
                handler.give_up()
            except Exception:
                log.exception("relay failed to end a connection")

    def _expire(self) -> None:
        now = time.monotonic()
        for part in self.parts:
            due = part.due()
            if due is not None and due <= now:
                try:
                    part.expire(now)
                except Exception:
                    log.exception("relay failed to end what has waited long enough")

    def _timeout(self) -> float | None:
        dues = [due for part in self.parts if (due := part.due()) is not None]
        return max(0.0, min(dues) - time.monotonic()) if dues else None

    def _answer(self) -> None:
        while not self._calls.empty():
            what, done = self._calls.get()
            try:
                what()
            except Exception as error:  # noqa: BLE001 - it is raised by call()
                self._close_buried()
                done.set_exception(error)
            else:
                self._close_buried()
                done.set_result(None)

    def _close_buried(self) -> None:
        for sock in self._buried:
            with contextlib.suppress(OSError):  # close() tells of an error that the other end caused
                sock.close()
        self._buried.clear()
