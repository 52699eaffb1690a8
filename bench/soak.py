"""Load for as long as one likes: clients that start and stop containers on shared networks, and what becomes of weft.

    .venv/bin/python -m bench.soak [--minutes N] [--clients N] [--networks N] [--lives N] [--quick]

After each round of lives nothing may be left; a line says what the worker has of the memory, how many files it has
open, and how large the store is. In the end come the latencies. It ends with an error at the first thing that is lost,
doubled or leaked.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tests.faults.load import Load
from tests.lab.node import Node
from tests.lab.process import children
from tests.lab.weft import STATE, Weft


def main() -> None:
    """Load, and print a line for each round."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one round of little: to see that it runs")
    parser.add_argument("--minutes", type=float, default=60.0, help="how long (60; with --quick one round)")
    parser.add_argument("--clients", type=int, default=8, help="at once (8)")
    parser.add_argument("--networks", type=int, default=10, help="that they share (10)")
    parser.add_argument("--lives", type=int, default=500, help="of containers in a round (500; with --quick 50)")
    options = parser.parse_args()
    lives = min(options.lives, 50) if options.quick else options.lives
    end = time.monotonic() + (0 if options.quick else options.minutes * 60)
    with Node("soak") as node:
        node.run("mkdir", "-p", STATE)
        with Weft(node) as weft:
            load = Load(weft, networks=options.networks, clients=options.clients)
            for number in range(1, sys.maxsize):
                begin = time.monotonic()
                load.round(lives)
                say(load, f"round {number}: {lives} lives in {time.monotonic() - begin:.0f} s")
                if time.monotonic() >= end:
                    break
            load.remove()
    sys.stdout.write(f"{load.told()}\n")


def say(load: Load, what: str) -> None:
    """Print a line."""
    (worker,) = children(load.weft.pid)
    files = len(list(Path(f"/proc/{worker}/fd").iterdir()))
    store = sum(path.stat().st_size for path in load.weft.node.path(STATE).glob("weft.db*"))
    sys.stdout.write(f"{what}; {load.memory():.1f} MB, {files} files, store {store / 1024:.0f} kB\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
