"""The plug of a full host is pulled: everything is back without a hand, and how long that takes is told."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.engine.breakable import await_healthy, breakable_host, listed
from tests.engine.conftest import Host
from tests.engine.test_restart import bridges, veths
from tests.lab.image import NAME
from tests.lab.matrix import both_engines
from tests.lab.node import Node
from tests.lab.ovs import Ovs
from tests.lab.wait import await_

pytestmark = [pytest.mark.engine, pytest.mark.faults]

CONTAINERS = 100
NETWORKS = {"one": "bridge", "two": "ovs", "three": "bridge", "four": "ovs", "five": "bridge"}
BOUND = 300  # seconds; the time itself is told
SERVES = ("httpd", "-f", "-p", "80", "-h", "/www")

KNOCK = r"""
import selectors, socket, sys

waiting = selectors.DefaultSelector()
for address in sys.argv[1:]:
    sock = socket.socket()
    sock.setblocking(False)
    sock.connect_ex((address, 80))
    waiting.register(sock, selectors.EVENT_WRITE, address)
while waiting.get_map():
    ready = waiting.select(1)
    if not ready:
        break
    for key, _ in ready:
        waiting.unregister(key.fileobj)
        if key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
            print(key.data)
"""
"""Prints the addresses at which somebody listens on port 80."""


def names() -> dict[str, str]:
    """Return the containers, each with its network."""
    networks = list(NETWORKS)
    return {f"c{number:03}": networks[number % len(networks)] for number in range(CONTAINERS)}


def answering(host: Host) -> set[str]:
    """Return the addresses of weft's endpoints at which somebody answers."""
    at = [row["ipv4"] for row in listed(host.weft, "endpoint")]
    return set(host.weft.place.run("python3", "-c", KNOCK, *at, timeout=120).stdout.split())


@both_engines
def test_a_hundred_containers_are_back_after_a_power_off(private_node: Node, tell: Callable[[str], None]) -> None:
    node = private_node
    with breakable_host(node) as host, Ovs(node) as ovs:
        engine, weft = host.engine, host.weft
        for number, (name, backend) in enumerate(NETWORKS.items()):
            subnet = ("--subnet", f"10.80.{number}.0/24")
            engine.docker("network", "create", "-d", "weft", "-o", f"weft.backend={backend}", *subnet, name)
        always = ("run", "-d", "--restart=always")
        with ThreadPoolExecutor(4) as pool:
            running = [
                pool.submit(engine.docker, *always, "--name", name, "--network", network, NAME, *SERVES, timeout=300)
                for name, network in names().items()
            ]
            for each in running:
                each.result()
        await_(lambda: len(answering(host)) == CONTAINERS, BOUND, "all containers to be reachable")
        before = (listed(weft, "network"), bridges(node))

        node.power_off()
        node.up()
        assert (bridges(node), veths(node)) == ({}, set())
        ovs.start()
        weft.start()
        begun = time.monotonic()
        back: dict[str, float] = {}

        def all_back() -> bool:
            back.update(dict.fromkeys(answering(host) - back.keys(), time.monotonic() - begun))
            return len(back) == CONTAINERS

        with ThreadPoolExecutor(1) as pool:  # an old engine answers when it has started everything
            starting = pool.submit(engine.start, BOUND)
            await_(all_back, BOUND, "all containers to be reachable again")
            starting.result()
        tell(
            f"{CONTAINERS} containers on {len(NETWORKS)} networks, Docker {engine.version}: the last one reachable"
            f" {max(back.values()):.1f} s after dockerd was started, the first {min(back.values()):.1f} s"
        )
        assert answering(host) == back.keys()
        assert (listed(weft, "network"), bridges(node)) == before
        rows = listed(weft, "endpoint")
        assert {row["container"]: row["network_name"] for row in rows} == names()
        assert veths(node) == {row["link"] for row in rows}
        running_now = engine.api("GET", "/containers/json")
        assert {one["Names"][0].removeprefix("/") for one in running_now} == set(names())
        await_healthy(weft)
        ports = json.loads(ovs.vsctl("--format=json", "--columns=name", "list", "Port"))["data"]
        wanted = {row["link"] for row in rows if NETWORKS[row["network_name"]] == "ovs"}
        assert {name for (name,) in ports if name.startswith("wfh")} == wanted
