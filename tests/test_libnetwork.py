"""The played engine plays as the real ones do: against a plugin so small that its bridges can be seen through."""

import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.net import RUN_NETNS, add_netns, delete_netns
from tests.lab.process import run
from tests.libnetwork import DIALECTS, CallRefusedError, Container, Libnetwork, Network
from tests.libnetwork.plugin import Plugin

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces are root's"),
]

START = {
    "20.10.24": ["CreateEndpoint", "Join", "ProgramExternalConnectivity", "EndpointOperInfo", "EndpointOperInfo"],
    "28.5.2": ["CreateEndpoint", "Join", "ProgramExternalConnectivity", "EndpointOperInfo"],
}
KNOCK = """
import errno, socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
with socket.socket(family) as knocking:
    knocking.settimeout(5)
    print(errno.errorcode.get(knocking.connect_ex((sys.argv[1], 9))))
"""

STOP = ["RevokeExternalConnectivity", "Leave", "DeleteEndpoint"]


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[Plugin]:
    netns = f"ln-host-{os.getpid()}"
    add_netns(netns)
    try:
        with Plugin(tmp_path / "p.sock", netns) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.02,))
            thread.start()
            yield server
            server.shutdown()
            thread.join()
    finally:
        delete_netns(netns)
    ours = (path.name for path in RUN_NETNS.iterdir() if path.name.startswith("ln-"))
    assert [name for name in ours if name.endswith(f"-{os.getpid()}")] == []


@pytest.fixture(params=sorted(DIALECTS))
def docker(plugin: Plugin, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Libnetwork]:
    with Libnetwork(tmp_path / "p.sock", netns=plugin.netns, engine=request.param) as engine:
        engine.capabilities()
        yield engine


def engine_of(docker: Libnetwork) -> str:
    """Return the engine that is played."""
    return next(name for name, dialect in DIALECTS.items() if dialect is docker.dialect)


def since(docker: Libnetwork, mark: int) -> list[str]:
    """Return the calls since ``mark`` with a letter for their network: ``Join b`` is of the network named b."""
    names = {body["NetworkID"]: body["NetworkID"] for _, body, _ in docker.calls if body and "NetworkID" in body}
    letters = dict(zip(names, "abc", strict=False))
    return [
        f"{method.rpartition('.')[2]} {letters[(body or {})['NetworkID']]}" for method, body, _ in docker.calls[mark:]
    ]


def links(plugin: Plugin) -> list[str]:
    """Return the links of the plugin's namespace but lo."""
    rows = json.loads(run(["ip", "-n", plugin.netns, "-j", "link"]).stdout)
    return sorted(row["ifname"] for row in rows if row["ifname"] != "lo")


def show(container: Container, interface: str) -> dict[str, Any]:
    """Return what ip shows of an interface in a container."""
    rows = json.loads(container.run("ip", "-j", "address", "show", "dev", interface).stdout)
    assert len(rows) == 1
    return dict(rows[0])


def reaches(container: Container, address: str) -> bool:
    """Tell whether something at an address refuses a connection to a port where nobody listens."""
    done = container.run(sys.executable, "-c", KNOCK, address, check=False)
    return done.stdout.strip() == "ECONNREFUSED"


def test_the_handshake_is_the_engine_s(docker: Libnetwork, plugin: Plugin) -> None:
    spaces = ["GetDefaultAddressSpaces"] if engine_of(docker) == "20.10.24" else []
    assert docker.asked() == ["Activate", "GetCapabilities", "GetCapabilities", *spaces]
    host = "" if engine_of(docker) == "20.10.24" else "plugin.moby.localhost"
    (line, *headers) = plugin.heads[0].strip().split("\n")
    assert line == "POST /Plugin.Activate HTTP/1.1"
    assert [header.strip() for header in headers] == [
        f"Host: {host}".strip(),
        "User-Agent: Go-http-client/1.1",
        "Content-Length: 0",
        "Accept: application/vnd.docker.plugins.v1.2+json",
    ]


