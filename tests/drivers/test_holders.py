"""Who holds a port, on the real kernel."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from drivers.holders import USING, Holder, described, holders
from tests.netns import private_netns

pytestmark = pytest.mark.kernel

V4, V6 = socket.AF_INET, socket.AF_INET6
TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM
ALL = range(1, 65536)
ANY = "0.0.0.0"  # noqa: S104 - the point of it


class Opened(list[socket.socket]):
    """Sockets of a test, closed after it."""

    def at(
        self, address: str, port: int, kind: int = TCP, *, only6: bool = False, listen: bool = False
    ) -> socket.socket:
        """Bind another one."""
        sock = socket.socket(V6 if ":" in address else V4, kind)
        self.append(sock)
        if ":" in address:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(only6))
        sock.bind((address, port))
        if listen:
            sock.listen()
        return sock


@pytest.fixture
def opened() -> Iterator[Opened]:
    with private_netns():
        socks = Opened()
        yield socks
        for sock in socks:
            sock.close()


def found(transport: str, address: str, ports: range = ALL) -> list[str]:
    return [str(holder) for holder in holders(transport, ip_address(address), ports)]


def test_what_is_in_the_way_of_what(opened: Opened) -> None:
    opened.at("127.0.0.1", 80)
    opened.at(ANY, 81, listen=True)
    opened.at("::", 82, listen=True)
    opened.at("::", 83)
    opened.at("::", 84, only6=True)
    opened.at("::1", 85, listen=True)
    opened.at("::ffff:127.0.0.1", 86)
    both = ["[::]:82/tcp", "[::]:83/tcp"]
    mapped = ["[::ffff:7f00:1]:86/tcp"]
    assert found("tcp", "127.0.0.1") == ["127.0.0.1:80/tcp", "0.0.0.0:81/tcp", *both, *mapped]
    assert found("tcp", ANY) == ["127.0.0.1:80/tcp", "0.0.0.0:81/tcp", *both, *mapped]
    assert found("tcp", "127.0.0.2") == ["0.0.0.0:81/tcp", *both]
    assert found("tcp", "::") == [*both, "[::]:84/tcp", "[::1]:85/tcp"]
    assert found("tcp", "fd00::1") == [*both, "[::]:84/tcp"]
    assert not found("udp", ANY)


def test_ports_beside_those_asked_for_do_not_count(opened: Opened) -> None:
    for port in (79, 80, 90, 91):
        opened.at(ANY, port, UDP)
    assert found("udp", ANY, range(80, 91)) == ["0.0.0.0:80/udp", "0.0.0.0:90/udp"]
    assert found("udp", ANY, range(90, 91)) == ["0.0.0.0:90/udp"]


def test_clients_use_a_port_and_do_not_hold_it(opened: Opened) -> None:
    server = opened.at("127.0.0.1", 80, listen=True)
    client = socket.create_connection(server.getsockname())
    talker = opened.at("127.0.0.1", 0, UDP)
    talker.connect(("127.0.0.1", 53))
    for transport, sock in (("tcp", client), ("udp", talker)):
        port = sock.getsockname()[1]
        assert not found(transport, ANY, range(port, port + 1))
        assert [one.port for one in holders(transport, ip_address(ANY), range(port, port + 1), USING)] == [port]
    client.close()
    assert [one.inode for one in holders("tcp", ip_address(ANY), range(81, 65536), USING)] == [0]


def test_the_process_is_named(opened: Opened) -> None:
    code = "import socket, sys; s = socket.create_server(('', 80)); print('up', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"up\n"
        name = Path(f"/proc/{process.pid}/comm").read_text().strip()
        told = described(holders("tcp", ip_address(ANY), range(80, 81)))
        assert told == f"0.0.0.0:80/tcp is held by {name} (pid {process.pid})"
        process.communicate()


def test_of_many_the_first_are_named(opened: Opened) -> None:
    for port in range(80, 90):
        opened.at(ANY, port, UDP)
    told = described(holders("udp", ip_address(ANY), ALL))
    assert told.count(f"(pid {os.getpid()})") == 3
    assert told.endswith("; and 7 more")


def test_who_cannot_be_seen_is_told_by_user_address_and_where_to_look(opened: Opened) -> None:
    subprocess.run(["ip", "link", "add", "vx", "type", "vxlan", "id", "1", "dstport", "4789", "dev", "lo"], check=True)
    subprocess.run(["ip", "link", "set", "vx", "up"], check=True)
    told = described(holders("udp", ip_address("192.0.2.1"), range(4789, 4790)))
    assert told == (
        "0.0.0.0:4789/udp is held by a process that weft cannot see, or by the kernel itself (uid 0): "
        "`ss -lnup 'sport = :4789'` on the host tells which"
    )


def test_a_kernel_that_does_not_tell_is_an_error(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drivers.holders._PROTOCOLS", {"tcp": 222})
    with pytest.raises(OSError, match="does not list its sockets"):
        holders("tcp", ip_address(ANY), ALL)


def test_an_ipv6_socket_that_takes_ipv4_is_in_the_way_of_ipv4_only_as_the_wildcard() -> None:
    one = Holder("tcp", ip_address("fd00::1"), 80, 0, 0, both=True)
    assert not one.meets(ip_address(ANY))
    assert one.meets(ip_address("::"))
