"""Nothing that comes over the wire goes further unchecked, and Go's ways of saying "nothing" all mean nothing."""

import json
from ipaddress import ip_interface
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from plugin import wire

NETWORK = "5f" * 32
ENDPOINT = "e0" * 32


def endpoint(**more: object) -> wire.CreateEndpoint:
    return wire.CREATE_ENDPOINT.decode(json.dumps({"NetworkID": NETWORK, "EndpointID": ENDPOINT, **more}).encode())


def network(**more: object) -> wire.CreateNetwork:
    return wire.CREATE_NETWORK.decode(json.dumps({"NetworkID": NETWORK, **more}).encode())


@pytest.mark.parametrize("ident", [NETWORK, "a", "Z9", "x2k5q8mrb0c1d2e3f4g5h6i7j", "f" * 64])
def test_ids_of_local_and_swarm_networks_are_taken(ident: str) -> None:
    assert wire.DELETE_NETWORK.decode(json.dumps({"NetworkID": ident}).encode()).network == ident


@pytest.mark.parametrize(
    "ident", ["", "f" * 65, "../../etc", "a b", "a\n", "a\x00", "\u00e9", "\u0661", 5, None, ["a"]]
)
def test_no_other_id_is(ident: object) -> None:
    with pytest.raises(ValidationError, match="NetworkID"):
        wire.DELETE_NETWORK.decode(json.dumps({"NetworkID": ident}).encode())


@given(st.text())
def test_an_id_is_plain_or_refused(ident: str) -> None:
    raw = json.dumps({"NetworkID": ident}).encode()
    if ident.isascii() and ident.isalnum() and len(ident) <= 64:
        assert wire.DELETE_NETWORK.decode(raw).network == ident
    else:
        with pytest.raises(ValidationError):
            wire.DELETE_NETWORK.decode(raw)


@pytest.mark.parametrize("sandbox", ["", "run/netns/x", "/run/netns/a\x00b", "/" * 4096, None])
def test_a_sandbox_is_an_absolute_path(sandbox: object) -> None:
    body: dict[str, object] = {"NetworkID": NETWORK, "EndpointID": ENDPOINT, "SandboxKey": "/var/run/docker/netns/0a1b"}
    assert wire.JOIN.decode(json.dumps(body).encode()).sandbox == "/var/run/docker/netns/0a1b"
    with pytest.raises(ValidationError, match="SandboxKey"):
        wire.JOIN.decode(json.dumps(body | {"SandboxKey": sandbox}).encode())


@pytest.mark.parametrize("nothing", [{}, {"Options": None, "IPv4Data": None, "IPv6Data": None}])
def test_a_network_of_nothing(nothing: dict[str, Any]) -> None:
    found = network(**nothing)
    assert (found.ipv4, found.ipv6, dict(found.options.generic), found.options.ipv4) == ((), (), {}, None)


@pytest.mark.parametrize("options", [{wire.GENERIC: None}, {}, {"com.docker.network.internal": None}])
def test_options_of_nothing(options: dict[str, Any]) -> None:
    found = network(Options=options).options
    assert (dict(found.generic), found.internal) == ({}, None)


@pytest.mark.parametrize(
    "nothing",
    [
        {},
        {"Interface": None, "Options": None},
        {"Interface": {}, "Options": {"com.docker.network.portmap": None}},
        {"Interface": {"Address": "", "AddressIPv6": None, "MacAddress": None}},
    ],
)
def test_an_endpoint_of_nothing(nothing: dict[str, Any]) -> None:
    found = endpoint(**nothing)
    assert (found.interface.ipv4, found.interface.ipv6, found.interface.mac) == (None, None, "")
    assert (found.options.ports, dict(found.options.flat)) == ([], {})


