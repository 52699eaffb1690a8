"""Real TCP, UDP and ping between network namespaces, hundreds of them at once, from one thread of this process.

A socket stays in the namespace it was made in. So the thread steps into a namespace, makes a socket and steps out; one
loop then plays all servers and all clients, and a whole table of who reaches whom takes as long as its longest silence.

    with Traffic() as traffic:
        ann, bob = traffic.spot(ann_netns), traffic.spot(bob_netns)
        bob.serve(PORT)
        assert traffic.seen([Knock(ann, "10.9.0.3", "tcp")]) == ["open from 10.9.0.2"]

What is seen is ``open from ADDRESS`` (the client as the server sees it; a ping's answer does not tell), ``refused``
(somebody answered, with a reset or an ICMP error) or ``silent``.
"""

import errno
import os
import selectors
import socket
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Self

from tests.netns import entered, sysctl

PORT: Final = 7007
PROTOCOLS: Final = ("tcp", "udp", "icmp")
UNLIMITED: Final = ("ipv4/icmp_ratelimit", "ipv6/icmp/ratelimit")

OPEN: Final = "open"
REFUSED: Final = "refused"
SILENT: Final = "silent"

PATIENCE: Final = 0.6
"""Seconds without an answer that count as silence; whoever asserts silence also asserts an answer in the same round."""
BOUND: Final = 30.0
"""Seconds that an answer which is expected may take."""
_AGAIN: Final = 0.15  # seconds after which UDP and ping ask again

Act = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Knock:
    """One attempt: from a namespace to an address, by tcp, udp or icmp. ``wanted`` is what is expected to be seen."""

    source: "Spot"
    address: str
    protocol: str
    port: int = PORT
    wanted: str = SILENT

    def __str__(self) -> str:
        where = "" if self.protocol == "icmp" else f" {self.port}"
        return f"{self.source.name} -> {self.address}{where} {self.protocol}"

    def agrees(self, seen: str) -> bool:
        """Tell whether what was seen is what was wanted; a plain ``open`` does not mind from where."""
        return seen == self.wanted or (self.wanted == OPEN and seen.startswith(OPEN))


class Traffic:
    """All servers and clients of a test. Leaving the ``with`` closes every socket."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for key in list(self.selector.get_map().values()):
            self.forget(key.fileobj)
        self._stack.close()
        self.selector.close()

    def spot(self, netns: Path, name: str = "") -> "Spot":
        """Return a namespace to knock from and to serve in; ``netns`` is /run/netns/NAME or /proc/PID/ns/net.

        It says of every packet that it is refused, not of one a second: hundreds are asked for at once (icmp(7)).
        """
        handle = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
        self._stack.callback(os.close, handle)
        with entered(handle), suppress(FileNotFoundError):  # not every namespace has IPv6
            for limit in UNLIMITED:
                sysctl(limit, "0")
        return Spot(self, handle, name or netns.name)

    def hear(self, sock: socket.socket, act: Act, *, events: int = selectors.EVENT_READ) -> None:
        """Call ``act`` whenever the socket is ready."""
        self.selector.register(sock, events, act)

    def forget(self, sock: object) -> None:
        """Close a socket and hear no more of it."""
        assert isinstance(sock, socket.socket)
        with suppress(KeyError, ValueError):
            self.selector.unregister(sock)
        sock.close()

    def seen(self, knocks: Sequence[Knock]) -> list[str]:
        """Make all attempts at once and return what was seen of each."""
        clients = [CLIENTS[knock.protocol](knock) for knock in knocks]
        start = time.monotonic()
        again = start
        while True:
            now = time.monotonic()
            waited = all(client.seen for client in clients if client.knock.wanted != SILENT)
            if now - start > BOUND or (waited and now - start > PATIENCE):
                break
            if now >= again:
                again = now + _AGAIN
                for client in clients:
                    client.ask()
            for key, _ in self.selector.select(0.02):
                key.data()
        for client in clients:
            client.end()
        return [client.seen or SILENT for client in clients]

    def surprises(self, knocks: Sequence[Knock]) -> list[str]:
        """Make all attempts at once and return, one line each, those that went otherwise than wanted."""
        seen = self.seen(knocks)
        return [
            f"{knock}: {found}, wanted {knock.wanted}"
            for knock, found in zip(knocks, seen, strict=True)
            if not knock.agrees(found)
        ]


@dataclass(frozen=True, slots=True, eq=False)
class Spot:
    """A network namespace, seen as a place where conversations start and end."""

    traffic: Traffic
    handle: int
    name: str

    def entered(self) -> AbstractContextManager[None]:
        """Be in the namespace with this thread, and come back after."""
        return entered(self.handle)

    def make(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """Make a socket in here; it does not block."""
        with self.entered():
            sock = socket.socket(family, kind, protocol)
        sock.setblocking(False)  # noqa: FBT003 - takes no keyword
        return sock

    def serve(self, port: int = PORT, *, host: str = "") -> None:
        """Tell every TCP and UDP client on a port its own address; on all addresses, IPv4 and IPv6, or on one."""
        v6 = not host or ":" in host
        for kind, answer in ((socket.SOCK_STREAM, self._accept), (socket.SOCK_DGRAM, self._echo)):
            sock = self.make(socket.AF_INET6 if v6 else socket.AF_INET, kind)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if v6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(bool(host)))
            if kind == socket.SOCK_DGRAM and not host:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            sock.bind((host or "::", port))
            if kind == socket.SOCK_STREAM:
                sock.listen(64)
            self.traffic.hear(sock, _with(answer, sock))

    def serve_sctp(self, port: int = PORT) -> None:
        """Tell every SCTP client on a port its own address, where the kernel has SCTP."""
        sock = self.make(socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_SCTP)
        sock.bind(("::", port))
        sock.listen(64)
        self.traffic.hear(sock, _with(self._accept, sock))

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            sock, peer = listener.accept()
            with sock:
                sock.send(_plain(peer).encode())

    def _echo(self, sock: socket.socket) -> None:
        """Answer from the address that was asked, which a client insists on, not from the one nearest to it."""
        with suppress(OSError):
            _, here, _, peer = sock.recvmsg(64, 256)
            sock.sendmsg([_plain(peer).encode()], here, 0, peer)


def _with(answer: Callable[[socket.socket], None], sock: socket.socket) -> Act:
    return lambda: answer(sock)


def _plain(peer: tuple[str, int]) -> str:
    address = ip_address(peer[0].partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


# -- clients --------------------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class _Client:
    """One attempt under way."""

    knock: Knock
    seen: str = ""
    sock: socket.socket = field(init=False)

    @property
    def traffic(self) -> Traffic:
        return self.knock.source.traffic

    @property
    def v6(self) -> bool:
        return ":" in self.knock.address

    def open(self, kind: int, protocol: int = 0) -> None:
        family = socket.AF_INET6 if self.v6 else socket.AF_INET
        self.sock = self.knock.source.make(family, kind, protocol)

    def connect(self) -> None:
        try:
            self.sock.connect(self.target(self.knock.port))
        except OSError as error:
            self.failed(error)

    def target(self, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
        """Return where to; a link-local address names a link, which is another one in every namespace."""
        address, _, link = self.knock.address.partition("%")
        if not link:
            return address, port
        with self.knock.source.entered():
            return address, port, 0, socket.if_nametoindex(link)

    def ask(self) -> None:
        """Ask once more, where the kernel does not do it by itself."""

    def end(self) -> None:
        self.traffic.forget(self.sock)

    def failed(self, error: OSError) -> None:
        """Note an answer that is an error; that there is no way at all is a fault of the test's own set-up."""
        if error.errno == errno.ENETUNREACH:
            self.seen = "no route"
        elif error.errno not in (errno.EINPROGRESS, errno.EAGAIN, errno.ETIMEDOUT):
            self.seen = REFUSED


