"""HTTP over a Unix socket, one request per connection: Docker's API, weft's sockets."""

import http.client
import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        folder = os.open(self._path.parent, os.O_PATH)
        try:
            self.sock.connect(f"/proc/self/fd/{folder}/{self._path.name}")  # a path has 107 bytes at most (unix(7))
        finally:
            os.close(folder)


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back."""

    status: int
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401 - JSON is anything
        """The body, decoded."""
        return json.loads(self.body) if self.body else None


def call(path: Path, method: str, target: str, body: object = None, timeout: float = 60) -> Reply:
    """Send one request and return the reply; `body` is sent as JSON, bytes as they are. OSError if nobody answers."""
    raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    headers = {} if isinstance(body, bytes) or body is None else {"Content-Type": "application/json"}
    connection = _Connection(path, timeout)
    try:
        connection.request(method, target, raw, headers)
        response = connection.getresponse()
        return Reply(response.status, response.read())
    except http.client.HTTPException as error:
        raise ConnectionError(f"{method} {target}: {error!r}") from error
    finally:
        connection.close()
