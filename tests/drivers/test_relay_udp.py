"""Relayed UDP, on the real kernel."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from drivers.sockets import Limits
from tests.drivers.relayed import (
    ANY,
    ANY6,
    BOUND,
    CONTAINER,
    CONTAINER6,
    HOST,
    HOST6,
    HOST_TOO,
    HOST_TOO6,
    UDP,
    WAYS,
    World,
    changed,
    hold,
    open_files,
    serving,
)
from tests.lab.wait import await_
from tests.netns import sh

pytestmark = pytest.mark.kernel


@pytest.fixture
def world() -> Iterator[World]:
    with ExitStack() as stack:
        yield World(stack)


@pytest.mark.parametrize(("bound", "asked", "to"), [*WAYS, (ANY, HOST_TOO, CONTAINER6), (ANY6, HOST_TOO6, CONTAINER)])
def test_udp_both_ways_and_the_answer_comes_from_whom_was_asked(world: World, bound: str, asked: str, to: str) -> None:
    server = world.inside(to, UDP)
    with serving(hold("udp", bound, to)):
        client = world.outside(asked, UDP)
        for size in (0, 1, 1000, 20000):
            client.sendto(bytes(size), (asked, 8000))
            data, relay = server.recvfrom(65535)
            assert len(data) == size
            server.sendto(bytes(size + 1), relay)
            data, source = client.recvfrom(65535)
            assert (len(data), source[:2]) == (size + 1, (asked, 8000))


def test_udp_clients_are_told_apart(world: World) -> None:
    server = world.inside(CONTAINER, UDP)
    with serving(hold("udp", ANY6, CONTAINER)):
        clients = [world.outside(HOST6, UDP) for _ in range(50)]
        for at, client in enumerate(clients):
            client.sendto(f"{at}".encode(), (HOST6, 8000))
        for _ in clients:
            data, relay = server.recvfrom(100)
            server.sendto(data, relay)
        assert [client.recv(100) for client in clients] == [f"{at}".encode() for at in range(50)]


def test_a_container_that_does_not_listen_yet_is_no_error(world: World, caplog: pytest.LogCaptureFixture) -> None:
    with serving(hold("udp", ANY, CONTAINER)):
        client = world.outside(HOST, UDP)
        client.connect((HOST, 8000))
        for _ in range(5):
            client.send(b"early")
        server = world.inside(CONTAINER, UDP)
        server.settimeout(0)

        def heard() -> bytes:
            client.send(b"late")
            return server.recv(100)

        assert await_(heard, BOUND, "a datagram") in (b"early", b"late")
    assert not caplog.records


def test_a_silent_udp_client_is_forgotten(world: World) -> None:
    server = world.inside(CONTAINER, UDP)
    with serving(hold("udp", ANY, CONTAINER), limits=Limits(idle_seconds=0.2)):
        client = world.outside(HOST, UDP)
        client.connect((HOST, 8000))
        before = open_files()
        for _ in range(2):
            client.send(b"x")
            _, relay = server.recvfrom(1)
            await_(lambda: open_files() == before, BOUND, "the client to be forgotten")
            server.sendto(b"too late", relay)
        client.settimeout(0)
        with pytest.raises(BlockingIOError):
            client.recv(100)


def test_for_one_more_udp_client_the_one_that_was_silent_longest_is_forgotten(world: World) -> None:
    server = world.inside(CONTAINER, UDP)
    with serving(hold("udp", ANY, CONTAINER), limits=Limits(flows=2)):
        clients = [world.outside(HOST, UDP) for _ in range(3)]
        relays = []
        for at in (0, 1, 0, 2):  # the second is silent longest when the third comes
            clients[at].sendto(b"x", (HOST, 8000))
            relays.append(server.recvfrom(1)[1])
        assert relays[0] == relays[2]
        server.sendto(b"for nobody", relays[1])
        for at, relay in ((0, relays[0]), (2, relays[3])):
            server.sendto(b"y", relay)
            assert clients[at].recv(1) == b"y"
        clients[1].settimeout(0)
        with pytest.raises(BlockingIOError):
            clients[1].recv(100)


def test_what_came_before_a_udp_port_was_relayed_is_nobodys(world: World) -> None:
    server = world.inside(CONTAINER, UDP)
    off, on = hold("udp", ANY, None), hold("udp", ANY, CONTAINER)
    with serving(off) as backend:
        client = world.sock(HOST, UDP)
        for _ in range(100):
            client.sendto(b"early", ("127.0.0.1", 8000))
        changed(backend, off, on)
        client.sendto(b"late", ("127.0.0.1", 8000))
        assert server.recv(100) == b"late"


def test_link_local_clients(world: World) -> None:
    server = world.inside(CONTAINER, UDP)
    sh("ip", "address", "add", "fe80::1/64", "dev", "hn", "nodad")
    with world.client.entered():
        sh("ip", "address", "add", "fe80::2/64", "dev", "n", "nodad")
        link = socket.if_nametoindex("n")
    with serving(hold("udp", ANY6, CONTAINER, "fe80::/10")):
        client = world.outside(HOST6, UDP)
        client.connect(("fe80::1", 8000, 0, link))
        client.send(b"x")
        data, relay = server.recvfrom(1)
        server.sendto(data, relay)
        assert client.recv(1) == b"x"
