"""How long containers on Open vSwitch do not reach each other after it has died and is back.

    .venv/bin/python -m bench.ovs [--rounds N] [--quick] [--write]

From the moment when the daemon that was killed answers again to the moment when two containers talk, by TCP over IPv4
and IPv6; the flows are lost with ovs-vswitchd, and weft puts them there again. Docker's bridge has no such daemon, so
there is no row of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from bench.common import Figure, Target, arguments, headline, load, publish, table, targets
from tests.lab.engine import Engine
from tests.lab.node import Node
from tests.lab.ovs import Ovs
from tests.lab.wait import await_
from tests.lab.weft import Weft
from tests.matrix.docker import run
from tests.matrix.traffic import OPEN, Knock, Traffic

BOUND: Final = 60  # seconds; what takes longer has failed
SUBNETS: Final = ("--subnet", "10.7.1.0/24", "--ipv6", "--subnet", "fd07:1::/64")
SECONDS: Final = {"ovs-vswitchd": 3.0, "ovsdb-server": 10.0, "both": 10.0}


def main() -> None:
    """Measure, and print the tables."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, help="of every death (7; with --quick 1)")
    options = parser.parse_args()
    rounds, before = options.rounds or (1 if options.quick else 7), load()
    engine, took = measured(rounds)
    publish("bench.ovs", told(f"{headline(engine, before)}; {rounds} rounds.", took), write=options.write)


def measured(rounds: int) -> tuple[str, dict[str, list[float]]]:
    """Return the engine's version, and the seconds by what was killed."""
    with Node("bench") as node, Engine(node) as engine, Ovs(node) as ovs, Weft(node) as weft, Traffic() as traffic:
        engine.load_image()
        engine.docker("network", "create", "-d", "weft", "-o", "weft.backend=ovs", *SUBNETS, "one")
        ann, bob = (run(engine, traffic, name, "one") for name in ("ann", "bob"))
        knocks = [
            Knock(one.spot, address, "tcp", wanted=OPEN)
            for one, other in ((ann, bob), (bob, ann))
            for address in other.addresses.values()
        ]

        def talk() -> bool:
            return not traffic.surprises(knocks)

        deaths: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
            "ovs-vswitchd": (ovs.kill_vswitchd, ovs.start_vswitchd),
            "ovsdb-server": (ovs.kill_database, ovs.start_database),
            "both": (ovs.kill, ovs.start),
        }
        took: dict[str, list[float]] = {}
        for which, (kill, start) in deaths.items():
            took[which] = []
            for _ in range(rounds):
                await_(talk, BOUND, "the containers to talk")
                await_(lambda: weft.cli("status", check=False).returncode == 0, BOUND, "the host to be as wanted")
                kill()
                start()
                begin = time.perf_counter()
                await_(talk, BOUND, f"the containers to talk again after {which} died")
                took[which].append(time.perf_counter() - begin)
        engine.clean()
        return engine.version, took


def told(said: str, took: Mapping[str, Sequence[float]]) -> str:
    """Return the tables."""
    rows = [(which, Figure(times).ms) for which, times in took.items()]
    wanted = [Target(f"{which}: seconds", SECONDS[which], Figure(times).median) for which, times in took.items()]
    return "\n\n".join((said, table(("killed", "milliseconds"), rows), targets(wanted)))


if __name__ == "__main__":
    main()
