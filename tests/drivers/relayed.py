"""A container, a client on another host, and the host itself between them, for the tests of the relay."""

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from drivers.contract import Step
from drivers.marks import Marks
from drivers.resources import Hold, hold_key, scope_of
from drivers.sockets import Limits, SocketsBackend
from tests.netns import Netns, private_netns, sh

MARKS = Marks("0123456789abcdef")
SCOPE = scope_of("n1", "e1")
ANY, ANY6 = "0.0.0.0", "::"  # noqa: S104 - the point of it
TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM
CONTAINER, CONTAINER6 = "10.1.0.2", "fd01::2"
HOST, HOST6 = "10.2.0.1", "fd02::1"
HOST_TOO, HOST_TOO6 = "10.2.0.11", "fd02::11"
CLIENT, CLIENT6 = "10.2.0.2", "fd02::2"
BOUND = 20.0  # seconds
WAYS = [  # the host's address that is bound, the one that is asked, the container's: what NAT cannot do, and can
    ("::1", "::1", CONTAINER),
    ("::1", "::1", CONTAINER6),
    (ANY6, HOST6, CONTAINER),
    (ANY, HOST, CONTAINER6),
    (HOST, HOST, CONTAINER),
    (ANY, "127.0.0.1", CONTAINER),
]
Pair = tuple[socket.socket, socket.socket]


class World:
    """A host (this thread's namespace) between a container and a client."""

    def __init__(self, stack: ExitStack) -> None:
        stack.enter_context(private_netns())
        self.stack = stack
        self.container = self._joined("c", (CONTAINER, CONTAINER6), ["10.1.0.1", "fd01::1"])
        self.client = self._joined("n", (CLIENT, CLIENT6), [HOST, HOST6, HOST_TOO, HOST_TOO6])

    def _joined(self, name: str, theirs: Sequence[str], ours: Sequence[str]) -> Netns:
        netns = self.stack.enter_context(Netns())
        sh("ip", "link", "add", f"h{name}", "type", "veth", "peer", "name", name, "netns", netns.path)
        _up(f"h{name}", ours)
        with netns.entered():
            _up(name, theirs)
        return netns

    def inside(self, address: str, kind: int = TCP, port: int = 80) -> socket.socket:
        """Return a server of the container's."""
        with self.container.entered():
            sock = self.sock(address, kind)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address, port))
        if kind == TCP:
            sock.listen(1024)
        return sock

    def outside(self, address: str, kind: int = TCP) -> socket.socket:
        """Return a socket for asking this address: of the host itself for loopback, else of another host."""
        if address in ("::1", "127.0.0.1"):
            return self.sock(address, kind)
        with self.client.entered():
            return self.sock(address, kind)

    def sock(self, address: str, kind: int) -> socket.socket:
        """Return a socket that is closed after the test."""
        sock = self.stack.enter_context(socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind))
        sock.settimeout(BOUND)
        return sock

    def connected(self, server: socket.socket, address: str, port: int = 8000) -> Pair:
        """Return both ends of a relayed connection."""
        client = self.outside(address)
        client.connect((address, port))
        return client, self.accepted(server)

    def accepted(self, server: socket.socket) -> socket.socket:
        """Return the container's end of the next connection."""
        sock = self.stack.enter_context(server.accept()[0])
        sock.settimeout(BOUND)
        return sock


def _up(link: str, addresses: Sequence[str]) -> None:
    sh("ip", "link", "set", "dev", link, "up")
    for address in addresses:
        if ":" in address:
            sh("ip", "address", "add", f"{address}/64", "dev", link, "nodad")
        else:
            sh("ip", "address", "add", f"{address}/24", "dev", link)


@contextmanager
def serving(*holds: Hold, limits: Limits | None = None) -> Iterator[SocketsBackend]:
    backend = SocketsBackend(MARKS, limits)
    try:
        assert not backend.apply([Step(None, one) for one in holds])
        yield backend
    finally:
        backend.close()
    assert "weft-relay" not in {thread.name for thread in threading.enumerate()}


def hold(transport: str, address: str, to: str | None, *allow: str, ports: str = "8000", first: int = 80) -> Hold:
    start, _, end = ports.partition("-")
    key = hold_key(transport, address, int(start), int(end or start))
    return Hold(key=key, scope=SCOPE, relay=(to, first) if to else None, allow=allow)


def changed(backend: SocketsBackend, old: Hold | None, new: Hold | None) -> None:
    assert not backend.apply([Step(old, new)])


def is_reset(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b"never"
    except ConnectionResetError:
        return True


def is_refused(client: socket.socket, address: str) -> bool:
    """Tell whether a connection is reset, during ``connect`` or after it."""
    try:
        client.connect((address, 8000))
    except ConnectionResetError:
        return True
    return is_reset(client)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
