"""Each test has a network namespace of its own, an Open vSwitch in it, and a bridge with ports."""

from collections.abc import Iterator

import pytest

from drivers.converge import Converger
from drivers.openflow.backend import OpenFlowBackend
from drivers.resources import Scope
from tests.drivers.openflow.ovs import Ovs
from tests.drivers.openflow.world import ENDPOINT, MARKS, NETWORK, PORTS
from tests.netns import private_netns


@pytest.fixture
def ovs() -> Iterator[Ovs]:
    with private_netns(), Ovs() as one:
        one.add_bridge()
        for name in PORTS:
            one.add_port(name)
        yield one


@pytest.fixture
def scopes() -> set[Scope]:
    """Return what the store has."""
    return {NETWORK, ENDPOINT}


@pytest.fixture
def backend(ovs: Ovs, scopes: set[Scope]) -> Iterator[OpenFlowBackend]:
    one = OpenFlowBackend(MARKS, lambda: scopes, ovs.ofport, rundir=ovs.rundir)
    yield one
    one.close()


@pytest.fixture
def converger(backend: OpenFlowBackend) -> Converger:
    return Converger({"openflow": backend})
