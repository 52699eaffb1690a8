"""A network on Open vSwitch has room for more containers than a Linux bridge has ports."""

import secrets
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.lab.net import RUN_NETNS
from tests.lab.node import Node
from tests.lab.ovs import Ovs
from tests.lab.wait import await_
from tests.lab.weft import Weft
from tests.libnetwork import Container, Libnetwork, Network
from tests.matrix.table import Party
from tests.matrix.test_full_bridge import FULL
from tests.matrix.traffic import OPEN, PROTOCOLS, Knock, Traffic

pytestmark = [pytest.mark.kernel, pytest.mark.ovs, pytest.mark.faults]

MORE = FULL + 27


def test_more_containers_than_a_bridge_has_ports_are_on_one_network_and_talk() -> None:
    with (
        Node("many") as node,
        Ovs(node) as ovs,
        Weft(node, settings={"WEFT_BACKEND": "ovs"}) as weft,
        Traffic() as traffic,
        Libnetwork(weft.socket, netns=node.netns) as docker,
    ):
        network = docker.create_network(subnet="10.7.0.0/20")
        first = party(docker.start_container(network), network, traffic)
        with ThreadPoolExecutor(16) as pool:  # none with a container: only their making counts
            ids = list(pool.map(lambda number: create(docker, network, number), range(MORE)))
        last = party(docker.start_container(network), network, traffic)
        assert len(ovs.vsctl("list-ports", "br-int").split()) == MORE + 2 + 1  # and the host's own
        knocks = [
            Knock(one.spot, other.addresses[4], protocol, wanted=OPEN)
            for one, other in ((first, last), (last, first))
            for protocol in PROTOCOLS
        ]
        await_(lambda: not traffic.surprises(knocks), 30, "the first and the last to talk")
        for each in ids:
            docker.call("NetworkDriver.DeleteEndpoint", each)


def create(docker: Libnetwork, network: Network, number: int) -> dict[str, str]:
    """CreateEndpoint, with an address that no container has."""
    ids = {"NetworkID": network.id, "EndpointID": secrets.token_hex(32)}
    address = {"Address": f"{network.pools[0][1024 + number]}/20", "AddressIPv6": "", "MacAddress": ""}
    docker.call("NetworkDriver.CreateEndpoint", {**ids, "Interface": address, "Options": {}})
    return ids


def party(container: Container, network: Network, traffic: Traffic) -> Party:
    """Return a container that answers."""
    spot = traffic.spot(RUN_NETNS / container.netns)
    spot.serve()
    return Party(spot, {4: str(container.address(network, 4))})
