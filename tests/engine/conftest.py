"""Real Docker hosts for tests: one per engine that all tests share, and private ones for tests that break things.

A test asks for `engine` (dockerd, clean, with the test image) and, if it needs weft, for `weft`. The engine is
20.10.24, or 28.5.2 for a test marked `engine28`; `@both_engines` (tests.lab.matrix) runs it on each:

    @both_engines
    def test_containers_meet(engine: Engine, weft: Weft) -> None: ...
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab.engine import Engine
from tests.lab.net import Neighbour
from tests.lab.node import Node
from tests.lab.root import root
from tests.lab.snapshot import Snapshot, snapshot
from tests.lab.wait import WaitedInVainError, await_
from tests.lab.weft import Weft

ONE_WAY = (
    "net/ipv4/ip_forward",
    "net/ipv6/conf/all/forwarding",
    "net/ipv6/conf/all/force_forwarding",
    "net/ipv6/conf/default/force_forwarding",
)
"""Switches that Docker or weft turn on when the first network needs them, and that stay on while the host is up."""


def look(node: Node) -> Snapshot:
    """Take a snapshot without the switches that stay on by design; `force_forwarding` of all is each link's, too."""
    seen = snapshot(node)
    knobs = (line.partition(" ")[0] for line in seen.sysctls)
    return seen.without(*(knob for knob in knobs if knob in ONE_WAY or knob.endswith("/force_forwarding")))


@dataclass(frozen=True, slots=True)
class Host:
    """A Docker host: the node, its dockerd, its weft."""

    node: Node
    engine: Engine
    weft: Weft


class Hosts:
    """The session's shared hosts, one per engine, made when first asked for."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._hosts: dict[str, Host] = {}

    def get(self, version: str) -> Host:
        """Return the host with that engine; one that a test left without power or engine is started again."""
        if version not in self._hosts:
            node = self._stack.enter_context(Node(f"engine{version}", engine_root(version)))
            self._hosts[version] = Host(node, self._stack.enter_context(Engine(node)), Weft(node))
        host = self._hosts[version]
        if not host.node.is_up:
            host.node.up()
        if not host.engine.is_running:
            host.engine.start()
        host.engine.load_image()
        return host


def engine_root(version: str) -> Path | None:
    """Return the folder of an engine; None is the machine's own, Debian 12's 20.10.24."""
    return root() if version == "28" else None


@pytest.fixture(scope="session")
def hosts() -> Iterator[Hosts]:
    """Keep the shared hosts for the session."""
    with contextlib.ExitStack() as stack:
        yield Hosts(stack)


@pytest.fixture
def engine_version(request: pytest.FixtureRequest) -> str:
    """Tell which engine the test is for: "20" or "28"."""
    return "28" if request.node.get_closest_marker("engine28") else "20"


@pytest.fixture
def host(request: pytest.FixtureRequest, hosts: Hosts, engine_version: str) -> Host:
    """Return the shared host; weft runs on it if the test asks for weft, and goes on running for the next."""
    host = hosts.get(engine_version)
    if "weft" in request.fixturenames and not host.weft.is_running:
        host.weft.start()
    return host


@pytest.fixture
def clean_node(host: Host) -> Iterator[Node]:
    """Fail a test that left something behind on the shared host, once its containers and networks are removed."""
    before = look(host.node)
    yield host.node
    try:
        await_(lambda: before == look(host.node), 15, "the node to look as before")
    except WaitedInVainError:
        pytest.fail(f"left behind:\n{before.difference(look(host.node))}")


@pytest.fixture
def node(clean_node: Node) -> Node:
    """Return the shared node."""
    return clean_node


@pytest.fixture
def engine(host: Host, clean_node: Node) -> Iterator[Engine]:
    """Yield the shared host's dockerd with the test image and without containers and networks."""
    yield host.engine
    if not host.engine.is_running:
        host.engine.start()
    host.engine.clean()


@pytest.fixture
def weft(host: Host, engine: Engine) -> Iterator[Weft]:
    """Yield the weft that runs on the shared host; one that the test killed is started again, to clean up."""
    yield host.weft
    if not host.weft.is_running:
        host.weft.start()


@pytest.fixture
def private_node(engine_version: str) -> Iterator[Node]:
    """Yield a fresh node of the test's own, to be broken; nothing runs in it."""
    with Node("private", engine_root(engine_version)) as node:
        yield node


@pytest.fixture
def private_engine(private_node: Node) -> Iterator[Engine]:
    """Yield a fresh dockerd in the private node, with the test image."""
    with Engine(private_node) as engine:
        engine.load_image()
        yield engine


@pytest.fixture
def private_weft(private_engine: Engine) -> Iterator[Weft]:
    """Yield a fresh weft beside the private dockerd."""
    with Weft(private_engine.node) as weft:
        yield weft
        if private_engine.is_running and weft.is_running:
            private_engine.clean()  # later it would wait for weft, 15 s for each call


@pytest.fixture
def neighbour(engine: Engine) -> Iterator[Neighbour]:
    """Yield the host next door of the shared node."""
    with Neighbour(engine.node) as neighbour:
        yield neighbour
