"""A LAN of several hosts: a switch in a namespace of its own, and a wire to each host.

host N: lan0 192.0.2.N/24, 2001:db8:2::N/64      (documentation's own addresses, RFC 5737 and 3849)
"""

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address
from typing import Self

from tests.lab.net import RUN_NETNS, HasNetns, NetNs
from tests.lab.process import run
from tests.netns import inside

_ETH_P_ALL = 3
_SO_RCVBUFFORCE = 33


def address4(number: int) -> IPv4Address:
    """Return the IPv4 address of a host."""
    return IPv4Address(f"192.0.2.{number}")


def address6(number: int) -> IPv6Address:
    """Return the IPv6 address of a host."""
    return IPv6Address(f"2001:db8:2::{number}")


class Lan(NetNs):
    """The switch. It has no address of its own."""

    def __init__(self) -> None:
        super().__init__("switch")

    def __enter__(self) -> Self:
        super().__enter__()
        self.ip("link", "add", "switch", "type", "bridge", "mcast_snooping", "0")
        self.ip("link", "set", "switch", "up")
        return self

    def plug(self, host: HasNetns, number: int) -> None:
        """Draw the wire to a host, and give it its addresses."""
        near, port = host.netns, f"port{number}"
        run(["ip", "-n", near, "link", "add", "lan0", "type", "veth", "peer", "name", port, "netns", self.netns])
        for address in (f"{address4(number)}/24", f"{address6(number)}/64"):
            nodad = ["nodad"] if ":" in address else []
            run(["ip", "-n", near, "address", "add", address, "dev", "lan0", *nodad])
        run(["ip", "-n", near, "link", "set", "lan0", "up"])
        self.ip("link", "set", port, "master", "switch")
        self.ip("link", "set", port, "up")

    @contextmanager
    def tap(self) -> Iterator["Tap"]:
        """See all that is on the wires."""
        with inside(RUN_NETNS / self.netns):
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        with sock:
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 64 << 20)
            sock.setblocking(False)  # noqa: FBT003 - takes no keyword
            sock.bind(("switch", _ETH_P_ALL))
            self.ip("link", "set", "switch", "promisc", "on")
            yield Tap(sock)


class Tap:
    """The frames on the LAN since it was put there, each once."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.frames: list[bytes] = []

    def look(self) -> list[bytes]:
        """Return all frames so far."""
        while True:
            try:
                self.frames.append(self._sock.recv(65536))
            except BlockingIOError:
                return self.frames

    def inner(self, port: int = 4789) -> Iterator[tuple[str, int, bytes]]:
        """Yield what is in VXLAN packets: outer destination, VNI, and the frame."""
        for frame in self.look():
            kind = struct.unpack_from("!H", frame, 12)[0]
            if kind == 0x0800 and frame[23] == socket.IPPROTO_UDP:
                to, udp = str(IPv4Address(frame[30:34])), 14 + (frame[14] & 15) * 4
            elif kind == 0x86DD and frame[20] == socket.IPPROTO_UDP:
                to, udp = str(IPv6Address(frame[38:54])), 54
            else:
                continue
            if struct.unpack_from("!H", frame, udp + 2)[0] == port:
                yield to, int.from_bytes(frame[udp + 12 : udp + 15], "big"), frame[udp + 16 :]
