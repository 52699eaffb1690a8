"""The plugin, built once and pushed to a registry as two versions; hosts that install it; nodes that have none."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.engine.conftest import engine_root, engine_version, private_engine, private_node
from tests.lab import base
from tests.lab.engine import Engine
from tests.lab.names import DISKS, unique
from tests.lab.node import Node, remove_disk
from tests.lab.plugin import NAME, PluginHost, Workshop, zipapp
from tests.lab.way_out import WayOut

__all__ = ["engine_version", "private_engine", "private_node"]

OLD, NEW = "0.1.0", "0.1.1"


@dataclass(frozen=True, slots=True)
class Made:
    """What the workshop has made: the registry's folder with tags `old` and `new`, the command, and the size."""

    storage: Path
    command: Path
    image_bytes: int


@pytest.fixture(scope="session")
def command(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the command as one file."""
    return zipapp(tmp_path_factory.mktemp("command"))


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, command: Path) -> Iterator[Made]:
    """Build and push two versions."""
    with _storage() as storage:
        with _workshop(storage, tmp_path_factory.mktemp("workshop")) as workshop:
            workshop.push(OLD, "old")
            workshop.push(NEW, "new", newer_rules=True)
            size = workshop.image_bytes()
        yield Made(storage, command, size)


@contextlib.contextmanager
def _storage() -> Iterator[Path]:
    name = unique("registry")
    try:
        yield DISKS / name
    finally:
        remove_disk(name)


@contextlib.contextmanager
def _workshop(storage: Path, folder: Path, suite: str = base.SUITE) -> Iterator[Workshop]:
    with Node("workshop") as node, Engine(node) as engine, WayOut(node):
        yield Workshop(node, engine, storage, folder, suite)


@pytest.fixture
def bare(engine_version: str, made: Made) -> Iterator[PluginHost]:
    """Yield a fresh host whose dockerd has no plugin yet, to be broken; its plug is pulled after, as it is."""
    with _fresh_host(made, engine_version) as host:
        yield host


@pytest.fixture
def bare_for_next_base(tmp_path: Path, command: Path) -> Iterator[PluginHost]:
    """Yield such a host for the plugin (`old`) on the next Debian as base, built for it alone."""
    with _storage() as storage:
        with _workshop(storage, tmp_path, base.NEXT) as workshop:
            workshop.push(OLD, "old")
            size = workshop.image_bytes()
        with _fresh_host(Made(storage, command, size), "20") as host:
            yield host


@contextlib.contextmanager
def _fresh_host(made: Made, engine_version: str) -> Iterator[PluginHost]:
    with contextlib.ExitStack() as stack:
        node = stack.enter_context(Node("user", engine_root(engine_version)))
        stack.callback(node.power_off)
        host = PluginHost(node, Engine(node), made.storage, made.command)
        host.boot()
        host.engine.start()
        host.engine.load_image()
        yield host


@pytest.fixture(scope="session")
def shared(made: Made) -> Iterator[PluginHost]:
    """Yield the host that tests of one session share, with the plugin on it."""
    with contextlib.ExitStack() as stack:
        node = stack.enter_context(Node("shared"))
        stack.callback(node.power_off)
        host = PluginHost(node, Engine(node), made.storage, made.command)
        host.boot()
        host.engine.start()
        host.engine.load_image()
        host.install("old")
        yield host


@pytest.fixture
def host(shared: PluginHost) -> Iterator[PluginHost]:
    """Yield it with power, engine and plugin, and without containers and networks."""
    yield shared
    if not shared.node.is_up:
        shared.boot()
    if not shared.engine.is_running:
        shared.engine.start()
    if not shared.is_enabled():
        shared.docker_plugin("enable", NAME)
    shared.engine.clean()
