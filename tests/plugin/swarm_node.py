"""A node of a swarm, played: weft on a fake host, asked in the words that engines were recorded with."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final

from drivers.naming import link_name
from drivers.resources import FloodEntry
from plugin.app import create_app
from plugin.docker import Swarm, Unreachable
from plugin.engine.engine import Engine
from plugin.engine.nodes import Nodes
from plugin.store.peers import PeerRow
from tests.plugin.test_recordings import ALL, Recorded
from tests.plugin.world import FOREVER, World

ENGINES: Final = ("20.10.24", "28.5.2")
ID: Final = "kkqj0qu2obuze0ikk9xym30vi"


def recorded(engine: str, method: str, scenario: str) -> list[Recorded]:
    """Return the calls of a method that an engine sent in a scenario."""
    return [
        row
        for row in ALL
        if row.engine == engine and row.path == f"/NetworkDriver.{method}" and scenario in row.scenarios
    ]


@dataclass
class ListedNodes:
    """Docker's list of the swarm's nodes; ``None``: it cannot be read."""

    said: Swarm | None = field(default_factory=lambda: Swarm(complete=True))

    def swarm(self) -> Swarm:
        """Return what a test said."""
        if self.said is None:
            raise Unreachable("no socket")
        return self.said

    def lists(self, *addresses: object, complete: bool = True) -> None:
        """Say which nodes there are."""
        self.said = Swarm(nodes=frozenset(map(str, addresses)), complete=complete)


class Node:
    """weft on a fake host, asked over its application as Docker asks it, with WEFT_SCOPE=global."""

    def __init__(self, world: World) -> None:
        """Play on ``world``."""
        self.world = world
        self.time = 0.0
        self.listed = ListedNodes()
        self.nodes = Nodes(
            self.listed, world.peers, is_own=world.host.is_own, interval=FOREVER, clock=lambda: self.time
        )
        engine = Engine(
            *(world.networks, world.endpoints, world.ports, world.addresses, world.runtime),
            peers=world.peers,
            look_soon=lambda: None,
            joined=lambda _: None,
            nodes=self.nodes,
        )
        self._client = create_app(engine, scope="global").test_client()

    def call(self, method: str, request: object) -> dict[str, Any]:
        """Send a call and return its answer."""
        found = self._client.post(f"/{method}", data=json.dumps(request)).get_json()
        assert isinstance(found, dict)
        return found

    def discover(self, address: object, *, gone: bool = False, is_self: bool = False) -> None:
        """Send DiscoverNew or DiscoverDelete, as all engines send them."""
        data = {"Address": str(address), "BindAddress": str(address) if is_self else "", "Self": is_self}
        method = "DiscoverDelete" if gone else "DiscoverNew"
        assert self.call(f"NetworkDriver.{method}", {"DiscoveryType": 1, "DiscoveryData": data}) == {}

    def create(self, options: dict[str, str], ident: str = ID, subnet: str = "10.0.1") -> dict[str, Any]:
        """Send CreateNetwork as a node is sent it, with what the manager was answered among its options."""
        pool = {"AddressSpace": "LocalDefault", "Gateway": f"{subnet}.1/24", "Pool": f"{subnet}.0/24"}
        given = {"com.docker.network.enable_ipv6": False, "com.docker.network.generic": options}
        body = {"NetworkID": ident, "Options": given, "IPv4Data": [pool], "IPv6Data": []}
        return self.call("NetworkDriver.CreateNetwork", body)

    def allocated(self, options: dict[str, str], ident: str = ID) -> dict[str, str]:
        """Return the options that the manager is answered."""
        found = self.call("NetworkDriver.AllocateNetwork", {"NetworkID": ident, "Options": options, "IPv6Data": None})
        assert found.keys() == {"Options"}, found
        return dict(found["Options"])

    def floods(self, ident: str = ID) -> set[str]:
        """Return where a network's tunnel floods."""
        held = (one.resource for one in self.world.host.fake.objects.values())
        return {one.peer for one in held if isinstance(one, FloodEntry) and one.link == link_name("t", ident)}

    def peers(self) -> list[PeerRow]:
        """Return the peers that are kept."""
        return self.world.store.peers.rows()
