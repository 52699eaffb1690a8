"""The planner's cases: what is wanted, in TOML, a line of dashes, and the plan of each scope.

The plan is in the order in which it is made: the rank, and the line a person would type. ``WEFT_UPDATE=1 pytest
tests/drivers/ovs_pipeline/test_planner.py`` writes the plans anew; read the diff.
"""

import tomllib
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from drivers.contract import Step
from drivers.converge import order
from drivers.ovs import pipeline
from drivers.ovs.model import Attachment, Gateway, Peer, Segment, Switch, Tunnel
from drivers.resources import Resource

CASES = sorted((Path(__file__).parent / "data").glob("*.txt"))
RULE = "-" * 80 + "\n"
LONGEST = 400  # characters of a line that is shown whole

Plan = tuple[Resource, ...]


def plans(case: dict[str, Any]) -> Iterator[tuple[str, Plan]]:
    """Yield the plan of each scope that a case is about, and its name."""
    switch = Switch(**case.pop("switch", {}))
    if case.pop("host", False):
        yield "host", pipeline.host(switch)
    if "network" in case:
        shown = case["network"].pop("shown", True)
        segment = _segment(case.pop("network"))
        if shown:
            yield "network", pipeline.network(switch, segment)
        if "endpoint" in case:
            yield "endpoint", pipeline.endpoint(switch, segment, Attachment(**_addressed(case.pop("endpoint"))))
    assert not case, f"nobody reads {case}"


def read(path: Path) -> tuple[dict[str, Any], str]:
    """Return what a case wants, and the plans that it shows."""
    wanted, _, planned = path.read_text().partition(RULE)
    return tomllib.loads(wanted), planned


def every_plan() -> Iterator[tuple[str, Plan]]:
    """Yield all plans of all cases."""
    for path in CASES:
        yield from plans(read(path)[0])


def rendered(case: dict[str, Any]) -> str:
    """Return the plans as a case shows them."""
    parts = []
    for scope, plan in plans(case):
        lines = [_line(step.resource) for step in order(Step(None, one) for one in plan)]
        parts.append("\n".join((scope, *(lines or ["  nothing"]))))
    return "\n\n".join(parts) + "\n"


def _line(resource: Resource) -> str:
    told = f"{resource}"
    if len(told) > LONGEST:
        told = f"{told[:160]} ... {told[-80:]}"
    return f"  {resource.rank.name:8} {told}"


def _segment(wanted: dict[str, Any]) -> Segment:
    gateway, tunnel = wanted.pop("gateway", None), wanted.pop("tunnel", None)
    return Segment(
        **wanted,
        gateway=Gateway(**_addressed(gateway)) if gateway else None,
        tunnel=_tunnel(**tunnel) if tunnel else None,
    )


def _tunnel(port: str, vni: int, peers: dict[str, int]) -> Tunnel:
    known = tuple(Peer(address=ip_address(address), slot=slot) for address, slot in peers.items())
    return Tunnel(port=port, vni=vni, peers=known)


def _addressed(wanted: dict[str, Any]) -> dict[str, Any]:
    read: dict[str, Any] = {"addresses": tuple(map(ip_address, wanted.pop("addresses", ())))}
    if "peer" in wanted:
        read["peer"] = ip_address(wanted.pop("peer"))
    return wanted | read
