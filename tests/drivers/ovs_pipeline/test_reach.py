"""Who reaches whom over the pipeline, with real packets: every pair of a network, and nobody of another."""

import os
import signal

import pytest

from drivers.ovs.model import TunnelKind
from tests.drivers.ovs_pipeline.street import BOUND, Street
from tests.lab.wait import await_
from tests.matrix.traffic import OPEN, PROTOCOLS, Knock

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces are root's"),
]


def _pairs(street: Street) -> list[Knock]:
    return [
        Knock(one.spot, other.address(version), protocol, wanted=OPEN)
        for one in street.of(1)
        for other in street.of(1)
        if one is not other
        for version in (4, 6)
        for protocol in PROTOCOLS
    ]


@pytest.mark.parametrize(
    ("kind", "underlay"), [("vxlan", 4), ("vxlan", 6), ("geneve", 4), ("geneve", 6), ("gre", 4), ("gre", 6)]
)
def test_every_pair_of_a_network_talks(kind: TunnelKind, underlay: int) -> None:
    with Street(2, kind, underlay) as street:
        street.network(1)
        for host in street.hosts:
            for number in (1, 2):
                street.container(host, 1, 10 * host.number + number).spot.serve()
        street.warm()
        assert not street.traffic.surprises(_pairs(street))


def test_traffic_resumes_when_the_flows_are_put_back_after_a_kill() -> None:
    """Open vSwitch comes back without a flow; the watch says so, and a converge of everything is all it takes."""
    with Street(2) as street:
        street.network(1)
        for host in street.hosts:
            street.container(host, 1, 10 * host.number).spot.serve()
        assert not street.traffic.surprises(_pairs(street))
        first = street.hosts[0]
        dirty: list[object] = []
        stop = first.backend.watch(dirty.append)
        first.ovs.stop("ovs-vswitchd", signal.SIGKILL)
        dirty.clear()
        first.ovs.start_vswitchd()
        await_(lambda: None in dirty, BOUND, "all to be dirty")
        stop()
        assert first.backend.survey() == {}
        street.plan_all(first)
        assert not street.traffic.surprises(_pairs(street))
