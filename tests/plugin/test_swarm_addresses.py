"""weft as the IPAM driver of a swarm's networks: the manager's books, each node's own, and what a crash leaves."""

from __future__ import annotations

from typing import Any, Final

from drivers.naming import link_name
from tests.plugin.samples import endpoint_id
from tests.plugin.swarm_node import ID, Node
from tests.plugin.world import World

SERIAL: Final = {"com.docker.network.ipam.serial": "true"}
SUBNET: Final = "10.83.0.0/24"
BLUE: Final = {"weft.pool": "blue"} | SERIAL


class Books:
    """What is asked for a network with ``--ipam-driver weft``, in the words of d02 (20.10.24 and 28.5.2)."""

    def __init__(self, node: Node) -> None:
        """Ask ``node``."""
        self.node = node

    def dockerd_starts(self) -> None:
        """Play what a dockerd asks first."""
        self.node.call("IpamDriver.GetCapabilities", None)

    def pool(self, space: str, subnet: str = SUBNET, **options: str) -> str:
        """Reserve a pool and return its id, or what was wrong."""
        body = {"AddressSpace": space, "Pool": subnet, "SubPool": "", "Options": options or None, "V6": False}
        answer = self.node.call("IpamDriver.RequestPool", body)
        return str(answer.get("PoolID") or answer["Error"])

    def address(self, pool: str, address: str = "", *, gateway: bool = False, serial: bool = False) -> str:
        """Lease an address and return it, or what was wrong."""
        kind = {"RequestAddressType": "com.docker.network.gateway"} if gateway else {}
        options = (kind | (SERIAL if serial else {})) or None
        answer = self.node.call("IpamDriver.RequestAddress", {"PoolID": pool, "Address": address, "Options": options})
        return str(answer.get("Address") or answer["Error"])

    def network(self, ident: str = ID, subnet: str = "10.83.0") -> dict[str, Any]:
        """Make the network on the node."""
        pool = {"AddressSpace": "weft-local", "Gateway": f"{subnet}.1/24", "Pool": f"{subnet}.0/24"}
        options = {"com.docker.network.generic": self.node.allocated({}, ident)}
        body = {"NetworkID": ident, "Options": options, "IPv4Data": [pool], "IPv6Data": []}
        return self.node.call("NetworkDriver.CreateNetwork", body)

    def task(self, number: int, address: str) -> dict[str, Any]:
        """Start a task with the address that the manager chose: IPAM's part and the network's."""
        assert self.address(f"weft-local/{SUBNET}", address) == f"{address}/24"
        body = {"NetworkID": ID, "EndpointID": endpoint_id(number), "Interface": {"Address": f"{address}/24"}}
        return self.node.call("NetworkDriver.CreateEndpoint", body)

    def on_node(self) -> None:
        """Play what a node asks before the first task of a network."""
        pool = self.pool("weft-local")
        assert pool == f"weft-local/{SUBNET}"
        assert self.address(pool, "10.83.0.1", gateway=True) == "10.83.0.1/24"
        assert self.network() == {}


def test_the_manager_keeps_the_books_and_its_own_node_asks_once_more(world: World) -> None:
    books = Books(Node(world))
    pool = books.pool("weft-global", **BLUE)
    assert books.address(pool, gateway=True, serial=True) == "10.83.0.1/24"
    assert {books.address(pool, serial=True) for _ in range(2)} == {"10.83.0.2/24", "10.83.0.3/24"}
    books.on_node()
    assert books.task(1, "10.83.0.2")["Interface"]["MacAddress"]
    assert books.pool("weft-global", **BLUE) == pool  # the manager has restarted
    assert books.address(pool, "10.83.0.1", gateway=True, serial=True) == "10.83.0.1/24"
    assert books.address(pool, "10.83.0.2", serial=True) == "10.83.0.2/24"


def test_a_node_whose_dockerd_was_killed_asks_for_what_it_has(world: World) -> None:
    """It has forgotten the network, and says nothing of that; tasks must not wait until weft finds out."""
    books = Books(Node(world))
    books.on_node()
    books.task(1, "10.83.0.2")
    world.time += 1
    books.dockerd_starts()
    books.on_node()
    assert books.task(2, "10.83.0.2")["Interface"]["MacAddress"]
    assert [row.endpoint.id for row in world.store.endpoints(ID)] == [endpoint_id(2)]


def test_while_docker_knows_the_network_its_pool_is_nobody_else_s(world: World) -> None:
    """Such as that of a bridge of one host, with weft's addresses."""
    books = Books(Node(world))
    books.on_node()
    books.task(1, "10.83.0.2")
    assert "overlaps" in books.pool("weft-local")
    world.host.plugged.add(link_name("h", endpoint_id(1)))
    world.time += 1
    books.dockerd_starts()  # or the plugin was enabled again: it is all the same to see
    assert "overlaps" in books.pool("weft-local")
    world.host.plugged.clear()
    assert "overlaps" in books.pool("weft-local", "10.83.0.0/16")
    assert books.pool("weft-local") == f"weft-local/{SUBNET}"


def test_a_pool_of_one_host_s_network_is_not_a_swarm_s(world: World) -> None:
    books = Books(Node(world))
    pool = books.pool("weft-local")
    assert books.address(pool, "10.83.0.1", gateway=True) == "10.83.0.1/24"
    assert books.network("ab" * 32) == {}
    world.time += 1
    books.dockerd_starts()
    assert "overlaps" in books.pool("weft-local")