def test_a_network_comes_and_goes(docker: Libnetwork, plugin: Plugin) -> None:
    mark = len(docker.calls)
    network = docker.create_network(subnet="10.9.0.0/24", options={"x.y": "z"}, internal=True)
    method, body, _ = docker.calls[-1]
    switches = {"com.docker.network.enable_ipv6": False, "com.docker.network.internal": True}
    switches |= {"com.docker.network.enable_ipv4": True} if engine_of(docker) == "28.5.2" else {}
    assert (method, body) == (
        "NetworkDriver.CreateNetwork",
        {
            "NetworkID": network.id,
            "Options": {**switches, "com.docker.network.generic": {"x.y": "z"}},
            "IPv4Data": [{"AddressSpace": "LocalDefault", "Pool": "10.9.0.0/24", "Gateway": "10.9.0.1/24"}],
            "IPv6Data": [],
        },
    )
    assert links(plugin) == [f"b{network.id[:8]}"]
    docker.remove_network(network)
    assert links(plugin) == []
    check = ["GwAllocCheck"] if engine_of(docker) == "28.5.2" else []
    assert docker.asked(mark) == [*check, "CreateNetwork", "DeleteNetwork"]


def test_two_containers_talk(docker: Libnetwork, plugin: Plugin) -> None:
    network = docker.create_network(subnet="10.9.0.0/24", subnet6="fd00:9::/64")
    mark = len(docker.calls)
    one = docker.start_container(network)
    assert docker.asked(mark) == START[engine_of(docker)]
    two = docker.start_container(network, ip="10.9.0.77", ip6="fd00:9::77", mac="02:00:00:00:00:77")
    for address in (two.address(network), two.address(network, 6), "10.9.0.1"):
        assert reaches(one, str(address))
    found = show(two, "eth0")
    assert found["address"] == "02:00:00:00:00:77"
    assert {"10.9.0.77", "fd00:9::77"} <= {row["local"] for row in found["addr_info"]}
    assert show(one, "eth0")["address"] == one.endpoint(network).mac != ""
    assert one.run("ip", "route", "show", "default").stdout.split()[:3] == ["default", "via", "10.9.0.1"]
    assert docker.calls[-1][0] == "NetworkDriver.EndpointOperInfo"
    body = next(body for method, body, _ in reversed(docker.calls) if method.endswith("CreateEndpoint"))
    assert body is not None
    assert body["Options"]["com.docker.network.endpoint.macaddress"] == "AgAAAAB3"
    mark = len(docker.calls)
    one.stop()
    assert docker.asked(mark) == STOP
    assert links(plugin) == sorted([f"b{network.id[:8]}", f"h{two.endpoint(network).id[:8]}"])
    assert docker.ignored == []


def test_ports_and_driver_options_are_sent_where_engines_send_them(docker: Libnetwork) -> None:
    network = docker.create_network()
    docker.start_container(network, publish=("127.0.0.1:8080-8081:80", "53/udp"), driver_opts={"x.y": "z"})
    rows = [
        {"Proto": 6, "IP": "", "Port": 80, "HostIP": "127.0.0.1", "HostPort": 8080, "HostPortEnd": 8081},
        {"Proto": 17, "IP": "", "Port": 53, "HostIP": "", "HostPort": 0, "HostPortEnd": 0},
    ]
    ports = {
        "com.docker.network.endpoint.exposedports": [{"Proto": 6, "Port": 80}, {"Proto": 17, "Port": 53}],
        "com.docker.network.portmap": rows,
    }
    sent = {method.rpartition(".")[2]: (body or {}).get("Options") for method, body, _ in docker.calls}
    assert sent["CreateEndpoint"] == ports | {"x.y": "z"}
    assert sent["Join"] == ports
    assert sent["ProgramExternalConnectivity"] == ports | docker.dialect.program_options


def test_an_internal_network_has_no_ports_and_is_not_programmed(docker: Libnetwork, plugin: Plugin) -> None:
    network = docker.create_network(internal=True)
    mark = len(docker.calls)
    container = docker.start_container(network, publish=("80",))
    container.stop()
    assert "ProgramExternalConnectivity" not in docker.asked(mark)
    assert docker.asked(mark)[-3:] == STOP  # Revoke comes all the same, for Join named a gateway
    body = docker.calls[mark][1]
    assert body is not None
    assert body["Options"] == {}


def test_the_null_ipam_gives_no_address(docker: Libnetwork) -> None:
    network = docker.create_network(ipam="null")
    body = docker.calls[-1][1]
    assert body is not None
    assert body["IPv4Data"] == [{"AddressSpace": "null", "Pool": "0.0.0.0/0"}]
    container = docker.start_container(network)
    assert [row for row in show(container, "eth0")["addr_info"] if row["family"] == "inet"] == []
    assert "ProgramExternalConnectivity" not in docker.asked()


