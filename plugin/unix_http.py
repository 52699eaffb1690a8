"""HTTP over a unix socket, by the standard library: how the commands reach weft, and weft reaches Docker."""

from __future__ import annotations

import http.client
import socket
from contextlib import suppress
from pathlib import Path


class UnixConnection(http.client.HTTPConnection):
    """A connection to the socket at a path."""

    def __init__(self, path: Path, seconds: float) -> None:
        """Connect at the first request; give up after ``seconds`` of silence."""
        super().__init__("localhost", timeout=seconds)
        self._path = path
        self._stream: socket.socket | None = None

    def connect(self) -> None:
        """Connect."""
        self.sock = self._stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))

    def wait_forever(self) -> None:
        """Give up on nothing from now on: an answer that goes on may be silent for days."""
        if self._stream is not None:
            self._stream.settimeout(None)

    def hang_up(self) -> None:
        """End the conversation from another thread: whoever reads finds its end."""
        with suppress(OSError):  # it has ended by itself
            if self._stream is not None:
                self._stream.shutdown(socket.SHUT_RDWR)
