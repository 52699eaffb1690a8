"""Everything that can end under containers that run: weft, dockerd, the power. What was promised before holds after."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.engine.breakable import (
    Gate,
    Talk,
    await_healthy,
    await_swept,
    beside,
    breakable_host,
    listed,
    reaches,
    run_container,
)
from tests.engine.conftest import Host
from tests.lab.engine import Engine
from tests.lab.matrix import both_engines
from tests.lab.node import Node
from tests.lab.process import exists, family
from tests.lab.wait import await_
from tests.lab.weft import Weft

pytestmark = pytest.mark.engine

SUBNET = "10.77.0.0/24"


@pytest.fixture
def breakable(private_node: Node) -> Iterator[Host]:
    """Yield a whole host, to be broken."""
    with breakable_host(private_node) as host:
        yield host


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    """Return what holds calls of `held`."""
    return Gate(tmp_path)


@pytest.fixture
def held(private_node: Node, gate: Gate) -> Iterator[Host]:
    """Yield a host whose weft can be held in the middle of a call, and sweeps after a second."""
    with breakable_host(private_node, program=gate.program) as host:
        yield host


def bridges(node: Node) -> dict[str, list[str]]:
    """Return the bridges of weft, each with its addresses."""
    found = json.loads(node.run("ip", "-j", "-d", "address", "show", "type", "bridge").stdout)
    return {
        link["ifname"]: [f"{one['local']}/{one['prefixlen']}" for one in link["addr_info"] if one["scope"] == "global"]
        for link in found
        if link["ifname"].startswith("wfb")
    }


def veths(node: Node) -> set[str]:
    """Return weft's ends of veth pairs, the containers' ends that are in the host among them."""
    found = json.loads(node.run("ip", "-j", "link", "show", "type", "veth").stdout)
    return {link["ifname"] for link in found if link["ifname"].startswith("wf")}


def worker(weft: Weft) -> int:
    """Return the machine's pid of the worker."""
    _, pid = family(weft.pid)
    return pid


def await_all_running(engine: Engine, *names: str) -> None:
    """Wait until these containers run, and no other."""

    def running() -> bool:
        return sorted(engine.docker("ps", "--format", "{{.Names}}").split()) == sorted(names)

    await_(running, 40, f"{names} to run")


# -- weft -----------------------------------------------------------------------------------------------------------


def kill_all(weft: Weft) -> None:
    weft.kill()
    weft.start()


def kill_master(weft: Weft) -> None:
    orphan = worker(weft)
    weft.signal(signal.SIGKILL)
    await_(lambda: not weft.is_running, 10, "the master's end")
    weft.start()  # at once: the new worker waits for the old one
    await_(lambda: not exists(orphan), 20, "the orphaned worker's end")
    await_healthy(weft)


def kill_worker(weft: Weft) -> None:
    old = worker(weft)
    os.kill(old, signal.SIGKILL)
    await_(lambda: [pid for pid in family(weft.pid) if pid not in (weft.pid, old)], 20, "another worker")


def terminate(weft: Weft) -> None:
    assert weft.stop() == 0
    weft.start()


def reload(weft: Weft) -> None:
    old = worker(weft)
    weft.signal(signal.SIGHUP)
    await_(lambda: not exists(old) and len(family(weft.pid)) == 2, 30, "another worker")


@pytest.mark.parametrize("end", [kill_all, kill_master, kill_worker, terminate, reload])
@both_engines
def test_traffic_goes_on_and_everything_is_known_again(engine: Engine, weft: Weft, end: Callable[[Weft], None]) -> None:
    engine.docker("network", "create", "-d", "weft", "--subnet", SUBNET, "meadow")
    run_container(engine, "hare")
    run_container(engine, "hedgehog")
    talk = Talk(engine, "hare", "hedgehog")
    before = (listed(weft, "network"), listed(weft, "endpoint"), bridges(weft.node), veths(weft.node))
    assert len(before[1]) == 2
    end(weft)
    talk.await_more()
    assert (listed(weft, "network"), listed(weft, "endpoint"), bridges(weft.node), veths(weft.node)) == before
    await_healthy(weft)
    run_container(engine, "fox")
    assert reaches(engine, "fox", "hare")
    assert reaches(engine, "hedgehog", "fox")
    talk.stop()


@both_engines
def test_nothing_is_removed_when_weft_is_told_to_end(engine: Engine, weft: Weft) -> None:
    engine.docker("network", "create", "-d", "weft", "--subnet", SUBNET, "meadow")
    run_container(engine, "hare")
    run_container(engine, "hedgehog")
    node = weft.node
    rules = "nft -s list table inet weft; iptables -S DOCKER-USER; iptables -S WEFT"
    before = (bridges(node), veths(node), node.run("sh", "-ec", rules).stdout)
    assert weft.stop() == 0
    assert (bridges(node), veths(node), node.run("sh", "-ec", rules).stdout) == before
    assert reaches(engine, "hare", "hedgehog")


