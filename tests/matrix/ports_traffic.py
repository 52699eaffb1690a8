"""Conversations by published ports: a word there, and back with who the client seems to be and which port it reached.

    talk(ann, [80, 81])
    assert traffic.seen([Knock(lan, "192.0.2.1", "udp-talk", 8081)]) == ["open from 192.0.2.2 at 81"]

``tcp-talk`` and ``udp-talk`` are a word and its answer; ``sctp-talk`` is a whole association by raw sockets, for the
kernel has no SCTP: INIT, INIT-ACK, COOKIE-ECHO with the word, COOKIE-ACK with the answer (RFC 9260).
"""

import selectors
import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Final

from tests.matrix import traffic as basic
from tests.matrix.traffic import OPEN, REFUSED, Knock, Spot

TALKS: Final = {"tcp": "tcp-talk", "udp": "udp-talk", "sctp": "sctp-talk"}

_SCTP: Final = 132
_INIT, _INIT_ACK, _COOKIE_ECHO, _COOKIE_ACK, _DATA = 1, 2, 10, 11, 0
_COOKIE: Final = 7  # the parameter of INIT-ACK
_COMMON: Final = struct.Struct("!HHII")
_CHUNK: Final = struct.Struct("!BBH")
_OPENING: Final = struct.Struct("!IIHHI")  # tag, window, streams out and in, first number
_PIECE: Final = struct.Struct("!IHHI")  # number, stream, number in stream, protocol
_TAG: Final = 0x57EF0001  # the servers'


def talk(spot: Spot, ports: Iterable[int]) -> None:
    """Answer in a namespace, IPv4 and IPv6: TCP and UDP on some ports, SCTP on all."""
    for port in ports:
        listener, sock = spot.make(socket.AF_INET6, socket.SOCK_STREAM), spot.make(socket.AF_INET6, socket.SOCK_DGRAM)
        for one in (listener, sock):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            one.bind(("::", port))
        listener.listen(512)
        spot.traffic.hear(listener, basic._with(lambda it: _accept(spot, it), listener))
        spot.traffic.hear(sock, basic._with(_echo, sock))
    for family in (socket.AF_INET, socket.AF_INET6):
        raw = spot.make(family, socket.SOCK_RAW, _SCTP)
        spot.traffic.hear(raw, basic._with(_associate, raw))


def _answer(word: bytes, peer: str, port: int) -> bytes:
    return word + f" {basic._plain((peer, 0))} at {port}".encode()


def _accept(spot: Spot, listener: socket.socket) -> None:
    with suppress(OSError):
        sock, peer = listener.accept()
        sock.setblocking(False)  # noqa: FBT003 - takes no keyword

        def hear() -> None:
            with suppress(OSError):
                if word := sock.recv(64):
                    sock.send(_answer(word, peer[0], sock.getsockname()[1]))
            spot.traffic.forget(sock)

        spot.traffic.hear(sock, hear)


def _echo(sock: socket.socket) -> None:
    with suppress(OSError):
        word, peer = sock.recvfrom(64)
        sock.sendto(_answer(word, peer[0], sock.getsockname()[1]), peer)


def _associate(raw: socket.socket) -> None:
    with suppress(OSError):
        got, peer = raw.recvfrom(2048)
        message = _Message.read(got, raw.family)
        if message is None:
            return
        if (opening := message.chunks.get(_INIT)) is not None:
            tag, *_ = _OPENING.unpack_from(opening)
            cookie = struct.pack("!I", tag) + _answer(b"", peer[0], message.target)
            back = _OPENING.pack(_TAG, 65536, 1, 1, 1) + struct.pack("!HH", _COOKIE, len(cookie) + 4) + cookie
            raw.sendto(message.reply(tag, (_INIT_ACK, back)), (peer[0], 0))
        elif (echoed := message.chunks.get(_COOKIE_ECHO)) is not None and message.tag == _TAG:
            (tag,) = struct.unpack_from("!I", echoed)
            word = message.chunks.get(_DATA, b"")[_PIECE.size :]
            answer = _PIECE.pack(1, 0, 0, 0) + word + echoed[4:]
            raw.sendto(message.reply(tag, (_COOKIE_ACK, b""), (_DATA, answer)), (peer[0], 0))


# -- clients --------------------------------------------------------------------------------------------------------


_words = count(1)


def _opened(word: bytes, told: bytes) -> str:
    return f"{OPEN} from{told[len(word) :].decode()}" if told.startswith(word + b" ") else f"garbled: {told!r}"


