"""Checksums that a link leaves to hardware, by ethtool's ioctl: the links of veth pairs have none to leave them to."""

from __future__ import annotations

import array
import fcntl
import socket
import struct
from typing import Final

_SIOCETHTOOL: Final = 0x8946
_STXCSUM: Final = 0x17  # ETHTOOL_STXCSUM
_IFREQ: Final = struct.Struct("16sP16x")


def compute_checksums(link: str) -> None:
    """Have a link compute the checksums of what it sends. It stays so when the link moves to another namespace.

    Done by the kernel in 0.2 ms (facts/ovs.md 2); segmentation offload goes with it. Raises ``OSError``.
    """
    value = array.array("I", (_STXCSUM, 0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        fcntl.ioctl(sock, _SIOCETHTOOL, _IFREQ.pack(link.encode(), value.buffer_info()[0]))