def two_networks(docker: Libnetwork) -> tuple[Network, Network]:
    """Make the networks a and b."""
    return docker.create_network(name="a"), docker.create_network(name="b")


def test_the_gateway_moves_between_networks(docker: Libnetwork) -> None:
    a, b = two_networks(docker)
    container = docker.start_container(b)
    assert container.interface(b) == "eth0"
    mark = len(docker.calls)
    container.connect(a)
    assert since(docker, mark)[:5] == [
        "EndpointOperInfo b",
        "CreateEndpoint a",
        "Join a",
        "RevokeExternalConnectivity b",
        "ProgramExternalConnectivity a",
    ]
    assert container.interface(a) == "eth1"
    gateway = container.run("ip", "route", "show", "default").stdout.split()[2]
    assert gateway == str(a.pools[0][1])
    mark = len(docker.calls)
    container.disconnect(a)
    assert since(docker, mark) == [
        "EndpointOperInfo b",
        "EndpointOperInfo a",
        "RevokeExternalConnectivity a",
        "Leave a",
        "ProgramExternalConnectivity b",
        "EndpointOperInfo b",
        "DeleteEndpoint a",
        "EndpointOperInfo b",
    ]
    assert container.run("ip", "route", "show", "default").stdout.split()[2] == str(b.pools[0][1])
    container.connect(a)
    assert container.interface(a) == "eth2"
    mark = len(docker.calls)
    container.stop()
    assert since(docker, mark) == [
        "RevokeExternalConnectivity a",
        "Leave a",
        "ProgramExternalConnectivity b",
        "DeleteEndpoint a",
        "RevokeExternalConnectivity b",
        "Leave b",
        "DeleteEndpoint b",
    ]


ROLL_BACKS: list[tuple[str, dict[str, Any], dict[str, list[str]]]] = [
    ("CreateEndpoint", {"Err": "no"}, {"20.10.24": [], "28.5.2": []}),
    (
        "CreateEndpoint",
        {"Interface": {"Address": "10.9.0.9/24"}},
        {"20.10.24": ["DeleteEndpoint"], "28.5.2": ["DeleteEndpoint"]},
    ),
    ("Join", {"Err": "no"}, {"20.10.24": ["DeleteEndpoint"], "28.5.2": ["DeleteEndpoint"]}),
    (
        "Join",
        {"InterfaceName": {"SrcName": "x", "DstPrefix": "eth"}, "Gateway": "x"},
        {"20.10.24": ["DeleteEndpoint"], "28.5.2": ["Leave", "DeleteEndpoint"]},
    ),
    (
        "Join",
        {"InterfaceName": {"SrcName": "nosuch0", "DstPrefix": "eth"}, "Gateway": "10.9.0.1"},
        {
            "20.10.24": [
                "ProgramExternalConnectivity",
                "EndpointOperInfo",
                "RevokeExternalConnectivity",
                "Leave",
                "DeleteEndpoint",
            ],
            "28.5.2": ["Leave", "DeleteEndpoint"],
        },
    ),
    (
        "ProgramExternalConnectivity",
        {"Err": "no"},
        {"20.10.24": ["Leave", "DeleteEndpoint"], "28.5.2": ["Leave", "DeleteEndpoint"]},
    ),
    ("EndpointOperInfo", {"Err": "no"}, {"20.10.24": ["RevokeExternalConnectivity", "Leave", "DeleteEndpoint"]}),
]


@pytest.mark.parametrize(("method", "answer", "follows"), ROLL_BACKS)
def test_a_failure_is_rolled_back_as_the_engine_does(
    docker: Libnetwork, plugin: Plugin, method: str, answer: dict[str, Any], follows: dict[str, list[str]]
) -> None:
    network = docker.create_network(subnet="10.9.0.0/24")
    plugin.answers[method] = answer
    if engine_of(docker) not in follows:
        docker.start_container(network)
        assert [type(failed) for failed in docker.ignored] == [CallRefusedError]
        return
    with pytest.raises(CallRefusedError):
        docker.start_container(network)
    asked = docker.asked()
    assert asked[asked.index(method) + 1 :] == follows[engine_of(docker)]
    assert docker.containers == []
    assert (network.endpoints, {str(address) for address in network.taken}) == (0, {"10.9.0.1"})


