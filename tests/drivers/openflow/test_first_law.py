"""Flows on the real Open vSwitch: what is applied is observed, and a second time nothing is sent."""

import pytest

from drivers.converge import Converger
from drivers.openflow.backend import OpenFlowBackend
from drivers.ovs import pipeline
from drivers.resources import Resource, Scope
from tests.drivers.openflow.world import HERE, SEGMENT, SWITCH

pytestmark = pytest.mark.kernel


def _plans() -> dict[Scope, tuple[Resource, ...]]:
    plans = (
        pipeline.host(SWITCH),
        pipeline.network(SWITCH, SEGMENT),
        pipeline.endpoint(SWITCH, SEGMENT, HERE),
    )
    return {plan[0].scope: plan for plan in plans}


def test_what_was_wanted_is_observed(backend: OpenFlowBackend, converger: Converger, scopes: set[Scope]) -> None:
    plans = _plans()
    scopes.update(plans)
    for scope, plan in plans.items():
        outcome = converger.converge(scope, plan)
        assert len(outcome.taken) == len(plan)
    for plan in plans.values():
        wanted = {resource.key: resource for resource in plan}
        assert backend.observe(wanted) == wanted
    assert backend.survey() == {resource.key: resource for plan in plans.values() for resource in plan}
