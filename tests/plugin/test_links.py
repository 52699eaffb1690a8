"""Docker's links as weft reads them: by whichever name, for whichever order of starts, and gone with either end."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path
from queue import Empty, Queue
from typing import Any, cast

import pytest

from drivers import ruleset
from drivers.errors import InvalidRequest
from drivers.model import OpenPorts, Subnet
from plugin.docker import Docker, DockerContainer, Event, Events, Unreachable
from plugin.engine.links import Links
from tests.lab.wait import await_
from tests.plugin.samples import endpoint_id, endpoint_request, network_id, network_request
from tests.plugin.world import World, now

HTTP = frozenset({("tcp", 80)})


class FakeEvents:
    """A stream of Docker's, as a test fills it; ``None`` in the queue ends it."""

    def __init__(self) -> None:
        self.told: Queue[Event | None] = Queue()

    def __iter__(self) -> Iterator[Event]:
        """Yield what a test tells."""
        while (one := self.told.get()) is not None:
            yield one

    def close(self) -> None:
        """End it."""
        self.told.put(None)


@dataclass
class FakeDocker:
    """Docker, as a test says it is; its containers by their endpoints."""

    there: dict[str, DockerContainer] = field(default_factory=dict)
    reachable: bool = True
    answers: bool = True
    streams: list[FakeEvents] = field(default_factory=list)
    inspected: list[str] = field(default_factory=list)

    def attached(self, _: str) -> list[str]:
        """Return who is there."""
        if not self.reachable:
            raise Unreachable("no")
        return [container.id for container in self.there.values()]

    def container(self, ident: str, _: str) -> DockerContainer | None:
        """Return one of them."""
        self.inspected.append(ident)
        if not self.answers:
            raise Unreachable("it is being started")
        return next((container for container in self.there.values() if container.id == ident), None)

    def events(self) -> Events:
        """Return a stream."""
        if not self.reachable:
            raise Unreachable("no")
        self.streams.append(FakeEvents())
        return cast("Events", self.streams[-1])


@dataclass
class Case:
    """A world with a network that keeps its containers apart, a Docker, and what reads its links."""

    world: World
    docker: FakeDocker
    links: Links

    def attach(self, number: int, name: str, **says: Any) -> str:  # noqa: ANN401 - fields of a container
        """Have a container on the network; return its endpoint."""
        self.world.endpoints.create(endpoint_request(number), now())
        ident = endpoint_id(number)
        self.docker.there[ident] = DockerContainer(id=f"{number:x}" * 64, endpoint=ident, name=name, **says)
        return ident

    def tell(self, number: int, *, on: bool = True) -> None:
        """Have Docker tell that container ``number`` came, or went."""
        self.links._hear(Event(f"{number:x}" * 64, network_id(1), on))

    def detach(self, endpoint: str) -> None:
        """Take it away again."""
        del self.docker.there[endpoint]
        self.world.endpoints.delete(endpoint, now())

    def look(self) -> None:
        """Look at everything, as at a start."""
        self.links._look()

    def open(self) -> set[tuple[str, ...]]:
        """Return what is open on the host."""
        keys = (one.key for ours in self.world.marked().values() for one in ours)
        return {key.at for key in keys if key.kind in ruleset.LINKED.values()}


@pytest.fixture
def case(tmp_path: Path) -> Iterator[Case]:
    world, docker = World(tmp_path), FakeDocker()
    world.start()
    world.networks.create(network_request(icc=False), now())
    yield Case(world, docker, Links(world.store, world.runtime, docker))
    world.close()


@pytest.mark.parametrize("text", ["db:database", "db", "/db:x", "data", "2" * 12, "2" * 64 + ":database"])
def test_a_link_names_its_target_as_docker_s_dns_does(case: Case, text: str) -> None:
    case.attach(1, "web", links=(text,))
    case.attach(2, "db", exposed=frozenset({("tcp", 3306), ("tcp", 3307), ("udp", 53)}), aliases=frozenset({"data"}))
    case.look()
    assert case.open() == {
        ("10.1.0.2", "10.1.0.3", "tcp", "3306-3307"),
        ("10.1.0.2", "10.1.0.3", "udp", "53"),
    }


@pytest.mark.parametrize("text", ["d", "database:db", "2" * 11, "", "web"])
def test_what_names_nobody_else_opens_nothing(case: Case, text: str) -> None:
    case.attach(1, "web", links=(text,), exposed=HTTP)
    case.attach(2, "db", exposed=HTTP)
    case.look()
    assert case.open() == set()


def test_a_target_that_exposes_nothing_opens_nothing(case: Case) -> None:
    case.attach(1, "web", links=("db",))
    case.attach(2, "db")
    case.look()
    assert case.open() == set()


