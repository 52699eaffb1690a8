"""The relay: takes to a container what NAT cannot take there, TCP and UDP, in one thread for all holds.

NAT has no way for clients of ``[::1]`` (there is no ``route_localnet`` for IPv6), nor between an IPv6 host address and
an IPv4-only container, nor the other way round (facts/network.md 9). For these only; what it costs:

* the container sees an address of the host, not the client's;
* connections end when weft does, and nobody is let in until it is back;
* every byte passes through this process.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

from drivers.kernel.netlink import Netlink
from drivers.sockets.admission import Admission
from drivers.sockets.poll import Poll
from drivers.sockets.tcp import Tcp
from drivers.sockets.udp import Udp

Targets = Mapping[socket.socket, tuple[str, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the relay gives at most.

    ``connections``      TCP clients, of all holds together (two files and at most 128 KiB each); more are refused
    ``flows``            UDP clients (one file each); for one more, the one that was silent longest is forgotten
    ``connect_seconds``  a container has to answer by then
    ``idle_seconds``     a UDP client that is silent, and is not answered, for so long is forgotten
    """

    connections: int = 1000
    flows: int = 1000
    connect_seconds: float = 10.0
    idle_seconds: float = 60.0

    def within(self, files: int) -> Self:
        """Return less where a process has few files: an eighth of them for connections, a sixteenth for flows."""
        return replace(self, connections=min(self.connections, files // 16), flows=min(self.flows, files // 16))

    @property
    def files(self) -> int:
        """How many files it may have open."""
        return 2 * self.connections + self.flows


class Relay:
    """Serves held sockets. The thread is started by the first of them, in that caller's network namespace."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._running: _Running | None = None

    def serve(self, transport: str, targets: Targets, allow: Sequence[str]) -> None:
        """Take what comes to each socket to its target: TCP sockets must listen. ``allow`` empty: from everybody.

        To serve a socket again changes where it leads and who may use it; what does not fit any more ends.
        """
        with self._lock:
            running = self._running = self._running or _Running(self._limits)
        admission = Admission(allow, running.netlink)
        running.poll.call(lambda: running.parts[transport].serve(targets, admission))

    def withdraw(self, transport: str, targets: Targets) -> None:
        """Serve these sockets no more: what came by them is closed by the time this returns, the sockets are not."""
        running = self._running
        if running is not None:
            running.poll.call(lambda: running.parts[transport].withdraw(targets))

    def close(self) -> None:
        """End the thread, if there is one. Whoever made sockets has withdrawn them."""
        with self._lock:
            running, self._running = self._running, None
        if running is not None:
            running.poll.stop()
            running.netlink.close()


class _Running:
    """The thread and what it does."""

    def __init__(self, limits: Limits) -> None:
        self.netlink = Netlink()
        self.poll = Poll("weft-relay")
        tcp = Tcp(self.poll, limits.connections, limits.connect_seconds)
        udp = Udp(self.poll, limits.flows, limits.idle_seconds)
        self.parts: Final[Mapping[str, Tcp | Udp]] = {"tcp": tcp, "udp": udp}
        self.poll.parts = (tcp, udp)
