"""How large a packet may be: asked with packets, one byte more each time."""

import errno
import socket
import struct
from functools import partial

from tests.lab.wait import await_
from tests.matrix.frames import checksum
from tests.matrix.traffic import Spot


def largest(spot: Spot, address: str) -> int:
    """Return the most bytes that an echo request can carry unfragmented; each size is sent, and must be answered."""
    v6 = ":" in address
    family, level = (socket.AF_INET6, socket.IPPROTO_IPV6) if v6 else (socket.AF_INET, socket.IPPROTO_IP)
    with spot.make(family, socket.SOCK_RAW, socket.IPPROTO_ICMPV6 if v6 else socket.IPPROTO_ICMP) as sock:
        sock.setsockopt(level, 23 if v6 else 10, 2)  # IP(V6)_MTU_DISCOVER: IP_PMTUDISC_DO
        sizes: tuple[int, ...] = (1300, *range(1360, 1500))
        for size in sizes:
            body = struct.pack("!BBHHH", 128 if v6 else 8, 0, 0, 0x5757, size) + bytes(size)
            if not v6:
                body = body[:2] + checksum(body) + body[4:]
            try:
                sock.sendto(body, (address, 0))
            except OSError as error:
                if error.errno != errno.EMSGSIZE:
                    raise
                return size - 1
            await_(partial(_echoed, sock, size, v6=v6), 10, f"the echo of {size} bytes")
    raise AssertionError("everything passes")


def _echoed(sock: socket.socket, size: int, *, v6: bool) -> bool:
    try:
        packet = sock.recv(65536)
    except BlockingIOError:
        return False
    message = packet if v6 else packet[20:]
    return bool(message[0] == (129 if v6 else 0) and struct.unpack_from("!HH", message, 4) == (0x5757, size))
