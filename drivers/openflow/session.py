"""One connection to a bridge, and the thread that reads it.

Answers go to whoever asked, and what the flow monitor tells is kept until somebody takes it, in the order in which it
came: so it is known of each change by others whether it was before or after what we have just done.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Final

from drivers.errors import HostFailure, Unsupported
from drivers.openflow import messages
from drivers.openflow.messages import Garbled, Message, Part, Type, Update

PATIENCE: Final = 10.0
"""Seconds that ovs-vswitchd may take to answer: it does nothing else while it takes a large OVSDB transaction."""
GREETING: Final = 5.0
"""Seconds that it may take to greet."""
_READ: Final = 1 << 16  # bytes


class Session:
    """An open connection. Ends by itself when the bridge or ovs-vswitchd goes; then every question fails.

    ``ask`` is for one thread at a time. ``heard`` is called, from the reading thread, when the monitor has told
    something and when the connection has ended; it must not wait.
    """

    def __init__(self, path: Path, heard: Callable[[], None]) -> None:
        """Connect. Raises OSError where nobody listens, HostFailure where nobody greets."""
        self._heard = heard
        self._path = path
        self._xids = count(1)
        self._state = threading.Condition()
        self._awaited: int | None = None
        self._answers: list[Message] = []
        self._updates: deque[Update] = deque()
        self._told = 0
        self._over = False
        self._sending = threading.Lock()
        self._buffer = bytearray()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(GREETING)
            self._socket.connect(str(path))
            self._greet()
            self._socket.settimeout(None)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", int(PATIENCE), 0))
        except BaseException:
            self._socket.close()
            raise
        self._thread = threading.Thread(target=self._run, name=f"openflow {path.stem}", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the connection is open."""
        return not self._over

    def xid(self) -> int:
        """Return a new number for a message."""
        return next(self._xids)

    def ask(self, asked: Sequence[bytes], patience: float = PATIENCE) -> tuple[list[Message], int]:
        """Send messages, wait until the switch has dealt with all of them, and return its answers.

        Also how many of the monitor's updates that nobody has taken yet came before the last answer. Raises
        HostFailure when the connection is lost or nothing comes in time; the session is over then.
        """
        last = self.xid()
        with self._state:
            self._awaited, self._answers = last, []
        try:
            self._send(b"".join((*asked, messages.message(Type.BARRIER_REQUEST, last))))
        except OSError as why:
            self.close()
            raise HostFailure(f"{self._path} was lost: {why.strerror or why}") from None
        if self._answered(patience):
            return self._answers, self._told
        gone = "closed the connection" if self._over else f"did not answer within {patience:g} s"
        self.close()
        raise HostFailure(f"ovs-vswitchd {gone} ({self._path}); look at its log, and start it again if it is gone")

    def _answered(self, patience: float) -> bool:
        with self._state:
            self._state.wait_for(lambda: self._over or self._awaited is None, timeout=patience)
            return self._awaited is None

    def take(self, at_most: int | None = None) -> list[Update]:
        """Take the monitor's updates off, in the order in which they came."""
        with self._state:
            number = len(self._updates) if at_most is None else min(at_most, len(self._updates))
            return [self._updates.popleft() for _ in range(number)]

    def close(self) -> None:
        """End the connection and join the thread. A second time is fine."""
        with suppress(OSError):  # it is gone already
            self._socket.shutdown(socket.SHUT_RDWR)
        if threading.current_thread() is not self._thread:
            self._thread.join()
        self._socket.close()

    def _send(self, data: bytes) -> None:
        with self._sending:
            self._socket.sendall(data)

    def _greet(self) -> None:
        """Say hello and hear it. What comes with the same breath stays in the buffer."""
        self._socket.sendall(messages.hello(self.xid()))
        while True:
            try:
                data = self._socket.recv(_READ)
            except TimeoutError:
                raise HostFailure(f"ovs-vswitchd did not greet within {GREETING:g} s ({self._path})") from None
            if not data:
                raise ConnectionResetError(f"{self._path} was closed")
            self._buffer += data
            for first in messages.cut(self._buffer):
                if first.type != Type.HELLO:
                    raise HostFailure(f"{self._path} greeted with a message of type {first.type}")
                if not messages.meets(first):
                    raise Unsupported(
                        f"bridge {self._path.stem} may not speak OpenFlow 1.4; let it with: "
                        f"ovs-vsctl add bridge {self._path.stem} protocols OpenFlow14"
                    )
                return

    def _run(self) -> None:
        with suppress(OSError, Garbled):  # whatever it was: a new session starts from what is there
            self._read()
        with self._state:
            self._over = True
            self._state.notify_all()
        self._heard()

    def _read(self) -> None:
        data = b"hello"
        while data:
            for one in messages.cut(self._buffer):
                self._take(one)
            data = self._socket.recv(_READ)
            self._buffer += data

    def _take(self, one: Message) -> None:
        if one.type == Type.ECHO_REQUEST:
            self._send(messages.message(Type.ECHO_REPLY, one.xid, one.body))
            return
        if one.type == Type.MULTIPART_REPLY:
            about, _, rest = messages.read_multipart(one.body)
            if about == Part.MONITOR:
                updates = list(messages.read_updates(rest))
                with self._state:
                    self._updates += updates
                if updates:
                    self._heard()
                return
        with self._state:
            if self._awaited is None:
                return
            if one.type == Type.BARRIER_REPLY and one.xid == self._awaited:
                self._awaited, self._told = None, len(self._updates)
                self._state.notify_all()
            else:
                self._answers.append(one)
