"""dockerd is killed while it waits for an answer, whatever it asked: in the end weft has what Docker lists.

A call is held before weft does anything, and carried out when nobody waits for its answer any longer.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.breakable import Gate, await_healthy, beside, breakable_host, listed, look, reaches, run_container
from tests.engine.conftest import Host
from tests.engine.test_restart import bridges, veths
from tests.lab.image import NAME
from tests.lab.matrix import both_engines
from tests.lab.node import Node
from tests.lab.wait import WaitedInVainError, await_

pytestmark = [pytest.mark.engine, pytest.mark.faults]

SUBNETS = ("--subnet", "10.77.0.0/24", "--ipv6", "--subnet", "fd00:77::/64")
HARE = ("--ip", "10.77.0.5", "-p", "8080:80", "--restart=always")
CREATE = ("network", "create", "-d", "weft", "--ipam-driver", "weft", *SUBNETS, "meadow")

PENDING = {
    "IpamDriver.RequestPool": CREATE,
    "NetworkDriver.CreateNetwork": CREATE,
    "IpamDriver.RequestAddress": ("start", "hare"),
    "NetworkDriver.CreateEndpoint": ("start", "hare"),
    "NetworkDriver.Join": ("start", "hare"),
    "NetworkDriver.ProgramExternalConnectivity": ("start", "hare"),
    "NetworkDriver.EndpointOperInfo": ("start", "hare"),
    "NetworkDriver.RevokeExternalConnectivity": ("stop", "hare"),
    "NetworkDriver.Leave": ("stop", "hare"),
    "NetworkDriver.DeleteEndpoint": ("stop", "hare"),
    "IpamDriver.ReleaseAddress": ("stop", "hare"),
    "IpamDriver.ReleasePool": ("network", "rm", "meadow"),
    "NetworkDriver.DeleteNetwork": ("network", "rm", "meadow"),
}
"""Each call that changes something, or that a start waits for, and the command in which it comes."""


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    """Return what holds calls of `held`."""
    return Gate(tmp_path)


@pytest.fixture
def held(private_node: Node, gate: Gate) -> Iterator[Host]:
    """Yield a host whose weft can be held in the middle of a call, and sweeps after a second."""
    with breakable_host(private_node, program=gate.program) as host:
        yield host


def prepare(host: Host, *command: str) -> None:
    """Make what a command needs, beside a network with a container that has nothing to do with it."""
    host.engine.docker("network", "create", "-d", "weft", "glade")
    run_container(host.engine, "hedgehog", "--restart=always", network="glade")
    if command != CREATE:
        host.engine.docker(*CREATE)
    if command[0] == "stop":
        run_container(host.engine, "hare", *HARE)
    if command[0] == "start":
        host.engine.docker("create", "--name", "hare", "--network", "meadow", *HARE, NAME)


Known = tuple[set[str], set[str], set[str]]


def docker_s(host: Host) -> Known:
    """Return Docker's networks of weft, its running containers' endpoints, and the addresses out of weft's pools."""
    networks = [one["Id"] for one in host.engine.api("GET", "/networks") if one["Driver"] == "weft"]
    endpoints, addresses = set(), set()
    for ident in networks:
        network = host.engine.api("GET", f"/networks/{ident}")
        endpoints |= {one["EndpointID"] for one in network["Containers"].values()}
        if network["IPAM"]["Driver"] == "weft":
            said = [one[key] for one in network["Containers"].values() for key in ("IPv4Address", "IPv6Address")]
            addresses |= {text.partition("/")[0] for text in said if text}
    return set(networks), endpoints, addresses


def weft_s(host: Host) -> Known:
    """Return weft's networks and endpoints, and what is leased."""
    networks, endpoints = ({row["id"] for row in listed(host.weft, noun)} for noun in ("network", "endpoint"))
    return networks, endpoints, leases(host)


def leases(host: Host) -> set[str]:
    """Return the addresses that are held in weft's pools; a gateway's says so, if no network has the pool."""
    pools = json.loads(host.weft.cli("pool", "ls", "--json").stdout)
    found = [json.loads(host.weft.cli("pool", "inspect", pool["id"], "--json").stdout) for pool in pools]
    held = [(one, pool) for pool in found for one in pool["held"]]
    return {one["address"] for one, pool in held if one["kind"] != "gateway" or pool["network"] is None}


def await_agreement(host: Host) -> None:
    """Wait until weft has what Docker lists, with looks at that list."""

    def agree() -> bool:
        look(host.weft)
        return docker_s(host) == weft_s(host)

    try:
        await_(agree, 60, "weft to have what Docker lists")
    except WaitedInVainError:
        assert weft_s(host) == docker_s(host)
    await_healthy(host.weft)
    await_(lambda: veths(host.node) == {row["link"] for row in listed(host.weft, "endpoint")}, 10, "links to go")
    assert set(bridges(host.node)) == {row["link"] for row in listed(host.weft, "network")}


@pytest.mark.parametrize("call", PENDING)
@both_engines
def test_dockerd_is_killed_while_a_call_is_pending(held: Host, gate: Gate, call: str) -> None:
    engine, weft, command = held.engine, held.weft, PENDING[call]
    prepare(held, *command)
    gate.hold(call)
    with beside(engine, *command):
        gate.await_reached(call)
        engine.kill()
        gate.release(call)
    engine.start()
    await_agreement(held)
    assert reaches(engine, "hedgehog", listed_gateway(held))
    # and all of it can be had again, under the same names and addresses
    engine.docker("rm", "-f", "hare", check=False)
    await_agreement(held)
    assert weft.cli("port", "ls", "--json").stdout.strip() == "[]"
    engine.docker("network", "rm", "meadow", check=False)
    await_agreement(held)
    engine.docker(*CREATE)
    run_container(engine, "hare", *HARE)
    assert reaches(engine, "hare", "10.77.0.1")
    assert "10.77.0.5" in leases(held)
    engine.docker("rm", "-f", "hare", "hedgehog")
    engine.docker("network", "rm", "meadow", "glade")
    await_agreement(held)
    assert (bridges(held.node), veths(held.node), leases(held)) == ({}, set(), set())


def listed_gateway(host: Host) -> str:
    """Return the gateway of the network that has nothing to do with it."""
    (glade,) = [row for row in host.engine.api("GET", "/networks") if row["Name"] == "glade"]
    return str(glade["IPAM"]["Config"][0]["Gateway"]).partition("/")[0]
