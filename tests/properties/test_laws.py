"""The laws of DESIGN.md, on any world: they are what the rest of weft rests on."""

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from copy import deepcopy
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.contract import Planner, Step
from drivers.converge import Converger
from drivers.facts import HostFacts
from drivers.fake import Crash, FakeHost
from drivers.model import Use
from drivers.resources import (
    BRIDGE_TABLE_KEY,
    HALF_MADE,
    HOST,
    TABLE_KEY,
    Bridge,
    Chain,
    Element,
    Foreign,
    HostAddress,
    InZone,
    Jump,
    Key,
    PeerTunnel,
    Rank,
    Resource,
    Rule,
    Scope,
    Veth,
    Vxlan,
    Zone,
)
from tests.properties.strategies import PLANNER, World, endpoints, host_facts, networks, uses, variants, worlds
from tests.properties.weft import Weft, expected, prepared, strangers

Plans = Mapping[Scope, tuple[Resource, ...]]


def _built(world: World, plans: Plans) -> tuple[FakeHost, Converger]:
    host = prepared(world.facts)
    converger = Converger(host.backends)
    for scope, wanted in plans.items():
        converger.converge(scope, wanted)
    return host, converger


def _made(plan: tuple[Resource, ...]) -> dict[Key, Resource]:
    return {one.key: one for one in plan if not isinstance(one, Bridge) or not one.adopted}


# -- of planners ----------------------------------------------------------------------------------------------------


@given(worlds())
def test_each_planner_returns_its_own_scope_only(world: World) -> None:
    for scope, plan in world.plans().items():
        assert {one.scope for one in plan} <= {scope}


@given(worlds())
def test_plans_have_disjoint_keys(world: World) -> None:
    keys = [one.key for plan in world.plans().values() for one in plan]
    assert len(set(keys)) == len(keys)


class _Backwards(frozenset[str]):
    """An equal set that is walked the other way round, as it would be with other hashes."""

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(super().__iter__(), reverse=True))

    def __sub__(self, other: AbstractSet[object]) -> "_Backwards":
        return _Backwards(super().__sub__(other))


@given(host_facts(), uses(), st.data())
def test_planners_are_pure(facts: HostFacts, use: Use, data: st.DataObject) -> None:
    """Equal arguments give equal answers in equal order, whatever was asked before."""
    planner: Planner = PLANNER
    network = data.draw(networks(0))
    endpoint = data.draw(endpoints(network, 0))
    first = (planner.host(facts, use), planner.network(facts, network), planner.endpoint(facts, network, endpoint))
    other = data.draw(variants(network, 0))
    planner.network(facts, other)
    planner.endpoint(facts, other, endpoint)
    facts = replace(
        deepcopy(facts), operator_links=_Backwards(facts.operator_links), ra_links=_Backwards(facts.ra_links)
    )
    use = replace(deepcopy(use), docker_links=_Backwards(use.docker_links))
    network, endpoint = deepcopy(network), deepcopy(endpoint)
    again = (planner.host(facts, use), planner.network(facts, network), planner.endpoint(facts, network, endpoint))
    assert again == first
    assert _unseen(again) == _unseen(first)


def _unseen(plans: tuple[tuple[Resource, ...], ...]) -> list[object]:
    """Return what ``==`` does not look at."""
    links = [(one.peer, one.mac) for plan in plans for one in plan if isinstance(one, Veth)]
    return [*links, *((one.needs, one.adopted, one.shared) for plan in plans for one in plan)]


@given(worlds())
def test_a_need_is_met_before_it_is_needed(world: World) -> None:
    """By the host's plan, which comes first, or by its own: at a lower rank, or before what needs anything."""
    plans = world.plans()
    host = {one.key for one in plans[HOST]}
    for scope, plan in plans.items():
        place = {one.key: (one.rank, bool(one.needs)) for one in plan}
        for one in plan:
            assert one.needs <= place.keys() | host
            assert all(place[need] < (one.rank, True) for need in one.needs & place.keys()), scope


@given(worlds())
def test_nothing_opens_without_the_table(world: World) -> None:
    for plan in world.plans().values():
        for one in plan:
            if isinstance(one, Element | Chain | Jump | Zone | InZone):
                assert (BRIDGE_TABLE_KEY if one.key.backend == BRIDGE_TABLE_KEY.backend else TABLE_KEY) in one.needs
            if one.rank is Rank.OPEN or isinstance(one, Rule):
                assert any(key.kind == "chain" for key in one.needs)


# -- of converge ----------------------------------------------------------------------------------------------------


@given(worlds())
def test_what_was_wanted_is_observed(world: World) -> None:
    plans = world.plans()
    _, converger = _built(world, plans)
    for scope, plan in plans.items():
        made = _made(plan)
        assert converger.observe(made) == made
        assert all(isinstance(one, Foreign) for one in converger.observe({o.key for o in plan} - made.keys()).values())
        assert converger.survey().get(scope, {}) == {key: one for key, one in made.items() if not one.adopted}


@given(worlds())
def test_a_second_converge_has_no_step(world: World) -> None:
    plans = world.plans()
    host, converger = _built(world, plans)
    host.steps.clear()
    for scope, plan in plans.items():
        assert not converger.difference(scope, plan)
        assert converger.converge(scope, plan).taken == ()
    assert host.steps == []


