"""What a container's flows cost, by ovs-ofctl and by our own connection, beside few others and beside many.

    python -m bench.openflow

An Open vSwitch of its own in a private namespace; interfaces are numbers without devices, which flows do not mind. The
figures that spec/decisions/0013-how-to-speak-openflow.md quotes come from here.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from ipaddress import ip_address
from typing import Final

from bench.common import pss
from drivers.converge import Converger
from drivers.marks import Marks
from drivers.openflow.backend import OpenFlowBackend
from drivers.ovs import pipeline
from drivers.ovs.model import Attachment, Gateway, Peer, Segment, Switch, Tunnel
from drivers.resources import Flow, Resource, Scope
from tests.drivers.openflow.ovs import BRIDGE, Ovs
from tests.netns import private_netns

SIZES: Final = (10, 100, 1000)
SWITCH: Final = Switch()
SEGMENT: Final = Segment(
    id="n1",
    number=5,
    gateway=Gateway(port="wfg1", mac="02:00:00:00:00:01", addresses=(ip_address("10.1.0.1"), ip_address("fd01::1"))),
    tunnel=Tunnel(
        port="wft",
        vni=5,
        peers=tuple(Peer(address=ip_address("192.0.2.0") + slot, slot=slot) for slot in range(1, 10)),
    ),
)


def plan(number: int) -> tuple[Resource, ...]:
    """Return the flows of the endpoint with a number."""
    at = Attachment(
        id=f"e{number}",
        port=f"wfh{number}",
        mac=f"02:00:00:01:{number >> 8:02x}:{number & 255:02x}",
        slot=number,
        addresses=(ip_address("10.1.4.0") + number, ip_address("fd01::1:0") + number),
    )
    return pipeline.endpoint(SWITCH, SEGMENT, at)


def ofport(name: str) -> int:
    """Return a number for an interface that does not exist."""
    return {"wfg1": 2, "wft": 3}.get(name) or 10 + int(name.removeprefix("wfh"))


def lines(resources: Sequence[Resource], verb: str = "") -> str:
    """Return flows as ovs-ofctl reads them, with numbers for names."""
    told = []
    for one in resources:
        if not isinstance(one, Flow):
            continue
        where = ",".join(filter(None, (f"table={one.table}", f"priority={one.priority}", one.match)))
        text = f"{verb}{where}" + ("" if verb else f",actions={one.actions}")
        for name in ("wfg1", "wft", f"wfh{one.scope.endpoint.removeprefix('e')}"):
            text = text.replace(f'"{name}"', f"{ofport(name)}")
        told.append(text)
    return "\n".join(told)


def timed(act: Callable[[], object]) -> float:
    """Return the milliseconds that something takes."""
    begin = time.perf_counter()
    act()
    return (time.perf_counter() - begin) * 1000


def spread(figures: Sequence[float]) -> str:
    """Return median, least and most."""
    return f"{statistics.median(figures):6.1f} ({min(figures):.1f} to {max(figures):.1f})"


def rows(ovs: Ovs, backend: OpenFlowBackend, scopes: set[Scope], rounds: int) -> Iterator[tuple[str, ...]]:
    """Yield a row of the table for each size."""
    converger = Converger({"openflow": backend})
    there = 0
    for size in SIZES:
        while there < size:
            there += 1
            wanted = plan(there)
            scopes.add(wanted[0].scope)
            converger.converge(wanted[0].scope, wanted)
        one, typed = plan(2000), plan(2001)
        scope, keys = one[0].scope, [resource.key for resource in one]
        bundle = partial(ovs.ofctl, "--bundle", "add-flows", BRIDGE, "-")
        figures: dict[str, list[float]] = {"by hand": [], "attach": [], "again": [], "detach": []}
        calls = 0
        for _ in range(rounds):
            figures["by hand"].append(timed(partial(bundle, text=lines(typed))))
            bundle(text=lines(typed, "delete_strict "))
            before = backend.calls
            figures["attach"].append(timed(partial(converger.converge, scope, one)))
            calls = backend.calls - before
            figures["again"].append(timed(partial(converger.converge, scope, one)))
            figures["detach"].append(timed(partial(converger.converge, scope, (), keys)))
        trace = timed(lambda: ovs.appctl("ofproto/trace", BRIDGE, broadcast(plan(1))))
        yield (
            f"{size}",
            *(spread(figures[name]) for name in figures),
            f"{calls}",
            f"{timed(backend.survey):.0f}",
            f"{trace:.0f}",
        )


def broadcast(of: Sequence[Resource]) -> str:
    """Return a packet that is for all, from an endpoint."""
    match = next(one.match for one in of if isinstance(one, Flow) and one.table == 0)
    mac = match.rpartition("dl_src=")[2]
    return f"in_port={ofport('wfh1')},dl_src={mac},dl_dst=ff:ff:ff:ff:ff:ff,dl_type=0x88b5"


def grown() -> float:
    """Return the memory of this process, in MB."""
    return pss([os.getpid()])


def main() -> None:
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m bench.openflow", description=__doc__)
    parser.add_argument("--rounds", type=int, default=21, help="how often each thing is measured (default: 21)")
    rounds = parser.parse_args().rounds
    scopes: set[Scope] = set()
    before = grown()
    with private_netns(), Ovs() as ovs:
        ovs.add_bridge()
        backend = OpenFlowBackend(Marks("bench"), lambda: scopes, ofport, rundir=ovs.rundir)
        Converger({"openflow": backend}).converge(Scope(), pipeline.host(SWITCH))
        network = pipeline.network(SWITCH, SEGMENT)
        Converger({"openflow": backend}).converge(network[0].scope, network)
        scopes.add(network[0].scope)
        print(f"{len(plan(1))} flows; milliseconds: median (least to most) of {rounds}\n")
        print("| endpoints there | ovs-ofctl | attach | nothing to do | detach | questions | survey | trace |")
        print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
        for row in rows(ovs, backend, scopes, rounds):
            print(f"| {' | '.join(row)} |", flush=True)
        print(f"\n{grown() - before:.1f} MB more than before, for {len(ovs.flows())} flows")
        backend.close()


if __name__ == "__main__":
    main()
