"""What fails in the middle: Docker never asks for a network or endpoint that failed to be removed (20.10 to 28.5)."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.engine.breakable import (
    Gate,
    await_healthy,
    beside,
    breakable_host,
    listed,
    reaches,
    run_container,
)
from tests.engine.conftest import Host
from tests.lab.engine import Engine
from tests.lab.image import NAME
from tests.lab.matrix import both_engines
from tests.lab.net import Neighbour
from tests.lab.node import Node
from tests.lab.process import family
from tests.lab.wait import await_
from tests.lab.weft import Weft

pytestmark = pytest.mark.engine

SUBNET, HELD = "10.77.0.0/24", "10.77.0.5"
UNKNOWN = {"NetworkID": "ab" * 32, "EndpointID": "cd" * 32}
WITH_BODIES = (
    *(
        f"NetworkDriver.{method}"
        for method in (
            "AllocateNetwork",
            "CreateEndpoint",
            "CreateNetwork",
            "DeleteEndpoint",
            "DeleteNetwork",
            "DiscoverDelete",
            "DiscoverNew",
            "GwAllocCheck",
            "Join",
            "Leave",
            "ProgramExternalConnectivity",
            "RevokeExternalConnectivity",
        )
    ),
    *(f"IpamDriver.{method}" for method in ("RequestPool", "ReleasePool", "RequestAddress", "ReleaseAddress")),
)


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    """Return what holds calls of `held`."""
    return Gate(tmp_path)


@pytest.fixture
def held(private_node: Node, gate: Gate) -> Iterator[Host]:
    """Yield a host whose weft can be held in the middle of a call."""
    with breakable_host(private_node, program=gate.program) as host:
        yield host


@pytest.fixture
def meadow(engine: Engine, weft: Weft) -> str:
    """Return the id of a network of weft's, called meadow."""
    return engine.docker("network", "create", "-d", "weft", "--subnet", SUBNET, "meadow")


def create_endpoint(weft: Weft, network: str, ident: str, address: str) -> dict[str, Any]:
    """Make an endpoint beside dockerd's back, and return the answer."""
    interface = {"Address": f"{address}/24", "AddressIPv6": "", "MacAddress": ""}
    body = {"NetworkID": network, "EndpointID": ident, "Interface": interface, "Options": {}}
    answer: dict[str, Any] = weft.call("NetworkDriver.CreateEndpoint", body).json
    return answer


