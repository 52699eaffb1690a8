"""Runs in a virtual machine: it is in the machine's containers at once, and speaks from there.

`python3 -m tests.vm.hand`, with nothing but Python's own library. What it is asked comes by a serial port, a line each:
{"id": 1, "call": "knock", ...} -> {"id": 1, "said": ...}, or "failed" in place of "said".
"""

import hashlib
import json
import os
import socket
import threading
from collections.abc import Callable, Mapping
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from tests.matrix.frames import IPV6
from tests.matrix.sizes import largest
from tests.matrix.traffic import PORT, Knock, Spot, Traffic
from tests.netns import sh

SERIAL: Final = Path("/dev/virtio-ports/weft-hand")
SHOUTED: Final = 7070
TAKEN: Final = 7080
BOUND: Final = 300  # seconds
CHUNK: Final = 1 << 16
SOLICITATION: Final = 135  # RFC 4861


class Hand:
    """The containers by name, and what is done in them."""

    def __init__(self, traffic: Traffic, serial: int) -> None:
        self._traffic = traffic
        self._serial = serial
        self._rest = b""
        self._spots: dict[str, Spot] = {}
        self._ears: dict[str, socket.socket] = {}
        self._eyes: dict[str, socket.socket] = {}
        self._calls: Mapping[str, Callable[..., object]] = {
            "be_in": self.be_in,
            "knock": self.knock,
            "largest": self.largest,
            "hear": self.hear,
            "heard": self.heard,
            "shout": self.shout,
            "watch": self.watch,
            "solicited": self.solicited,
            "take": self.take,
            "send": self.send,
        }

    def say(self, message: Mapping[str, object]) -> None:
        """Send one line."""
        line = json.dumps(message).encode() + b"\n"
        while line:
            line = line[os.write(self._serial, line) :]

    def listen(self) -> None:
        """Do what is asked, and answer in the containers, for ever."""
        self._traffic.selector.register(self._serial, 1, self._read)
        while True:
            for key, _ in self._traffic.selector.select():
                key.data()

    def _read(self) -> None:
        *lines, self._rest = (self._rest + os.read(self._serial, CHUNK)).split(b"\n")
        for line in lines:
            asked = json.loads(line)
            number, call = asked.pop("id"), asked.pop("call")
            try:
                self.say({"id": number, "said": self._calls[call](**asked)})
            except (OSError, AssertionError) as error:
                self.say({"id": number, "failed": repr(error)})

    def be_in(self, name: str, netns: str, *, sctp: bool) -> None:
        """Know a network namespace by a name, and answer there whoever asks who he is."""
        spot = self._spots[name] = self._traffic.spot(Path(netns), name)
        spot.serve(PORT)
        if sctp:
            spot.serve_sctp(PORT)

    def knock(self, knocks: list[tuple[str, str, str, int, str]]) -> list[str]:
        """Make all attempts (source, address, protocol, port, wanted) at once; return those that went otherwise.

        What was in vain before leaves an unfinished look for a neighbour, whose end would end new attempts, too.
        """
        for source in sorted({source for source, *_ in knocks}):
            with self._spots[source].entered():
                sh("ip", "neigh", "flush", "all")
        return self._traffic.surprises(
            [
                Knock(self._spots[source], address, protocol, port, wanted)
                for source, address, protocol, port, wanted in knocks
            ]
        )

    def largest(self, source: str, address: str) -> int:
        """Return the most bytes that an echo request to an address can carry."""
        return largest(self._spots[source], address)

    def hear(self, names: list[str]) -> None:
        """Listen to broadcasts."""
        for name in names:
            ear = self._ears[name] = self._spots[name].make(socket.AF_INET, socket.SOCK_DGRAM)
            ear.bind(("", SHOUTED))

    def heard(self, name: str) -> list[str]:
        """Return what was heard since the last time."""
        words: list[str] = []
        while True:
            try:
                words.append(self._ears[name].recv(64).decode())
            except BlockingIOError:
                return words

    def shout(self, source: str, address: str, words: list[str]) -> None:
        """Say each word to a broadcast address."""
        with self._spots[source].make(socket.AF_INET, socket.SOCK_DGRAM) as mouth:
            mouth.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            for word in words:
                mouth.sendto(word.encode(), (address, SHOUTED))

    def watch(self, names: list[str]) -> None:
        """See every frame of IPv6 that comes to containers."""
        for name in names:
            self._eyes[name] = self._spots[name].make(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(IPV6))

    def solicited(self, name: str) -> list[str]:
        """Return the addresses that others have asked a container for, and end the watch."""
        found: list[str] = []
        with self._eyes.pop(name) as eye:
            while True:
                try:
                    frame = eye.recv(CHUNK)
                except BlockingIOError:
                    return found
                if frame[20] == socket.IPPROTO_ICMPV6 and frame[54] == SOLICITATION:
                    found.append(str(ip_address(frame[62:78])))

    def take(self, name: str) -> None:
        """Take what one client sends by TCP, and tell it what it was."""
        listener = self._spots[name].make(socket.AF_INET6, socket.SOCK_STREAM)
        listener.settimeout(BOUND)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("::", TAKEN))
        listener.listen()
        threading.Thread(target=partial(_take, listener), daemon=True).start()

    def send(self, source: str, address: str, seed: str, size: int) -> tuple[str, str]:
        """Send so many bytes; return what they were, and what the other end says they were."""
        body = hashlib.shake_256(seed.encode()).digest(size)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with self._spots[source].make(family, socket.SOCK_STREAM) as sock:
            sock.settimeout(BOUND)
            sock.connect((address, TAKEN))
            sock.sendall(body)
            sock.shutdown(socket.SHUT_WR)
            return hashlib.sha256(body).hexdigest(), sock.recv(64).decode()


def _take(listener: socket.socket) -> None:
    with listener:
        sock, _ = listener.accept()
    with sock:
        sock.settimeout(BOUND)
        taken = hashlib.sha256()
        while part := sock.recv(CHUNK):
            taken.update(part)
        sock.sendall(taken.hexdigest().encode())


def main() -> None:
    """Say that it is there, and do what is asked."""
    serial = os.open(SERIAL, os.O_RDWR)
    with Traffic() as traffic:
        hand = Hand(traffic, serial)
        hand.say({"boot": str(os.getpid())})
        hand.listen()


if __name__ == "__main__":
    main()
