"""Whose network is it? By the driver's name: `weft`, `weft:TAG`, or whatever a managed plugin was installed as."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from threading import Thread
from typing import Any

import pytest

from plugin.docker import Docker
from plugin.managed import plugin_id

PLUGIN = "3f" * 32


class _Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True
    answers: dict[str, Any]


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, _Server)
        body = json.dumps(server.answers[self.path]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "docker"

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _network(ident: str, driver: str, ipam: str = "default") -> dict[str, Any]:
    return {"Id": ident, "Name": ident, "Driver": driver, "IPAM": {"Driver": ipam}}


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[_Server]:
    rows = [
        _network("n1", "weft"),
        _network("n2", "weft:latest"),
        _network("n3", "registry.example:5000/tools/weft:1.2"),
        _network("n4", "mesh:latest"),
        _network("n5", "bridge", "mesh:latest"),
        _network("n6", "bridge"),
        _network("n7", "meshes:latest"),
    ]
    with _Server(str(tmp_path / "docker.sock"), _Handler) as server:
        server.answers = {f"/networks/{row['Id']}": row for row in rows} | {
            "/networks": rows,
            "/plugins": [{"Id": "aa" * 32, "Name": "meshes:latest"}, {"Id": PLUGIN, "Name": "mesh:latest"}],
        }
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def _ids(docker: Docker) -> list[str]:
    return [one.id for one in docker.networks(driver="weft")]


def test_a_name_counts_without_registry_and_tag(engine: _Server, tmp_path: Path) -> None:
    assert _ids(Docker(tmp_path / "docker.sock")) == ["n1", "n2", "n3"]


def test_a_managed_plugin_is_also_what_it_was_installed_as(engine: _Server, tmp_path: Path) -> None:
    docker = Docker(tmp_path / "docker.sock", PLUGIN)
    assert _ids(docker) == ["n1", "n2", "n3", "n4", "n5"]
    engine.answers["/plugins"] = []  # a name does not change, and is asked for once
    assert _ids(docker) == ["n1", "n2", "n3", "n4", "n5"]


def test_a_plugin_finds_its_id_by_where_its_socket_lies(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "1 0 0:20 / / rw - overlay overlay rw\n"
        f"2 1 0:21 /docker/plugins/{'bb' * 32} /run/docker/elsewhere rw - tmpfs tmpfs rw\n"
        f"3 1 0:21 /docker/plugins/{PLUGIN} /run/docker/plugins rw,nosuid - tmpfs tmpfs rw\n",
        encoding="utf-8",
    )
    assert plugin_id(Path("/run/docker/plugins/weft.sock"), mounts) == PLUGIN
    assert plugin_id(Path("/run/weft/weft.sock"), mounts) is None
    assert plugin_id(Path("/run/docker/plugins/weft.sock")) is None
