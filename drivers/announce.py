"""Where an address is from now on, told to all who may know it by an older MAC: one thread for all endpoints.

The bridge sends it to every port that it has, with the container's own MAC as source: other containers, machines behind
the operator's NIC, hosts behind a tunnel. The host itself does not hear what its own bridge sends, so its neighbour
table is put right beside it. By default the kernel of whoever hears it changes an entry that it has, and makes none.

It is help, not a promise: an entry heals by itself after some seconds of silence. So a failure is a debug line, and
whoever announces waits for nothing.

The container hears it, too. Its kernel passes over the ARP (with ``log_martians`` it says so), and logs a line for each
advertisement of an address that is up by then: "NA: MAC advertised our address" (``ndisc_recv_na``, Linux 6.18).
"""

from __future__ import annotations

import heapq
import itertools
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

from drivers.announce_wire import announcement
from drivers.kernel.neighbours import Neighbours
from drivers.kernel.netlink import Netlink
from drivers.model import Address

log = logging.getLogger(__name__)

THREAD: Final = "announcer"
_NO_PROTOCOL: Final = 0  # the socket hears nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class _Announcement:
    """What is still to be told: ``count`` times more, ``interval`` seconds apart, while it is ``wanted``."""

    link: str
    mac: str
    addresses: tuple[Address, ...]
    count: int
    interval: float
    wanted: Callable[[], bool]


class Announcer:
    """The thread, from the first announcement until :meth:`stop`, in the network namespace of who announced first."""

    def __init__(self) -> None:
        self._netlink = Netlink()
        self._neighbours = Neighbours(self._netlink)
        self._socket: socket.socket | None = None
        self._wake = threading.Condition()
        self._due: list[tuple[float, int, _Announcement]] = []  # a heap: when, which of several then, what
        self._number = itertools.count()
        self._thread: threading.Thread | None = None
        self._stopping = False

    @property
    def calls(self) -> int:
        """How many netlink requests were made."""
        return self._netlink.calls

    def announce(
        self,
        link: str,
        mac: str,
        addresses: Sequence[Address],
        *,
        count: int,
        interval: float,
        wanted: Callable[[], bool],
    ) -> None:
        """Tell the segment of the bridge ``link``, and this host, that ``addresses`` are at ``mac``.

        ``count`` times (0: not at all), the first at once, ``interval`` seconds or more apart. ``wanted`` is asked
        before each, from the thread: when it is false, nothing more is told.
        """
        if count < 1 or not addresses:
            return
        with self._wake:
            if self._stopping:
                return
            self._put(
                _Announcement(
                    link=link, mac=mac, addresses=tuple(addresses), count=count, interval=interval, wanted=wanted
                )
            )
            if self._thread is None:
                self._start()
            self._wake.notify()

    def stop(self) -> None:
        """Tell nothing more, end the thread and close what it held. Twice does nothing."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join()
        self._netlink.close()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name=THREAD, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no more threads: the next announcement tries again
            log.debug("not announced", extra={"why": str(error)})
        else:
            self._thread = thread

    def _put(self, one: _Announcement, after: float = 0.0) -> None:
        heapq.heappush(self._due, (time.monotonic() + after, next(self._number), one))

    # -- in the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while (one := self._next()) is not None:
            wanted = False
            with _forgiven(one):
                wanted = one.wanted()
            if not wanted:
                continue
            for address in one.addresses:
                with _forgiven(one):
                    self._tell_segment(one.link, one.mac, address)
                with _forgiven(one):
                    self._neighbours.correct(one.link, one.mac, address)
            if one.count > 1:
                with self._wake:
                    self._put(replace(one, count=one.count - 1), after=one.interval)

    def _next(self) -> _Announcement | None:
        """Wait until something is due and take it; ``None``: to stop."""
        with self._wake:
            while not self._stopping:
                patience = self._due[0][0] - time.monotonic() if self._due else None
                if patience is not None and patience <= 0:
                    return heapq.heappop(self._due)[-1]
                self._wake.wait(patience)
            return None

    def _tell_segment(self, link: str, mac: str, address: Address) -> None:
        """Send out of every port of the bridge. A bridge where nobody is up yet says ENOBUFS or ENETDOWN."""
        if self._socket is None:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NO_PROTOCOL)
        frame = announcement(mac, address)
        self._socket.sendto(frame.data, (link, frame.protocol))


@contextmanager
def _forgiven(one: _Announcement) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever it is, the next announcement is to be made
        log.debug("not announced", extra={"mac": one.mac, "link": one.link, "why": repr(error)})
