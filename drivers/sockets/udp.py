"""Relayed UDP: for each client a socket of our own to the container, until nothing has come for a while.

Answers leave from the address that the client asked, which the kernel tells of each datagram (``IP_PKTINFO``): a host
has many, and a client throws away what comes from another one. Errors that ICMP reports are passed over: they are about
a datagram that is gone. What cannot be sent at once is lost, as UDP promises.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Final

from drivers.sockets.admission import Admission, Client
from drivers.sockets.poll import IN, Poll

Target = tuple[str, int]
Source = tuple[tuple[int, int, bytes], ...]
"""What makes an answer leave from the address that the client asked: ancillary data for ``sendmsg``."""

_IP_PKTINFO: Final = 8  # <linux/in.h>; Python has no name for it before 3.14
_PKTINFO4: Final = struct.Struct("=I4s4s")
_PKTINFO6: Final = struct.Struct("=16sI")
_ROOM: Final = socket.CMSG_SPACE(max(_PKTINFO4.size, _PKTINFO6.size))
_DATAGRAM: Final = 65535
_TAKEN_AT_ONCE: Final = 32
_SERVED_BYTES: Final = 212992  # the kernel's own default
_HELD_BYTES: Final = 1  # the kernel makes the least of it that it can


@dataclass(slots=True, eq=False)
class _Flow:
    """A client that talks to a container, until ``until``."""

    part: Udp
    port: _Port
    client: Client
    source: Source
    sock: socket.socket
    until: float = 0.0

    @property
    def name(self) -> tuple[_Port, Client, Source]:
        """What tells flows apart."""
        return (self.port, self.client, self.source)

    def ready(self, _sock: socket.socket, _events: int) -> None:
        """Pass on what the container answers."""
        for _ in range(_TAKEN_AT_ONCE):
            try:
                data = self.sock.recv(_DATAGRAM)
            except BlockingIOError:
                return
            except OSError:  # ICMP: nobody listens there
                continue
            self.part.keep(self)
            with contextlib.suppress(OSError):
                self.port.sock.sendmsg([data], self.source, 0, self.client)

    def give_up(self) -> None:
        """End it; the next datagram begins another."""
        self.part.end(self)

    def send(self, data: bytes) -> None:
        """Pass on what the client sent. A first failure is about the datagram before, and takes this one with it."""
        for _ in range(2):
            try:
                self.sock.send(data)
            except BlockingIOError:
                return
            except OSError:
                continue
            return


class _Port:
    """A held socket, and where its datagrams are taken."""

    def __init__(self, part: Udp, sock: socket.socket, target: Target, admission: Admission) -> None:
        self.sock = sock
        self.target = target
        self.admission = admission
        self.flows: set[_Flow] = set()
        self._part = part

    def open(self) -> None:
        """Take datagrams from now on; what came before is nobody's."""
        if self.sock.family == socket.AF_INET:
            self.sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        else:
            self.sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        for _ in self._waiting():
            pass
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SERVED_BYTES)
        self._part.poll.watch(self.sock, IN, self)

    def close(self) -> None:
        """Take none any more. The socket keeps its port."""
        self._part.poll.leave(self.sock)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _HELD_BYTES)

    def ready(self, _sock: socket.socket, _events: int) -> None:
        """Pass on the datagrams that wait."""
        for data, client, source in self._waiting():
            self._part.take(self, data, client, source)

    def give_up(self) -> None:
        """Go on: it was about one datagram, and that is gone."""
        self._part.poll.watch(self.sock, IN, self)

    def _waiting(self) -> Iterator[tuple[bytes, Client, Source]]:
        for _ in range(_TAKEN_AT_ONCE):
            try:
                data, ancillary, _, client = self.sock.recvmsg(_DATAGRAM, _ROOM)
            except BlockingIOError:
                return
            except OSError:
                continue
            yield data, client, _source(ancillary)


class Udp:
    """All flows. At most ``limit``: past it the one that was silent longest ends; each ends after ``idle`` seconds."""

    def __init__(self, poll: Poll, limit: int, idle: float) -> None:
        self.poll = poll
        self._limit = limit
        self._idle = idle
        self._ports: dict[socket.socket, _Port] = {}
        self._flows: OrderedDict[tuple[_Port, Client, Source], _Flow] = OrderedDict()  # silent longest: first

    def serve(self, targets: Mapping[socket.socket, Target], admission: Admission) -> None:
        """Take what comes to these sockets to their targets.

        For a socket that is served already: flows to another target, or of clients that may not any more, end.
        """
        for sock, target in targets.items():
            port = self._ports.get(sock)
            if port is None:
                port = self._ports[sock] = _Port(self, sock, target, admission)
                port.open()
                continue
            moved = port.target != target
            port.target, port.admission = target, admission
            for flow in list(port.flows):
                if moved or not admission.permits(flow.client):
                    self.end(flow)

    def withdraw(self, socks: Mapping[socket.socket, object]) -> None:
        """Serve these sockets no more, and end the flows that came by them."""
        for sock in socks:
            port = self._ports.pop(sock, None)
            if port is not None:
                port.close()
                for flow in list(port.flows):
                    self.end(flow)

    def take(self, port: _Port, data: bytes, client: Client, source: Source) -> None:
        """Pass a datagram on by its flow; begin one if there is none and the client may."""
        flow = self._flows.get((port, client, source))
        if flow is None:
            if not port.admission.permits(client):
                return
            try:
                flow = self._begin(port, client, source)
            except OSError as error:
                target = f"{port.target[0]} port {port.target[1]}"
                self.poll.seldom(
                    "relay cannot reach the container", {"client": client[0], "target": target, "why": str(error)}
                )
                return
        self.keep(flow)
        flow.send(data)

    def keep(self, flow: _Flow) -> None:
        """Note that something came."""
        flow.until = time.monotonic() + self._idle
        self._flows.move_to_end(flow.name)

    def end(self, flow: _Flow) -> None:
        """Forget a flow and close it. Once is enough; twice does nothing."""
        if self._flows.pop(flow.name, None) is not None:
            flow.port.flows.remove(flow)
            self.poll.bury(flow.sock)

    def due(self) -> float | None:
        """Return when the flow that was silent longest ends."""
        return next(iter(self._flows.values())).until if self._flows else None

    def expire(self, now: float) -> None:
        """End the flows that were silent too long."""
        while self._flows:
            flow = next(iter(self._flows.values()))
            if flow.until > now:
                return
            self.end(flow)

    def _begin(self, port: _Port, client: Client, source: Source) -> _Flow:
        if len(self._flows) >= self._limit:
            self.poll.seldom("relay is full, a silent client is forgotten", {"flows": len(self._flows)})
            self.end(next(iter(self._flows.values())))
        flow = _Flow(self, port, client, source, _connected(port.target))
        self._flows[flow.name] = flow
        port.flows.add(flow)
        self.poll.watch(flow.sock, IN, flow)
        return flow


def _connected(target: Target) -> socket.socket:
    family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        sock.connect(target)
    except OSError:
        sock.close()
        raise
    return sock


def _source(ancillary: list[tuple[int, int, bytes]]) -> Source:
    """Return what makes an answer leave from where the datagram went. Nothing for multicast: nobody can be that."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
            _, local, _ = _PKTINFO4.unpack_from(data)
            return ((level, kind, _PKTINFO4.pack(0, local, bytes(4))),)
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
            packed, link = _PKTINFO6.unpack_from(data)
            address = IPv6Address(packed)
            if not address.is_multicast:
                return ((level, kind, _PKTINFO6.pack(packed, link if address.is_link_local else 0)),)
    return ()
