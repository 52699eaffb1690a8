"""What the benches share: a Docker host with three drivers on it, a clock, and tables in Markdown.

Every round takes the drivers in turn, and the next round begins with another one, so that what else the machine does
meets all of them alike. The engine is spoken to over its socket: the start of a `docker` process is not measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from bench.nothing import SOCKET as NOTHING
from plugin import __version__
from tests.lab import image
from tests.lab.engine import Engine
from tests.lab.names import BIN, REPO
from tests.lab.node import Node
from tests.lab.process import Process, family
from tests.lab.unixhttp import call
from tests.lab.wait import await_
from tests.lab.weft import Weft

DRIVERS: Final = ("bridge", "nothing", "weft")
PAUSE: Final = 0.15
"""Seconds between two measured things: nobody is to pay for what the one before has put off (links that go)."""

PAGE: Final = REPO / "docs" / "performance.md"
MEGABYTE: Final = 1024  # of the kernel's kB


# -- the host -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Host:
    """A node with an engine, weft, and the driver that does nothing, and one network of each driver."""

    node: Node
    engine: Engine
    weft: Weft
    nothing: Process
    networks: Mapping[str, str]
    """The ids by driver. They are called after Docker's `bridge` in the alphabet: it stays a container's gateway."""

    def make(self, network: str, ports: Sequence[tuple[int, str]] = ()) -> str:
        """Create a container on a network, with published ports (number, transport), and return its id."""
        named = [f"{port}/{transport}" for port, transport in ports]
        body = {
            "Image": image.NAME,
            "ExposedPorts": {name: {} for name in named},
            "HostConfig": {
                "NetworkMode": network,
                "PortBindings": {name: [{"HostPort": name.partition("/")[0]}] for name in named},
            },
        }
        return str(self.engine.api("POST", "/containers/create", body)["Id"])

    def start(self, container: str) -> float:
        """Start a container, and return the seconds it took."""
        return self.timed("POST", f"/containers/{container}/start")

    def stop(self, container: str) -> float:
        """Stop a container, which ends at once when told, and return the seconds it took."""
        return self.timed("POST", f"/containers/{container}/stop")

    def remove(self, container: str) -> None:
        """Remove a container, whatever it does."""
        self.engine.api("DELETE", f"/containers/{container}?force=1")

    def connect(self, driver: str, container: str) -> float:
        """Connect a running container to a driver's network, and return the seconds it took."""
        return self.timed("POST", f"/networks/{self.networks[driver]}/connect", {"Container": container})

    def disconnect(self, driver: str, container: str) -> float:
        """Disconnect it again."""
        return self.timed("POST", f"/networks/{self.networks[driver]}/disconnect", {"Container": container})

    def timed(self, method: str, target: str, body: object = None) -> float:
        """Call the engine's API, and return the seconds until its answer."""
        time.sleep(PAUSE)
        begin = time.perf_counter()
        self.engine.api(method, target, body)
        return time.perf_counter() - begin

    def status(self) -> dict[str, Any]:
        """Return what `weft status` says."""
        said: dict[str, Any] = json.loads(self.weft.cli("status", "--json", check=False).stdout)
        return said

    def processes(self, name: str) -> list[int]:
        """Return the processes of the node by what they are called."""
        mine = Path(f"/proc/{self.node.pid}/ns/pid").readlink()
        return [int(path.name) for path in Path("/proc").glob("[0-9]*") if _is(path, name, mine)]

    @property
    def sockets(self) -> dict[str, Path]:
        """The sockets of the two drivers that have one."""
        return {"nothing": self.node.path(NOTHING), "weft": self.weft.socket}

    def weft_memory(self) -> float:
        """Return the PSS of weft's processes, in MB."""
        return pss(family(self.weft.pid))


def _is(process: Path, name: str, namespace: Path) -> bool:
    try:
        comm = (process / "comm").read_text(encoding="utf-8").strip()
        return comm == name and (process / "ns/pid").readlink() == namespace
    except OSError:  # it has ended
        return False


@contextmanager
def host(label: str) -> Iterator[Host]:
    """Run a host, and take it away."""
    with Node(label) as node, Weft(node) as weft:
        argv = (BIN / "python", "-m", "bench.nothing")
        with (
            node.spawn(*argv, log=node.disk / "nothing.log", env={"PYTHONPATH": str(REPO)}) as nothing,
            Engine(node) as engine,
        ):
            await_(node.path(NOTHING).exists, 20, "the driver that does nothing")
            engine.load_image()
            networks = {
                driver: str(engine.api("POST", "/networks/create", {"Name": f"z-{driver}", "Driver": driver})["Id"])
                for driver in DRIVERS
            }
            yield Host(node, engine, weft, nothing, networks)


def pss(pids: Iterable[int]) -> float:
    """Return the memory of processes in MB, with what they share counted once (PSS)."""
    total = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
        except OSError:  # it has ended
            continue
        total += next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total / MEGABYTE


# -- a driver, driven by hand ---------------------------------------------------------------------------------------

LAST: Final = frozenset({"RevokeExternalConnectivity", "Leave", "DeleteEndpoint"})


