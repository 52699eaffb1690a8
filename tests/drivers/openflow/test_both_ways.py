"""Our own encoder beside ovs-ofctl, on every flow of the planner's cases: what one writes, the other reads."""

import re
from collections.abc import Iterator

import pytest

from drivers.contract import Step
from drivers.openflow import actions, matches, messages
from drivers.openflow.backend import OpenFlowBackend
from drivers.openflow.session import Session
from drivers.resources import HOST, Flow, flow, flow_key
from tests.drivers.openflow.ovs import BRIDGE, Ovs
from tests.drivers.openflow.world import MARKS
from tests.drivers.ovs_pipeline.cases import every_plan
from tests.netns import private_netns

pytestmark = pytest.mark.kernel

Flows = list[Flow]


@pytest.fixture(scope="module")
def ovs() -> Iterator[Ovs]:
    with private_netns(), Ovs() as one:
        one.add_bridge()
        yield one


@pytest.fixture(scope="module")
def flows(ovs: Ovs) -> Flows:
    """Return each flow of the cases once, all of one scope, with their interfaces made."""
    every: dict[tuple[str, ...], Flow] = {}
    for _, plan in every_plan():
        for one in plan:
            assert isinstance(one, Flow)
            key = flow_key(BRIDGE, one.table, one.priority, one.match)
            every.setdefault(key.at, flow(key, HOST, one.actions))
    for name in sorted({name for one in every.values() for name in re.findall(r'"([^"]+)"', f"{one}")}):
        if ovs.ofport(name) is None:
            ovs.add_port(name)
    return list(every.values())


@pytest.fixture
def backend(ovs: Ovs, flows: Flows) -> Iterator[OpenFlowBackend]:
    one = OpenFlowBackend(MARKS, list, ovs.ofport, rundir=ovs.rundir)
    yield one
    one.close()
    ovs.ofctl("del-flows", BRIDGE)


def _typed(one: Flow) -> str:
    """Return the line that ovs-ofctl reads and, without quotes and cookie, prints."""
    table = f"table={one.table}, " if one.table else ""
    where = ",".join(filter(None, (f"priority={one.priority}", one.match)))
    return f"{table}{where} actions={one.actions}"


def test_ovs_ofctl_prints_what_we_write(backend: OpenFlowBackend, ovs: Ovs, flows: Flows) -> None:
    assert len(flows) > 100
    assert not backend.apply([Step(None, one) for one in flows])
    printed = {re.sub(r"^cookie=0x[0-9a-f]+, ", "", line) for line in ovs.flows()}
    assert printed == {_typed(one).replace('"', "") for one in flows}


def test_we_read_what_ovs_ofctl_writes(backend: OpenFlowBackend, ovs: Ovs, flows: Flows) -> None:
    """And it reads our spelling, quotes and all: the switch then holds the same bytes as we would have sent."""
    lines = [f"table={one.table},{_typed(one).rpartition(', ')[2].replace(' actions', ',actions')}" for one in flows]
    ovs.ofctl("--bundle", "add-flows", BRIDGE, "-", text="\n".join(lines))
    session = Session(ovs.rundir / f"{BRIDGE}.mgmt", lambda: None)
    answers, _ = session.ask([messages.flows_request(session.xid())])
    session.close()
    held = {}
    for answer in answers:
        _, _, rest = messages.read_multipart(answer.body)
        for place, entry in messages.read_flows(rest):
            held[place._replace(match=matches.canonical(place.match))] = entry.instructions
    names = {ovs.ofport(name): name for name in ovs._numbers}

    def number(name: str) -> int:
        found = ovs.ofport(name)
        assert found is not None
        return found

    for one in flows:
        place = messages.Place(one.table, one.priority, matches.encode(one.match, number))
        assert held[place] == actions.encode(one.actions, number), one
        assert matches.decode(place.match, names.get) == one.match
        assert actions.decode(held[place], names.get) == one.actions
    assert len(held) == len(flows)