class _Tcp(_Client):
    __slots__ = ()
    carrier = 0

    def __init__(self, knock: Knock) -> None:
        super().__init__(knock)
        self.open(socket.SOCK_STREAM, self.carrier)
        self.connect()
        if not self.seen:
            self.traffic.hear(self.sock, self._ready)

    def _ready(self) -> None:
        try:
            told = self.sock.recv(64)
        except OSError as error:
            if error.errno != errno.EAGAIN:
                self.failed(error)
                self.end()
            return
        self.seen = f"{OPEN} from {told.decode()}" if told else REFUSED  # a proxy that found nobody behind it hangs up
        self.end()


class _Sctp(_Tcp):
    """An association, where the kernel has them; spoken to as if it were a connection."""

    __slots__ = ()
    carrier = socket.IPPROTO_SCTP


class _Udp(_Client):
    __slots__ = ()

    def __init__(self, knock: Knock) -> None:
        super().__init__(knock)
        self.open(socket.SOCK_DGRAM)
        self.connect()
        self.traffic.hear(self.sock, self._ready)

    def ask(self) -> None:
        if not self.seen:
            try:
                self.sock.send(b"?")
            except OSError as error:
                self.failed(error)

    def _ready(self) -> None:
        try:
            self.seen = f"{OPEN} from {self.sock.recv(64).decode()}"
        except OSError as error:
            self.failed(error)


class _Ping(_Client):
    """ICMP echo by a raw socket: the range of groups that may use the other kind is a setting of each namespace."""

    __slots__ = ("ident", "number")
    count = 0

    def __init__(self, knock: Knock) -> None:
        super().__init__(knock)
        _Ping.count += 1
        self.ident = _Ping.count & 0xFFFF
        self.number = 0
        self.open(socket.SOCK_RAW, socket.IPPROTO_ICMPV6 if self.v6 else socket.IPPROTO_ICMP)
        self.traffic.hear(self.sock, self._ready)

    def ask(self) -> None:
        if self.seen:
            return
        self.number += 1
        kind = 128 if self.v6 else 8
        packet = struct.pack("!BBHHH", kind, 0, 0, self.ident, self.number)
        if not self.v6:  # the kernel computes ICMPv6's
            words = sum(struct.unpack("!4H", packet))
            packet = struct.pack("!BBHHH", kind, 0, ~(words + (words >> 16)) & 0xFFFF, self.ident, self.number)
        try:
            self.sock.sendto(packet, self.target(0))
        except OSError as error:
            self.failed(error)

    def _ready(self) -> None:
        try:
            packet, (peer, *_) = self.sock.recvfrom(256)
        except OSError as error:
            self.failed(error)
            return
        message = packet if self.v6 else packet[(packet[0] & 15) * 4 :]
        kind, _, _, ident, _ = struct.unpack_from("!BBHHH", message)
        asked = peer.partition("%")[0] == self.knock.address.partition("%")[0]
        if kind == (129 if self.v6 else 0) and ident == self.ident and asked:
            self.seen = OPEN


CLIENTS: Final[dict[str, Callable[[Knock], _Client]]] = {
    "tcp": _Tcp,
    "udp": _Udp,
    "icmp": _Ping,
    "sctp": _Sctp,
}
