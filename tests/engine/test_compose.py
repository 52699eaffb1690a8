"""A Compose file written for Docker's own bridge driver works unchanged but for one word, and does the same.

On 20.10, for which Debian's docker-compose 1.29.2 is made. On 28 it asks in an old way for a MAC, which is not listened
to, and Docker's own bridge driver is another: it drops what answers a container that is not masqueraded (raw table).
"""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.engine.conftest import look
from tests.lab.engine import Engine
from tests.lab.image import NAME
from tests.lab.net import Neighbour
from tests.lab.talk import SERVE, Container, listen, seen_by
from tests.lab.wait import await_
from tests.lab.weft import Weft

pytestmark = pytest.mark.engine

FILE = {
    "version": "2.4",
    "services": {
        "web": {
            "networks": {
                "front": {"ipv4_address": "10.80.0.10", "aliases": ["www"]},
                "back": {"ipv4_address": "10.81.0.10"},
            }
        },
        "database": {"networks": {"back": {"ipv4_address": "10.81.0.20"}}, "mac_address": "02:42:0a:51:00:14"},
        "visitor": {"networks": {"front": {}}},
    },
    "networks": {
        "front": {
            "driver": "bridge",
            "driver_opts": {
                "com.docker.network.bridge.name": "front0",
                "com.docker.network.bridge.enable_icc": "true",
                "com.docker.network.bridge.enable_ip_masquerade": "true",
                "com.docker.network.bridge.host_binding_ipv4": "0.0.0.0",  # noqa: S104 - Docker's own default
                "com.docker.network.driver.mtu": "1400",
            },
            "ipam": {
                "driver": "default",
                "config": [{"subnet": "10.80.0.0/24", "gateway": "10.80.0.254", "ip_range": "10.80.0.128/25"}],
            },
            "labels": {"org.example.where": "front"},
        },
        "back": {
            "driver": "bridge",
            "driver_opts": {"com.docker.network.bridge.enable_ip_masquerade": "false"},
            "ipam": {"config": [{"subnet": "10.81.0.0/24"}]},
        },
    },
}
IN_COMPOSE_S_WORDS = SERVE.replace("$", "$$")


def compose_file(driver: str) -> str:
    """Return the file (JSON is YAML): every service answers, and only the driver differs."""
    file = json.loads(json.dumps(FILE))
    for service in file["services"].values():
        service |= {"image": NAME, "command": ["/bin/sh", "-c", IN_COMPOSE_S_WORDS]}
    text = json.dumps(file, indent=2)
    return text.replace('"driver": "bridge"', f'"driver": "{driver}"')


def observed(engine: Engine, neighbour: Neighbour) -> dict[str, Any]:
    """Return what a user sees of the running project."""
    web, database, visitor = (Container(engine, f"shop_{name}_1") for name in ("web", "database", "visitor"))
    for one in (web, database, visitor):
        await_(lambda one=one: one.seen_by("localhost"), 20, f"{one.name} to listen")  # type: ignore[misc]
    (bridge,) = json.loads(engine.node.run("ip", "-json", "address", "show", "front0").stdout)
    (told,) = engine.api("GET", '/networks?filters={"name":["shop_front"]}')
    return {
        "links": {one.name: {name: link.addresses for name, link in one.links().items()} for one in (web, database)},
        "mtu": {one.name: sorted(link.mtu for link in one.links().values()) for one in (web, visitor)},
        "mac as asked for": database.links()["eth0"].mac,
        "default routes": {one.name: one.default() for one in (web, database, visitor)},
        "bridge": (bridge["mtu"], {one["local"] for one in bridge["addr_info"] if one["family"] == "inet"}),
        "docker says": (told["IPAM"]["Config"], told["Options"], told["Labels"]["org.example.where"]),
        "by service name": str(web.seen_by("database")),
        "by alias": str(visitor.seen_by("www")),
        "by container name": str(database.seen_by("shop_web_1")),
        "between networks": str(visitor.seen_by(database.v4("shop_back"))),
        "out, masqueraded": str(visitor.seen_by(neighbour.v4)),
        "out, as itself": str(database.seen_by(neighbour.v4)),
        "in from next door": [str(seen_by(neighbour, one)) for one in (web.v4("shop_front"), database.v4("shop_back"))],
    }


def test_the_same_file_does_the_same_with_weft(
    engine: Engine, weft: Weft, neighbour: Neighbour, tmp_path: Path
) -> None:
    listen(neighbour, tmp_path / "neighbour")
    for subnet in ("10.80.0.0/24", "10.81.0.0/24"):
        neighbour.ip("route", "add", subnet, "via", str(neighbour.node_v4))
    engine.docker("network", "create", "-d", "weft", "other")  # so that what weft does to the host is done already
    seen = {}
    for driver in ("bridge", "weft"):
        before = look(engine.node)
        (tmp_path / "docker-compose.yml").write_text(compose_file(driver), encoding="utf-8")
        engine.compose("-p", "shop", "up", "-d", cwd=tmp_path)
        drivers = engine.docker("network", "ls", "--filter", "name=shop_", "--format", "{{.Name}} {{.Driver}}")
        assert sorted(drivers.splitlines()) == [f"shop_back {driver}", f"shop_front {driver}"]
        seen[driver] = observed(engine, neighbour)
        assert "up-to-date" in engine.compose("-p", "shop", "up", "-d", cwd=tmp_path)  # nothing is made anew
        engine.compose("-p", "shop", "down", "-t", "0", cwd=tmp_path)
        await_(lambda before=before: look(engine.node) == before, 10, f"nothing to be left of {driver}")  # type: ignore[misc]
    assert seen["weft"] == seen["bridge"]
    # and it is what the file says
    assert seen["weft"] == seen["weft"] | {
        "mac as asked for": "02:42:0a:51:00:14",
        "by service name": "10.81.0.10",
        "by alias": "10.80.0.128",
        "by container name": "10.81.0.20",
        "between networks": "None",
        "out, masqueraded": str(neighbour.node_v4),
        "out, as itself": "10.81.0.20",
        "in from next door": ["None", "None"],
    }
    assert seen["weft"]["default routes"]["shop_visitor_1"] == ("10.80.0.254", "eth0")
    assert seen["weft"]["bridge"] == (1400, {"10.80.0.254"})
