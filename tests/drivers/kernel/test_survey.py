"""All of ours at one look, from any state to any other, and what it costs."""

import subprocess
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.converge import Converger
from drivers.kernel.backend import KernelBackend
from drivers.naming import link_name
from drivers.resources import (
    Resource,
    Scope,
    Veth,
    scope_of,
)
from tests.drivers.kernel.world import MARKS, endpoint_of, ident, network_of, plan, settle

pytestmark = pytest.mark.kernel


def test_the_survey_is_the_union_of_the_plans(backend: KernelBackend, converger: Converger) -> None:
    networks = [network_of("a" * 64, 1), network_of("b" * 64, 2, ipv6=False, mtu=1400)]
    plans: dict[Scope, list[Resource]] = {}
    for network in networks:
        plans |= plan(network, *(endpoint_of(network, ident(n, network.id[0])) for n in range(3)))
    settle(converger, plans)
    subprocess.run(["ip", "link", "add", "br9", "type", "bridge"], check=True)
    subprocess.run(["ip", "address", "add", "10.99.0.1/24", "dev", "br9"], check=True)
    for name in [link_name("c", ident(n, network.id[0])) for network in networks for n in range(3)]:
        subprocess.run(["ip", "link", "set", name, "up"], check=True)
    before = backend.calls
    survey = backend.survey()
    assert backend.calls - before == 2
    assert len([one for one in survey.values() if isinstance(one, Veth)]) == 6
    assert survey == {one.key: one for wanted in plans.values() for one in wanted}


_WALK = network_of("a" * 64, 1)
_WALKERS = [endpoint_of(_WALK, ident(n)) for n in range(3)]
_PLANS = plan(_WALK, *_WALKERS)
_LINES = st.sampled_from(
    [
        f"link {line}"
        for name in (_WALK.link, *(one.link for one in _WALKERS))
        for line in (f"set {name} down", f"set {name} mtu 1300", f"set {name} group 0", f"del {name}")
    ]
    + [f"link set {one.link} nomaster" for one in _WALKERS]
    + [f"address flush dev {_WALK.link}", f"address add 10.9.1.77/24 dev {_WALK.link}"]
)
_SCOPES = st.frozensets(st.sampled_from(sorted(_PLANS)))


@settings(max_examples=25, deadline=None)
@given(walk=st.lists(st.tuples(_SCOPES, st.lists(_LINES, max_size=3)), min_size=1, max_size=4))
def test_from_any_state_any_state_is_reached(walk: list[tuple[frozenset[Scope], list[str]]]) -> None:
    backend = KernelBackend(MARKS, lambda _: None)
    converger = Converger({"kernel": backend})
    try:
        for scopes, lines in walk:
            network = scope_of(_WALK.id)
            wanted = {scope: part for scope, part in _PLANS.items() if scope in scopes and network in scopes}
            seen = converger.survey()
            for scope in sorted({*seen, *wanted}):
                converger.converge(scope, wanted.get(scope, []), seen.get(scope, {}).keys())
            assert backend.survey() == {one.key: one for part in wanted.values() for one in part}
            for line in lines:
                subprocess.run(["ip", *line.split()], check=False, capture_output=True)
    finally:
        subprocess.run(["ip", "link", "del", _WALK.link], check=False, capture_output=True)
        for one in _WALKERS:
            subprocess.run(["ip", "link", "del", one.link], check=False, capture_output=True)
        backend.close()


def test_an_endpoint_costs_the_same_among_10_and_among_300(backend: KernelBackend, converger: Converger) -> None:
    network = network_of("a" * 64, 1)
    settle(converger, plan(network))
    cost: dict[int, list[int]] = {}
    present = 0
    for crowd in (10, 300):
        crowded = [endpoint_of(network, ident(n)) for n in range(present, crowd)]
        settle(converger, {scope: part for scope, part in plan(network, *crowded).items() if scope.endpoint})
        present = crowd
        new = endpoint_of(network, "e" * 64)
        scope = scope_of(network.id, new.id)
        (wanted,) = plan(network, new)[scope]
        marks = [backend.calls]
        converger.converge(scope, [wanted])
        marks.append(backend.calls)
        converger.converge(scope, [wanted])
        marks.append(backend.calls)
        converger.converge(scope, [], [wanted.key])
        marks.append(backend.calls)
        cost[crowd] = [after - before for before, after in pairwise(marks)]
        assert len(backend.survey()) == crowd + len(plan(network)[scope_of(network.id)])
    assert cost == {10: [3, 1, 2], 300: [3, 1, 2]}
