"""Whose network is it? By the driver's name: `weft`, `weft:TAG`, or whatever a managed plugin was installed as."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from threading import Thread
from typing import Any

import pytest

from plugin.docker import Docker, Swarm
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


OF_SWARM = "/networks?filters=%7B%22scope%22%3A%20%7B%22swarm%22%3A%20true%7D%7D"


def _swarm(engine: _Server, *, state: str = "active", ingress: bool = True, peers: int = 2) -> None:
    rows = [{"Id": "shop", "Ingress": False}, *([{"Id": "in", "Ingress": True}] if ingress else [])]
    engine.answers |= {
        "/info": {"Swarm": {"LocalNodeState": state}},
        OF_SWARM: rows,
        "/networks/in": {"Peers": [{"Name": str(last), "IP": f"192.0.2.{last}"} for last in range(1, peers + 1)]},
        "/networks/shop": {"Peers": [{"Name": "9", "IP": "192.0.2.9"}]},
    }


def test_the_nodes_of_a_swarm_are_those_of_its_ingress_network(engine: _Server, tmp_path: Path) -> None:
    docker = Docker(tmp_path / "docker.sock")
    _swarm(engine)
    assert docker.swarm() == Swarm(nodes=frozenset({"192.0.2.1", "192.0.2.2"}), complete=True)
    _swarm(engine, peers=0)  # it has only just joined
    assert docker.swarm() == Swarm(settled=False)
    _swarm(engine, ingress=False)
    assert docker.swarm() == Swarm(nodes=frozenset({"192.0.2.9"}))


@pytest.mark.parametrize(
    ("state", "found"),
    [
        ("inactive", Swarm(complete=True)),
        ("pending", Swarm(settled=False)),
        ("locked", Swarm(settled=False)),
        ("error", Swarm(settled=False)),
    ],
)
def test_a_host_that_is_in_no_swarm_has_no_nodes_and_one_on_the_way_is_asked_again(
    engine: _Server, tmp_path: Path, state: str, found: Swarm
) -> None:
    _swarm(engine, state=state)
    assert Docker(tmp_path / "docker.sock").swarm() == found


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