def test_a_failing_create_is_followed_by_nothing(docker: Libnetwork, plugin: Plugin) -> None:
    plugin.answers["CreateNetwork"] = {"Err": "no room"}
    with pytest.raises(CallRefusedError, match=r"^NetworkDriver.CreateNetwork: remote: no room$"):
        docker.create_network()
    assert docker.asked()[-1] == "CreateNetwork"


def test_a_failing_connect_leaves_the_other_networks(docker: Libnetwork, plugin: Plugin) -> None:
    a, b = two_networks(docker)
    container = docker.start_container(a)
    plugin.answers["Join"] = {"Err": "no"}
    with pytest.raises(CallRefusedError):
        container.connect(b)
    assert docker.asked()[-1] == "DeleteEndpoint"
    assert [endpoint.network for endpoint in container.endpoints] == [a]
    assert reaches(container, str(a.pools[0][1]))


def test_failing_deletes_are_ignored(docker: Libnetwork, plugin: Plugin) -> None:
    network = docker.create_network()
    container = docker.start_container(network)
    failing = ("RevokeExternalConnectivity", "Leave", "DeleteEndpoint", "DeleteNetwork")
    plugin.answers |= {method: {"Err": "no"} for method in failing}
    container.stop()
    docker.remove_network(network)
    assert [str(failed) for failed in docker.ignored] == [f"NetworkDriver.{method}: remote: no" for method in failing]


def test_a_missing_method_is_no_failure_where_engines_tolerate_it(docker: Libnetwork, plugin: Plugin) -> None:
    plugin.statuses |= {"ProgramExternalConnectivity": 404, "RevokeExternalConnectivity": 404}
    docker.start_container(docker.create_network()).stop()
    assert docker.ignored == []
    plugin.statuses["Leave"] = 404
    docker.start_container(docker.create_network()).stop()
    assert [failed.method for failed in docker.ignored if isinstance(failed, CallRefusedError)] == [
        "NetworkDriver.Leave"
    ]


def test_docker_gwbridge_is_a_failure(docker: Libnetwork, plugin: Plugin) -> None:
    plugin.answers["Join"] = {"InterfaceName": {"SrcName": "x", "DstPrefix": "eth"}}
    with pytest.raises(AssertionError, match="docker_gwbridge"):
        docker.start_container(docker.create_network())


def test_routes_are_set(docker: Libnetwork, plugin: Plugin) -> None:
    network = docker.create_network(subnet="10.9.0.0/24")
    join = plugin.answer

    def with_routes(method: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = join(method, body)
        if method == "Join":
            answer["StaticRoutes"] = [
                {"Destination": "10.8.0.0/16", "RouteType": 0, "NextHop": "10.9.0.1"},
                {"Destination": "10.7.0.0/16", "RouteType": 1, "NextHop": ""},
            ]
        return answer

    plugin.answer = with_routes  # type: ignore[method-assign]
    routes = docker.start_container(network).run("ip", "route").stdout
    assert "10.8.0.0/16 via 10.9.0.1 dev eth0" in routes
    assert "10.7.0.0/16 dev eth0 scope link" in routes


def test_a_call_without_a_body_has_none(docker: Libnetwork, plugin: Plugin) -> None:
    docker.call("NetworkDriver.Leave")
    assert "Content-Length: 0" in plugin.heads[-1]


def test_the_gateway_is_not_reserved_if_the_driver_says_so(docker: Libnetwork, plugin: Plugin) -> None:
    plugin.answers["GwAllocCheck"] = {"SkipIPv4": True}
    docker.create_network(subnet="10.9.0.0/24")
    body = docker.calls[-1][1]
    assert body is not None
    assert ("Gateway" in body["IPv4Data"][0]) is (engine_of(docker) == "20.10.24")


def test_what_a_test_leaves_is_taken_away_without_a_call(plugin: Plugin, tmp_path: Path) -> None:
    docker = Libnetwork(tmp_path / "p.sock", netns=plugin.netns)
    with docker:
        container = docker.start_container(docker.create_network())
        assert (RUN_NETNS / container.netns).exists()
    assert not (RUN_NETNS / container.netns).exists()
    assert docker.asked()[-1] == "EndpointOperInfo"
