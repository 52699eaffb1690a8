"""Relayed TCP, on the real kernel."""

import errno
import hashlib
import logging
import os
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import pytest

from drivers.sockets import Limits, SocketsBackend
from drivers.sockets.tcp import _Connection
from tests.drivers.relayed import (
    ANY,
    ANY6,
    BOUND,
    CONTAINER,
    CONTAINER6,
    HOST,
    HOST6,
    MARKS,
    WAYS,
    World,
    changed,
    hold,
    is_refused,
    is_reset,
    open_files,
    serving,
)
from tests.lab.wait import await_

pytestmark = pytest.mark.kernel


@pytest.fixture
def world() -> Iterator[World]:
    with ExitStack() as stack:
        yield World(stack)


@pytest.mark.parametrize(("bound", "asked", "to"), WAYS)
def test_tcp_both_ways(world: World, bound: str, asked: str, to: str) -> None:
    server = world.inside(to)
    with serving(hold("tcp", bound, to)):
        client, inside = world.connected(server, asked)
        client.send(b"question")
        assert inside.recv(100) == b"question"
        inside.send(b"answer")
        assert client.recv(100) == b"answer"


def test_each_port_of_a_run_has_its_own_partner(world: World) -> None:
    servers = [world.inside(CONTAINER, port=80 + at) for at in range(3)]
    with serving(hold("tcp", ANY6, CONTAINER, ports="8000-8002")):
        for at, server in enumerate(servers):
            world.connected(server, HOST6, 8000 + at)


@pytest.mark.parametrize("first", ["client", "server"])
def test_the_end_of_one_direction_leaves_the_other_open(world: World, first: str) -> None:
    server = world.inside(CONTAINER)
    with serving(hold("tcp", ANY6, CONTAINER)):
        pair = world.connected(server, "::1")
        one, other = pair if first == "client" else pair[::-1]
        one.sendall(b"all I have")
        one.shutdown(socket.SHUT_WR)
        assert other.recv(100) == b"all I have"
        assert other.recv(100) == b""
        for _ in range(3):
            other.sendall(b"more")
            assert one.recv(100) == b"more"
        other.close()
        assert one.recv(100) == b""


def test_what_was_sent_before_the_container_was_reached_arrives(world: World) -> None:
    """The client has sent all and closed before the relay has a connection to the container."""
    server = world.inside(CONTAINER)
    with serving(hold("tcp", ANY, CONTAINER)):
        sock = world.outside(HOST)
        sock.connect((HOST, 8000))
        sock.sendall(b"all I have")
        sock.close()
        inside = world.accepted(server)
        assert inside.recv(100) == b"all I have"
        assert inside.recv(100) == b""


def test_a_reset_is_passed_on(world: World) -> None:
    server = world.inside(CONTAINER)
    with serving(hold("tcp", ANY, CONTAINER)):
        for at in (0, 1):
            pair = world.connected(server, HOST)
            pair[at].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
            pair[at].close()
            assert is_reset(pair[1 - at])


def test_much_both_ways_at_once(world: World) -> None:
    server = world.inside(CONTAINER6)
    data = [os.urandom(24 << 20) for _ in range(2)]
    with serving(hold("tcp", ANY, CONTAINER6)):
        pair = world.connected(server, HOST)
        received: dict[int, str] = {}

        def send(at: int) -> None:
            pair[at].sendall(data[at])
            pair[at].shutdown(socket.SHUT_WR)

        def receive(at: int) -> None:
            digest = hashlib.sha256()
            while piece := pair[at].recv(1 << 20):
                digest.update(piece)
            received[at] = digest.hexdigest()

        _at_once([lambda at=at, do=do: do(at) for at in (0, 1) for do in (send, receive)])  # type: ignore[misc]
        assert received == {1 - at: hashlib.sha256(data[at]).hexdigest() for at in (0, 1)}


