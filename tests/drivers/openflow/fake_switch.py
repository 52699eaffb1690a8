"""A switch that does as it is told by a test: what a real one does only when it is old, busy or broken."""

import shutil
import socket
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

from drivers.openflow import messages
from drivers.openflow.messages import HEADER, VERSION, Bundle, Message, Part, Type

Answer = Callable[[Message], Iterator[bytes]]

_MULTIPART = struct.Struct("!HH4x")
_CONTROL = struct.Struct("!IHH")
_ERROR = struct.Struct("!HH")


class FakeSwitch:
    """Listens as br-int's socket would. ``answer`` may answer a message otherwise, by yielding, or leave it."""

    def __init__(self, answer: Answer = lambda _: iter(()), *, greeting: bytes | None = None) -> None:
        self.rundir = Path(tempfile.mkdtemp(prefix="ovs-"))
        self.answer = answer
        self.greeting = messages.hello(0) if greeting is None else greeting
        self.heard: list[Message] = []
        self.connections = 0
        self.hangs_up = False
        self._peers: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.rundir / "br-int.mgmt"))
        self._listener.listen()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self.hang_up()
        self._thread.join()
        self._listener.close()
        shutil.rmtree(self.rundir)

    def hang_up(self) -> None:
        """Close what is open."""
        for peer in self._peers:
            with suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)

    def say(self, data: bytes) -> None:
        """Say something unasked."""
        self._peers[-1].sendall(data)

    def count(self, kind: Type) -> int:
        """Return how many messages of a type were heard."""
        return sum(one.type == kind for one in self.heard)

    def _run(self) -> None:
        with suppress(OSError):
            while True:
                peer, _ = self._listener.accept()
                self.connections += 1
                self._peers.append(peer)
                with suppress(OSError), peer:
                    peer.sendall(self.greeting)
                    if not self.hangs_up:
                        self._serve(peer)

    def _serve(self, peer: socket.socket) -> None:
        buffer = bytearray()
        while data := peer.recv(65536):
            buffer += data
            for one in messages.cut(buffer):
                self.heard.append(one)
                for answer in list(self.answer(one)) or [plain(one)]:
                    peer.sendall(answer)


def plain(one: Message) -> bytes:
    """Return what an empty switch answers."""
    if one.type == Type.BARRIER_REQUEST:
        return messages.message(Type.BARRIER_REPLY, one.xid)
    if one.type == Type.MULTIPART_REQUEST:
        return messages.message(Type.MULTIPART_REPLY, one.xid, one.body[: _MULTIPART.size])
    if one.type == Type.BUNDLE_CONTROL:
        bundle, what, _ = _CONTROL.unpack(one.body)
        return messages.message(Type.BUNDLE_CONTROL, one.xid, _CONTROL.pack(bundle, what + 1, 0))
    return b""


def error(xid: int, kind: int, code: int) -> bytes:
    """Return a refusal."""
    return messages.message(Type.ERROR, xid, _ERROR.pack(kind, code))


def monitor(*updates: bytes) -> bytes:
    """Return what a flow monitor says."""
    return messages.message(Type.MULTIPART_REPLY, 0, _MULTIPART.pack(Part.MONITOR, 0) + b"".join(updates))


def short_update(event: int) -> bytes:
    """Return an update that is about no flow."""
    return struct.pack("!HHI", 8, event, 0)


def controls(one: Message, what: Bundle) -> bool:
    """Tell whether a message is about a bundle in this way."""
    return one.type == Type.BUNDLE_CONTROL and messages.read_bundle_control(one.body) == what


def about(one: Message, part: Part) -> bool:
    """Tell whether a message asks for a part."""
    return one.type == Type.MULTIPART_REQUEST and messages.read_multipart(one.body)[0] == part


def header(kind: int, length: int) -> bytes:
    """Return a header that may lie about the length."""
    return HEADER.pack(VERSION, kind, length, 0)