def test_the_order_of_starts_does_not_matter_and_a_new_address_is_followed(case: Case) -> None:
    case.attach(1, "web", links=("db",))
    case.tell(1)
    assert case.open() == set()
    first = case.attach(2, "db", exposed=HTTP)
    case.tell(2)
    assert case.open() == {("10.1.0.2", "10.1.0.3", "tcp", "80")}
    case.detach(first)
    assert case.open() == set()  # at once, without a word of Docker's
    case.tell(2, on=False)
    case.attach(3, "db", exposed=HTTP)
    case.tell(3)
    assert case.open() == {("10.1.0.2", "10.1.0.4", "tcp", "80")}


def test_a_dead_target_that_is_replaced_takes_its_links_along(case: Case) -> None:
    case.attach(1, "web", links=("db",))
    case.attach(2, "db", exposed=HTTP)
    case.look()
    assert case.open()
    case.world.endpoints.create(endpoint_request(4, address="10.1.0.3/24"), now())  # the same address, another endpoint
    assert case.open() == set()


def test_the_source_s_end_closes_it_too(case: Case) -> None:
    web = case.attach(1, "web", links=("db",))
    case.attach(2, "db", exposed=HTTP)
    case.look()
    case.detach(web)
    assert case.open() == set()


def test_a_restart_closes_nothing_and_asks_nobody(case: Case) -> None:
    case.attach(1, "web", links=("db",))
    case.attach(2, "db", exposed=HTTP)
    case.look()
    before = case.open()
    case.world.restart()
    assert case.open() == before != set()


def test_without_docker_what_is_open_stays(case: Case) -> None:
    case.attach(1, "web", links=("db",))
    case.attach(2, "db", exposed=HTTP)
    case.look()
    case.docker.reachable = False
    with pytest.raises(Unreachable):
        case.look()
    assert case.open()


def test_only_the_container_that_comes_is_asked_about(case: Case) -> None:
    case.attach(1, "web", links=("db",))
    case.attach(2, "db", exposed=HTTP)
    case.look()
    case.docker.inspected.clear()
    case.attach(3, "app", links=("db",))
    case.tell(3)
    assert case.docker.inspected == ["3" * 64]
    assert ("10.1.0.4", "10.1.0.3", "tcp", "80") in case.open()


def test_a_network_whose_containers_reach_each_other_has_nothing_to_open(case: Case) -> None:
    case.world.networks.create(network_request(2), now())
    case.world.endpoints.create(endpoint_request(5, on=2), now())
    case.links._hear(Event("5" * 64, network_id(2)))
    case.look()
    assert case.docker.inspected == []


def test_the_operator_s_links_and_docker_s_are_one(case: Case) -> None:
    named = OpenPorts(address=ip_address("10.1.0.3"), transport="tcp", first=81, last=82)
    case.world.endpoints.create(endpoint_request(1, links=(named,)), now())
    case.docker.there[endpoint_id(1)] = DockerContainer(id="1" * 64, endpoint=endpoint_id(1), links=("db",))
    assert case.open() == {("10.1.0.2", "10.1.0.3", "tcp", "81-82")}
    case.attach(2, "db", exposed=HTTP)
    case.look()
    assert case.open() == {("10.1.0.2", "10.1.0.3", "tcp", "80-82")}


def test_a_link_that_cannot_be_is_refused(case: Case) -> None:
    def asked(address: str, **changes: Any) -> None:  # noqa: ANN401 - fields of a request
        port = OpenPorts(address=ip_address(address), transport="tcp", first=80, last=80)
        case.world.endpoints.create(endpoint_request(links=(port,), **changes), now())

    with pytest.raises(
        InvalidRequest, match=r"weft\.link=10\.9\.0\.1 is not in network .*; allowed: .* 10\.1\.0\.0/24"
    ):
        asked("10.9.0.1")
    elsewhere = Subnet(network=ip_network("10.7.0.0/24"), gateway=None)
    case.world.networks.create(network_request(7, icc=False, subnets=(elsewhere,)), now())
    with pytest.raises(InvalidRequest, match="a link goes by the host, which has no IPv4 address on this network"):
        asked("10.7.0.3", on=7)


# -- when it looks --------------------------------------------------------------------------------------------------


@pytest.fixture
def running(case: Case) -> Iterator[Case]:
    case.links.start()
    yield case
    case.links.stop()


def test_it_looks_when_docker_tells_of_a_container(running: Case) -> None:
    await_(lambda: running.docker.streams, 10, "the events to be listened to")
    running.attach(1, "web", links=("db",))
    running.attach(2, "db", exposed=HTTP)
    running.docker.streams[0].told.put(Event("1" * 64, network_id(1)))
    running.docker.streams[0].told.put(Event("2" * 64, network_id(1)))
    await_(running.open, 10, "the link")


def test_it_looks_again_when_a_start_that_kept_docker_busy_is_over(running: Case) -> None:
    await_(lambda: running.docker.streams, 10, "the events to be listened to")
    running.docker.answers = False
    running.attach(1, "web", links=("db",))
    running.attach(2, "db", exposed=HTTP)
    for ident in ("1" * 64, "2" * 64):
        running.docker.streams[0].told.put(Event(ident, network_id(1)))
    await_(lambda: {"1" * 64, "2" * 64} <= set(running.docker.inspected), 10, "looks in vain")
    running.docker.answers = True
    for ident in ("1" * 64, "2" * 64):
        running.docker.streams[0].told.put(Event(ident))
    await_(running.open, 10, "the link")


