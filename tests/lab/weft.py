"""weft itself in a node, as an operator runs it.

On a node with the machine's own files everything is at its default place. On a node with another root, weft keeps the
machine's Python and files and only shares the node's network and processes; its sockets lie in the node all the same,
bound through /proc/PID/root (facts/engines.md).
"""

import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from tests.lab.engine import SOCKET as DOCKER_SOCKET
from tests.lab.names import BIN
from tests.lab.node import Node
from tests.lab.ovs import RUNDIR
from tests.lab.process import Place, Process, exists, family
from tests.lab.unixhttp import Reply, call
from tests.lab.wait import await_

SOCKET = "/run/docker/plugins/weft.sock"
CONTROL = "/run/weft/control.sock"
STATE = "/var/lib/weft"


class Weft:
    """`weft serve` in a node; `settings` are added to its environment (WEFT_LOG_LEVEL and the like)."""

    def __init__(self, node: Node, *, program: Path = BIN / "weft", settings: Mapping[str, str] | None = None) -> None:
        self.node = node
        self.program = program
        self.settings = dict(settings or {})
        self.log = node.disk / "weft.log"
        self._process: Process | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def place(self) -> Place:
        """Where it runs: in the node, or beside it."""
        return self.node.workplace

    @property
    def environment(self) -> dict[str, str]:
        """Its settings; another one after each `up` of a node with another root."""
        if self.node.root is None:
            where = {"WEFT_SOCKET": SOCKET, "WEFT_CONTROL": CONTROL, "WEFT_STATE_DIR": STATE}
            docker = Path(DOCKER_SOCKET)
        else:
            where = {
                "WEFT_SOCKET": str(self.node.path(SOCKET)),
                "WEFT_CONTROL": str(self.node.path(CONTROL)),
                "WEFT_STATE_DIR": f"{self.node.disk}{STATE}",
                "OVS_RUNDIR": str(self.node.path(str(RUNDIR))),
            }
            docker = self.node.path(DOCKER_SOCKET)
        return where | {"DOCKER_HOST": f"unix://{docker}"} | self.settings

    @property
    def socket(self) -> Path:
        """Docker's socket to it, as the machine sees it."""
        return self.node.path(SOCKET)

    @property
    def is_running(self) -> bool:
        """Tell whether it lives."""
        return self._process is not None and self._process.alive

    @property
    def pid(self) -> int:
        """The machine's pid of its first process."""
        if self._process is None:
            raise RuntimeError("weft was never started")
        return self._process.pid

    def log_text(self) -> str:
        """Return what it has said, over all its starts."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def call(self, method: str, body: object = None, timeout: float = 60) -> Reply:
        """Send it a request as Docker does: `call("NetworkDriver.GetCapabilities")`."""
        return call(self.socket, "POST", f"/{method}", body, timeout)

    def start(self, bound: float = 30) -> None:
        """Start `weft serve` and wait until it answers Docker's first question."""
        self._process = process = self.place.spawn(self.program, "serve", log=self.log, env=self.environment)

        def answers() -> bool:
            if not process.alive:
                raise RuntimeError(f"weft ended with {process.returncode}:\n{self.log_text()[-4000:]}")
            return self.call("Plugin.Activate", timeout=5).status == 200

        await_(answers, bound, f"weft in {self.node.netns}")

    def stop(self, bound: float = 30) -> int:
        """SIGTERM, and wait for its orderly end; return the exit code."""
        if self._process is None:
            raise RuntimeError("weft was never started")
        members = family(self._process.pid)
        code = self._process.stop(bound)
        await_(
            lambda: not any(map(exists, members)), bound, "weft's worker to end"
        )  # or it would answer the next start
        return code

    def kill(self) -> None:
        """SIGKILL for master and worker; both are gone afterwards."""
        if self._process is not None:
            self._process.kill()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to its first process (SIGHUP reloads)."""
        if self._process is not None:
            self._process.signal(number)

    def cli(self, *args: str, check: bool = True, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run `weft ARGS` as a person on that host would."""
        return self.place.run(self.program, *args, check=check, timeout=timeout, env=self.environment)
