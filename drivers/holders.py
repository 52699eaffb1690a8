"""Who holds a port of this host: asked of the kernel by sock_diag, and of /proc for the process behind a socket.

A port is *held* by a TCP socket that listens or is bound and may listen yet, and by a UDP socket without a peer. What a
client's connection uses (and for a minute after its end still uses, TIME_WAIT) is not: it gets answers from one peer
only, and a published port does not take them away, for conntrack knows them.

Numbers are those of <linux/inet_diag.h> and <net/tcp_states.h>. Kernels before 6.8 do not tell of TCP sockets that are
bound and do not listen.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Final

from drivers.kernel.wire import NLMSG_DONE, NLMSG_ERROR, error, messages

_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_REQUEST_DUMP: Final = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_HEADER: Final = struct.Struct("=IHHII")
_ASK: Final = struct.Struct("=BBBxI HH 16s 16s I 8s")
_TOLD: Final = struct.Struct("=BBBB 2s2s 16s 16s I 8s IIIII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_SKV6ONLY: Final = 11  # INET_DIAG_SKV6ONLY
_RECEIVE_BYTES: Final = 65536
_PATIENCE: Final = 10.0  # seconds; only a kernel out of memory loses an answer

_ESTABLISHED, _CLOSE, _LISTEN, _BOUND_INACTIVE = 1, 7, 10, 13
HOLDING: Final = {"tcp": 1 << _LISTEN | 1 << _BOUND_INACTIVE, "udp": 1 << _CLOSE}
"""By transport, the states of a socket that holds its port."""

USING: Final = {transport: 0xFFFFFFFF & ~states for transport, states in HOLDING.items()}
"""By transport, the states of a socket that uses its port for one peer."""

_PROTOCOLS: Final = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}
_SHOWN_AT_MOST: Final = 3

IPAddress = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Holder:
    """A socket at a port of this host. ``both``: an IPv6 socket that takes IPv4, too. ``inode`` 0: it has no file."""

    transport: str
    address: IPAddress
    port: int
    uid: int
    inode: int
    both: bool = False

    def meets(self, address: IPAddress) -> bool:
        """Tell whether a socket at ``address`` (IPv6: for IPv6 only) would meet packets that this one gets."""
        mine = self.address
        if isinstance(mine, IPv6Address):
            if mapped := mine.ipv4_mapped:
                mine = mapped
            elif self.both and mine.is_unspecified and address.version == 4:
                return True
        return mine.version == address.version and (mine == address or mine.is_unspecified or address.is_unspecified)

    def __str__(self) -> str:
        return f"{spelled(self.address, self.port)}/{self.transport}"


def spelled(address: IPAddress, port: int) -> str:
    """Return an address and a port as ``ss`` shows them: ``0.0.0.0:80``, ``[::]:80``."""
    return f"{address}:{port}" if isinstance(address, IPv4Address) else f"[{address}]:{port}"


def holders(transport: str, address: IPAddress, ports: range, states: Mapping[str, int] = HOLDING) -> list[Holder]:
    """Return the sockets that are in the way of one at ``address`` and any of ``ports``, lowest port first.

    One look, however many ports: the kernel sends the sockets of the ``states``, of one port alone if it is one. Raises
    ``OSError`` (ENOENT: a kernel without inet_diag, tcp_diag or udp_diag).
    """
    found = [
        holder
        for family in (socket.AF_INET, socket.AF_INET6)
        for holder in _dump(transport, family, ports[0] if len(ports) == 1 else 0, states[transport])
        if holder.port in ports and holder.meets(address)
    ]
    return sorted(found, key=lambda holder: holder.port)


def described(found: Collection[Holder]) -> str:
    """Tell the operator who has these ports: process and pid where they can be seen, else where to look.

    A process in another PID namespace (weft as a managed plugin) and a socket of the kernel's own (VXLAN, NFS) cannot.
    """
    first = sorted(found, key=lambda holder: holder.port)[:_SHOWN_AT_MOST]
    names = _processes({holder.inode for holder in first if holder.inode})
    told = "; ".join(_told(holder, names.get(holder.inode, ())) for holder in first)
    return told + (f"; and {len(found) - len(first)} more" if len(found) > len(first) else "")


def _told(holder: Holder, names: Collection[str]) -> str:
    if names:
        return f"{holder} is held by {', '.join(names)}"
    letter = holder.transport[0]
    return (
        f"{holder} is held by a process that weft cannot see, or by the kernel itself (uid {holder.uid}): "
        f"`ss -ln{letter}p 'sport = :{holder.port}'` on the host tells which"
    )


def _processes(inodes: Collection[int]) -> dict[int, list[str]]:
    """Return, by socket, the processes that have it open: ``nginx (pid 812)``. What may not be seen is left out."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[int, list[str]] = {}
    if not wanted:
        return found
    for pid in sorted(int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdecimal()):
        for inode in {wanted[link] for link in _open_files(pid) if link in wanted}:
            found.setdefault(inode, []).append(f"{_name(pid)} (pid {pid})")
    return {
        inode: names[:_SHOWN_AT_MOST] + ([f"{len(names) - _SHOWN_AT_MOST} more"] if len(names) > _SHOWN_AT_MOST else [])
        for inode, names in found.items()
    }


def _open_files(pid: int) -> Iterator[str]:
    try:
        with os.scandir(f"/proc/{pid}/fd") as files:
            for file in files:
                with contextlib.suppress(OSError):  # closed meanwhile
                    yield os.readlink(file.path)  # noqa: PTH115 - there may be a million of them
    except OSError:  # it is gone, or not ours to look at
        return


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    except OSError:
        return "a process"


def _dump(transport: str, family: int, port: int, states: int) -> Iterator[Holder]:
    body = _ASK.pack(
        family, _PROTOCOLS[transport], 0, states, socket.htons(port), 0, bytes(16), bytes(16), 0, b"\xff" * 8
    )
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as sock:
        sock.settimeout(_PATIENCE)
        sock.send(_HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 1, 0) + body)
        while True:
            for message in messages(sock.recv(_RECEIVE_BYTES)):
                if message.type in (NLMSG_ERROR, NLMSG_DONE):
                    code, words = error(message)
                    if code:
                        raise OSError(code, f"the kernel does not list its sockets: {words or os.strerror(code)}")
                    return
                yield _read(transport, message.body)


def _read(transport: str, body: bytes) -> Holder:
    family, _, _, _, port, _, source, _, _, _, _, _, _, uid, inode = _TOLD.unpack_from(body)
    address = ip_address(source[:4] if family == socket.AF_INET else source)
    both = family == socket.AF_INET6 and not _for_ipv6_only(body)
    return Holder(transport, address, int.from_bytes(port, "big"), uid, inode, both)


def _for_ipv6_only(body: bytes) -> bool:
    at = _TOLD.size
    while at + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, at)
        if length < _ATTRIBUTE.size:
            break
        if kind == _SKV6ONLY:
            return bool(body[at + _ATTRIBUTE.size])
        at += (length + 3) & ~3
    return False