@contextmanager
def asleep(weft: Weft) -> Iterator[None]:
    """Stop weft's worker for a while."""
    _, worker = family(weft.pid)
    os.kill(worker, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(worker, signal.SIGCONT)


def known(weft: Weft) -> tuple[object, object]:
    """Return all that weft knows."""
    return listed(weft, "network"), listed(weft, "endpoint")


# -- CreateNetwork --------------------------------------------------------------------------------------------------


@both_engines
def test_a_network_that_fails_leaves_nothing(engine: Engine, weft: Weft, neighbour: Neighbour) -> None:
    """The fixture `engine` compares links, rules and the store before and after."""
    before = known(weft)
    overlap = str(neighbour.node_v4).rpartition(".")[0] + ".128/25"
    for flags, why in (
        (("--subnet", overlap), "overlaps the host's own 192.0.2.0/24 on lan0"),
        (("--subnet", SUBNET, "-o", "com.docker.network.bridge.name=lan0"), "that link is a veth"),
        (("--subnet", SUBNET, "-o", "weft.nosuch=1"), "weft.nosuch"),
        (("--subnet", SUBNET, "-o", "com.docker.network.driver.mtu=1"), "com.docker.network.driver.mtu"),
    ):
        said = engine.docker("network", "create", "-d", "weft", *flags, "meadow", check=False)
        assert why in said, flags
        assert known(weft) == before
        assert weft.cli("status").returncode == 0
    # the same name and subnet are free
    engine.docker("network", "create", "-d", "weft", "--subnet", SUBNET, "meadow")
    run_container(engine, "hare")
    assert reaches(engine, "hare", "10.77.0.1")


@both_engines
def test_a_network_that_fails_on_the_host_is_withdrawn_from_it(engine: Engine, weft: Weft, node: Node) -> None:
    """Its bridge is made; the last of its verdicts cannot be, for somebody has put one there."""
    engine.docker("network", "create", "-d", "weft", "glade")
    before = known(weft)
    theirs = 'element inet weft same { "wfmeadow" . "wfmeadow" }'
    wish = ("--subnet", SUBNET, "-o", "com.docker.network.bridge.name=wfmeadow")
    node.run("nft", f"add {theirs}")
    try:
        said = engine.docker("network", "create", "-d", "weft", *wish, "meadow", check=False)
        assert "wfmeadow is taken by something that weft did not make" in said
        assert known(weft) == before
        assert "wfmeadow" not in node.run("ip", "-br", "link").stdout
        assert weft.cli("status").returncode == 0
    finally:
        node.run("nft", f"delete {theirs}")
    engine.docker("network", "create", "-d", "weft", *wish, "meadow")
    run_container(engine, "hare")
    assert reaches(engine, "hare", "10.77.0.1")


# -- CreateEndpoint -------------------------------------------------------------------------------------------------


@both_engines
def test_an_endpoint_that_fails_leaves_nothing_and_starts_later(
    engine: Engine, weft: Weft, node: Node, meadow: str
) -> None:
    bridge = f"wfb{meadow[:12]}"
    run_container(engine, "hedgehog")
    before = listed(weft, "endpoint")
    with asleep(weft):  # or it would have its own bridge back at once
        node.run("sh", "-ec", f"ip link del {bridge}; ip link add {bridge} type veth peer name stray")
    said = engine.docker("run", "-d", "--name", "hare", "--network", "meadow", NAME, check=False)
    assert bridge in said
    assert listed(weft, "endpoint") == before
    sick = weft.cli("status", check=False)
    assert sick.returncode == 1
    assert f"{bridge} is taken by" in sick.stdout
    links = json.loads(node.run("ip", "-j", "link").stdout)
    ours = {link["ifname"] for link in links if link["ifname"].startswith(("wfh", "wfc"))}
    assert ours == {row["link"] for row in before}
    node.run("ip", "link", "del", bridge)
    weft.cli("reconcile")
    assert weft.cli("status").returncode == 0
    engine.docker("start", "hare")
    assert reaches(engine, "hare", "hedgehog")
    assert len(listed(weft, "endpoint")) == 2


@both_engines
def test_an_address_of_a_live_container_is_a_conflict_that_names_it(engine: Engine, weft: Weft, meadow: str) -> None:
    run_container(engine, "hare", "--ip", HELD)
    run_container(engine, "hedgehog")
    before = known(weft)
    (holder,) = [row for row in listed(weft, "endpoint") if row["ipv4"] == HELD]
    said = create_endpoint(weft, meadow, UNKNOWN["EndpointID"], HELD)["Err"]
    assert HELD in said
    assert holder["id"][:12] in said
    assert known(weft) == before
    assert reaches(engine, "hedgehog", "hare")
    assert weft.cli("status").returncode == 0


@both_engines
def test_an_address_of_a_dead_endpoint_is_taken_over(engine: Engine, weft: Weft, node: Node, meadow: str) -> None:
    """Dead: its far end lies in the host, for Docker was killed before it could move it into a container."""
    answer = create_endpoint(weft, meadow, UNKNOWN["EndpointID"], HELD)
    assert answer["Interface"]["MacAddress"]
    run_container(engine, "hare", "--ip", HELD)
    (row,) = listed(weft, "endpoint")
    assert (row["container"], row["ipv4"], row["mac"]) == ("hare", HELD, answer["Interface"]["MacAddress"])
    assert "dead endpoint replaced" in weft.log_text()
    assert reaches(engine, "hare", "10.77.0.1")

    def gone() -> bool:
        return f"wfh{UNKNOWN['EndpointID'][:12]}" not in node.run("ip", "-br", "link").stdout

    await_(gone, 10, "the dead one's link to be removed")


@both_engines
def test_an_endpoint_asked_for_twice_is_one(weft: Weft, meadow: str) -> None:
    first = create_endpoint(weft, meadow, UNKNOWN["EndpointID"], HELD)
    assert create_endpoint(weft, meadow, UNKNOWN["EndpointID"], HELD) == first
    (row,) = listed(weft, "endpoint")
    assert "exists and differs" in create_endpoint(weft, meadow, UNKNOWN["EndpointID"], "10.77.0.6")["Err"]
    assert listed(weft, "endpoint") == [row]
    weft.call("NetworkDriver.DeleteEndpoint", {**UNKNOWN, "NetworkID": meadow})
    await_(lambda: listed(weft, "endpoint") == [], 10, "the row to go with the link")


# -- Join -----------------------------------------------------------------------------------------------------------


@both_engines
def test_a_join_that_fails_is_followed_by_a_delete_and_a_later_start_works(held: Host, gate: Gate) -> None:
    """The endpoint goes while Docker waits for its Join, as after `weft` lost it: Join fails, Docker deletes it."""
    engine, weft, node = held.engine, held.weft, held.node
    network = engine.docker("network", "create", "-d", "weft", "--subnet", SUBNET, "meadow")
    engine.docker("create", "--name", "hare", "--network", "meadow", "--ip", HELD, NAME)
    gate.hold("Endpoints.join")
    with beside(engine, "start", "hare"):
        gate.await_reached("Endpoints.join")
        (row,) = listed(weft, "endpoint")
        body = {"NetworkID": network, "EndpointID": row["id"]}
        assert weft.call("NetworkDriver.DeleteEndpoint", body).json == {}
        gate.release("Endpoints.join")
    assert f"weft has no endpoint {row['id'][:12]}" in engine.docker("inspect", "-f", "{{.State.Error}}", "hare")
    assert listed(weft, "endpoint") == []
    await_healthy(weft)
    assert "wfh" not in node.run("ip", "-br", "link").stdout
    engine.docker("start", "hare")
    assert [one["ipv4"] for one in listed(weft, "endpoint")] == [HELD]
    assert reaches(engine, "hare", "10.77.0.1")


@both_engines
def test_a_connect_that_fails_leaves_the_container_its_other_network(held: Host, gate: Gate) -> None:
    engine, weft = held.engine, held.weft
    engine.docker("network", "create", "-d", "weft", "--subnet", SUBNET, "meadow")
    glade = engine.docker("network", "create", "-d", "weft", "--subnet", "10.78.0.0/24", "glade")
    run_container(engine, "hare")
    run_container(engine, "hedgehog")
    gate.hold("Endpoints.join")
    with beside(engine, "network", "connect", "glade", "hare"):
        gate.await_reached("Endpoints.join")
        (row,) = [one for one in listed(weft, "endpoint") if one["network"] == glade]
        weft.call("NetworkDriver.DeleteEndpoint", {"NetworkID": glade, "EndpointID": row["id"]})
        gate.release("Endpoints.join")
    assert [one["network_name"] for one in listed(weft, "endpoint")] == ["meadow", "meadow"]
    assert reaches(engine, "hare", "hedgehog")
    await_healthy(weft)


# -- calls that came broken, or about what is not there -------------------------------------------------------------


def test_a_call_that_lost_its_body_changes_nothing_and_says_so(weft: Weft, meadow: str) -> None:
    create_endpoint(weft, meadow, UNKNOWN["EndpointID"], HELD)
    before = known(weft)
    for method in WITH_BODIES:
        for body in (b"", b"{", b"[]", b"null"):
            reply = weft.call(method, body)
            answer = reply.json
            assert reply.status == 200, method
            assert answer["Err"] == answer["Error"], method
            assert method.partition(".")[2] in answer["Err"]
            if body == b"":
                assert "without its body" in answer["Err"]
    for method in ("FreeNetwork", "EndpointOperInfo"):  # they change nothing ever
        assert weft.call(f"NetworkDriver.{method}", b"").json in ({}, {"Value": {}})
    assert known(weft) == before
    assert weft.cli("status").returncode == 0
    weft.call("NetworkDriver.DeleteEndpoint", {**UNKNOWN, "NetworkID": meadow})


@both_engines
def test_what_is_unknown_is_deleted_with_success(engine: Engine, weft: Weft, meadow: str) -> None:
    run_container(engine, "hare")
    before = known(weft)
    for _ in range(2):
        for network in (UNKNOWN["NetworkID"], meadow):
            ids = {**UNKNOWN, "NetworkID": network}
            for method in ("RevokeExternalConnectivity", "Leave", "DeleteEndpoint", "EndpointOperInfo"):
                assert "Err" not in weft.call(f"NetworkDriver.{method}", ids).json, method
        for method in ("DeleteNetwork", "FreeNetwork"):
            assert "Err" not in weft.call(f"NetworkDriver.{method}", {"NetworkID": UNKNOWN["NetworkID"]}).json
    assert known(weft) == before
    # but nothing is promised for it
    for method in ("Join", "ProgramExternalConnectivity"):
        body = {**UNKNOWN, "SandboxKey": "/var/run/docker/netns/0123456789ab", "Options": {}}
        assert "weft endpoint ls" in weft.call(f"NetworkDriver.{method}", body).json["Err"]
    said = create_endpoint(weft, UNKNOWN["NetworkID"], UNKNOWN["EndpointID"], HELD)["Err"]
    assert f"weft has no network {UNKNOWN['NetworkID'][:12]}" in said
    assert known(weft) == before


@both_engines
def test_a_network_is_deleted_with_what_docker_forgot_on_it(engine: Engine, weft: Weft, meadow: str) -> None:
    """Docker thinks it empty; an endpoint whose delete never came is no reason to keep it."""
    create_endpoint(weft, meadow, UNKNOWN["EndpointID"], HELD)
    engine.docker("network", "rm", "meadow")
    assert known(weft) == ([], [])
    await_healthy(weft)
