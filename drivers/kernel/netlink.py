"""One netlink socket of a kind for the whole process, under one lock: eight sockets in eight threads were no faster.

The kernel answers a request before ``send`` returns, so nothing here waits for anybody but the kernel's own lock.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from collections.abc import Iterator
from itertools import count
from typing import Final

from drivers.kernel.wire import NLMSG_DONE, NLMSG_ERROR, Message, error, messages

GENERIC: Final = 16
"""``NETLINK_GENERIC``: families that are asked for by name."""

NETFILTER: Final = 12
"""``NETLINK_NETFILTER``: conntrack and nftables."""

_SOL_NETLINK: Final = 270
_CAP_ACK, _EXT_ACK, _STRICT_CHECK = 10, 11, 12
_RECEIVE_BYTES: Final = 65536
_SEQUENCE_AT: Final = 8  # bytes into the header
_MULTI, _INTERRUPTED = 0x2, 0x10  # NLM_F_MULTI, NLM_F_DUMP_INTR
_DUMPS: Final = 20
_PATIENCE: Final = 10.0  # seconds; only a kernel out of memory loses an answer


class Netlink:
    """Asks and is answered. Opened at the first request, in the network namespace of the thread that makes it.

    ``protocol`` is the part of the kernel that is asked: ``socket.NETLINK_ROUTE``, or one of the two above.
    ``calls`` counts the requests, for tests that bound the work of an operation.
    """

    def __init__(self, protocol: int = socket.NETLINK_ROUTE) -> None:
        self.calls = 0
        self._protocol = protocol
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._sequence = count(1)

    def ask(self, request: bytes) -> list[Message]:
        """Send one request and return what is told, without the acknowledgement.

        A dump during which something changed is asked for again. Raises ``OSError`` with the kernel's errno and,
        where it gives any, the kernel's own words.
        """
        for _ in range(_DUMPS):
            told = self._ask(request)
            if not any(message.flags & _INTERRUPTED for message in told):
                return _told_or_raise(told)
        raise OSError(errno.EINTR, f"what was looked at changed during each of {_DUMPS} looks at them")

    def _ask(self, request: bytes) -> list[Message]:
        with self._lock:
            self.calls += 1
            sequence = next(self._sequence) & 0xFFFFFFFF
            data = request[:_SEQUENCE_AT] + struct.pack("=II", sequence, 0) + request[_SEQUENCE_AT + 8 :]
            if self._socket is None:
                self._socket = _open(self._protocol)
            try:
                self._socket.send(data)
                return list(self._answer(self._socket, sequence))
            except OSError:
                self._close()  # half an answer may be left in it
                raise

    def close(self) -> None:
        """Close the socket; the next request opens another."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    @staticmethod
    def _answer(sock: socket.socket, sequence: int) -> Iterator[Message]:
        while True:
            for message in messages(sock.recv(_RECEIVE_BYTES)):
                if message.sequence != sequence:
                    continue
                yield message
                if message.type in (NLMSG_ERROR, NLMSG_DONE) or not message.flags & _MULTI:
                    return


def _told_or_raise(told: list[Message]) -> list[Message]:
    """Return an answer without its end, or raise the error it ends with."""
    *before, last = told
    if last.type not in (NLMSG_ERROR, NLMSG_DONE):
        return told
    code, words = error(last)
    if code:
        raise OSError(code, words or os.strerror(code))
    return before


def _open(protocol: int) -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    try:
        sock.bind((0, 0))
        sock.settimeout(_PATIENCE)
        for option in (_CAP_ACK, _EXT_ACK, _STRICT_CHECK):
            sock.setsockopt(_SOL_NETLINK, option, 1)
    except OSError:
        sock.close()
        raise
    return sock
