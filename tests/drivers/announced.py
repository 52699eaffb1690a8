"""Reads announcements off the wire, knowing nothing of how they are made: RFC 826, 5227, 4861, 8200 and 4443."""

import socket
import struct
from collections import Counter
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

_ETH_P_ALL: Final = 3
_SO_TIMESTAMPNS: Final = 35


@dataclass(frozen=True, slots=True)
class Told:
    """What a frame says: an address is at a MAC."""

    address: IPv4Address | IPv6Address
    mac: str


@dataclass(frozen=True, slots=True)
class Heard:
    """An announcement as a port heard it; ``at`` is the kernel's time of it, in seconds."""

    told: Told
    at: float


class Ear:
    """Hears announcements on an interface from when it is made.

    ``sock`` is a raw packet socket of the interface's namespace, without a protocol.
    """

    def __init__(self, sock: socket.socket, interface: str) -> None:
        self._socket = sock
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._socket.bind((interface, _ETH_P_ALL))
        self._socket.settimeout(0)
        self.heard: list[Heard] = []

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def listen(self) -> list[Heard]:
        """Return all announcements until now."""
        while True:
            try:
                frame, (stamp, *_), *_ = self._socket.recvmsg(2048, 64)
            except BlockingIOError:
                return self.heard
            if told := read(frame):
                seconds, nanoseconds = struct.unpack("=qq", stamp[2])
                self.heard.append(Heard(told, seconds + nanoseconds / 1e9))

    def times(self) -> Counter[str]:
        """Return how often each address was announced until now."""
        return Counter(str(one.told.address) for one in self.listen())


def read(frame: bytes) -> Told | None:
    """Return what an announcement says, ``None`` for any other frame. One that is not as the RFCs have it fails."""
    to, source, ether_type, rest = frame[:6].hex(":"), frame[6:12], frame[12:14].hex(), frame[14:]
    if ether_type == "0806" and rest[14:18] == rest[24:]:  # nobody asks for somebody else
        assert to == "ff:ff:ff:ff:ff:ff"
        return _arp(source, rest)
    if ether_type == "86dd" and rest[6] == 58 and rest[40] == 136 and to == "33:33:00:00:00:01":
        return _advertisement(source, rest)
    return None


def _arp(source: bytes, packet: bytes) -> Told:
    assert packet[:8].hex(" ", 2) == "0001 0800 0604 0001", "a request, of Ethernet and IPv4"
    assert packet[8:14] == source
    assert packet[18:24] == b"\0\0\0\0\0\0"
    return Told(IPv4Address(packet[14:18]), source.hex(":"))


def _advertisement(source: bytes, packet: bytes) -> Told:
    header, message = packet[:40], packet[40:]
    assert header[0] >> 4 == 6
    assert int.from_bytes(header[4:6], "big") == len(message) == 32
    assert header[7] == 255, "hop limit"
    assert IPv6Address(header[24:]) == IPv6Address("ff02::1")
    assert message[1] == 0, "code"
    assert message[4:8].hex() == "20000000", "override, neither solicited nor a router"
    assert header[8:24] == message[8:24], "from the address it is about"
    assert message[24:26] == b"\x02\x01"
    assert message[26:] == source
    summed = header[8:] + len(message).to_bytes(4, "big") + b"\0\0\0\x3a" + message
    assert int.from_bytes(summed, "big") % 0xFFFF == 0, "checksum"
    return Told(IPv6Address(message[8:24]), message[26:].hex(":"))