@given(worlds(), st.data())
def test_a_converge_touches_its_own_scope_only(world: World, data: st.DataObject) -> None:
    """Whatever one scope is told to become, or to vanish: the others' objects stay as they are."""
    plans = world.plans()
    host, converger = _built(world, plans)
    scope = data.draw(st.sampled_from(sorted(plans)))
    wanted = () if data.draw(st.booleans()) else _another_plan(world, scope, data)
    others = _held_by_others(host, scope)
    steps = converger.converge(scope, wanted, {one.key for one in plans[scope]}).taken
    for step in steps:
        assert {one.scope for one in (step.old, step.new) if one is not None} <= {scope, HALF_MADE}
    after = _held_by_others(host, scope)
    if _is_gone(scope, steps, "link"):
        others = {key: _without_bridge(one) for key, one in others.items()}
        after = {key: _without_bridge(one) for key, one in after.items()}
    elif any(_is_gone(scope, steps, kind) for kind in ("table", "chain", "zone")):  # they go with what is in them
        with_contents = ("nft", "nft-bridge", "xtables", "firewalld")
        others = {key: one for key, one in others.items() if key in after or key.backend not in with_contents}
    assert after == others


def _is_gone(scope: Scope, steps: tuple[Step, ...], kind: str) -> bool:
    return any(step.new is None and step.key.kind == kind for step in steps) and not scope.endpoint


def _another_plan(world: World, scope: Scope, data: st.DataObject) -> tuple[Resource, ...]:
    if scope == HOST:
        facts = replace(data.draw(host_facts()), docker_user=world.facts.docker_user, firewalld=world.facts.firewalld)
        return PLANNER.host(facts, data.draw(uses()))
    number, (network, attached) = next(
        (number, one) for number, one in enumerate(world.networks) if one[0].id.startswith(scope.network)
    )
    other = data.draw(variants(network, number))
    if not (world.use.apart or world.use.tunnels):  # the host has no table for it
        other = replace(other, icc=True, tunnel=None, peers=())
    if not scope.endpoint:
        return PLANNER.network(world.facts, other)
    at = next(at for at, one in enumerate(attached) if one.id.startswith(scope.endpoint))
    return PLANNER.endpoint(world.facts, other, data.draw(endpoints(other, at)))


def _held_by_others(host: FakeHost, scope: Scope) -> dict[Key, Resource | Foreign]:
    seen = {key: host.backends[key.backend].observe([key])[key] for key in host.objects}
    return {key: one for key, one in seen.items() if isinstance(one, Foreign) or one.scope != scope}


def _without_bridge(one: Resource | Foreign) -> Resource | Foreign:
    return replace(one, bridge="") if isinstance(one, Veth | Vxlan | PeerTunnel) else one


@given(worlds(), st.data())
def test_a_withdrawn_world_leaves_the_host_as_it_was(world: World, data: st.DataObject) -> None:
    """In whatever order its scopes go, and with an operator's address on the bridge that we would have set."""
    addresses = [one for plan in world.plans().values() for one in plan if isinstance(one, HostAddress) and one.shared]
    theirs = data.draw(st.lists(st.sampled_from(addresses), unique=True)) if addresses else []
    host = prepared(world.facts, shared=theirs)
    before = dict(host.objects)
    weft = Weft(host, world.facts)
    for network, attached in world.networks:
        weft.create(network)
        for endpoint in attached:
            weft.create(network, endpoint)
    assert weft.converger.survey() == expected(weft)
    assert strangers(host) == before
    for scope in data.draw(st.permutations(sorted(weft.rows))):
        if scope in weft.rows:
            weft.delete(scope)
    assert host.objects == before
    assert weft.converger.survey() == {}


# -- of crashes -----------------------------------------------------------------------------------------------------


def _lives(weft: Weft, world: World) -> None:
    """Create everything, then delete the first network, and one endpoint of the last."""
    for network, attached in world.networks:
        weft.create(network)
        for endpoint in attached:
            weft.create(network, endpoint)
    for scope in (min(weft.rows, default=HOST), max(weft.rows, default=HOST)):
        if scope in weft.rows:
            weft.delete(scope)


@settings(max_examples=25)
@given(worlds(most=2))
def test_a_kill_after_any_step_is_made_good_by_the_start(world: World) -> None:
    for ticks in range(1000):
        host = prepared(world.facts)
        before = strangers(host)
        weft = Weft(host, world.facts)
        host.crash_after = ticks
        try:
            _lives(weft, world)
        except Crash:
            weft.start()
            assert weft.converger.survey() == expected(weft)
            assert strangers(host) == before
            assert host.objects.keys() == set(before).union(*expected(weft).values())
            for scope in (HOST, *weft.rows):
                assert not weft.converger.difference(scope, weft.wanted(scope))
        else:
            break
    else:
        pytest.fail("a life of more than a thousand steps")


@settings(max_examples=25)
@given(worlds(most=2), st.integers(0, 20))
def test_a_kill_during_the_start_is_made_good_by_the_next(world: World, first: int) -> None:
    for ticks in range(1000):
        host = prepared(world.facts)
        weft = Weft(host, world.facts)
        host.crash_after = first
        try:
            _lives(weft, world)
        except Crash:
            host.crash_after = ticks
        else:
            return
        try:
            weft.start()
        except Crash:
            weft.start()
            assert weft.converger.survey() == expected(weft)
        else:
            assert weft.converger.survey() == expected(weft)
            return
