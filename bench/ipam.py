"""How many addresses weft leases in a second, each on disk before it is answered, by the size of the pool.

    .venv/bin/python -m bench.ipam [--state DIRECTORY] [--quick] [--write]

Three ways: by one thread (the engine's RequestAddress, as the handler calls it), by sixteen threads at once (as many as
weft has), and over the socket, by sixteen clients of the application on a gunicorn with weft's settings. The pools come
in turn within each round, and medians of the rounds are told. Beside them: a bare commit of this disk.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final, cast

from flask import Flask
from gunicorn.app.base import BaseApplication

from bench.common import arguments, load, publish, table
from drivers.model import Address, IPNetwork
from plugin.app import Driver, create_app
from plugin.engine.addresses import Addresses
from plugin.engine.engine import Engine
from plugin.pools import DEFAULT, LOCAL, parse_bases
from plugin.requests import AddressRequest, PoolRequest
from plugin.store import Database, Store
from tests.lab.unixhttp import call
from tests.lab.wait import await_

TARGET: Final = 2_000
POOLS: Final = ("10.1.0.0/24", "10.2.0.0/16", "11.0.0.0/8", "fd00::/64")
THREADS: Final = 16
EACH: Final = 200  # leases of one run, fewer than a /24 has
COLUMNS: Final = ("one thread", "16 threads", "over the socket", "release")


class NoHost:
    """A host without subnets, on which nothing is plugged in."""

    def connected_subnets(self) -> tuple[tuple[str, IPNetwork], ...]:
        """Return none."""
        return ()

    def is_plugged(self, link: str) -> bool:
        """Tell that nothing is."""
        return link == ""


class Bench:
    """One store, its pools, and an application on a socket that has the same kind of store."""

    def __init__(self, directory: Path) -> None:
        self.store = Store(Database(directory / "engine" / "weft.db"))
        self.addresses = Addresses(self.store, NoHost(), bases=parse_bases(DEFAULT))
        self.socket = directory / "weft.sock"
        self.pools = {text: self._pool(text) for text in POOLS}
        for text in POOLS:
            body: dict[str, object] = {
                "AddressSpace": LOCAL,
                "Pool": text,
                "SubPool": "",
                "Options": {},
                "V6": ":" in text,
            }
            call(self.socket, "POST", "/IpamDriver.RequestPool", body)

    def _pool(self, text: str) -> str:
        network = ip_network(text)
        return str(self.addresses.request_pool(PoolRequest(space=LOCAL, version=network.version, subnet=network)))

    def lease(self, pool: str) -> Address:
        """Lease one address in this process."""
        return self.addresses.request_address(AddressRequest(pool=pool)).ip

    def release(self, pool: str, taken: Sequence[Address]) -> None:
        """Give addresses back."""
        for address in taken:
            self.addresses.release_address(pool, address)

    def lease_by_socket(self, pool: str) -> str:
        """Lease one address over the socket."""
        reply = call(
            self.socket, "POST", "/IpamDriver.RequestAddress", {"PoolID": pool, "Address": "", "Options": None}
        )
        return str(reply.json["Address"]).partition("/")[0]

    def round(self, text: str) -> tuple[float, ...]:
        """Return the four rates of one pool, in leases a second; the pool is empty again afterwards."""
        pool = self.pools[text]
        taken: list[Address] = []
        one = _rate(lambda: taken.extend(self.lease(pool) for _ in range(EACH)))
        back = _rate(lambda: self.release(pool, taken))
        with ThreadPoolExecutor(THREADS) as threads:
            many = _rate(lambda: taken.extend(threads.map(lambda _: self.lease(pool), range(EACH))))
            self.release(pool, taken[EACH:])
            far: list[str] = []
            socket = _rate(lambda: far.extend(threads.map(lambda _: self.lease_by_socket(pool), range(EACH))))
            for address in far:
                call(self.socket, "POST", "/IpamDriver.ReleaseAddress", {"PoolID": pool, "Address": address})
        return one, many, socket, back


def _rate(run: Callable[[], object]) -> float:
    begin = time.perf_counter()
    run()
    return EACH / (time.perf_counter() - begin)


def bare_commit(directory: Path) -> float:
    """Return how many commits of one row this disk takes in a second (SQLite, WAL, synchronous=FULL)."""
    connection = sqlite3.connect(directory / "bare.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE one (value INTEGER)")

    def commits() -> None:
        for value in range(EACH):
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO one VALUES (?)", (value,))
            connection.execute("COMMIT")

    rate = _rate(commits)
    connection.close()
    return rate


@contextmanager
def application(directory: Path) -> Iterator[None]:
    """Run weft's application, with a store of its own, on a socket in a directory."""
    argv = [sys.executable, "-m", "bench.ipam", "--serve", str(directory)]
    with subprocess.Popen(argv) as process:
        try:
            await_(lambda: call(directory / "weft.sock", "POST", "/Plugin.Activate").status == 200, 20, "the server")
            yield
        finally:
            process.terminate()


