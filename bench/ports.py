"""What published ports cost: start and stop of a container, and memory, by how many ports it publishes.

    .venv/bin/python -m bench.ports [--quick] [--write]

weft beside Docker's own bridge and beside a driver that does nothing and publishes nothing (bench/nothing.py), on the
same engine in the same run, in turn. And what weft's calls take for 10,000 ports, by hand, with its memory.
"""

from __future__ import annotations

import random
import secrets
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_interface
from statistics import median
from typing import Any, Final

from bench.common import (
    DRIVERS,
    Conversation,
    Figure,
    Host,
    Target,
    arguments,
    headline,
    host,
    in_turn,
    load,
    pss,
    publish,
    ratio,
    table,
    targets,
)
from tests.libnetwork.wire import port_options

FIRST: Final = 20000
MANY: Final = 10_000
ROUND_OF_MEMORY: Final = 3

PROXIES, DOCKERD, OWN = "docker-proxy", "dockerd", "own"


@dataclass(frozen=True)
class Case:
    """So many ports of a transport, on these drivers, so many rounds."""

    ports: int
    transport: str
    rounds: int
    drivers: Sequence[str] = DRIVERS

    @property
    def name(self) -> str:
        """What it is called in the tables."""
        return f"{self.ports:,} {self.transport}" if self.ports else "no ports"

    @property
    def published(self) -> list[tuple[int, str]]:
        """The ports, as one range."""
        return [(FIRST + at, self.transport) for at in range(self.ports)]


WITHOUT_BRIDGE: Final = ("nothing", "weft")
FULL: Final = (
    Case(0, "tcp", 11),
    Case(1, "tcp", 11),
    Case(1, "udp", 11),
    Case(10, "udp", 7),
    Case(100, "udp", 3),
    Case(300, "udp", 2),
    Case(1_000, "udp", 5, WITHOUT_BRIDGE),
    Case(MANY, "udp", 5, WITHOUT_BRIDGE),
)
QUICK: Final = (
    Case(0, "tcp", 1),
    Case(1, "tcp", 2),
    Case(10, "udp", 1),
    Case(1_000, "udp", 1, WITHOUT_BRIDGE),
)


@dataclass
class Found:
    """What the rounds of one case and driver gave."""

    start: list[float] = field(default_factory=list)
    stop: list[float] = field(default_factory=list)
    memory: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    processes: int = 0

    @property
    def both(self) -> list[float]:
        """Start and stop of each round together."""
        return [start + stop for start, stop in zip(self.start, self.stop, strict=True)]


Rounds = dict[tuple[Case, str], Found]


def main() -> None:
    """Measure, and print the tables."""
    options = arguments(__doc__).parse_args()
    cases, rounds, ports = (QUICK, 3, 1_000) if options.quick else (FULL, 9, MANY)
    before = load()
    with host("ports") as on:
        hands: dict[str, list[Hand]] = {driver: [] for driver in WITHOUT_BRIDGE}
        for round_ in range(rounds):
            for driver in in_turn(round_, WITHOUT_BRIDGE):
                hands[driver].append(by_hand(on, driver, ports))
        found = measure(on, cases)
        text = "\n\n".join(
            (
                f"{headline(on.engine.version, before)}.",
                told_targets(found, hands["weft"], ports),
                told(found),
                told_memory(found),
                told_hands(hands, ports),
            )
        )
    publish("bench.ports", text, write=options.write)


def measure(on: Host, cases: Sequence[Case]) -> Rounds:
    """Start and stop containers, the drivers in turn."""
    found: Rounds = defaultdict(Found)
    for driver in DRIVERS:  # the first one warms up
        one_round(on, driver, cases[0])
    for case in cases:
        for round_ in range(case.rounds):
            for driver in in_turn(round_, case.drivers):
                one_round(on, driver, case, found[case, driver])
    return found


def one_round(on: Host, driver: str, case: Case, found: Found | None = None) -> None:
    """Start a container and stop it, and note what it took."""
    found = Found() if found is None else found
    container = on.make(on.networks[driver], case.published)
    try:
        found.start.append(on.start(container))
        proxies = on.processes("docker-proxy")
        found.processes = len(proxies)
        found.memory[PROXIES].append(pss(proxies))
        found.memory[DOCKERD].append(pss(on.processes("dockerd")))
        found.memory[OWN].append({"weft": on.weft_memory(), "bridge": 0.0}.get(driver, pss([on.nothing.pid])))
        found.stop.append(on.stop(container))
    finally:
        on.remove(container)