class _TcpTalk(basic._Client):
    __slots__ = ("said", "word")

    def __init__(self, knock: Knock) -> None:
        super().__init__(knock)
        self.word = f"word{next(_words)}".encode()
        self.said = False
        self.open(socket.SOCK_STREAM)
        try:
            self.sock.connect((knock.address, knock.port))
        except OSError as error:
            self.failed(error)
        if not self.seen:
            self.traffic.hear(self.sock, self._ready, events=selectors.EVENT_WRITE)

    def _ready(self) -> None:
        try:
            if not self.said:
                self.sock.send(self.word)
                self.said = True
                self.traffic.selector.modify(self.sock, selectors.EVENT_READ, self._ready)
                return
            told = self.sock.recv(128)
        except OSError as error:
            self.failed(error)
            if self.seen:
                self.end()
            return
        self.seen = _opened(self.word, told) if told else REFUSED  # a relay that found nobody behind it hangs up
        self.end()


class _UdpTalk(basic._Udp):
    __slots__ = ("word",)

    def __init__(self, knock: Knock) -> None:
        self.word = f"word{next(_words)}".encode()
        super().__init__(knock)

    def ask(self) -> None:
        if not self.seen:
            try:
                self.sock.send(self.word)
            except OSError as error:
                self.failed(error)

    def _ready(self) -> None:
        try:
            told = self.sock.recv(128)
        except OSError as error:
            self.failed(error)
        else:
            self.seen = _opened(self.word, told)


class _SctpTalk(basic._Client):
    """It begins again with every `ask`, until it is answered; a port of its own tells its answers from others'."""

    __slots__ = ("me", "tag", "word")

    def __init__(self, knock: Knock) -> None:
        super().__init__(knock)
        number = next(_words)
        self.word = f"word{number}".encode()
        self.me = 1024 + number % 60000
        self.tag = number
        self.open(socket.SOCK_RAW, _SCTP)
        try:
            self.sock.connect((knock.address, 0))
        except OSError as error:
            self.failed(error)
        self.traffic.hear(self.sock, self._ready)

    def failed(self, error: OSError) -> None:
        """Note nothing: the kernel tells every raw socket of an ICMP error, whichever port it was about."""

    def ask(self) -> None:
        self._say(0, (_INIT, _OPENING.pack(self.tag, 65536, 1, 1, 1)))

    def _say(self, tag: int, *chunks: tuple[int, bytes]) -> None:
        if self.seen:
            return
        try:
            self.sock.send(_packed(self.me, self.knock.port, tag, *chunks))
        except OSError as error:
            self.failed(error)

    def _ready(self) -> None:
        try:
            message = _Message.read(self.sock.recv(2048), self.sock.family)
        except OSError as error:
            self.failed(error)
            return
        if message is None or (message.source, message.target, message.tag) != (self.knock.port, self.me, self.tag):
            return
        if (opening := message.chunks.get(_INIT_ACK)) is not None:
            tag, *_ = _OPENING.unpack_from(opening)
            cookie = opening[_OPENING.size + 4 :]
            self._say(tag, (_COOKIE_ECHO, cookie), (_DATA, _PIECE.pack(1, 0, 0, 0) + self.word))
        elif _COOKIE_ACK in message.chunks:
            self.seen = _opened(self.word, message.chunks.get(_DATA, b"")[_PIECE.size :])


basic.CLIENTS.update({"tcp-talk": _TcpTalk, "udp-talk": _UdpTalk, "sctp-talk": _SctpTalk})


# -- SCTP on the wire -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Message:
    source: int
    target: int
    tag: int
    chunks: dict[int, bytes]

    @classmethod
    def read(cls, packet: bytes, family: int) -> "_Message | None":
        """Read what a raw socket has received; None if the checksum is wrong, as whoever translates may leave it."""
        body = packet[(packet[0] & 15) * 4 :] if family == socket.AF_INET else packet
        source, target, tag, summed = _COMMON.unpack_from(body)
        if summed != _checksum(body[:8] + bytes(4) + body[12:]):
            return None
        return cls(source, target, tag, dict(_chunks(body[12:])))

    def reply(self, tag: int, *chunks: tuple[int, bytes]) -> bytes:
        return _packed(self.target, self.source, tag, *chunks)


def _chunks(body: bytes) -> Iterator[tuple[int, bytes]]:
    while len(body) >= _CHUNK.size:
        kind, _, length = _CHUNK.unpack_from(body)
        yield kind, body[_CHUNK.size : length]
        body = body[(length + 3) // 4 * 4 :]


def _packed(source: int, target: int, tag: int, *chunks: tuple[int, bytes]) -> bytes:
    body = b""
    for kind, value in chunks:
        flags = 3 if kind == _DATA else 0  # the whole of it in one chunk
        body += _CHUNK.pack(kind, flags, _CHUNK.size + len(value)) + value + bytes(-len(value) % 4)
    summed = _checksum(_COMMON.pack(source, target, tag, 0) + body)
    return _COMMON.pack(source, target, tag, summed) + body


def _row(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value


_CRC32C: Final = tuple(map(_row, range(256)))


def _checksum(data: bytes) -> int:
    """Return CRC32c as the header has it: the least significant byte first."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC32C[(crc ^ byte) & 0xFF]
    return int.from_bytes((crc ^ 0xFFFFFFFF).to_bytes(4, "little"), "big")
