"""`weft serve` with a witness: every look and every effect goes to a journal, and after the N-th effect it dies.

    python -m tests.crash.hooked FOLDER

An effect is what somebody else can notice: a netlink request that changes something, a run of nft or iptables
likewise, a switch written, a transaction of Open vSwitch's database, a bundle of flows, a socket bound or let go, a
transaction of the store, a reply to Docker. `FOLDER/journal` gets a line for each, and for each look: the thread's
name, and what was done (a look at the kernel or the store ends with how much it saw). While `FOLDER/arm` holds a
number N, N further effects are let through, and after the last of them (N = 0: before the next) master and worker are
gone by SIGKILL; a number with a minus ends them before the effect N + 1 instead. `FOLDER/later` is how many seconds
later than the clock it is for whoever compares with Docker's list. Nothing else differs from the real one.

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
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from sqlite3 import Connection, Row
from typing import Any, TypeVar

from gunicorn.http.wsgi import Response

import plugin.server  # noqa: F401 - imported before the first fork, with all that it imports
from drivers.contract import Step
from drivers.kernel import settings
from drivers.kernel.netlink import Netlink
from drivers.kernel.wire import Message
from drivers.libnftables import Nft
from drivers.openflow.switch import Switch
from drivers.ovsdb import library
from drivers.ovsdb.orders import Operation
from drivers.sockets import SocketsBackend
from drivers.xtables import XtablesBackend
from plugin import config
from plugin.engine.orphans import Orphans
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
        self._before = False
        self._mutex = threading.Lock()

    def note(self, what: str) -> None:
        """Write a line."""
        os.write(self._journal, f"{threading.current_thread().name}\t{what}\n".encode())

    def before(self) -> None:
        """Die here if no effect is left."""
        with self._mutex:
            if not self._arm.exists():
                self._left = None
            elif self._left is None:
                told = self._arm.read_text(encoding="ascii")
                self._left, self._before = int(told.lstrip("-")), told.startswith("-")
            if self._left == 0:
                os.killpg(0, signal.SIGKILL)

    def after(self, what: str) -> None:
        """Write an effect down, and die here if it was the last one."""
        self.note(what)
        with self._mutex:
            if self._left is not None:
                self._left -= 1
                if self._left == 0 and not self._before:
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
    watch_sockets(witness)
    watch_open_vswitch(witness)
    watch_replies(witness)


def watch_sockets(witness: Witness) -> None:
    """Put it between weft and the ports that it holds."""
    take = SocketsBackend._take

    def witnessed_take(self: SocketsBackend, step: Step) -> None:
        witness.effect(f"socket {step.key}", lambda: take(self, step))

    SocketsBackend._take = witnessed_take  # type: ignore[method-assign]


def watch_open_vswitch(witness: Witness) -> None:
    """Put it between weft and Open vSwitch: a transaction is one when it is answered."""
    send, outcome, commit = library.Database.send, library.Sent.outcome, Switch._commit
    answered: list[library.Sent] = []

    def witnessed_send(self: library.Database, operations: Sequence[Operation], comment: str) -> library.Sent:
        witness.before()
        return send(self, operations, comment)

    def witnessed_outcome(self: library.Sent) -> library.Outcome:
        found = outcome(self)
        if found is library.Outcome.DONE and self not in answered:
            answered.append(self)
            witness.after("ovsdb transaction")
        return found

    def witnessed_commit(self: Switch, session: Any, changes: list[Any], failures: Any) -> None:  # noqa: ANN401
        if changes:
            witness.effect(f"flows {len(changes)}", lambda: commit(self, session, changes, failures))

    library.Database.send = witnessed_send  # type: ignore[method-assign]
    library.Sent.outcome = witnessed_outcome  # type: ignore[method-assign]
    Switch._commit = witnessed_commit  # type: ignore[method-assign]


def watch_replies(witness: Witness) -> None:
    """Put it between weft and Docker: a reply is one when all of it is in the socket."""
    start, close = Response.start_response, Response.close

    def is_docker_s(self: Any) -> bool:  # noqa: ANN401 - gunicorn has no types
        return str(self.req.path).startswith(("/NetworkDriver.", "/IpamDriver."))

    def witnessed_start(self: Any, *args: Any) -> Any:  # noqa: ANN401
        if is_docker_s(self):
            witness.before()
        return start(self, *args)

    def witnessed_close(self: Any) -> None:  # noqa: ANN401
        close(self)
        if is_docker_s(self):
            witness.after(f"reply {self.req.path}")

    Response.start_response, Response.close = witnessed_start, witnessed_close


def put_the_clock_forward(witness: Witness, folder: Path) -> None:
    """Let whoever compares with Docker's list believe what `FOLDER/later` says, and write down when he is done."""
    look, later = Orphans.look, folder / "later"

    def witnessed_look(self: Orphans) -> None:
        look(self)
        witness.note("docker look")

    Orphans.look = witnessed_look  # type: ignore[method-assign]
    defaults = Orphans.__init__.__kwdefaults__
    assert defaults is not None
    defaults["clock"] = lambda: time.monotonic() + (int(later.read_text()) if later.exists() else 0)


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
        witness = Witness(folder)
        watch(witness)
        put_the_clock_forward(witness, folder)
        sys.exit(serve(config.read(os.environ)))