# -- by hand --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hand:
    """One round by hand: what each call took, and weft's memory before, while the ports are published, and after."""

    took: Mapping[str, float]
    memory: tuple[float, float, float]
    body: int


def by_hand(on: Host, driver: str, ports: int) -> Hand:
    """Say to a driver what an engine says about a container with so many ports, in the random order of a Go map."""
    numbers = list(range(FIRST, FIRST + ports))
    random.Random(ports).shuffle(numbers)  # noqa: S311 - nobody is to guess
    rows: dict[str, Any] = port_options([f"{number}:{number}/udp" for number in numbers])
    network, socket = on.networks[driver], on.sockets[driver]
    subnet = ip_interface(on.engine.api("GET", f"/networks/{network}")["IPAM"]["Config"][0]["Subnet"]).network
    address = f"{subnet.broadcast_address - 5}/{subnet.prefixlen}"
    talk = Conversation(socket, network, secrets.token_hex(32), address, rows)
    memory = [on.weft_memory()]
    took = talk.run(lambda: memory.append(on.weft_memory()))
    memory.append(on.weft_memory())
    return Hand(took, (memory[0], memory[1], memory[2]), len(talk.calls()["CreateEndpoint"]))


# -- tables ---------------------------------------------------------------------------------------------------------


def told_targets(found: Rounds, hands: Sequence[Hand], ports: int) -> str:
    """Return the table of targets."""

    def share(ports: int, transport: str) -> float | None:
        of = {
            driver: one.both
            for (case, driver), one in found.items()
            if (case.ports, case.transport) == (ports, transport)
        }
        return median(of["weft"]) / median(of["bridge"]) if {"weft", "bridge"} <= of.keys() else None

    whole = ports == MANY
    handlers = median([sum(one.took.values()) for one in hands]) if whole else None
    grown = hands[ROUND_OF_MEMORY - 1].memory[1] - hands[0].memory[1] if whole else None
    return targets(
        (
            Target("start + stop with 1 TCP port, to the bridge's", 0.9, share(1, "tcp")),
            Target("start + stop with 1 UDP port, to the bridge's", 0.9, share(1, "udp")),
            Target("start + stop with 100 UDP ports, to the bridge's", 0.15, share(100, "udp")),
            Target("all of weft's calls for 10,000 ports, seconds", 0.3, handlers),
            Target("weft's memory, third round of 10,000 ports less the first, MB", 5, grown),
        )
    )


def told(found: Rounds) -> str:
    """Return the table of starts and stops."""
    rows = []
    for (case, driver), one in found.items():
        bridge = found[case, "bridge"].both if "bridge" in case.drivers else None
        rows.append(
            (
                f"{case.name}, {driver}",
                Figure(one.start).ms,
                Figure(one.stop).ms,
                Figure(one.both).ms,
                ratio(one.both, bridge),
                f"{len(one.start)}",
            )
        )
    head = ("milliseconds: median [lowest-highest]", "start", "stop", "both", "to the bridge's", "rounds")
    return table(head, rows)


def told_memory(found: Rounds) -> str:
    """Return the table of memory while the container runs."""
    rows = [
        (
            f"{case.name}, {driver}",
            f"{one.processes:,}",
            *(Figure(one.memory[what]).shown() for what in (PROXIES, OWN, DOCKERD)),
        )
        for (case, driver), one in found.items()
    ]
    head = ("MB (PSS) while it runs", "docker-proxy processes", "their memory", "the plugin's", "dockerd's")
    return table(head, rows)


def told_hands(hands: Mapping[str, Sequence[Hand]], ports: int) -> str:
    """Return the tables of the rounds by hand."""
    took = {driver: [one.took for one in many] for driver, many in hands.items()}
    rows = [
        (name, *(Figure([one[name] for one in many]).ms for many in took.values())) for name in hands["weft"][0].took
    ]
    rows.append(("all", *(Figure([sum(one.values()) for one in many]).ms for many in took.values())))
    head = (f"{ports:,} ports, milliseconds at the driver's socket", *took)
    said = f"{len(hands['weft'])} rounds; the body that comes three times has {hands['weft'][0].body / 1e6:.2f} MB."
    sizes = table(("weft, MB (PSS)", "before", "published", "after"), _memory(hands["weft"]))
    return f"{said}\n\n{table(head, rows)}\n\n{sizes}"


def _memory(hands: Sequence[Hand]) -> Iterator[tuple[str, ...]]:
    for at, hand in enumerate(hands, 1):
        if at in {1, 2, ROUND_OF_MEMORY, len(hands)}:
            yield f"round {at}", *(f"{size:.1f}" for size in hand.memory)


if __name__ == "__main__":
    main()