class Server(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """The application with its IPAM driver and without a host behind it: one worker with weft's own settings."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        super().__init__()

    def load_config(self) -> None:
        """Set what plugin/server.py sets."""
        settings = {
            "bind": f"unix:{self._directory}/weft.sock",
            "worker_class": "gthread",
            "threads": 16,
            "keepalive": 0,
        }
        for name, value in (settings | {"control_socket_disable": True, "loglevel": "warning"}).items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """Return the application."""
        store = Store(Database(self._directory / "served" / "weft.db"))
        addresses = Addresses(store, NoHost(), bases=parse_bases(DEFAULT))
        nothing = cast("Any", None)
        engine: Driver = Engine(
            networks=nothing,
            endpoints=nothing,
            ports=nothing,
            addresses=addresses,
            runtime=nothing,
            peers=nothing,
            look_soon=lambda: None,
            joined=lambda _: None,
            nodes=nothing,
        )
        return create_app(engine)


def fill(bench: Bench, text: str, leases: int) -> None:
    """Put many leases into a pool, to see what becomes of the rate."""
    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(lambda _: bench.lease(bench.pools[text]), range(leases)))


def main() -> None:
    """Print the table."""
    parser = arguments(__doc__)
    parser.add_argument("--state", type=Path, help="a directory on the disk in question")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        Server(options.serve).run()
        return
    rounds, full = (1, 500) if options.quick else (5, 50_000)
    before = load()
    directory = Path(tempfile.mkdtemp(prefix="weft-bench-", dir=options.state))
    try:
        with application(directory):
            bench = Bench(directory)
            bare = bare_commit(directory)
            found = {f"{text}, empty": rates for text, rates in measured(bench, POOLS, rounds).items()}
            for text in POOLS[2:]:
                fill(bench, text, full)
            found |= {f"{text}, {full:,} leases": rates for text, rates in measured(bench, POOLS[2:], rounds).items()}
            bench.store.close()
    finally:
        shutil.rmtree(directory)
    publish("bench.ipam", report(found, bare, rounds, before), write=options.write)


def measured(bench: Bench, pools: tuple[str, ...], rounds: int) -> dict[str, list[float]]:
    """Return the medians of some rounds, the pools in turn within each."""
    found: dict[str, list[tuple[float, ...]]] = {text: [] for text in pools}
    for _ in range(rounds):
        for text in pools:
            found[text].append(bench.round(text))
    return {text: [statistics.median(column) for column in zip(*rates, strict=True)] for text, rates in found.items()}


def report(found: dict[str, list[float]], bare: float, rounds: int, before: str) -> str:
    """Return the table, and how the target was met."""
    head = (
        f"{os.cpu_count()} cores, load {before} before the run; medians of {rounds} rounds of {EACH} leases, each on "
        f"disk before it is answered. A bare commit of one row: {bare:,.0f} a second."
    )
    rows = [(text, *(f"{rate:,.0f}" for rate in rates)) for text, rates in found.items()]
    slowest = {column: min(rates[number] for rates in found.values()) for number, column in enumerate(COLUMNS)}
    targets = [
        (f"leases a second, {column}, the slowest pool", f">= {TARGET:,}", f"{slowest[column]:,.0f}", verdict)
        for column in COLUMNS[:3]
        for verdict in ["pass" if slowest[column] >= TARGET else "**miss**"]
    ]
    return "\n\n".join((head, table(("pool", *COLUMNS), rows), table(("target", "wanted", "found", ""), targets)))


if __name__ == "__main__":
    main()
