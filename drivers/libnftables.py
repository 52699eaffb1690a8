"""nft inside this process: libnftables by ctypes, the only file that knows ctypes.

A change costs 0.2 ms this way and 7 ms by the ``nft`` program (facts/firewall.md). The language is nft's own, text in
and text or JSON out, so whatever stands here can be typed at a shell. There is no maintained binding on PyPI.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from drivers.errors import HostFailure, Unsupported

_LIBRARY: Final = "libnftables.so.1"
_JSON: Final = 1 << 4  # NFT_CTX_OUTPUT_JSON, nftables/libnftables.h; all other output flags stay off
_ABSENT: Final = "No such file or directory"

_SOCKETS: Final = "/proc/thread-self/net/netlink"  # of this thread's network namespace
_NETLINK_NETFILTER: Final = "12"


class Nft:
    """One libnftables context: a socket of the network namespace it was made in, used by one thread at a time.

    ``calls`` counts the runs, for tests and for ``weft diagnose``. Raises :class:`Unsupported` without the library.
    """

    def __init__(self) -> None:
        self._library = _load()
        self._lock = threading.Lock()
        self._context: int | None = self._library.nft_ctx_new(0)
        if not self._context:
            raise HostFailure("nft: libnftables gave no context: is there memory left, and a netlink socket?")
        for keep in (self._library.nft_ctx_buffer_output, self._library.nft_ctx_buffer_error):
            if keep(self._context):
                raise HostFailure("nft: libnftables has no memory for its buffers")
        self.calls = 0

    def run(self, commands: str, *, json: bool = False) -> str:
        """Run nft commands, one per line, as one transaction, and return what ``nft`` would print.

        Raises :class:`HostFailure` with nft's own words; nothing was changed then.
        """
        with self._lock:
            if not self._context:
                raise HostFailure("nft: this context was closed")
            self.calls += 1
            self._library.nft_ctx_output_set_flags(self._context, _JSON if json else 0)
            failed = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
            output: bytes = self._library.nft_ctx_get_output_buffer(self._context) or b""
            error: bytes = self._library.nft_ctx_get_error_buffer(self._context) or b""
        if failed:
            raise HostFailure(f"nft: {_first_error(error.decode(errors='replace'))}")
        return output.decode()

    def listing(self, table: str) -> str | None:
        """Return a table, such as ``inet weft``, in JSON, or ``None`` if there is none."""
        try:
            return self.run(f"list table {table}", json=True)
        except HostFailure as failure:
            if _ABSENT in str(failure):
                return None
            raise

    def close(self) -> None:
        """Give back the context and its socket. A second time is fine."""
        with self._lock:
            if self._context:
                self._library.nft_ctx_free(self._context)
                self._context = None


def own_ports() -> frozenset[int]:
    """Return the netlink port ids of this process's NETLINK_NETFILTER sockets.

    A notification's ``nlmsg_pid`` is the port id of the socket that made the change (Linux 6.18, seen), so these tell
    our own changes from others'. The process id in NFTA_GEN_PROC_PID does not: it is of another pid namespace where
    weft runs in a container. A socket is bound when it first sends, and libnftables makes a new one when a dump was
    interrupted: look again before calling a port a stranger's.
    """
    inodes = set(_own_sockets())
    with Path(_SOCKETS).open() as table:
        rows = [row.split() for row in table]  # sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode
    return frozenset(int(row[2]) for row in rows if row[1] == _NETLINK_NETFILTER and row[-1] in inodes)


def _own_sockets() -> Iterator[str]:
    folder = "/proc/self/fd"
    for name in os.listdir(folder):  # noqa: PTH208 - names only, and some are gone before they are looked at
        try:
            target = os.readlink(f"{folder}/{name}")  # noqa: PTH115 - "socket:[9]" is no path
        except FileNotFoundError:
            continue
        if target.startswith("socket:["):
            yield target[len("socket:[") : -1]


def _load() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as missing:
        raise Unsupported(
            f"{_LIBRARY} cannot be loaded ({missing}): install it (Debian and Ubuntu: libnftables1; Fedora: nftables)"
        ) from None
    context, number, text = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
    for name, result, *arguments in (
        ("nft_ctx_new", context, ctypes.c_uint32),
        ("nft_ctx_free", None, context),
        ("nft_ctx_output_set_flags", None, context, ctypes.c_uint),
        ("nft_ctx_buffer_output", number, context),
        ("nft_ctx_buffer_error", number, context),
        ("nft_ctx_get_output_buffer", text, context),
        ("nft_ctx_get_error_buffer", text, context),
        ("nft_run_cmd_from_buffer", number, context, text),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def _first_error(text: str) -> str:
    """Return nft's first complaint and the line it is about, without the row of carets."""
    lines = [line.strip() for line in text.splitlines() if line.strip(" ^~")]
    return ": ".join(line.removeprefix("Error: ") for line in lines[:2]) or "failed without a word"
