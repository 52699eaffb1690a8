"""How Linux lets a port be held so that nobody binds it beside us.

Measured on Linux 6.18 (tests/drivers/test_sockets.py shows most of it again):

=========================================  ==========================================================================
ours                                       another bind, with SO_REUSEADDR, at the same or a more specific address
=========================================  ==========================================================================
TCP bound, without SO_REUSEADDR            EADDRINUSE
TCP bound, with SO_REUSEADDR               succeeds, and so does its listen()
TCP bound with it, then set to 0           EADDRINUSE
TCP listening, with or without             EADDRINUSE
TCP listening, then shutdown()             as when it was bound: it has its port still, and clients are refused
UDP without SO_REUSEADDR                   EADDRINUSE
UDP with SO_REUSEADDR                      succeeds: never set it
=========================================  ==========================================================================

SO_REUSEPORT does not help the other one either, nor does an IPv6 socket that takes IPv4. And our own bind, in front of
what connections have left behind:

=========================================  ==========================================================================
at the port there is                       our bind
=========================================  ==========================================================================
a server's connection, open or TIME_WAIT   EADDRINUSE; succeeds with SO_REUSEADDR if the server had set it, as all do
a client's, open or TIME_WAIT              EADDRINUSE with or without, at its own address and the wildcard
=========================================  ==========================================================================
"""

from __future__ import annotations

import errno
import socket
from typing import Final

from drivers.holders import IPAddress

TYPES: Final = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
"""The transports that have sockets. SCTP has none here (EPROTONOSUPPORT), and kernels without it are the rule."""

_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_BACKLOG: Final = 512


def bound(transport: str, address: IPAddress, port: int) -> socket.socket:
    """Return a socket that has the port to itself and does nothing with it; port 0: one of the kernel's choice.

    Does not block. Raises ``OSError``: EADDRINUSE also for a port that only a client's connection uses.
    """
    try:
        return _bound(transport, address, port, reuse=False)
    except OSError as error:
        if transport != "tcp" or error.errno != errno.EADDRINUSE:
            raise
    sock = _bound(transport, address, port, reuse=True)  # past what a server that is gone has left in TIME_WAIT
    _set_reuse(sock, on=False)
    return sock


def is_there(address: IPAddress) -> bool:
    """Tell whether an address can be bound on this host: whether it is its own."""
    try:
        _bound("udp", address, 0, reuse=False).close()
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            return False
        raise
    return True


def listen(sock: socket.socket) -> None:
    """Let clients in. What they leave in TIME_WAIT does not keep the port from whoever comes after us."""
    _set_reuse(sock, on=True)  # connections inherit it; safe, for nobody binds beside a socket that listens
    try:
        sock.listen(_BACKLOG)
    except OSError:
        _set_reuse(sock, on=False)
        raise


def unlisten(sock: socket.socket) -> None:
    """Let nobody in any more, and keep the port. Clients that were not yet accepted are refused."""
    _set_reuse(sock, on=False)
    sock.shutdown(socket.SHUT_RDWR)


def _bound(transport: str, address: IPAddress, port: int, *, reuse: bool) -> socket.socket:
    sock = socket.socket(_FAMILIES[address.version], TYPES[transport] | socket.SOCK_NONBLOCK)
    try:
        if address.version == 6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if reuse:
            _set_reuse(sock, on=True)
        sock.bind((f"{address}", port))
        if transport == "udp":
            sock.setsockopt(
                socket.SOL_SOCKET, socket.SO_RCVBUF, 1
            )  # what comes past NAT is nobody's: keep little of it
    except OSError:
        sock.close()
        raise
    return sock


def _set_reuse(sock: socket.socket, *, on: bool) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(on))
