"""A host for a weft that dies: a network namespace, the hooked weft in it, and what is on it by others' word."""

import errno
import json
import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.crash import census
from tests.lab.names import BIN, REPO
from tests.lab.net import RUN_NETNS, NetNs
from tests.lab.ovs import Ovs
from tests.lab.unixhttp import call
from tests.lab.wait import WaitedInVainError, await_
from tests.netns import inside

Body = Mapping[str, Any]

LIKE_DOCKER = """
for program in iptables ip6tables; do
  $program -N DOCKER-USER && $program -A DOCKER-USER -j RETURN && $program -I FORWARD -j DOCKER-USER
  $program -P FORWARD DROP
done
"""


class Died(Exception):
    """weft died while it was asked."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What is on the host as lines, by `ip`, `nft` and `iptables`; and what the store holds, by `weft ... ls`."""

    host: Counter[str]
    store: Counter[str]

    def difference(self, after: "Seen") -> str:
        """Say what came (+) and what went (-)."""
        old, new = self.host + self.store, after.host + after.store
        gone, come = (old - new).elements(), (new - old).elements()
        return "\n".join([f"- {line}" for line in sorted(gone)] + [f"+ {line}" for line in sorted(come)])


class CrashHost:
    """A host in a namespace, with Docker's DOCKER-USER in it, and weft."""

    def __init__(self, net: NetNs, folder: Path, ovs: Ovs | None = None) -> None:
        self.net = net
        self.ovs = ovs
        self.folder = folder
        self.socket = folder / "weft.sock"
        self.control = folder / "control.sock"
        self.environment = {
            "PYTHONPATH": str(REPO),
            "WEFT_SOCKET": str(self.socket),
            "WEFT_CONTROL": str(self.control),
            "WEFT_STATE_DIR": str(folder / "state"),
            "WEFT_RECONCILE_INTERVAL": "3600",
            "DOCKER_HOST": f"unix://{folder}/docker.sock",
        }
        if ovs is not None:
            self.environment |= ovs.environment
        self._line: socket.socket | None = None
        self._pid = 0
        net.run("sh", "-ec", LIKE_DOCKER)
        log = folder / "weft.log"
        net.spawn(sys.executable, "-m", "tests.crash.hooked", folder, log=log, env=self.environment)

    # -- weft's life

    @property
    def is_running(self) -> bool:
        """Tell whether any part of weft lives."""
        if self._line is None:
            return False
        try:
            return self._line.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True

    def await_death(self) -> None:
        """Wait until nothing of it lives."""
        await_(lambda: not self.is_running, 20, "the end of weft")

    def start(self) -> None:
        """Start weft and wait until it answers; raises :class:`Died`."""
        self.close()
        self._line = line = await_(self._connected, 20, "the hooked weft to be imported")
        self._pid = int(line.makefile().readline())

        def answers() -> bool:
            if not self.is_running:
                raise Died("at its start")
            return call(self.socket, "POST", "/Plugin.Activate", timeout=20).status == 200

        await_(answers, 20, "weft to answer")

    def kill(self) -> None:
        """SIGKILL for all of it."""
        if self.is_running:
            os.killpg(self._pid, signal.SIGKILL)
            self.await_death()

    def close(self) -> None:
        """Let go of a weft that is dead."""
        if self._line is not None:
            self._line.close()
            self._line = None

    def _connected(self) -> socket.socket:
        line = socket.socket(socket.AF_UNIX)
        try:
            line.connect(str(self.folder / "start"))
        except OSError:
            line.close()
            raise
        return line

    def arm(self, effects: int, *, before_next: bool = False) -> None:
        """Let this many further effects through, then die: after the last of them, or ``before_next``."""
        partial = self.folder / "arm.partial"
        partial.write_text(f"{'-' if before_next else ''}{effects}", encoding="ascii")
        partial.rename(self.folder / "arm")

    def disarm(self) -> None:
        """Let weft live from now on."""
        (self.folder / "arm").unlink(missing_ok=True)

    # -- what is asked of it

    def ask(self, method: str, body: Body) -> dict[str, Any]:
        """Make a call of NetworkDriver's and return the answer, which must not be an error; raises :class:`Died`."""
        try:
            answer: dict[str, Any] = call(self.socket, "POST", f"/NetworkDriver.{method}", body).json
        except OSError as error:
            self.await_death()
            raise Died(method) from error
        assert not answer.get("Err"), f"{method}: {answer}"
        return answer

    def read(self, target: str) -> Any:  # noqa: ANN401 - JSON
        """Ask a reader; raises :class:`Died`."""
        try:
            reply = call(self.control, "GET", target)
        except OSError as error:
            self.await_death()
            raise Died(target) from error
        assert reply.status == 200, reply.body
        return reply.json

    def await_healthy(self) -> None:
        """Wait until nothing differs and nothing is left to be removed; raises :class:`Died`."""
        told: dict[str, Any] = {}

        def is_healthy() -> bool:
            told.update(self.read("/v1/status"))
            return bool(told["healthy"])

        try:
            await_(is_healthy, 20, "a healthy weft")
        except WaitedInVainError as vain:
            raise WaitedInVainError(f"{vain}; trouble: {told['trouble']!r}, differs: {told['differs']}") from None

    def cli(self, *args: str) -> str:
        """Run a command of weft's, which must end with 0."""
        return self.net.run(BIN / "weft", *args, env=self.environment).stdout

    def journal(self) -> list[tuple[str, str]]:
        """Return the journal's lines: thread, what."""
        text = self._text()
        return [(thread, what) for thread, _, what in (line.partition("\t") for line in text.splitlines())]

    def work(self) -> list[tuple[str, str]]:
        """Return those of work that was done: a reply is an effect, and no operation."""
        return [line for line in self.journal() if not line[1].startswith("reply ")]

    def looks(self) -> int:
        """Return how often Docker's list has been compared so far."""
        return self._text().count("\tdocker look\n")

    def _text(self) -> str:
        return (self.folder / "journal").read_text(encoding="utf-8")

    # -- what others see

    def held(self, transport: str, host: str, port: int) -> bool:
        """Tell whether somebody has a port: `ss` does not show what is bound and does not listen."""
        kind = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}[transport]
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with inside(RUN_NETNS / self.net.netns), socket.socket(family, kind) as probe:
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                return error.errno == errno.EADDRINUSE
            return False

    def sh(self, script: str) -> str:
        """Run a script in the namespace."""
        return self.net.run("sh", "-ec", script).stdout

    def seen(self) -> Seen:
        """Look at the host, and at the store."""
        env = self.ovs.environment if self.ovs else {}
        said = self.net.run("sh", "-c", census.script(ovs=self.ovs is not None), env=env).stdout
        return Seen(Counter(census.lines(said, ovs=self.ovs is not None)), Counter(self._stored()))

    def _stored(self) -> Iterator[str]:
        for row in (*self.read("/v1/networks"), *self.read("/v1/endpoints")):
            yield f"store {json.dumps({key: row[key] for key in ('id', 'phase', 'link')})}"
        for row in self.read("/v1/ports"):
            yield f"port {json.dumps(row, sort_keys=True)}"
        for row in self.read("/v1/pools"):
            yield f"pool {json.dumps({**row, 'since': ''}, sort_keys=True)}"
            for lease in self.read(f"/v1/pools/{quote(row['id'], safe='')}")["held"]:
                yield f"lease {json.dumps({**lease, 'since': ''}, sort_keys=True)}"


@contextmanager
def crash_host(folder: Path, label: str, *, ovs: bool = False) -> Iterator[CrashHost]:
    """Make a host, with an Open vSwitch of its own if need be, start no weft on it, and take it away."""
    with ExitStack() as stack:
        net = stack.enter_context(NetNs(label))
        host = CrashHost(net, folder, stack.enter_context(Ovs(net)) if ovs else None)
        stack.callback(host.close)
        yield host