def test_a_new_engine_is_listened_to_and_all_is_looked_at(running: Case) -> None:
    await_(lambda: running.docker.streams, 10, "the events to be listened to")
    running.attach(1, "web", links=("db",))
    running.attach(2, "db", exposed=HTTP)
    running.docker.streams[0].close()  # dockerd ends
    await_(lambda: len(running.docker.streams) == 2, 20, "a new stream")
    await_(running.open, 20, "the link")


def test_where_nobody_is_kept_apart_docker_is_not_listened_to(tmp_path: Path) -> None:
    world, docker = World(tmp_path), FakeDocker()
    world.start()
    links = Links(world.store, world.runtime, docker)
    links.start()
    try:
        world.networks.create(network_request(), now())
        links.joined(network_id(1))
        world.networks.create(network_request(2, icc=False), now())
        assert docker.streams == []
        links.joined(network_id(2))  # a container joins
        await_(lambda: docker.streams, 10, "the events to be listened to")
    finally:
        links.stop()
        world.close()


# -- Docker's own words ---------------------------------------------------------------------------------------------


class Engine:
    """A dockerd of few words at a unix socket: one answer for each path, sent as it is; then it waits to be told."""

    def __init__(self, path: Path, answers: dict[str, str]) -> None:
        self.answers = answers
        self.more: Queue[str] = Queue()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection:
                    self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        path = connection.recv(65536).split(b" ")[1].decode().partition("?")[0]
        body = self.answers.get(path)
        if body is None:
            connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}")
        elif path != "/events":
            connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        else:
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while line := self.more.get():
                with suppress(OSError):
                    connection.sendall(f"{len(line):x}\r\n{line}\r\n".encode())

    def close(self) -> None:
        """End it."""
        self.more.put("")
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        with suppress(Empty):
            self.more.get_nowait()


ENDPOINT = "e" * 64
CONTAINER = {
    "Name": "/web",
    "Config": {"ExposedPorts": {"3306/tcp": {}, "53/udp": {}}},
    "NetworkSettings": {
        "Networks": {
            "app": {
                "NetworkID": "n1",
                "EndpointID": ENDPOINT,
                "Links": ["db:database"],
                "Aliases": ["w"],
                "DNSNames": ["web"],
            },
            "other": {"NetworkID": "n2", "EndpointID": "f" * 64, "Links": None, "Aliases": None},
            "stopped": {"NetworkID": "n3", "EndpointID": ""},
        }
    },
}
ANSWERS = {
    "/networks/n1": json.dumps({"Containers": {"c1": {"EndpointID": ENDPOINT, "Name": "web"}}}),
    "/containers/c1/json": json.dumps(CONTAINER),
    "/events": "",
}


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[tuple[Docker, Engine]]:
    engine = Engine(tmp_path / "docker.sock", ANSWERS)
    yield Docker(tmp_path / "docker.sock"), engine
    engine.close()


def test_a_container_is_read_as_one_network_has_it(engine: tuple[Docker, Engine]) -> None:
    docker, _ = engine
    assert docker.attached("n1") == ["c1"]
    exposed = frozenset({("tcp", 3306), ("udp", 53)})
    assert docker.container("c1", "n1") == DockerContainer(
        id="c1",
        endpoint=ENDPOINT,
        name="web",
        aliases=frozenset({"w", "web"}),
        links=("db:database",),
        exposed=exposed,
    )
    other = DockerContainer(id="c1", endpoint="f" * 64, name="web", exposed=exposed)
    assert docker.container("c1", "n2") == other
    assert [docker.container("c1", network) for network in ("n3", "n4")] == [None, None]
    with pytest.raises(Unreachable, match="404"):
        docker.container("c2", "n1")


def test_events_come_as_they_are_told_and_end_from_either_side(engine: tuple[Docker, Engine]) -> None:
    docker, there = engine
    events = docker.events()
    told = iter(events)
    actor = {"ID": "n1", "Attributes": {"container": "c1"}}
    there.more.put(json.dumps({"Type": "network", "Action": "connect", "Actor": actor}) + "\n")
    there.more.put(json.dumps({"Type": "container", "Action": "start", "Actor": {"ID": "c1"}}) + "\n")
    there.more.put(json.dumps({"Type": "network", "Action": "disconnect", "Actor": actor}) + "\n")
    assert [next(told) for _ in range(3)] == [Event("c1", "n1"), Event("c1"), Event("c1", "n1", on=False)]
    closer = threading.Thread(target=events.close)
    closer.start()
    assert list(told) == []
    closer.join()


def test_without_a_socket_docker_is_unreachable(tmp_path: Path) -> None:
    docker = Docker(tmp_path / "nobody.sock")
    with pytest.raises(Unreachable):
        docker.events()
    with pytest.raises(Unreachable):
        docker.attached("n1")