def test_addresses_become_objects() -> None:
    found = endpoint(
        Interface={"Address": "172.18.0.2/16", "AddressIPv6": "fd00::2/64", "MacAddress": "02:00:00:00:00:01"}
    )
    assert found.interface.ipv4 == ip_interface("172.18.0.2/16")
    assert found.interface.ipv6 == ip_interface("fd00::2/64")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("Address", "fd00::2/64"),
        ("AddressIPv6", "172.18.0.2/16"),
        ("Address", "172.18.0.300/16"),
        ("Address", "172.18.0.2/33"),
        ("Address", 2886860802),
        ("AddressIPv6", "fe80::1%eth0/64"),
    ],
)
def test_what_is_no_address_of_its_version_is_refused(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        endpoint(Interface={field: value})


def test_pools_of_either_version_come_in_either_list() -> None:
    found = network(IPv4Data=[{"Pool": "fd00::/64"}, {"Pool": "10.0.0.0/24", "Gateway": "10.0.0.1/24"}])
    assert [pool.pool for pool in found.ipv4] == [ip_interface("fd00::/64"), ip_interface("10.0.0.0/24")]
    assert found.ipv4[1].gateway == ip_interface("10.0.0.1/24")


def test_port_rows_keep_what_a_handler_reads() -> None:
    row = {"Proto": 6, "IP": "", "Port": 80, "HostIP": None, "HostPort": 8080, "HostPortEnd": 8081, "Invented": [1]}
    found = endpoint(
        Options={"com.docker.network.portmap": [row], "x.y": "z", "com.docker.network.endpoint.exposedports": []}
    )
    assert found.options.ports == [
        {"protocol": 6, "container_port": 80, "host_address": "", "host_first": 8080, "host_last": 8081}
    ]
    assert found.options.flat == {"x.y": "z", "com.docker.network.endpoint.exposedports": []}


@pytest.mark.parametrize("row", [{"Port": 65536}, {"Port": -1}, {"HostPort": 70000}, {"Proto": "tcp"}, [], 5])
def test_a_port_out_of_range_is_refused(row: object) -> None:
    with pytest.raises(ValidationError):
        endpoint(Options={"com.docker.network.portmap": [row]})


@pytest.mark.parametrize("method", [wire.JOIN, wire.PROGRAM_EXTERNAL, wire.LEAVE])
def test_calls_that_repeat_the_ports_do_not_decode_them(method: wire.Method[Any, Any]) -> None:
    body = {"NetworkID": NETWORK, "EndpointID": ENDPOINT, "SandboxKey": "/s", "Options": "no map at all"}
    assert method.decode(json.dumps(body).encode()).endpoint == ENDPOINT


@given(st.binary())
def test_garbage_is_refused_and_nothing_worse(raw: bytes) -> None:
    with pytest.raises(ValidationError):
        wire.CREATE_NETWORK.decode(raw)


def test_replies_are_spelled_as_docker_reads_them() -> None:
    joined = wire.JoinedReply(
        interface=wire.InterfaceName(source="wfc0", prefix="eth"),
        gateway="10.0.0.1",
        routes=(wire.StaticRoute(destination="10.9.0.0/16", kind=1),),
    )
    assert json.loads(joined.model_dump_json()) == {
        "InterfaceName": {"SrcName": "wfc0", "DstPrefix": "eth", "DstName": ""},
        "Gateway": "10.0.0.1",
        "GatewayIPv6": "",
        "StaticRoutes": [{"Destination": "10.9.0.0/16", "RouteType": 1, "NextHop": ""}],
        "DisableGatewayService": True,
    }
    assert json.loads(wire.Activated().model_dump_json()) == {"Implements": ["NetworkDriver", "IpamDriver"]}
    assert json.loads(wire.NetworkCapabilities().model_dump_json()) == {
        "Scope": "local",
        "ConnectivityScope": "local",
        "GwAllocChecker": True,
    }
    assert json.loads(wire.IpamCapabilities().model_dump_json()) == {
        "RequiresMACAddress": False,
        "RequiresRequestReplay": False,
    }
    assert json.loads(wire.GatewayNeed().model_dump_json()) == {"SkipIPv4": False, "SkipIPv6": False}
