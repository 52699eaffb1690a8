"""What it takes to connect a running container to a network and to disconnect it, beside others that are there.

    .venv/bin/python -m bench.attach [--rounds N] [--others N ...] [--quick] [--write]

weft beside Docker's own bridge and beside a driver that does nothing (bench/nothing.py), on the same engine in the same
run, in turn.
"""

from __future__ import annotations

import secrets
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_interface
from typing import Final

from bench.common import (
    DRIVERS,
    Conversation,
    Figure,
    Host,
    arguments,
    headline,
    host,
    in_turn,
    load,
    publish,
    ratio,
    table,
)
from tests.lab.wait import await_

COUNTED: Final = 10  # attaches between two looks at weft's counters

Found = dict[tuple[int, str, str], list[float]]


def main() -> None:
    """Measure, and print the tables."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, help="of each driver (25; with --quick 3)")
    parser.add_argument("--others", type=int, nargs="+", help="containers on the network beside the one (0 100)")
    options = parser.parse_args()
    rounds = options.rounds or (3 if options.quick else 25)
    others = sorted(options.others or ([0, 5] if options.quick else [0, 100]))
    before = load()
    with host("attach") as on:
        outside, inside, counted = measure(on, others, rounds)
        text = "\n\n".join(
            (
                f"{headline(on.engine.version, before)}; {rounds} rounds of each driver.",
                told(outside, others),
                told_inside(inside, others),
                told_operations(counted),
            )
        )
    publish("bench.attach", text, write=options.write)


def measure(on: Host, others: Sequence[int], rounds: int) -> tuple[Found, Found, dict[int, dict[str, float]]]:
    """Return what the engine's API took, what the drivers' calls took by hand, and weft's operations."""
    outside: Found = defaultdict(list)
    inside: Found = defaultdict(list)
    counted = {}
    one = on.make("bridge")
    on.start(one)
    there = 0
    for number in others:
        settle(on, number - there)
        there = number
        for round_ in range(-1, rounds):  # the first one warms up
            for driver in in_turn(round_, DRIVERS):
                took = on.connect(driver, one), on.disconnect(driver, one)
                if round_ >= 0:
                    for what, seconds in zip(("connect", "disconnect"), took, strict=True):
                        outside[number, driver, what].append(seconds)
            for driver in in_turn(round_, ("nothing", "weft")):
                by_hand = attach_by_hand(on, driver)
                for name, seconds in by_hand.items() if round_ >= 0 else ():
                    inside[number, driver, name].append(seconds)
        counted[number] = operations(on, one)
    return outside, inside, counted


def settle(on: Host, number: int) -> None:
    """Put more containers on all three networks."""

    def add(_: int) -> None:
        container = on.make(on.networks["bridge"])
        on.start(container)
        for driver in ("nothing", "weft"):
            on.connect(driver, container)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(add, range(number)))


def attach_by_hand(on: Host, driver: str) -> dict[str, float]:
    """Return what each call of an attach and a detach took at the driver's socket."""
    subnet = on.engine.api("GET", f"/networks/{on.networks[driver]}")["IPAM"]["Config"][0]["Subnet"]
    network = ip_interface(subnet).network
    address = f"{network.broadcast_address - 5}/{network.prefixlen}"  # Docker gives out the lowest ones
    return Conversation(on.sockets[driver], on.networks[driver], secrets.token_hex(32), address, gateway=False).run()


def operations(on: Host, container: str) -> dict[str, float]:
    """Return weft's operations for one connect and disconnect, with the reconciler's looks that follow from them.

    `weft status`, which tells the counters, looks at the host too: what that costs is found out first, and taken off.
    """
    looks = 0

    def look() -> Counter[str]:
        nonlocal looks
        looks += 1
        return Counter(on.status()["operations"])

    def idle() -> Counter[str]:
        """Wait until a look costs twice the same, so nothing else goes on; return that cost."""
        seen = [look(), look()]

        def twice_the_same() -> bool:
            seen.append(look())
            return _less(seen[-1], seen[-2]) == _less(seen[-2], seen[-3])

        await_(twice_the_same, 30, "weft to be idle")
        return _less(seen[-1], seen[-2])

    cost = idle()
    first, looks = look(), 0
    for _ in range(COUNTED):
        on.connect("weft", container)
        on.disconnect("weft", container)
    idle()
    last = look()
    return {name: (last[name] - first[name] - looks * cost[name]) / COUNTED for name in last}


def _less(one: Counter[str], other: Counter[str]) -> Counter[str]:
    """Return the difference by name; zero where there is none."""
    return Counter({name: one[name] - other[name] for name in one})


def told(found: Found, others: Sequence[int]) -> str:
    """Return the table of what the engine's API took."""
    rows = []
    for number in others:
        for driver in DRIVERS:
            both, docker = (_sums(found, number, one, ("connect", "disconnect")) for one in (driver, "bridge"))
            figures = (Figure(found[number, driver, what]).ms for what in ("connect", "disconnect"))
            rows.append((f"{number} others, {driver}", *figures, ratio(both, docker)))
    head = ("milliseconds: median [lowest-highest]", "connect", "disconnect", "both, to the bridge's")
    return table(head, rows)


def told_inside(found: Found, others: Sequence[int]) -> str:
    """Return the table of what the drivers' calls took by hand."""
    names = list(dict.fromkeys(name for _, _, name in found))
    rows = [
        (
            f"{number} others, {driver}",
            *(Figure(found[number, driver, name]).ms for name in names),
            Figure(_sums(found, number, driver, names)).ms,
        )
        for number in others
        for driver in ("nothing", "weft")
    ]
    return table(("milliseconds at the driver's socket", *names, "all"), rows)


def told_operations(counted: dict[int, dict[str, float]]) -> str:
    """Return the table of weft's operations."""
    names = next(iter(counted.values()))
    rows = [(f"{number} others", *(f"{found[name]:.1f}" for name in names)) for number, found in counted.items()]
    return table((f"weft's operations, connect + disconnect (mean of {COUNTED})", *names), rows)


def _sums(found: Found, number: int, driver: str, names: Sequence[str]) -> list[float]:
    return [sum(values) for values in zip(*(found[number, driver, name] for name in names), strict=True)]


if __name__ == "__main__":
    main()