def _at_once(work: Sequence[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=one) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_a_slow_reader_slows_its_writer_and_nobody_else(world: World) -> None:
    server = world.inside(CONTAINER)
    with serving(hold("tcp", ANY, CONTAINER)):
        client, slow = world.connected(server, HOST)
        client.settimeout(0)
        sent = _fill(client, slow)
        other, inside = world.connected(server, HOST)
        other.send(b"x")
        assert inside.recv(1) == b"x"
        taken = 0
        while taken < sent:
            taken += len(slow.recv(1 << 20))
        assert taken == sent


def _fill(writer: socket.socket, reader: socket.socket) -> int:
    """Write until nothing moves any more: the writer is refused, and what the reader could read stays as it is."""
    sent, waiting = 0, -1
    while True:
        try:
            sent += writer.send(bytes(1 << 16))
        except BlockingIOError:
            now = _readable(reader)
            if now == waiting and not select.select([], [writer], [], 0.2)[1]:
                return sent
            waiting = now


def _readable(sock: socket.socket) -> int:
    return len(sock.recv(64 << 20, socket.MSG_PEEK))


def test_a_writer_that_is_gone_behind_a_slow_reader_costs_no_work(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both directions of the client's end are over, and the container has still much to take: epoll would spin."""
    events: list[object] = []
    ready = _Connection.ready

    def counted(self: _Connection, sock: socket.socket, happened: int) -> None:
        events.append(self)
        ready(self, sock, happened)

    monkeypatch.setattr(_Connection, "ready", counted)
    server = world.inside(CONTAINER)
    with serving(hold("tcp", ANY, CONTAINER)):
        client, slow = world.connected(server, HOST)
        slow.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
        client.settimeout(0)
        sent = _fill(client, slow)
        client.close()
        stuck = events[0]
        other, inside = world.connected(server, HOST)
        before = events.count(stuck)
        for _ in range(100):
            other.send(b"x")
            assert inside.recv(1) == b"x"
        assert events.count(stuck) - before < 10
        taken = 0
        while piece := slow.recv(1 << 20):
            taken += len(piece)
        assert taken == sent


def test_many_clients(world: World) -> None:
    server = world.inside(CONTAINER)
    with serving(hold("tcp", ANY6, CONTAINER), hold("tcp", ANY, CONTAINER)) as backend:
        before = open_files()
        pairs = [world.connected(server, address) for _ in range(100) for address in (HOST6, HOST)]
        for at, (client, _) in enumerate(pairs):
            client.send(f"{at}".encode())
        for at, (client, inside) in enumerate(pairs):
            assert inside.recv(100) == f"{at}".encode()
            inside.close()
            assert client.recv(1) == b""
            client.close()
        await_(lambda: open_files() == before, BOUND, "the relay to close what is over")
        assert [thread.name for thread in threading.enumerate()].count("weft-relay") == 1
        assert len(backend.survey()) == 2


def test_past_the_limit_clients_are_refused_and_it_is_said(world: World, caplog: pytest.LogCaptureFixture) -> None:
    server = world.inside(CONTAINER)
    with serving(hold("tcp", ANY, CONTAINER), limits=Limits(connections=2)):
        pairs = [world.connected(server, HOST) for _ in range(2)]
        for _ in range(3):
            assert is_refused(world.outside(HOST), HOST)
        assert [record.message for record in caplog.records] == ["relay is full, client refused"]
        pairs[0][0].close()
        assert pairs[0][1].recv(1) == b""
        pairs[0][1].close()
        await_(lambda: world.connected(server, HOST), BOUND, "room for one more")


@pytest.mark.parametrize("port", [81, 82])
def test_a_container_that_refuses(world: World, caplog: pytest.LogCaptureFixture, port: int) -> None:
    with serving(hold("tcp", ANY6, CONTAINER, first=port)):
        assert is_refused(world.outside(HOST6), HOST6)
    (record,) = caplog.records
    assert record.message == "relay cannot reach the container"
    assert record.__dict__["target"] == f"{CONTAINER} port {port}"


@pytest.mark.parametrize("to", ["10.1.0.99", "192.0.2.1"])
def test_a_container_that_is_not_there(world: World, to: str) -> None:
    with serving(hold("tcp", ANY, to), limits=Limits(connect_seconds=0.1)):
        assert is_refused(world.outside(HOST), HOST)


def test_without_files_the_relay_waits_and_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    server = world.inside(CONTAINER)
    monkeypatch.setattr("drivers.sockets.tcp._PAUSE", 0.05)
    failures = [OSError(errno.EMFILE, "none left")] * 2

    class Poor(socket.socket):
        def accept(self) -> tuple[socket.socket, object]:
            if failures:
                raise failures.pop()
            return super().accept()

    with monkeypatch.context() as patched:
        patched.setattr("drivers.sockets.binding.socket.socket", Poor)
        backend = SocketsBackend(MARKS)
        changed(backend, None, hold("tcp", ANY, CONTAINER))
    client = world.outside(HOST)
    client.connect((HOST, 8000))
    client.send(b"x")
    assert world.accepted(server).recv(1) == b"x"
    assert not failures
    backend.close()


def test_what_nobody_thought_of_ends_one_connection(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server = world.inside(CONTAINER)
    with serving(hold("tcp", ANY, CONTAINER)):
        pairs = [world.connected(server, HOST) for _ in range(2)]
        with monkeypatch.context() as patched:
            patched.setattr("drivers.sockets.tcp._Connection._read", lambda *_: 1 / 0)
            pairs[0][0].send(b"x")
            assert is_reset(pairs[0][0])
        assert caplog.records[0].levelno == logging.ERROR
        pairs[1][0].send(b"y")
        assert pairs[1][1].recv(1) == b"y"
