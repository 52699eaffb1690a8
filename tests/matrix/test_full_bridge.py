"""A Linux bridge has 1,023 ports: what the next container is told, and when there is room again."""

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any, Final

import pytest

from drivers.naming import link_name
from tests.lab.node import Node
from tests.lab.wait import await_
from tests.lab.weft import Weft
from tests.libnetwork import CallRefusedError, Libnetwork, Network

pytestmark = pytest.mark.kernel

FULL: Final = 1023


class Bridge:
    """A network with as many endpoints as go on it, none with a container: only their making counts."""

    def __init__(self, node: Node, docker: Libnetwork) -> None:
        self.node = node
        self.docker = docker
        self.network: Network = docker.create_network(subnet="10.7.0.0/21")
        self.endpoints: list[dict[str, Any]] = []
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(self.create, range(FULL)))
        self._later = count(FULL)

    def create(self, number: int | None = None) -> None:
        """CreateEndpoint, with the address of that number, or with one that nobody had before."""
        number = next(self._later) if number is None else number
        ids = {"NetworkID": self.network.id, "EndpointID": secrets.token_hex(32)}
        address = {"Address": f"{self.network.pools[0][number + 2]}/21", "AddressIPv6": "", "MacAddress": ""}
        self.docker.call("NetworkDriver.CreateEndpoint", {**ids, "Interface": address, "Options": {}})
        self.endpoints.append(ids)

    def delete(self, ids: dict[str, Any]) -> None:
        """DeleteEndpoint."""
        self.docker.call("NetworkDriver.DeleteEndpoint", ids)
        self.endpoints.remove(ids)

    def traces(self) -> list[str]:
        """Return what an endpoint may leave on the host."""
        said = self.node.run("sh", "-c", "ip -br link | cut -d' ' -f1; nft -s list ruleset").stdout
        return sorted(said.splitlines())

    def ports(self) -> int:
        """Return how many links are on the bridge."""
        return len(self.node.run("ip", "-o", "link", "show", "type", "bridge_slave").stdout.splitlines())


@pytest.fixture(scope="module")
def bridge() -> Iterator[Bridge]:
    """Fill it once."""
    with Node("full") as node, Weft(node) as weft, Libnetwork(weft.socket, netns=node.netns) as docker:
        yield Bridge(node, docker)


def test_one_container_more_than_a_bridge_has_ports_is_told_the_way_out(bridge: Bridge) -> None:
    assert bridge.ports() == FULL
    before = bridge.traces()
    with pytest.raises(CallRefusedError) as refused:
        bridge.create()
    assert f"has {FULL} containers" in refused.value.said
    assert "-o weft.backend=ovs" in refused.value.said
    assert bridge.traces() == before


def test_when_one_has_gone_the_next_one_starts_at_once(bridge: Bridge) -> None:
    """A link that waits for its deletion does not count."""
    for _ in range(5):
        bridge.delete(bridge.endpoints[0])
        bridge.create()
        with pytest.raises(CallRefusedError):
            bridge.create()
    assert bridge.ports() == FULL


def test_ports_that_are_not_wefts_count_too(bridge: Bridge) -> None:
    bridge.delete(bridge.endpoints[0])
    await_(lambda: bridge.ports() < FULL, 10, "a link to be deleted")
    bridge.node.run("ip", "link", "add", "guest", "type", "veth", "peer", "name", "guests")
    bridge.node.run("ip", "link", "set", "guest", "master", link_name("b", bridge.network.id))
    before = bridge.traces()
    with pytest.raises(CallRefusedError) as refused:
        bridge.create()
    assert "-o weft.backend=ovs" in refused.value.said
    assert bridge.traces() == before
    bridge.node.run("ip", "link", "del", "guest")
    bridge.create()


def test_one_that_takes_the_place_of_a_dead_one_starts(bridge: Bridge) -> None:
    """As after a crash of dockerd: the same address, another endpoint."""
    bridge.create(FULL // 2)
    assert bridge.ports() == FULL
