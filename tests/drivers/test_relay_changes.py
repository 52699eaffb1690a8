"""Who may use a relayed port, and what a change ends, on the real kernel."""

import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.drivers.relayed import (
    ANY,
    ANY6,
    CLIENT,
    CLIENT6,
    CONTAINER,
    CONTAINER6,
    HOST,
    HOST6,
    TCP,
    UDP,
    World,
    changed,
    hold,
    is_refused,
    is_reset,
    open_files,
    serving,
)

pytestmark = pytest.mark.kernel


@pytest.fixture
def world() -> Iterator[World]:
    with ExitStack() as stack:
        yield World(stack)


@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize(
    ("allow", "outsiders"), [(("10.2.0.0/24",), True), ((CLIENT6, CLIENT), True), (("10.9.0.0/16", "fd09::/16"), False)]
)
def test_who_may_use_it(world: World, transport: str, allow: Sequence[str], *, outsiders: bool) -> None:
    kind = TCP if transport == "tcp" else UDP
    server = world.inside(CONTAINER, kind)
    ports = {HOST: outsiders, HOST6: outsiders and CLIENT6 in allow}
    with serving(*(hold(transport, address, CONTAINER, *allow) for address in (ANY, ANY6))):
        for address, may in ports.items():
            client = world.outside(address, kind)
            if not may and transport == "tcp":
                assert is_refused(client, address)
                continue
            client.connect((address, 8000))
            client.send(b"yes" if may else b"no")
            if not may:
                continue
            inside = world.accepted(server) if transport == "tcp" else server
            assert inside.recv(10) == b"yes"
        for address in ("127.0.0.1", "::1", HOST, HOST6):  # the host itself, from its loopback and its own addresses
            client = world.sock(address, kind)
            client.connect((address, 8000))
            client.send(b"own")
            inside = world.accepted(server) if transport == "tcp" else server
            assert inside.recv(10) == b"own"


def test_where_any_address_can_be_bound_not_everybody_is_the_host(world: World) -> None:
    Path("/proc/sys/net/ipv4/ip_nonlocal_bind").write_text("1")
    with serving(hold("tcp", ANY, CONTAINER, "10.9.0.0/16")):
        assert is_refused(world.outside(HOST), HOST)


def test_when_a_hold_goes_its_connections_end(world: World) -> None:
    server, talker = world.inside(CONTAINER), world.inside(CONTAINER, UDP)
    one, other, third = hold("tcp", ANY, CONTAINER), hold("tcp", ANY6, CONTAINER), hold("udp", ANY, CONTAINER)
    with serving(one, other, third) as backend:
        before = open_files()
        client, inside = world.connected(server, HOST)
        kept = world.connected(server, HOST6)
        asker = world.outside(HOST, UDP)
        asker.connect((HOST, 8000))
        asker.send(b"x")
        assert talker.recv(1) == b"x"
        mine = 5  # the test's own ends
        assert open_files() > before + mine
        changed(backend, one, None)
        changed(backend, third, None)
        assert open_files() == before + mine - 2 + 2  # two holds less, one connection left
        assert is_reset(client)
        assert is_reset(inside)
        with pytest.raises(ConnectionRefusedError):
            world.outside(HOST).connect((HOST, 8000))
        kept[0].send(b"x")
        assert kept[1].recv(1) == b"x"


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_another_target_keeps_the_port_and_ends_what_went_to_the_old_one(world: World, transport: str) -> None:
    kind = TCP if transport == "tcp" else UDP
    old, new = world.inside(CONTAINER, kind), world.inside(CONTAINER6, kind, 81)
    holds = hold(transport, ANY, CONTAINER), hold(transport, ANY, CONTAINER6, first=81)
    with serving(holds[0]) as backend:
        client = world.outside(HOST, kind)
        client.connect((HOST, 8000))
        client.send(b"1")
        assert (world.accepted(old) if kind == TCP else old).recv(1) == b"1"
        calls = backend.calls
        changed(backend, *holds)
        assert backend.observe([holds[1].key]) == {holds[1].key: holds[1]}
        assert backend.calls == calls
        if kind == TCP:
            assert is_reset(client)
            client = world.outside(HOST)
            client.connect((HOST, 8000))
        client.send(b"2")
        assert (world.accepted(new) if kind == TCP else new).recv(1) == b"2"


@pytest.mark.parametrize("address", [ANY, ANY6])
def test_relay_on_and_off_keeps_the_port(world: World, address: str) -> None:
    asked = HOST if address == ANY else HOST6
    server = world.inside(CONTAINER)
    off, on = hold("tcp", address, None), hold("tcp", address, CONTAINER)
    with serving(off) as backend:
        for _ in range(3):
            changed(backend, off, on)
            client, inside = world.connected(server, asked)
            _taken(address)
            changed(backend, on, off)
            assert is_reset(client)
            assert is_reset(inside)
            with pytest.raises(ConnectionRefusedError):
                world.outside(asked).connect((asked, 8000))
            _taken(address)
        assert backend.calls == 1


def _taken(address: str) -> None:
    """See to it that nobody else gets the port, whatever he sets."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            other.bind((address, 8000))


def test_who_may_not_any_more_is_cut_off(world: World) -> None:
    server = world.inside(CONTAINER)
    free, strict = hold("tcp", ANY, CONTAINER), hold("tcp", ANY, CONTAINER, "10.9.0.0/16")
    with serving(free) as backend:
        client, _ = world.connected(server, HOST)
        kept = world.connected(server, "127.0.0.1")
        changed(backend, free, strict)
        assert is_reset(client)
        kept[0].send(b"x")
        assert kept[1].recv(1) == b"x"


def test_a_port_can_be_relayed_again_at_once_after_a_restart(world: World) -> None:
    server = world.inside(CONTAINER)
    for _ in range(3):
        with serving(hold("tcp", ANY, CONTAINER)):
            client, inside = world.connected(server, HOST)
            inside.close()
            assert client.recv(1) == b""
            client.close()
