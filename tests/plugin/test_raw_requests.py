"""What no engine ever sends, over the real socket: an answer or a closed connection, and the next call is answered."""

import json
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from tests.plugin.bodies import NEED_A_BODY
from tests.plugin.raw_http import exchange, request

RAW = {
    "no request": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "no length": b"POST /NetworkDriver.Join HTTP/1.1\r\nHost: \r\n\r\n",
    "a length that is none": b"POST /NetworkDriver.Join HTTP/1.1\r\nContent-Length: many\r\n\r\n",
    "a negative length": b"POST /NetworkDriver.Join HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    "two lengths": b"POST /NetworkDriver.Join HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "chunks that are none": b"POST /NetworkDriver.Join HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
    "a length and chunks": (
        b"POST /NetworkDriver.Join HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "a long line": b"POST /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
    "a long header": b"POST /NetworkDriver.Join HTTP/1.1\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
    "many headers": b"POST /NetworkDriver.Join HTTP/1.1\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
    "an upgrade": b"GET / HTTP/1.1\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
    "a path with everything": b"POST /../..%2f%00;$(touch%20x)`x`?a=%ff HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("kind", RAW)
def test_what_is_no_request_of_docker_s_harms_nobody(server: Path, kind: str) -> None:
    """The server may answer with a 4xx of its own, or hang up: never a 500, and the next call is answered."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(server))
        with suppress(BrokenPipeError, ConnectionResetError):  # it need not read all of it
            connection.sendall(RAW[kind])
            connection.shutdown(socket.SHUT_WR)
        try:
            said = b"".join(iter(lambda: connection.recv(65536), b""))
        except ConnectionResetError:
            said = b""
    assert not said or said.startswith((b"HTTP/1.1 4", b"HTTP/1.1 200")), said[:200]
    assert b"Traceback" not in said
    assert exchange(server, request("/Plugin.Activate"))[0] == 200


@pytest.mark.parametrize("path", NEED_A_BODY)
def test_a_hostile_body_is_answered_over_the_socket_too(server: Path, path: str) -> None:
    for body in (
        b"[" * 1_000_000,
        b'{"' + b"a" * 1_000_000 + b'":1}',
        b'{"Options":{"a":' * 50_000,
        b"\xff" * 1_000_000,
        json.dumps({"NetworkID": "a/../b", "EndpointID": "$(reboot)", "SandboxKey": "x", "PoolID": 7}).encode(),
        json.dumps({"NetworkID": [[]], "Options": [1], "Interface": "x", "IPv4Data": {"a": {}}, "PoolID": {}}).encode(),
    ):
        status, _, answer = exchange(server, request(path, body))
        said = json.loads(answer)
        assert status == 200
        assert len(answer) < 100_000
        assert said.get("Err") == said.get("Error")
