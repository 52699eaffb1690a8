"""Bodies that are large: an answer, no trace, and work that grows as the body does."""

import json
import sys
import time
from collections.abc import Callable
from functools import partial

import pytest

from plugin import wire
from tests.plugin.samples import endpoint_id, network_id
from tests.properties.hostile import GOOD, KEYS, METHODS, PORT, Weft, places, put

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
    weft.clean()


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("path", sorted(GOOD))
def test_a_field_or_key_of_a_megabyte_is_answered(weft: Weft, path: str, kind: str) -> None:
    value = TEXTS[kind](MEGABYTE)
    for at in places(GOOD[path]):
        weft.refused_without_trace(path, put(GOOD[path], at, value))
        inner = put(GOOD[path], at, {value: 1})
        weft.refused_without_trace(path, inner)
    weft.clean()


@pytest.mark.parametrize("path", sorted(METHODS))
@pytest.mark.parametrize("opened", [b"[", b'{"a":', b'{"Options":{"a":', b'{"IPv4Data":['])
def test_a_deep_body_is_answered(weft: Weft, path: str, opened: bytes) -> None:
    for depth in (100, 200_000):
        for body in (opened * depth, opened * depth + b"1" + {b"[": b"]"}.get(opened[-1:], b"}") * depth):
            weft.refused_without_trace(path, body)
    weft.clean()


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
