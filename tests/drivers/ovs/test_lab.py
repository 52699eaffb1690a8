"""The lab's Open vSwitch: several at once, and one on a host that loses its power."""

import pytest

from drivers.converge import Converger
from drivers.resources import HOST
from tests.drivers.ovs.world import BRIDGE, backend_of, tunnel
from tests.drivers.steps import applied
from tests.lab.net import RUN_NETNS, NetNs
from tests.lab.node import Node
from tests.lab.ovs import Ovs
from tests.netns import inside

pytestmark = pytest.mark.kernel


def test_several_live_on_one_machine() -> None:
    with NetNs("a") as one, NetNs("b") as two, Ovs(one) as first, Ovs(two) as second:
        for ovs in (first, second):
            ovs.vsctl("add-br", "br0", "--", "set", "Bridge", "br0", "datapath_type=netdev")
            assert "LOCAL(br0)" in ovs.ofctl("show", "br0")
        second.vsctl("del-br", "br0")
        first.kill()
        second.vsctl("add-br", "br1")
        first.start()
        assert (first.vsctl("list-br"), second.vsctl("list-br")) == ("br0", "br1")
        assert "ovs-vswitchd" in first.appctl("version")


def test_a_database_outlives_the_power_and_what_is_in_it_is_found_again() -> None:
    with Node("ovs") as node, Ovs(node) as ovs:
        with inside(RUN_NETNS / node.netns), backend_of(ovs) as backend:
            applied(backend, BRIDGE)
            applied(backend, tunnel())
        node.power_off()
        node.up()
        ovs.start()
        with inside(RUN_NETNS / node.netns), backend_of(ovs) as backend:
            assert backend.survey() == {one.key: one for one in (BRIDGE, tunnel())}
            assert Converger({"ovsdb": backend}).converge(HOST, [BRIDGE, tunnel()]).taken == ()
