"""A weft on a fake host that hostile calls are made to: the application, the engine and the store are the real ones."""

import json
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from flask.testing import FlaskClient

from drivers.resources import Chain, Table
from plugin import wire
from plugin.app import create_app
from plugin.control_api import control_blueprint
from plugin.engine.engine import Engine
from plugin.engine.nodes import Nodes
from plugin.engine.views import Views
from plugin.options import ENDPOINT_OPTIONS, NETWORK_OPTIONS
from tests.lab.wait import await_
from tests.plugin.samples import endpoint_id, network_id
from tests.plugin.swarm_node import ListedNodes
from tests.plugin.world import FOREVER, World

NETWORK, ENDPOINT = network_id(1), endpoint_id(1)
METHODS = {method.path: method for method in vars(wire).values() if isinstance(method, wire.Method)}
OF_NETWORK = {"NetworkID": NETWORK}
OF_ENDPOINT = OF_NETWORK | {"EndpointID": ENDPOINT}
PORT = {"Proto": 6, "IP": "", "Port": 80, "HostIP": "", "HostPort": 8080, "HostPortEnd": 8080}
POOL = {"AddressSpace": "LocalDefault", "Pool": "10.1.0.0/24", "Gateway": "10.1.0.1/24", "AuxAddresses": None}
GOOD: dict[str, dict[str, Any]] = {
    "/NetworkDriver.GwAllocCheck": {"Options": {wire.GENERIC: {}}},
    "/NetworkDriver.AllocateNetwork": OF_NETWORK | {"Options": {"com.docker.network.driver.mtu": "1400"}},
    "/NetworkDriver.CreateNetwork": OF_NETWORK
    | {"Options": {"com.docker.network.enable_ipv6": False, wire.GENERIC: {}}, "IPv4Data": [POOL], "IPv6Data": []},
    "/NetworkDriver.DeleteNetwork": {"NetworkID": network_id(2)},
    "/NetworkDriver.CreateEndpoint": OF_ENDPOINT
    | {
        "Interface": {"Address": "10.1.0.2/24", "AddressIPv6": "", "MacAddress": ""},
        "Options": {"com.docker.network.portmap": [PORT], "weft.mac": "02:42:0a:01:00:02"},
    },
    "/NetworkDriver.DeleteEndpoint": OF_NETWORK | {"EndpointID": endpoint_id(2)},
    "/NetworkDriver.Join": OF_ENDPOINT | {"SandboxKey": "/var/run/docker/netns/0123456789ab", "Options": {}},
    "/NetworkDriver.Leave": OF_ENDPOINT,
    "/NetworkDriver.ProgramExternalConnectivity": OF_ENDPOINT | {"Options": {}},
    "/NetworkDriver.RevokeExternalConnectivity": OF_ENDPOINT,
    "/NetworkDriver.DiscoverNew": {"DiscoveryType": 1, "DiscoveryData": {"Address": "192.0.2.7", "Self": False}},
    "/NetworkDriver.DiscoverDelete": {"DiscoveryType": 1, "DiscoveryData": {"Address": "192.0.2.7", "Self": False}},
    "/IpamDriver.RequestPool": {"AddressSpace": "weft-local", "Pool": "10.77.0.0/24", "SubPool": "", "Options": {}},
    "/IpamDriver.ReleasePool": {"PoolID": "weft-local/10.99.0.0/24"},
    "/IpamDriver.RequestAddress": {"PoolID": "weft-local/10.88.0.0/24", "Address": "", "Options": {}},
    "/IpamDriver.ReleaseAddress": {"PoolID": "weft-local/10.88.0.0/24", "Address": "10.88.0.9"},
}
"""A good body of every method that reads one, about what the host has."""

KEYS = sorted({option.key for option in (*NETWORK_OPTIONS, *ENDPOINT_OPTIONS)})
SAYS_AT_MOST = 20_000  # characters of an error: an operator reads it, and the log keeps it

POISON = "PWN"
"""What no text of an attacker's may bring onto the host."""