@dataclass(frozen=True)
class Conversation:
    """What an engine says to a driver about one endpoint; the bodies are encoded before the clock runs."""

    socket: Path
    network: str
    endpoint: str
    address: str
    ports: Mapping[str, object] = field(default_factory=dict)
    gateway: bool = True
    """Whether the endpoint becomes its container's way out: ports are published on no other."""

    def calls(self) -> dict[str, bytes]:
        """Return the bodies by method, in the engine's order."""
        ids = {"NetworkID": self.network, "EndpointID": self.endpoint}
        options = {"Options": dict(self.ports)}
        interface = {"Address": self.address, "AddressIPv6": "", "MacAddress": ""}
        bodies: dict[str, dict[str, object]] = {
            "CreateEndpoint": {**ids, "Interface": interface, **options},
            "Join": {**ids, "SandboxKey": "/var/run/docker/netns/bench", **options},
            "ProgramExternalConnectivity": {**ids, **options},
            "EndpointOperInfo": dict(ids),
            "RevokeExternalConnectivity": dict(ids),
            "Leave": dict(ids),
            "DeleteEndpoint": dict(ids),
        }
        said = {name: json.dumps(body, separators=(",", ":")).encode() for name, body in bodies.items()}
        return said if self.gateway else {name: body for name, body in said.items() if "External" not in name}

    def run(self, meanwhile: Callable[[], object] = lambda: None) -> dict[str, float]:
        """Say it all, and return the seconds each call took; `meanwhile` is called when the endpoint is in use."""
        took: dict[str, float] = {}
        calls = self.calls()
        time.sleep(PAUSE)
        for name, body in calls.items():
            if name in LAST and LAST.isdisjoint(took):
                meanwhile()
            begin = time.perf_counter()
            reply = call(self.socket, "POST", f"/NetworkDriver.{name}", body)
            took[name] = time.perf_counter() - begin
            if said := reply.json.get("Err"):
                raise RuntimeError(f"{name}: {said}")
        return took


# -- figures --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Figure:
    """What some rounds gave: the median, and between what they lay."""

    values: Sequence[float]

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)

    @property
    def ms(self) -> str:
        """As milliseconds, with the lowest and the highest."""
        return self.shown(1000)

    def shown(self, factor: float = 1) -> str:
        """As text: the median, and the lowest and the highest in brackets."""
        middle, low, high = (_number(factor * value) for value in (self.median, min(self.values), max(self.values)))
        return f"{middle} [{low}-{high}]"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 20 else f"{value:.1f}"


def ratio(one: Sequence[float] | None, other: Sequence[float] | None) -> str:
    """Return the ratio of two medians, or a dash if one was not measured."""
    return f"{statistics.median(one) / statistics.median(other):.2f}" if one and other else "-"


def in_turn(round_: int, drivers: Sequence[str]) -> Sequence[str]:
    """Return the drivers in the order of a round: each is the first in turn."""
    first = round_ % len(drivers)
    return (*drivers[first:], *drivers[:first])


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown; all but the first column are set to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@dataclass(frozen=True)
class Target:
    """What is asked for, and what was found; ``None``: this run did not measure it."""

    what: str
    limit: float
    found: float | None

    @property
    def row(self) -> tuple[str, str, str, str]:
        """Its line in the table."""
        if self.found is None:
            return self.what, f"<= {self.limit:g}", "-", "not measured in this run"
        return self.what, f"<= {self.limit:g}", f"{self.found:.2f}", "pass" if self.found <= self.limit else "**miss**"


def targets(wanted: Iterable[Target]) -> str:
    """Return the table of targets: each is told, whether it is met or not."""
    return table(("target", "wanted", "found", ""), (target.row for target in wanted))


# -- the page -------------------------------------------------------------------------------------------------------


def load() -> str:
    """Return the machine's load: of the last minute and the last five."""
    return "{:.1f}, {:.1f}".format(*os.getloadavg()[:2])


def headline(engine: str, before: str) -> str:
    """Say where and when it was measured; `before` is the load at the beginning."""
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, Linux {platform.release()}, "
        f"Docker Engine {engine}, weft {__version__}, Python {platform.python_version()}; "
        f"load of the machine (1 and 5 minutes) {before} before the run, {load()} after it"
    )


def arguments(description: str | None) -> argparse.ArgumentParser:
    """Return the arguments that all benches have."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few rounds of little: to see that it runs")
    parser.add_argument("--write", action="store_true", help=f"put the tables into {PAGE.relative_to(REPO)}")
    return parser


def publish(name: str, text: str, *, write: bool) -> None:
    """Print a bench's tables, and put them between its marks in the page if asked."""
    print(text)
    if write:
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        head, found, rest = PAGE.read_text(encoding="utf-8").partition(begin)
        _, closed, tail = rest.partition(end)
        if not (found and closed):
            raise SystemExit(f"{PAGE} has no {begin} ... {end}")
        PAGE.write_text(f"{head}{begin}\n\n{text}\n\n{end}{tail}", encoding="utf-8")
