"""Programs: one that is run to its end, and one that is kept running.

Both start in a session of their own, so that a signal to the group reaches everything they started, through `nsenter`
and into its PID namespace too.
"""

import os
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self, TypedDict, Unpack

from tests.lab.wait import await_

Environment = Mapping[str, str]


class How(TypedDict, total=False):
    """The keywords of `run`."""

    check: bool
    stdin: str
    timeout: float
    env: Environment
    cwd: Path


class CommandFailedError(Exception):
    """A program ended with another code than 0; the message holds all it said."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        super().__init__(f"{' '.join(done.args)}: exit {done.returncode}\n{done.stdout}{done.stderr}".rstrip())
        self.done = done


def run(
    argv: Sequence[str],
    *,
    check: bool = True,
    stdin: str | None = None,
    timeout: float = 60,
    env: Environment | None = None,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; `env` is added to the environment, `timeout` (seconds) ends its whole process group."""
    with subprocess.Popen(
        argv,
        stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**os.environ, **(env or {})},
        cwd=cwd,
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(stdin, timeout)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    done = subprocess.CompletedProcess(list(argv), process.returncode, out, err)
    if check and done.returncode:
        raise CommandFailedError(done)
    return done


def exists(pid: int) -> bool:
    """Tell whether a process lives; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def children(pid: int) -> list[int]:
    """Return a process's children, as its threads started them."""
    found: list[int] = []
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += map(int, tasks.read_text(encoding="ascii").split())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def family(pid: int) -> list[int]:
    """Return a process and all that descends from it."""
    return [pid] + [member for child in children(pid) for member in family(child)]


class Process:
    """A program that is kept running, with everything it says in a file.

    `forks` says that what is started is only the door: `nsenter --pid` stays outside and the program is its child.
    """

    def __init__(self, argv: Sequence[str], log: Path, env: Environment | None, *, forks: bool) -> None:
        self.argv = tuple(argv)
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out:
            self._door: subprocess.Popen[bytes] = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )
        self.pid = self._find() if forks else self._door.pid

    def _find(self) -> int:
        def child() -> int | None:
            if self._door.poll() is not None:
                raise RuntimeError(f"{' '.join(self.argv)}: exit {self._door.returncode}\n{self.text()}")
            return next(iter(children(self._door.pid)), None)

        return await_(child, 10, f"the child of {self.argv[0]}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def alive(self) -> bool:
        """Tell whether it still runs."""
        return self._door.poll() is None

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._door.poll()

    def text(self) -> str:
        """Return all it has said so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the program alone."""
        if self.alive:
            os.kill(self.pid, number)

    def wait(self, bound: float = 20) -> int:
        """Wait for its end and return the exit code."""
        await_(lambda: not self.alive, bound, f"the end of {' '.join(self.argv)}")
        return self._door.returncode

    def stop(self, bound: float = 20) -> int:
        """SIGTERM, and wait for its end."""
        self.signal(signal.SIGTERM)
        return self.wait(bound)

    def kill(self) -> None:
        """SIGKILL for the program and all its descendants, and wait until none of them is there."""
        if not self.alive:
            return
        members = family(self._door.pid)
        os.killpg(self._door.pid, signal.SIGKILL)
        for member in members:
            with suppress(ProcessLookupError):
                os.kill(member, signal.SIGKILL)
        self._door.wait()
        await_(lambda: not any(map(exists, members)), 10, f"the end of {members}")


class Place(ABC):
    """Somewhere to run programs: a namespace, or a whole node."""

    forks = False

    def __init__(self) -> None:
        self._spawned: list[Process] = []

    @abstractmethod
    def door(self) -> tuple[str, ...]:
        """Return the words before a command that run it here."""

    def run(self, *argv: str | Path, **how: Unpack[How]) -> subprocess.CompletedProcess[str]:
        """Run a program here to its end; see `run` for the keywords."""
        return run((*self.door(), *map(str, argv)), **how)

    def spawn(self, *argv: str | Path, log: Path, env: Environment | None = None) -> Process:
        """Start a program here and leave it running."""
        process = Process((*self.door(), *map(str, argv)), log, env, forks=self.forks)
        self._spawned.append(process)
        return process

    def end_spawned(self) -> None:
        """Kill what was left running here, and reap it."""
        while self._spawned:
            self._spawned.pop().kill()