class Weft:
    """The application on a fake host, with a network, a container on it that publishes a port, and a lease."""

    def __init__(self, folder: Path) -> None:
        self.world = world = World(folder)
        world.start()
        self.suspicions = 0
        engine = Engine(
            *(world.networks, world.endpoints, world.ports, world.addresses, world.runtime),
            peers=world.peers,
            look_soon=lambda: None,
            joined=lambda _: None,
            nodes=Nodes(ListedNodes(), world.peers, is_own=world.host.is_own, interval=FOREVER),
        )
        views = Views(world.store, world.runtime, world.ports, NoDocker(), world.host, peers=world.peers)
        self.client: FlaskClient = create_app(engine, control_blueprint(views)).test_client()
        for path in ("CreateNetwork", "CreateEndpoint", "Join", "ProgramExternalConnectivity"):
            said = self.post(f"/NetworkDriver.{path}", GOOD[f"/NetworkDriver.{path}"])
            assert "Err" not in said, said
        for path, body in (
            ("/IpamDriver.RequestPool", {"AddressSpace": "weft-local", "Pool": "10.88.0.0/24"}),
            ("/IpamDriver.RequestAddress", {"PoolID": "weft-local/10.88.0.0/24", "Address": "10.88.0.9"}),
        ):
            assert "Err" not in self.post(path, body)

    def post(self, path: str, body: object) -> dict[str, Any]:
        """Make a call of Docker's: the answer is JSON and 200, whatever it says."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        response = self.client.post(path, data=raw)
        assert response.status_code == 200, (path, response.status_code)
        said: dict[str, Any] = response.get_json()
        assert isinstance(said, dict)
        if "Err" in said or "Error" in said:
            assert said["Err"] == said["Error"] != ""
            assert len(said["Err"]) < SAYS_AT_MOST, len(said["Err"])
            assert "did not foresee" not in said["Err"], said["Err"]
        return said

    def state(self) -> tuple[object, ...]:
        """Return all that is stored, and all that is on the host."""
        tables = ("networks", "subnets", "endpoints", "pools", "leases", "gaps", "ports", "links", "peers")
        database = self.world.store._db  # all of it, without a reader's view
        rows = tuple(tuple(map(tuple, database.read(f"SELECT * FROM {table}"))) for table in tables)  # noqa: S608 - ours
        return (*rows, dict(self.world.host.fake.objects))

    def refused_without_trace(self, path: str, body: object) -> bool:
        """Make a call; tell whether it was refused, and if so see that nothing is different."""
        before = self.state()
        if "Err" not in self.post(path, body):
            return False
        assert self.state() == before
        return True

    def unpoisoned(self) -> None:
        """See that no text of an attacker's is in anything that is on the host, or would be typed to get it there."""
        for held in self.world.host.fake.objects.values():
            resource = held.resource
            lines = [] if isinstance(resource, Table | Chain) else [str(resource), resource.undo(), *texts(resource)]
            assert not [line for line in lines if POISON in line]

    def clean(self) -> None:
        """Take away what an accepted call made, to the last of it: the link of an endpoint goes after the answer."""
        made = [row for row in self.world.store.endpoints() if row.id != ENDPOINT]
        for row in made:
            self.post("/NetworkDriver.DeleteEndpoint", {"NetworkID": row.endpoint.network, "EndpointID": row.id})
        if made:
            await_(
                lambda: [row.id for row in self.world.store.endpoints()] == [ENDPOINT], 30, "the links to be deleted"
            )
        for network in self.world.store.networks():
            if network.id != NETWORK:
                self.post("/NetworkDriver.DeleteNetwork", {"NetworkID": network.id})


class NoDocker:
    """A Docker that has nothing."""

    def networks(self, *, driver: str) -> list[Any]:  # noqa: ARG002 - the shape of Docker
        """Return none."""
        return []

    def bridges(self) -> frozenset[str]:
        """Return none."""
        return frozenset()


def texts(value: object) -> Iterator[str]:
    """Yield every text in a value, however deep."""
    if isinstance(value, str):
        yield value
    elif is_dataclass(value):
        for field in fields(value):
            yield from texts(getattr(value, field.name))
    elif isinstance(value, tuple | frozenset | list):
        for one in value:
            yield from texts(one)


def places(body: object, at: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
    """Yield the way to each value in a body."""
    yield at
    if isinstance(body, dict):
        for key, value in body.items():
            yield from places(value, (*at, key))
    elif isinstance(body, list):
        for number, value in enumerate(body):
            yield from places(value, (*at, number))


def put(body: Any, at: tuple[Any, ...], value: object) -> Any:  # noqa: ANN401 - JSON
    """Return a body with another value at a place."""
    if not at:
        return value
    copy = dict(body) if isinstance(body, dict) else list(body)
    copy[at[0]] = put(body[at[0]], at[1:], value)
    return copy
