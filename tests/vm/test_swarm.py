"""A swarm of two hosts whose kernel has IPVS, which that of tests/hosts lacks: what becomes of a VIP, and of ingress.

Each is tried on a network of Docker's own as well: so it is seen that the kernel has what it takes, and whose part it
is where it does not work. What comes out is in docs/swarm.md.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from tests.lab import image
from tests.lab.swarm import ask_dns, told_by_dns
from tests.lab.talk import PORT, SERVE, WHO
from tests.lab.wait import await_
from tests.vm.street import SOON, StockHost

pytestmark = pytest.mark.vm

PUBLISHED = 8080
NETWORKS = {"weft:latest": "10.44.0.0/24", "overlay": "10.45.0.0/24"}


@pytest.fixture(scope="module")
def swarm(hosts: dict[str, StockHost]) -> Iterator[dict[str, StockHost]]:
    """Yield both in one swarm, a its manager, with weft as the managed plugin."""
    a, b = hosts["a"], hosts["b"]
    try:
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda host: host.serve_as_plugin("WEFT_SCOPE=global"), (a, b)))
        a.docker("swarm", "init", "--advertise-addr", a.address)
        token = a.docker("swarm", "join-token", "-q", "worker")
        b.docker("swarm", "join", "--token", token, "--advertise-addr", b.address, f"{a.address}:2377")
        await_(partial(_knows_of_all_plugins, a), SOON, "the manager to know of every node's plugin")
        yield hosts
    finally:
        for host in (b, a):
            host.docker("swarm", "leave", "--force", check=False)
            host.clean()
            host.serve_as_service()


@pytest.fixture(params=list(NETWORKS))
def service(request: pytest.FixtureRequest, swarm: dict[str, StockHost]) -> Iterator[str]:
    """Yield a driver: a service has a VIP on a network of it, a task on each node, and a port published by ingress."""
    a, driver = swarm["a"], request.param
    a.docker("network", "create", "-d", driver, "--attachable", "--subnet", NETWORKS[driver], "shop")
    how = ("--detach", "--no-resolve-image", "--stop-grace-period", "1s", "--mode", "global")
    where = ("--name", "web", "--network", "shop", "--publish", f"{PUBLISHED}:{PORT}")
    a.docker("service", "create", *how, *where, image.NAME, "/bin/sh", "-c", SERVE)
    try:
        await_(lambda: all(_task(host) for host in swarm.values()), SOON, "a task on each node")
        yield driver
    finally:
        a.docker("service", "rm", "web")
        await_(partial(_is_removed, a, "shop"), SOON, "network shop to be removed")
        await_(lambda: not any(_task(host) for host in swarm.values()), SOON, "the tasks to be gone")


def test_a_port_published_by_ingress_answers_on_every_node(service: str, swarm: dict[str, StockHost]) -> None:
    """It is Docker's own overlay and IPVS, and tasks have it beside a network of weft's."""
    for host in swarm.values():
        for other in swarm.values():
            url = f"http://{other.address}:{PUBLISHED}{WHO}"
            await_(partial(_fetched, host, url), SOON, f"an answer for {host.vm.name} on {other.vm.name}, {service}")


def test_a_vip_answers_where_the_engine_has_a_balancer(service: str, swarm: dict[str, StockHost]) -> None:
    """The engine sets one up in overlay networks alone; the tasks have names beside it, and answer."""
    for host in swarm.values():
        here = _task(host)
        await_(lambda here=here, host=host: len(_named(host, here, "tasks.web")) == 2, SOON, "both tasks by name")  # type: ignore[misc]
        for address in _named(host, here, "tasks.web"):
            await_(partial(_answers, host, here, address), SOON, f"{address} to answer {host.vm.name}")
        (vip,) = _named(host, here, "web")
        assert vip not in _named(host, here, "tasks.web")
        if service == "overlay":
            await_(partial(_answers, host, here, vip), SOON, f"{vip} to answer {host.vm.name}")
        else:
            assert not _answers(host, here, vip)


def _knows_of_all_plugins(manager: StockHost) -> bool:
    nodes = manager.docker("node", "ls", "-q").split()
    told = [json.loads(manager.docker("node", "inspect", node))[0] for node in nodes]
    plugins = [node["Description"]["Engine"]["Plugins"] for node in told]
    return [{"Type": "Network", "Name": "weft:latest"} in each for each in plugins] == [True, True]


def _is_removed(manager: StockHost, network: str) -> bool:
    manager.docker("network", "rm", network, check=False)  # refused while a task is on its way out
    return network not in manager.docker("network", "ls", "--format", "{{.Name}}").split()


def _task(host: StockHost) -> str:
    """Return the id of the running task on a host, "" if there is none."""
    return host.docker("ps", "-q", "--filter", "label=com.docker.swarm.service.name=web")


def _fetched(host: StockHost, url: str) -> bool:
    script = f"import urllib.request as u; print(u.urlopen({url!r}, timeout=10).status)"
    return host.vm.run("python3", "-c", script, check=False).stdout.strip() == "200"


def _named(host: StockHost, task: str, name: str) -> set[str]:
    """Return the IPv4 addresses that Docker's DNS has for a name, asked in a task."""
    return told_by_dns(host.docker("exec", task, *ask_dns(name), check=False))


def _answers(host: StockHost, task: str, address: str) -> bool:
    """Tell whether somebody answers a task over HTTP within ten seconds."""
    fetch = f"wget -q -T 10 -O - http://{address}:{PORT}{WHO} && echo answered"
    return host.docker("exec", task, "/bin/sh", "-c", fetch, check=False).endswith("answered")
