"""The application on a real gunicorn, asked as Go asks."""

import json
import os
from pathlib import Path

import pytest

from tests.plugin.bodies import BODIES, METHODS, NO_ADDRESSES, OF_ENDPOINT
from tests.plugin.fake_driver import MAC
from tests.plugin.raw_http import exchange, request


@pytest.mark.parametrize("host", ["", "plugin.moby.localhost"])
@pytest.mark.parametrize("path", [*sorted(METHODS), "/NetworkDriver.Invented"])
def test_every_answer_closes_its_connection(server: Path, path: str, host: str) -> None:
    for body in (b"", json.dumps(BODIES.get(path, {})).encode() + b"\n"):
        status, headers, answer = exchange(server, request(path, body, host))
        assert status == (200 if path in METHODS else 404)
        assert headers["Connection"] == "close"
        assert headers["Content-Type"] == "application/json"
        assert int(headers["Content-Length"]) == len(answer)
        assert isinstance(json.loads(answer), dict)


def test_only_root_may_speak_to_it(server: Path) -> None:
    assert server.stat().st_mode & 0o777 == 0o600
    assert server.stat().st_uid == os.geteuid()


def test_a_large_container_s_ports_come_through(server: Path) -> None:
    rows = [{"Proto": 6, "Port": 80, "HostPort": port, "HostPortEnd": port} for port in range(1, 10_001)]
    body = json.dumps(OF_ENDPOINT | {"Options": {"com.docker.network.portmap": rows}}).encode()
    assert json.loads(exchange(server, request("/NetworkDriver.CreateEndpoint", body))[2]) == {
        "Interface": NO_ADDRESSES | {"MacAddress": MAC}
    }