@both_engines
def test_what_docker_forgot_while_weft_was_down_is_swept_after_two_looks(held: Host) -> None:
    """The one case with Docker's patience in it: 15 s for each of the three calls of a stop, here 45 s in all."""
    engine, weft, node = held.engine, held.weft, held.node
    engine.docker("network", "create", "-d", "weft", "--subnet", SUBNET, "meadow")
    engine.docker("network", "create", "-d", "weft", "forgotten")
    run_container(engine, "hare", "--ip", "10.77.0.5")
    run_container(engine, "hedgehog")
    (stale,) = [row for row in listed(weft, "endpoint") if row["ipv4"] == "10.77.0.5"]
    (forgotten,) = [row for row in listed(weft, "network") if row["name"] == "forgotten"]
    weft.kill()
    with ThreadPoolExecutor(2) as pool:
        stopping = pool.submit(engine.docker, "stop", "hare", timeout=120)
        removing = pool.submit(engine.docker, "network", "rm", "forgotten", timeout=120)
        stopping.result()
        removing.result()
    assert reaches(engine, "hedgehog", "10.77.0.1")
    weft.start()
    assert {row["id"] for row in listed(weft, "endpoint")} > {stale["id"]}  # nobody has looked twice yet
    await_swept(weft, "endpoint", stale["id"])
    await_swept(weft, "network", forgotten["id"])
    await_healthy(weft)
    assert len(bridges(node)) == 1
    assert veths(node) == {row["link"] for row in listed(weft, "endpoint")}
    engine.docker("start", "hare")
    assert reaches(engine, "hare", "hedgehog")
    assert sorted(row["container"] for row in listed(weft, "endpoint")) == ["hare", "hedgehog"]


# -- the power ------------------------------------------------------------------------------------------------------


@both_engines
def test_after_a_power_off_all_is_rebuilt_before_docker_starts(breakable: Host) -> None:
    engine, weft, node = breakable.engine, breakable.weft, breakable.node
    engine.docker("network", "create", "-d", "weft", "--subnet", SUBNET, "meadow")
    v6 = ("--ipv6", "--subnet", "10.78.0.0/24", "--subnet", "fd00:78::/64")
    engine.docker("network", "create", "-d", "weft", *v6, "glade")
    run_container(engine, "hare", "--restart=always")
    run_container(engine, "hedgehog", "--restart=always")
    run_container(engine, "fox", network="glade")
    networks, old, links = listed(weft, "network"), {row["id"] for row in listed(weft, "endpoint")}, bridges(node)
    assert len(old) == 3
    node.power_off()
    node.up()
    assert bridges(node) == {}
    weft.start()
    # dockerd is not there yet, so names are not known, and no endpoint can be
    assert [{**row, "name": None} for row in listed(weft, "network")] == [
        {**row, "name": None, "endpoints": 0} for row in networks
    ]
    assert listed(weft, "endpoint") == []
    assert bridges(node) == links
    assert veths(node) == set()
    assert weft.cli("status").returncode == 0
    rules = weft.place.run("nft", "list", "table", "inet", "weft").stdout
    for name in links:
        assert f'"{name}"' in rules
    engine.start()
    await_all_running(engine, "hare", "hedgehog")
    assert reaches(engine, "hare", "hedgehog")
    rows = listed(weft, "endpoint")
    assert sorted(row["container"] for row in rows) == ["hare", "hedgehog"]
    assert old.isdisjoint(row["id"] for row in rows)
    assert veths(node) == {row["link"] for row in rows}
    await_healthy(weft)
    assert "-j WEFT" in node.run("iptables", "-S", "DOCKER-USER").stdout
    engine.docker("start", "fox")
    await_healthy(weft)


# -- dockerd --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [Engine.kill, Engine.stop], ids=["SIGKILL", "SIGTERM"])
@both_engines
def test_dockerd_ends_and_comes_back(held: Host, end: Callable[[Engine], None]) -> None:
    """After a SIGKILL Docker removes what it finds stale without a word to a plugin that it has not activated yet."""
    engine, weft, node = held.engine, held.weft, held.node
    engine.docker("network", "create", "-d", "weft", "--subnet", SUBNET, "meadow")
    run_container(engine, "hare", "--restart=always", "--ip", "10.77.0.5")
    run_container(engine, "hedgehog", "--restart=always")
    run_container(engine, "fox")
    networks, old = listed(weft, "network"), {row["id"] for row in listed(weft, "endpoint")}
    end(engine)
    engine.start()
    await_all_running(engine, "hare", "hedgehog")
    assert reaches(engine, "hedgehog", "hare")
    assert [{**row, "endpoints": 0} for row in listed(weft, "network")] == [{**row, "endpoints": 0} for row in networks]
    for ident in old:
        await_swept(weft, "endpoint", ident)
    rows = listed(weft, "endpoint")
    assert sorted(row["container"] for row in rows) == ["hare", "hedgehog"]
    assert "10.77.0.5" in {row["ipv4"] for row in rows}
    await_healthy(weft)
    assert veths(node) == {row["link"] for row in rows}
    engine.docker("start", "fox")
    assert reaches(engine, "fox", "hare")


