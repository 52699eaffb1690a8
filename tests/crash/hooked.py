"""`weft serve` with a witness: every look and every effect goes to a journal, and after the N-th effect it dies.

    python -m tests.crash.hooked FOLDER

An effect is what outlives the process: a netlink request that changes something, a run of nft or iptables likewise, a
switch written, a transaction of the store. `FOLDER/journal` gets a line for each, and for each look: the thread's name,
and what was done (a look at the kernel or the store ends with how much it saw). While `FOLDER/arm` holds a number N, N
further effects are let through, and after the last of them (N = 0: before the next) master and worker are gone by
SIGKILL. Nothing else differs from the real one.

A start costs 0.4 s, nearly all of it imports, so they are done once: each connection to `FOLDER/start` forks off one
`weft serve` in a session of its own, which sends its pid and holds the connection for as long as any part of it lives.
"""

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from sqlite3 import Connection, Row
from typing import TypeVar

from drivers.kernel import settings
from drivers.kernel.netlink import Netlink
from drivers.kernel.wire import Message
from drivers.libnftables import Nft
from drivers.xtables import XtablesBackend
from plugin import config
from plugin.start import serve
from plugin.store.database import Database

T = TypeVar("T")

_GET, _KINDS = 2, 4  # rtnetlink(7): types come in fours, NEW DEL GET SET
_DUMP = 0x300  # NLM_F_DUMP


class Witness:
    """Writes the journal, counts effects while armed, and ends the process when the count is used up."""

    def __init__(self, folder: Path) -> None:
        self._arm = folder / "arm"
        self._journal = os.open(folder / "journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._left: int | None = None
        self._mutex = threading.Lock()

    def note(self, what: str) -> None:
        """Write a line."""
        os.write(self._journal, f"{threading.current_thread().name}\t{what}\n".encode())

    def before(self) -> None:
        """Die here if no effect is left."""
        with self._mutex:
            if self._left is None and self._arm.exists():
                self._left = int(self._arm.read_text(encoding="ascii"))
            if self._left == 0:
                os.killpg(0, signal.SIGKILL)

    def after(self, what: str) -> None:
        """Write an effect down, and die here if it was the last one."""
        self.note(what)
        with self._mutex:
            if self._left is not None:
                self._left -= 1
                if self._left == 0:
                    os.killpg(0, signal.SIGKILL)

    def effect(self, what: str, act: Callable[[], T]) -> T:
        """Do what outlives us."""
        self.before()
        done = act()
        self.after(what)
        return done


def watch(witness: Witness) -> None:
    """Put the witness between weft and the host, and between weft and its store."""
    ask, run, xtables, write = Netlink.ask, Nft.run, XtablesBackend._run, settings.write
    transaction, read = Database.transaction, Database.read

    def witnessed_ask(self: Netlink, request: bytes) -> list[Message]:
        kind, flags = struct.unpack_from("=HH", request, 4)
        if kind % _KINDS != _GET:
            return witness.effect(f"netlink change {kind}", lambda: ask(self, request))
        told: list[Message] = []
        try:
            told = ask(self, request)
        finally:
            witness.note(f"netlink {'dump' if flags & _DUMP else 'get'} {kind} {len(told)}")
        return told

    def witnessed_nft(self: Nft, commands: str, *, json: bool = False) -> str:
        if not json:
            return witness.effect("nft change", lambda: run(self, commands))
        witness.note("nft list")
        return run(self, commands, json=True)

    def witnessed_xtables(
        self: XtablesBackend, name: str, *args: str, text: str = ""
    ) -> subprocess.CompletedProcess[str]:
        if text:
            return witness.effect("xtables change", lambda: xtables(self, name, *args, text=text))
        witness.note("xtables look")
        return xtables(self, name, *args)

    def witnessed_write(path: str, value: str) -> None:
        witness.effect("switch", lambda: write(path, value))

    @contextmanager
    def witnessed_transaction(self: Database, *, durable: bool) -> Iterator[Connection]:
        witness.before()
        with transaction(self, durable=durable) as connection:
            yield connection
        witness.after("store commit")

    def witnessed_read(self: Database, statement: str, *values: object) -> list[Row]:
        rows = read(self, statement, *values)
        witness.note(f"store read {len(rows)}")
        return rows

    Netlink.ask = witnessed_ask  # type: ignore[method-assign]
    Nft.run = witnessed_nft  # type: ignore[method-assign]
    XtablesBackend._run = witnessed_xtables  # type: ignore[method-assign]
    settings.write = witnessed_write
    Database.transaction = witnessed_transaction  # type: ignore[method-assign]
    Database.read = witnessed_read  # type: ignore[method-assign]


def starts(path: Path) -> Iterator[socket.socket]:
    """Yield the connection in a new process for each that comes, and nothing in this one."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(path))
        door.listen()
        while True:
            line, _ = door.accept()
            with line:
                if os.fork() == 0:
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    os.setsid()
                    door.close()
                    yield line
                    return


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for line in starts(folder / "start"):
        line.sendall(f"{os.getpid()}\n".encode())
        watch(Witness(folder))
        sys.exit(serve(config.read(os.environ)))
