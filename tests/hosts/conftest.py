"""Several Docker hosts on one LAN: a swarm of three, with weft as the managed plugin of each."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.engine.conftest import engine_root
from tests.lab.engine import Engine
from tests.lab.lan import Lan
from tests.lab.names import DISKS, unique
from tests.lab.node import Node, remove_disk
from tests.lab.plugin import Workshop, zipapp
from tests.lab.swarm import Swarm, SwarmHost
from tests.lab.way_out import WayOut

HOSTS = 3


@dataclass(frozen=True, slots=True)
class Made:
    """What the workshop has made: the registry's folder with the plugin in it, and the command."""

    storage: Path
    command: Path


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """Build the plugin, and push it."""
    name = unique("registry")
    storage = DISKS / name
    try:
        with Node("workshop") as node, Engine(node) as engine, WayOut(node):
            Workshop(node, engine, storage, tmp_path_factory.mktemp("workshop")).push("0.1.0", "swarm")
        yield Made(storage, zipapp(tmp_path_factory.mktemp("command")))
    finally:
        remove_disk(name)


@contextlib.contextmanager
def swarm_of(made: Made, root: Path | None, *, ovs: bool = False) -> Iterator[Swarm]:
    """Yield a swarm of three hosts with the engine in ``root``; ``ovs``: with an Open vSwitch on each."""
    with contextlib.ExitStack() as stack:
        lan = stack.enter_context(Lan())
        hosts = []
        for number in range(1, HOSTS + 1):
            host = SwarmHost(lan, number, made.storage, made.command, root, ovs=ovs)
            stack.callback(host.node.down)
            host.power_on()
            host.install("swarm", "WEFT_SCOPE=global")
            hosts.append(host)
        swarm = Swarm(lan, tuple(hosts))
        swarm.manager.found()
        yield swarm


@pytest.fixture(scope="module", params=["20", pytest.param("28", marks=pytest.mark.engine28)])
def shared(request: pytest.FixtureRequest, made: Made) -> Iterator[Swarm]:
    """Yield the swarm that the tests of a module share, one for each engine."""
    with swarm_of(made, engine_root(request.param)) as swarm:
        yield swarm


@pytest.fixture
def swarm(shared: Swarm) -> Iterator[Swarm]:
    """Yield it with every node in it and nothing on it."""
    shared.mend()
    yield shared
    shared.mend()
    shared.clear()