@pytest.mark.parametrize("end", [Engine.kill, Engine.stop], ids=["SIGKILL", "SIGTERM"])
@both_engines
def test_dockerd_with_live_restore_ends_and_nothing_else_does(
    private_node: Node, end: Callable[[Engine], None]
) -> None:
    with breakable_host(private_node, "--live-restore") as host:
        engine, weft = host.engine, host.weft
        engine.docker("network", "create", "-d", "weft", "--subnet", SUBNET, "meadow")
        run_container(engine, "hare")
        run_container(engine, "hedgehog")
        talk = Talk(engine, "hare", "hedgehog")
        before = (listed(weft, "network"), listed(weft, "endpoint"), veths(host.node))
        end(engine)
        engine.start()
        talk.stop()
        assert (listed(weft, "network"), listed(weft, "endpoint"), veths(host.node)) == before
        await_healthy(weft)
        run_container(engine, "fox")
        assert reaches(engine, "fox", "hare")
        engine.docker("restart", "hare")
        assert reaches(engine, "hare", "hedgehog")
        assert len(listed(weft, "endpoint")) == 3


@both_engines
def test_containers_that_died_while_dockerd_was_down_leave_nothing(held: Host) -> None:
    engine, weft, node = held.engine, held.weft, held.node
    engine.docker("network", "create", "-d", "weft", "--subnet", SUBNET, "meadow")
    run_container(engine, "hare", "--ip", "10.77.0.5")
    pid = engine.docker("inspect", "--format", "{{.State.Pid}}", "hare")
    (stale,) = listed(weft, "endpoint")
    engine.kill()
    node.run("sh", "-c", f"kill -9 {pid}")
    await_(lambda: not node.path(f"/proc/{pid}").exists(), 10, "the container's end")
    engine.start()
    await_swept(weft, "endpoint", stale["id"])
    await_(lambda: veths(node) == set(), 10, "its link to be removed")
    await_healthy(weft)
    engine.docker("start", "hare")
    (row,) = listed(weft, "endpoint")
    assert (row["ipv4"], row["container"]) == ("10.77.0.5", "hare")


@pytest.mark.parametrize("call", ["Endpoints.create", "Endpoints.join"])
@both_engines
def test_dockerd_is_killed_while_it_waits_for_an_endpoint(
    held: Host, gate: Gate, call: str, engine_version: str
) -> None:
    """No call of Docker's ever cleans up: the next start brings another id with the same address.

    28.5.2 makes the container's task before its network. `docker start` buries the task that the killed dockerd left,
    and two seconds later dockerd takes that for the end of the new one: it calls Leave and DeleteEndpoint, and the
    container runs on without a network, whatever the driver. So there the container is made anew.
    """
    engine, weft, node = held.engine, held.weft, held.node
    engine.docker("network", "create", "-d", "weft", "--subnet", SUBNET, "meadow")
    run_container(engine, "hedgehog", "--restart=always")
    engine.docker("create", "--name", "hare", "--network", "meadow", "--ip", "10.77.0.5", "weft-lab")
    gate.hold(call)
    with beside(engine, "start", "hare"):
        gate.await_reached(call)
        engine.kill()
        gate.release(call)
    await_(lambda: "10.77.0.5" in {row["ipv4"] for row in listed(weft, "endpoint")}, 10, "the call to be carried out")
    (stale,) = [row for row in listed(weft, "endpoint") if row["ipv4"] == "10.77.0.5"]
    engine.start()
    if engine_version == "28":
        engine.docker("rm", "-f", "hare")
        run_container(engine, "hare", "--ip", "10.77.0.5")
    else:
        engine.docker("start", "hare")
    await_all_running(engine, "hare", "hedgehog")
    await_(lambda: reaches(engine, "hare", "hedgehog"), 20, "the restarted container")
    rows = listed(weft, "endpoint")
    assert sorted(row["container"] for row in rows) == ["hare", "hedgehog"]
    assert stale["id"] not in {row["id"] for row in rows}
    await_healthy(weft)
    await_(lambda: veths(node) == {row["link"] for row in rows}, 10, "the stale link to be removed")


@both_engines
def test_dockerd_is_killed_while_it_waits_for_a_network(held: Host, gate: Gate) -> None:
    """Docker knows nothing of the network, and asks for its subnet again: refused first, given once it is swept."""
    engine, weft = held.engine, held.weft
    gate.hold("Networks.create")
    with beside(engine, "network", "create", "-d", "weft", "--subnet", SUBNET, "meadow"):
        gate.await_reached("Networks.create")
        engine.kill()
        gate.release("Networks.create")
    (stale,) = await_(lambda: listed(weft, "network"), 10, "the call to be carried out")
    engine.start()
    assert engine.docker("network", "ls", "-q", "--filter", "name=meadow") == ""

    def created() -> bool:
        """Tell whether it can be made; that it cannot is reason for a look."""
        said = engine.docker("network", "create", "-d", "weft", "--subnet", SUBNET, "meadow", check=False)
        if len(said.split()) == 1:
            return True
        assert f"overlaps network {stale['id'][:12]}" in said or "overlaps one of network" in said, said
        return False

    await_(created, 30, "the forgotten network to be swept")
    (row,) = listed(weft, "network")
    assert row["id"] != stale["id"]
    await_healthy(weft)
