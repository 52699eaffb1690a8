"""A network of a swarm on Open vSwitch: the same services, by GRE, which the kernel of these tests has not."""

import pytest

from tests.engine.conftest import engine_root
from tests.hosts.conftest import Made, swarm_of

pytestmark = [pytest.mark.engine, pytest.mark.hosts, pytest.mark.swarm]


@pytest.mark.parametrize("version", ["20", pytest.param("28", marks=pytest.mark.engine28)])
def test_replicas_meet_by_name_over_gre(made: Made, version: str) -> None:
    with swarm_of(made, engine_root(version), ovs=True) as swarm:
        swarm.mend()
        network = swarm.network("shop", "-o", "weft.backend=ovs", "-o", "weft.tunnel=gre", "--subnet", "10.44.0.0/24")
        swarm.service("web", "shop", "--replicas", "6")
        found = swarm.await_met("web", 6, *swarm.hosts)
        assert all(host.networks() == {network} for host in swarm.hosts)
        for host in swarm.hosts:
            assert host.ovs is not None
            assert "gre" in host.ovs.vsctl("--bare", "--columns=type", "find", "Interface", "type=gre")
        for address, container in found.items():
            assert {str(container.seen_by(other)) for other in found} == {address}  # as itself: no NAT
        swarm.clear()
        for host in swarm.hosts:
            assert host.ovs is not None
            assert host.ovs.vsctl("list-br") == "br-phy"
