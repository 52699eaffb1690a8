"""Whatever is sent to either socket: an answer that can be read, and of what was refused no trace, here or on the host.

The calls go through the application to the engine, the store and a fake host: only sockets and the kernel are missing.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st

from drivers.resources import Chain, Table
from plugin import wire
from plugin.app import create_app
from plugin.control_api import control_blueprint
from plugin.engine.engine import Engine
from plugin.engine.nodes import Nodes
from plugin.engine.views import Views
from plugin.options import ENDPOINT_OPTIONS, NETWORK_OPTIONS
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

READERS = ("version", "status", "networks", "endpoints", "pools", "ports", "peers")
SAYS_AT_MOST = 20_000  # characters of an error: an operator reads it, and the log keeps it

POISON = "PWN"
SHELL = (
    f"; touch {POISON}",
    f"$(touch {POISON})",
    f"`{POISON}`",
    f"' {POISON} '",
    f'" {POISON} "',
    f"a\n{POISON}",
    f"eth0 }} ; {POISON}",
    f"../../{POISON}",
    f"a/{POISON}",
    f"%{POISON}",
    f"10.1.0.2%{{ {POISON} }}/24",
    f"fe80::1%{POISON}",
    f"-{POISON}",
    f"\x00{POISON}",
    f"{POISON}\u202e\U0001f980",
    f"{{{{ {POISON} }}}}",
)
"""Texts that mean something to a shell, to nft, to iptables, to a path or to a terminal."""


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


@pytest.fixture(scope="module")
def weft(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weft]:
    """Yield one weft for all examples: each leaves no trace, or what it asked for."""
    weft = Weft(tmp_path_factory.mktemp("hostile"))
    yield weft
    assert weft.world.store.network(NETWORK) is not None, "a hostile call removed what was there"
    weft.world.close()


# -- what is sent ---------------------------------------------------------------------------------------------------

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(SHELL)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4)
)
KEYS = sorted({option.key for option in (*NETWORK_OPTIONS, *ENDPOINT_OPTIONS)})


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


@st.composite
def spoilt(draw: st.DrawFn) -> tuple[str, object]:
    """Return a good body with something else at one or two of its places."""
    path = draw(st.sampled_from(sorted(GOOD)))
    body: Any = GOOD[path]
    for _ in range(draw(st.integers(1, 2))):
        at = draw(st.sampled_from([place for place in places(body) if place] or [()]))
        body = put(body, at, draw(ANYTHING))
    return path, body


@st.composite
def optioned(draw: st.DrawFn) -> tuple[str, object]:
    """Return a new network or endpoint with options of any text."""
    texts = st.sampled_from(SHELL) | st.text(max_size=40) | st.sampled_from(("", "true", "1", "10.1.0.2", "eth9"))
    options = draw(st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=20), texts, min_size=1, max_size=4))
    ids = OF_NETWORK | {"EndpointID": endpoint_id(3)}
    if draw(st.booleans()):
        interface = {"Address": "10.1.0.30/24", "AddressIPv6": "", "MacAddress": draw(texts)}
        return "/NetworkDriver.CreateEndpoint", ids | {"Interface": interface, "Options": options}
    pool = {"Pool": "10.3.0.0/24", "Gateway": draw(texts) or "10.3.0.1/24"}
    body = {"NetworkID": network_id(3), "Options": {wire.GENERIC: options}, "IPv4Data": [pool]}
    return "/NetworkDriver.CreateNetwork", body


@given(call=spoilt())
def test_a_spoilt_body_is_answered_and_leaves_no_trace(weft: Weft, call: tuple[str, object]) -> None:
    path, body = call
    weft.refused_without_trace(path, body)
    weft.unpoisoned()
    clean(weft)


@given(call=optioned())
def test_no_option_reaches_the_host_unchecked(weft: Weft, call: tuple[str, object]) -> None:
    weft.refused_without_trace(*call)
    weft.unpoisoned()
    clean(weft)


def clean(weft: Weft) -> None:
    """Take away what an accepted call made."""
    for row in weft.world.store.endpoints():
        if row.id != ENDPOINT:
            weft.post("/NetworkDriver.DeleteEndpoint", {"NetworkID": row.endpoint.network, "EndpointID": row.id})
    for network in weft.world.store.networks():
        if network.id != NETWORK:
            weft.post("/NetworkDriver.DeleteNetwork", {"NetworkID": network.id})


@given(
    path=st.sampled_from(sorted(METHODS)),
    raw=st.binary(max_size=400) | ANYTHING.map(lambda one: json.dumps(one).encode()),
)
def test_any_bytes_are_answered(weft: Weft, path: str, raw: bytes) -> None:
    refused = weft.refused_without_trace(path, raw)
    assert refused or METHODS[path].request is wire.NOTHING or "Discover" in path or "Pool" in path or "Gw" in path


@given(
    verb=st.sampled_from(("GET", "POST", "DELETE", "PUT", "PATCH", "HEAD")),
    path=st.sampled_from(READERS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    ident=st.sampled_from(SHELL) | st.text(st.characters(exclude_categories=["Cs"]), max_size=80),
    port=st.sampled_from((*SHELL, "8080:80", "0", "99999999999999", "80/icmp", "1-70000")) | st.text(max_size=30),
)
def test_the_control_socket_answers_anything(weft: Weft, verb: str, path: str, ident: str, port: str) -> None:
    before = weft.state()
    for target in (
        f"/v1/{quote(path)}",
        f"/v1/{quote(path)}/{quote(ident, safe='')}",
        f"/v1/{quote(path)}/{quote(ident)}",
    ):
        for query in ("", f"?port={quote(port)}", f"?peer={quote(port)}&network={quote(ident)}"):
            response = weft.client.open(f"{target}{query}", method=verb)
            assert response.status_code < 500, (target, response.text)
            if verb != "HEAD":
                assert response.is_json, target
                assert response.status_code == 200 or any(map(response.get_json().get, ("error", "Err"))), target
            assert len(response.text) < SAYS_AT_MOST
    for method in (weft.client.post, weft.client.delete):
        response = method(f"/v1/endpoints/{quote(ident, safe='')}/ports?port={quote(port)}")
        assert response.status_code < 500
        assert response.is_json
    weft.unpoisoned()
    assert weft.state() == before


# -- what is large --------------------------------------------------------------------------------------------------

MEGABYTE = 1_000_000
TEXTS: dict[str, Callable[[int], str]] = {
    "letters": lambda size: "a" * size,
    "digits": lambda size: "1" * size,
    "blanks": lambda size: "a" + " " * size,
    "commas": lambda size: "10.1.0.2," * (size // 9),
    "colons": lambda size: "eth0:" * (size // 5),
    "routes": lambda size: "10.9.0.0/24 via " * (size // 16),
    "slashes": lambda size: "/" * size,
    "dots": lambda size: "weft." * (size // 5),
    "wide": lambda size: "\U0001f980" * (size // 4),
}
BODIES: dict[str, Callable[[int], tuple[str, object]]] = {
    "ports in a range": lambda size: _endpoint({"com.docker.network.portmap": [_port(at, at) for at in range(size)]}),
    "ports apart": lambda size: _endpoint({"com.docker.network.portmap": [_port(at, 80) for at in range(size)]}),
    "ports that cannot be": lambda size: _endpoint({"com.docker.network.portmap": [{"Port": "x"}] * size}),
    "unknown options": lambda size: _endpoint({f"com.docker.new.{at}": "" for at in range(size)}),
    "wrong options": lambda size: _endpoint({f"weft.wrong{at}": "" for at in range(size)}),
    "subnets": lambda size: _network([_pool(at) for at in range(size)]),
    "subnets that overlap": lambda size: _network([_pool(at) for at in range(size)] + [_pool(size - 1)]),
    "pools that cannot be": lambda size: _network([{"Pool": "x"}] * size),
}


def _port(host: int, container: int) -> dict[str, object]:
    return PORT | {"Port": 1 + container % 65535, "HostPort": 1 + host % 65535, "HostPortEnd": 1 + host % 65535}


def _pool(at: int) -> dict[str, object]:
    return {"Pool": f"10.{at >> 12 & 255}.{at >> 4 & 255}.{(at & 15) << 4}/28"}


def _endpoint(options: dict[str, object]) -> tuple[str, object]:
    body = {"NetworkID": "f" * 64, "EndpointID": endpoint_id(9), "Interface": {"Address": "10.1.0.9/24"}}
    return "/NetworkDriver.CreateEndpoint", body | {"Options": options}


def _network(pools: list[dict[str, object]]) -> tuple[str, object]:
    return "/NetworkDriver.CreateNetwork", {"NetworkID": network_id(9), "IPv4Data": [*pools, {"Pool": "224.0.0.0/4"}]}


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("kind", TEXTS)
def test_an_option_of_a_megabyte_is_answered(weft: Weft, key: str, kind: str) -> None:
    value = TEXTS[kind](MEGABYTE)
    path, body = _endpoint({key: value})
    weft.refused_without_trace(path, body)
    body = {"NetworkID": network_id(9), "Options": {wire.GENERIC: {key: value}}, "IPv4Data": [{"Pool": "10.9.0.0/24"}]}
    weft.refused_without_trace("/NetworkDriver.CreateNetwork", body)
    clean(weft)


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("path", sorted(GOOD))
def test_a_field_or_key_of_a_megabyte_is_answered(weft: Weft, path: str, kind: str) -> None:
    value = TEXTS[kind](MEGABYTE)
    for at in places(GOOD[path]):
        weft.refused_without_trace(path, put(GOOD[path], at, value))
        inner = put(GOOD[path], at, {value: 1})
        weft.refused_without_trace(path, inner)
    clean(weft)


@pytest.mark.parametrize("path", sorted(METHODS))
@pytest.mark.parametrize("opened", [b"[", b'{"a":', b'{"Options":{"a":', b'{"IPv4Data":['])
def test_a_deep_body_is_answered(weft: Weft, path: str, opened: bytes) -> None:
    for depth in (100, 200_000):
        for body in (opened * depth, opened * depth + b"1" + {b"[": b"]"}.get(opened[-1:], b"}") * depth):
            weft.refused_without_trace(path, body)
    clean(weft)


def operations(act: Callable[[], object]) -> int:
    """Count the calls of functions, Python's and C's, that something takes."""
    count = 0

    def called(_: object, event: str, __: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(called)
    try:
        act()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("kind", BODIES)
def test_the_work_for_a_body_grows_as_the_body_does(weft: Weft, kind: str) -> None:
    counted = []
    for size in (500, 4000):
        path, body = BODIES[kind](size)
        raw = json.dumps(body).encode()
        assert weft.refused_without_trace(path, raw)
        counted.append(operations(partial(weft.post, path, raw)))
    assert counted[1] < counted[0] * 8 * 1.5


@pytest.mark.parametrize("kind", [*BODIES, *TEXTS])
def test_the_time_for_a_body_grows_as_the_body_does(weft: Weft, kind: str) -> None:
    """Sixteen times the size: 16 times the time, 256 times if something in C looked at all of it again and again."""
    took = []
    for size in (2, 32):
        if kind in BODIES:
            bodies = [BODIES[kind](500 * size)]
        else:
            bodies = [_endpoint({key: TEXTS[kind](20_000 * size)}) for key in (*KEYS, "com.docker.x", TEXTS[kind](9))]
        raws = [(path, json.dumps(body).encode()) for path, body in bodies]
        took.append(min(_seconds(weft, raws) for _ in range(3)))
    assert took[1] < took[0] * 16 * 4


def _seconds(weft: Weft, raws: list[tuple[str, bytes]]) -> float:
    begin = time.thread_time()
    for path, raw in raws:
        weft.post(path, raw)
    return time.thread_time() - begin
