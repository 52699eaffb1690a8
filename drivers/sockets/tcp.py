"""Relayed TCP: for each client a connection of our own to the container, and bytes both ways.

Each direction has one piece of at most 64 KiB on its way: nothing more is read from one end before the other has taken
it, so a slow reader slows its writer and nobody else, and memory is bounded. The end of one direction is passed on as
such (half-close); a reset, too. Dead ends are found by keepalive, after two minutes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from drivers.sockets.admission import Admission, Client
from drivers.sockets.poll import GONE, HUNG_UP, IN, OUT, Poll

_PIECE: Final = 65536
_ACCEPTED_AT_ONCE: Final = 64
_PAUSE: Final = 1.0  # seconds without accepting, when the process has no file left
_RESET: Final = struct.pack("=ii", 1, 0)  # struct linger: close() sends a RST
_KEEPALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
)
_NO_FILES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

Target = tuple[str, int]


@dataclass(slots=True)
class _End:
    """One end of a relayed connection. ``unsent`` is what its own socket has still to take."""

    sock: socket.socket
    unsent: memoryview = field(default_factory=lambda: memoryview(b""))
    ended: bool = False  # nothing more comes from it
    shut: bool = False  # nothing more goes to it, and it was told so
    hung_up: bool = False  # and epoll would tell us so all the time


class _Connection:
    """A client and the container's socket. Connecting until the container's end is writable."""

    def __init__(self, part: Tcp, port: _Port, client: Client, sock: socket.socket) -> None:
        self.port = port
        self.client = client
        self._part = part
        self._near = _End(sock)
        self._far = _End(_connecting(port.target))

    def start(self) -> None:
        """Wait for the container; notice if the client does not."""
        self._part.poll.watch(self._near.sock, 0, self)
        self._part.poll.watch(self._far.sock, OUT, self)

    def ready(self, sock: socket.socket, events: int) -> None:
        """Take what came, pass on what can be sent."""
        end = self._near if sock is self._near.sock else self._far
        if events & GONE and self not in self._part.connecting:
            self.abort()
            return
        if self in self._part.connecting:
            if not self._connected(end, events):
                return
        else:
            end.hung_up = bool(events & HUNG_UP)
        try:
            if events & (IN | HUNG_UP):
                self._read(end, self._other(end))
            self._write(end, self._other(end))
        except OSError:
            self.abort()
            return
        if self._near.shut and self._far.shut:
            self._part.end(self)
        else:
            self._want(self._near)
            self._want(self._far)

    def abort(self) -> None:
        """End both ends by a reset: what was on its way is lost, and they shall know."""
        for end in (self._near, self._far):
            with contextlib.suppress(OSError):
                end.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._part.end(self)

    give_up = abort

    def bury(self) -> None:
        """Close both ends."""
        self._part.poll.bury(self._near.sock)
        self._part.poll.bury(self._far.sock)

    def _connected(self, end: _End, events: int) -> bool:
        """Tell whether the container has answered; if it never will, the client is refused."""
        if end is self._near:
            if events & GONE:
                self.abort()
            else:  # it hung up before we could connect: what it sent comes first
                end.hung_up = True
                self._part.poll.leave(end.sock)
            return False
        code = end.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._part.unreachable(self, os.strerror(code))
            self.abort()
            return False
        del self._part.connecting[self]
        return True

    def _other(self, end: _End) -> _End:
        return self._far if end is self._near else self._near

    def _read(self, end: _End, other: _End) -> None:
        if end.ended or other.unsent:
            return
        try:
            data = end.sock.recv(_PIECE)
        except BlockingIOError:
            return
        end.ended = not data
        other.unsent = memoryview(data)
        self._write(other, end)

    @staticmethod
    def _write(end: _End, other: _End) -> None:
        try:
            while end.unsent:
                end.unsent = end.unsent[end.sock.send(end.unsent) :]
        except BlockingIOError:
            return
        if other.ended and not end.shut:
            end.shut = True
            end.sock.shutdown(socket.SHUT_WR)

    def _want(self, end: _End) -> None:
        """Ask for the events that would get us on, and for no others: epoll repeats what is not dealt with."""
        reading = not end.ended and not self._other(end).unsent
        events = (IN if reading else 0) | (OUT if end.unsent else 0)
        if events or not end.hung_up:
            self._part.poll.watch(end.sock, events, self)
        else:
            self._part.poll.leave(end.sock)


class _Port:
    """A socket that listens, and where its clients are taken."""

    def __init__(self, part: Tcp, sock: socket.socket, target: Target, admission: Admission) -> None:
        self.sock = sock
        self.target = target
        self.admission = admission
        self.connections: set[_Connection] = set()
        self._part = part

    def open(self) -> None:
        """Let clients come."""
        self._part.poll.watch(self.sock, IN, self)

    def ready(self, _sock: socket.socket, _events: int) -> None:
        """Take the clients that wait."""
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                sock, client = self.sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _NO_FILES:
                    self._part.pause(self, str(error))
                    return
                continue  # this client is gone already
            self._part.begin(self, client, sock)

    def give_up(self) -> None:
        """Try again in a while."""
        self._part.pause(self, "see above")


class Tcp:
    """All relayed connections. At most ``limit``, and each is given ``patience`` seconds to reach its container."""

    def __init__(self, poll: Poll, limit: int, patience: float) -> None:
        self.poll = poll
        self.connecting: dict[_Connection, float] = {}
        self._limit = limit
        self._patience = patience
        self._count = 0
        self._ports: dict[socket.socket, _Port] = {}
        self._paused: dict[_Port, float] = {}

    def serve(self, targets: Mapping[socket.socket, Target], admission: Admission) -> None:
        """Take what comes to these sockets, which listen, to their targets.

        For a socket that is served already: connections to another target, or of clients that may not any more, end.
        """
        for sock, target in targets.items():
            port = self._ports.get(sock)
            if port is None:
                port = self._ports[sock] = _Port(self, sock, target, admission)
                port.open()
                continue
            moved = port.target != target
            port.target, port.admission = target, admission
            for connection in list(port.connections):
                if moved or not admission.permits(connection.client):
                    connection.abort()

    def withdraw(self, socks: Mapping[socket.socket, object]) -> None:
        """Serve these sockets no more, and end the connections that came by them."""
        for sock in socks:
            port = self._ports.pop(sock, None)
            if port is not None:
                self.poll.leave(sock)
                self._paused.pop(port, None)
                for connection in list(port.connections):
                    connection.abort()

    def begin(self, port: _Port, client: Client, sock: socket.socket) -> None:
        """Relay a client, or refuse it by a reset."""
        said: dict[str, object] = {"client": client[0], "target": f"{port.target[0]} port {port.target[1]}"}
        if not port.admission.permits(client):
            refuse(sock)
            return
        if self._count >= self._limit:
            self.poll.seldom("relay is full, client refused", {**said, "connections": self._count})
            refuse(sock)
            return
        try:
            _prepare(sock)
            connection = _Connection(self, port, client, sock)
        except OSError as error:
            self.poll.seldom("relay cannot reach the container", {**said, "why": str(error)})
            refuse(sock)
            return
        self._count += 1
        port.connections.add(connection)
        self.connecting[connection] = time.monotonic() + self._patience
        connection.start()

    def end(self, connection: _Connection) -> None:
        """Forget a connection and close it. Once is enough; twice does nothing."""
        self.connecting.pop(connection, None)
        if connection in connection.port.connections:
            connection.port.connections.remove(connection)
            self._count -= 1
            connection.bury()

    def unreachable(self, connection: _Connection, why: str) -> None:
        """Tell the operator that a container does not answer."""
        address, number = connection.port.target
        said = {"client": connection.client[0], "target": f"{address} port {number}", "why": why}
        self.poll.seldom("relay cannot reach the container", said)

    def pause(self, port: _Port, why: str) -> None:
        """Accept nobody at this port for a while."""
        self.poll.seldom("relay accepts nobody for a while", {"why": why, "seconds": _PAUSE})
        self.poll.leave(port.sock)
        self._paused[port] = time.monotonic() + _PAUSE

    def due(self) -> float | None:
        """Return when a connect has taken too long, or a pause is over. Both are queues: the oldest comes first."""
        firsts = [next(iter(queue.values())) for queue in (self.connecting, self._paused) if queue]
        return min(firsts, default=None)

    def expire(self, now: float) -> None:
        """Give up connecting; accept again."""
        for connection, until in list(self.connecting.items()):
            if until > now:
                break
            self.unreachable(connection, f"no answer in {self._patience:g} s")
            connection.abort()
        for port, until in list(self._paused.items()):
            if until > now:
                break
            del self._paused[port]
            port.open()


def refuse(sock: socket.socket) -> None:
    """Close a client's connection by a reset, as if nobody had listened."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    sock.close()


def _prepare(sock: socket.socket) -> None:
    sock.settimeout(0)
    for level, option, value in _KEEPALIVE:
        sock.setsockopt(level, option, value)


def _connecting(target: Target) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in target[0] else socket.AF_INET, socket.SOCK_STREAM)
    try:
        _prepare(sock)
        with contextlib.suppress(BlockingIOError):  # EINPROGRESS
            sock.connect(target)
    except OSError:
        sock.close()
        raise
    return sock
