"""How long what is weft's is gone after somebody has flushed a firewall.

    .venv/bin/python -m bench.healing [--rounds N] [--quick] [--write]

From the end of the command that flushes to the moment when all of ours is there again, as `nft` and `iptables` list it.
What is Docker's own is dockerd's to put back, and not waited for: Docker's bridge does not come back before dockerd is
started again, so there is no row of it. The lists are read again and again; a figure is right to the length of one
reading, some ten milliseconds.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Final

from bench.common import Figure, Target, arguments, headline, load, publish, table, targets
from tests.lab.engine import Engine
from tests.lab.node import Node
from tests.lab.wait import await_
from tests.lab.weft import Weft

SECONDS: Final = 1.0
BOUND: Final = 30  # seconds; what takes longer has failed
PAUSE: Final = 1.2  # seconds between two flushes: longer than tables that tell nobody go unlooked at

SUBNETS: Final = ("--subnet", "10.7.1.0/24", "--ipv6", "--subnet", "fd07:1::/64")
NFT: Final = ("nft flush ruleset", "nft delete table inet weft", "nft flush table inet weft")
IPTABLES: Final = ("iptables -F DOCKER-USER", "iptables -F WEFT")


def main() -> None:
    """Measure, and print the tables."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, help="of every flush (11; with --quick 2)")
    options = parser.parse_args()
    rounds, before = options.rounds or (2 if options.quick else 11), load()
    engine, took = measured("nft", (*IPTABLES, *NFT), rounds)
    took |= measured("legacy", IPTABLES, rounds)[1]
    publish("bench.healing", told(f"{headline(engine, before)}; {rounds} rounds.", took), write=options.write)


def measured(kind: str, flushes: Sequence[str], rounds: int) -> tuple[str, dict[tuple[str, str], list[float]]]:
    """Return the engine's version, and the seconds by flush and by the kind of iptables that the host has."""
    with Node("bench") as node:
        for program in ("iptables", "ip6tables"):
            node.run("update-alternatives", "--set", program, f"/usr/sbin/{program}-{kind}")
        with Engine(node) as engine, Weft(node):
            engine.docker("network", "create", "-d", "weft", *SUBNETS, "one")
            took = {(flush, kind): [healed(node, flush) for _ in range(rounds)] for flush in flushes}
            engine.clean()
            return engine.version, took


def healed(node: Node, flush: str) -> float:
    """Flush; return the seconds until all of ours is there again."""
    look = ours_in_nft if flush in NFT else ours_in_iptables
    time.sleep(PAUSE)
    before = look(node)
    node.run(*flush.split())
    begin = time.perf_counter()
    await_(lambda: look(node) == before, BOUND, f"what {flush!r} took away")
    return time.perf_counter() - begin


def ours_in_nft(node: Node) -> Sequence[str]:
    """Return weft's table; elements in order."""
    return sorted(node.run("nft", "--stateless", "list", "table", "inet", "weft", check=False).stdout.split())


def ours_in_iptables(node: Node) -> Sequence[str]:
    """Return weft's chain, and the jump to it."""
    lines = node.run("iptables", "-S").stdout.splitlines()
    return [line for line in lines if "WEFT" in line.split()]


def told(said: str, took: Mapping[tuple[str, str], Sequence[float]]) -> str:
    """Return the tables."""
    rows = [(f"`{flush}`", kind, Figure(times).ms) for (flush, kind), times in took.items()]
    wanted = [
        Target(f"`{flush}`, {kind}: seconds", SECONDS, Figure(times).median) for (flush, kind), times in took.items()
    ]
    return "\n\n".join((said, table(("flushed", "iptables is", "milliseconds"), rows), targets(wanted)))


if __name__ == "__main__":
    main()
