"""What a process that runs as root may still do: every capability that weft does not need is given away for good.

Root without capabilities is still the owner of root's files; what goes is mounting, loading modules, other namespaces,
raw disks, other users' processes. What weft starts (iptables) has no more than it has itself.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from drivers.errors import HostFailure

NEEDED: Final[Mapping[str, int]] = {
    "CAP_DAC_OVERRIDE": 1,  # what an operator's directory or an Open vSwitch's socket asks of root
    "CAP_DAC_READ_SEARCH": 2,  # with CAP_SYS_PTRACE: /proc/PID/fd, to name the program that holds a port
    "CAP_NET_BIND_SERVICE": 10,  # published ports below 1024 are held
    "CAP_NET_ADMIN": 12,  # links, addresses, routes, nftables, iptables, conntrack
    "CAP_NET_RAW": 13,  # announcements; iptables
    "CAP_SYS_PTRACE": 19,
}
"""What is kept, where it was there at all, with its number (<linux/capability.h>)."""

_PR_CAPBSET_READ: Final = 23
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_VERSION_3: Final = 0x20080522
_SETPCAP: Final = 8


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def drop() -> None:
    """Keep what is :data:`NEEDED`, and nothing else, in this process and all that it starts.

    For a process with one thread: capabilities are each thread's own (capabilities(7)). Raises :class:`HostFailure`.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    header, data = _Header(_VERSION_3, 0), (_Data * 2)()
    _ok(libc.capget(ctypes.byref(header), data))
    if data[0].effective & 1 << _SETPCAP:  # or there is no more to be had than what is permitted now
        for number in range(_last() + 1):
            if number not in NEEDED.values() and libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0) == 1:
                _ok(libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0))
    _ok(libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
    kept = sum(1 << number for number in NEEDED.values())  # all of them below 32
    for at, mask in enumerate((kept, 0)):
        data[at].permitted &= mask
        data[at].effective &= mask
        data[at].inheritable = 0
    _ok(libc.capset(ctypes.byref(header), data))
    _ok(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def _last() -> int:
    return int(Path("/proc/sys/kernel/cap_last_cap").read_text(encoding="ascii"))


def _ok(result: int) -> None:
    if result:
        raise HostFailure(f"capabilities could not be given away: {os.strerror(ctypes.get_errno())}")
