"""Networks of a swarm of three nodes, weft as the managed plugin of each: who meets whom, whatever comes and goes."""

import json
from functools import partial
from ipaddress import ip_address

import pytest

from drivers.naming import FIRST_OWN_VNI
from tests.lab.lan import address4
from tests.lab.swarm import SETTLE, Swarm, SwarmHost, names
from tests.lab.talk import PORT, WHO, Container
from tests.lab.wait import await_

pytestmark = [pytest.mark.engine, pytest.mark.hosts, pytest.mark.swarm]

PUBLISHED = 8088


def test_replicas_meet_by_name_over_vxlan(swarm: Swarm) -> None:
    network = swarm.network("shop", "-o", "com.docker.network.driver.mtu=1300")
    assert not any(host.networks() for host in swarm.hosts)  # made where the first task comes
    with swarm.lan.tap() as tap:
        swarm.service("web", "shop", "--replicas", "6")
        found = swarm.await_met("web", 6, *swarm.hosts)
        seen = {(to, vni) for to, vni, _ in tap.inner() if vni >= FIRST_OWN_VNI}  # Swarm's own are below
    assert all(host.networks() == {network} for host in swarm.hosts)
    assert seen == {(host.address, swarm.vni(network)) for host in swarm.hosts}
    for address, container in found.items():
        assert {str(container.seen_by(other)) for other in found} == {address}  # as itself: no NAT
        assert container.links()["eth0"].mtu == 1300  # the nodes are told of the manager's options
    swarm.clear()
    assert not any(host.networks() for host in swarm.hosts)


def test_two_networks_are_apart(swarm: Swarm) -> None:
    for name in ("shop", "desk"):
        swarm.network(name)
        swarm.service(f"on-{name}", name, "--replicas", "3")
    shop, desk = (swarm.await_met(f"on-{name}", 3, *swarm.hosts) for name in ("shop", "desk"))
    for container in shop.values():
        assert container.answered_by(*desk) == set()


def test_a_node_joins_late(swarm: Swarm) -> None:
    """Its plugin is told of all nodes as it joins."""
    *before, late = swarm.hosts
    late.leave()
    swarm.await_peers(*before)
    swarm.network("shop")
    swarm.service("web", "shop", "--replicas", "4")
    swarm.await_met("web", 4, *before)
    late.join(swarm.manager)
    swarm.await_peers(*swarm.hosts)
    swarm.scale("web", 6)
    swarm.await_met("web", 6, *swarm.hosts)


def test_a_plugin_comes_late_to_a_node(swarm: Swarm) -> None:
    """Nobody tells it of the nodes that are there: it reads them from Docker's own list."""
    *before, late = swarm.hosts
    late.leave()
    swarm.await_peers(*before)
    await_(lambda: not late.peers(), SETTLE, "the host to know nothing of the swarm")
    late.docker_plugin("disable", "-f", "weft")
    late.join(swarm.manager)
    for host in before:
        await_(partial(_has_peer, host, late.address), SETTLE, "the others to be told of the node")
    late.docker_plugin("enable", "weft")
    swarm.await_peers(*swarm.hosts)
    await_(lambda: swarm.takers() == len(swarm.hosts), SETTLE, "the manager to know of the plugin")
    swarm.network("shop")
    swarm.service("web", "shop", "--replicas", "6")
    swarm.await_met("web", 6, *swarm.hosts)


def test_a_node_leaves(swarm: Swarm) -> None:
    *rest, gone = swarm.hosts
    swarm.network("shop")
    swarm.service("web", "shop", "--replicas", "6")
    swarm.await_met("web", 6, *swarm.hosts)
    gone.leave()
    swarm.await_peers(*rest)
    swarm.await_met("web", 6, *rest)
    await_(lambda: not gone.networks() and not gone.peers(), SETTLE, "the node to know nothing of the swarm")


def test_a_node_loses_its_power(swarm: Swarm) -> None:
    *rest, gone = swarm.hosts
    network = swarm.network("shop")
    swarm.service("web", "shop", "--replicas", "6")
    swarm.await_met("web", 6, *swarm.hosts)
    gone.node.power_off()
    swarm.await_peers(*rest)
    swarm.await_met("web", 6, *rest)
    gone.power_on()
    swarm.await_peers(*swarm.hosts)
    assert gone.networks() <= {network}
    await_(lambda: not gone.networks(), SETTLE, "what Docker forgot there to be swept")
    swarm.scale("web", 6, "--force")
    swarm.await_met("web", 6, *swarm.hosts)


def test_who_left_while_weft_was_away_is_no_peer(swarm: Swarm) -> None:
    """DiscoverDelete comes once, and to nobody who is away."""
    away, gone = swarm.workers
    away.docker_plugin("disable", "-f", "weft")
    gone.leave()
    await_(lambda: swarm.manager.peers() == {away.address}, SETTLE, "the manager to be told")
    away.docker_plugin("enable", "weft")
    assert gone.address in away.peers()  # kept
    swarm.await_peers(swarm.manager, away)


def test_the_manager_restarts(swarm: Swarm) -> None:
    """Its weft is asked for the networks again, with its own answer; the swarm meets it within a minute."""
    network = swarm.network("shop")
    swarm.service("web", "shop", "--replicas", "6")
    swarm.await_met("web", 6, *swarm.hosts)
    before = swarm.vni(network)
    swarm.manager.engine.restart()
    swarm.await_peers(*swarm.hosts)
    swarm.scale("web", 6, "--force")
    swarm.await_met("web", 6, *swarm.hosts)
    assert swarm.vni(network) == before


def test_weft_is_away_and_comes_back(swarm: Swarm) -> None:
    swarm.network("shop")
    swarm.service("web", "shop", "--replicas", "6")
    found = swarm.await_met("web", 6, *swarm.hosts)
    for host in swarm.hosts:
        host.docker_plugin("disable", "-f", "weft")
    assert all(one.answered_by(*found) == set(found) for one in found.values())
    for host in swarm.hosts:
        host.docker_plugin("enable", "weft")
        assert len(host.peers()) == len(swarm.hosts) - 1  # from the store: Docker tells of the own node alone
    assert all(one.answered_by(*found) == set(found) for one in found.values())
    assert all(_healthy(host) for host in swarm.hosts)


def test_a_port_is_published_by_each_task_s_host(swarm: Swarm) -> None:
    swarm.network("shop")
    publish = f"mode=host,target={PORT},published={PUBLISHED}"
    swarm.service("web", "shop", "--mode", "global", "--publish", publish)
    swarm.await_met("web", 3, *swarm.hosts)
    for host in swarm.hosts:
        for other in swarm.hosts:
            assert _asked(host, other) == host.address
    swarm.manager.engine.docker("service", "rm", "web")
    for host in swarm.hosts:
        await_(partial(_is_closed, host), SETTLE, "the port to be closed")


@pytest.mark.parametrize("subnet", [("--subnet", "10.83.0.0/24"), ()], ids=["named", "chosen"])
def test_weft_gives_the_addresses(swarm: Swarm, subnet: tuple[str, ...]) -> None:
    """The manager's books, and each node's own: once more, in another space."""
    swarm.network("own", "--ipam-driver", "weft:latest", *subnet)
    swarm.service("db", "own", "--replicas", "6")
    found = swarm.await_met("db", 6, *swarm.hosts)
    pools = {host: _pools(host) for host in swarm.hosts}
    assert [sorted(pools[host]) for host in swarm.workers] == [["weft-local"]] * 2
    assert pools[swarm.manager]["weft-global"] == len(found) + 1  # the gateway
    assert sum(pools[host]["weft-local"] - 1 for host in swarm.hosts) == len(found)
    swarm.manager.engine.restart()  # it asks again for all that is in its books
    swarm.await_peers(*swarm.hosts)
    swarm.scale("db", 6, "--force")
    swarm.await_met("db", 6, *swarm.hosts)
    swarm.clear()
    for host in swarm.hosts:  # the manager may forget addresses of tasks that died: its own pool is swept later
        await_(partial(_has_no_pool, host, "weft-local"), SETTLE, "the pools to be given back")


def test_a_node_whose_dockerd_is_killed_goes_on_with_its_pool(swarm: Swarm) -> None:
    """It has forgotten the network and asks for the pool that weft has: tasks come back to it at once."""
    victim = swarm.workers[0]
    swarm.network("own", "--ipam-driver", "weft:latest", "--subnet", "10.83.0.0/24")
    swarm.service("db", "own", "--mode", "global")
    swarm.await_met("db", 3, *swarm.hosts)
    victim.engine.kill()
    victim.engine.start()
    swarm.await_met("db", 3, *swarm.hosts)
    refused = [line for line in victim.log_lines(victim.inspect()["Id"]) if "call refused" in line]
    assert not [line for line in refused if "IpamDriver" in line]


def test_a_vip_is_docker_s_own_and_the_tasks_have_names_beside_it(swarm: Swarm) -> None:
    """Docker balances a VIP in overlay networks alone; `tasks.NAME` finds the tasks of any network."""
    swarm.network("shop")
    swarm.service("web", "shop", "--replicas", "3", mode="vip")
    found = await_(lambda: _all(swarm, "web", 3), SETTLE, "the tasks")
    for container in found.values():
        await_(partial(_knows, container, "tasks.web", set(found)), SETTLE, "the tasks to be known")
        (vip,) = names(container, "web")
        assert ip_address(vip) not in set(map(ip_address, found))
        assert container.answered_by(*found) == set(found)
        assert str(container.seen_by("tasks.web")) in found


def _all(swarm: Swarm, service: str, count: int) -> dict[str, Container] | None:
    found = swarm.tasks(service)
    return found if len(found) == count else None


def _knows(container: Container, name: str, wanted: set[str]) -> bool:
    return names(container, name) == wanted


def _is_closed(host: SwarmHost) -> bool:
    return _asked(host, host) is None


def _has_peer(host: SwarmHost, address: str) -> bool:
    return address in host.peers()


def _healthy(host: SwarmHost) -> bool:
    return bool(json.loads(host.weft("status", "--json").stdout)["healthy"])


def _asked(host: SwarmHost, other: SwarmHost) -> str | None:
    """Ask a published port of another host, or of the own one, who we are; return the answer."""
    url = f"http://{address4(other.number)}:{PUBLISHED}{WHO}"
    done = host.node.beside.run("curl", "-fsS", "-m", "3", url, check=False)
    return done.stdout.strip().strip("[]").removeprefix("::ffff:") or None


def _pools(host: SwarmHost) -> dict[str, int]:
    """Return how many addresses are held in each of the address spaces."""
    return {row["space"]: row["used"] for row in json.loads(host.weft("pool", "ls", "--json").stdout)}


def _has_no_pool(host: SwarmHost, space: str) -> bool:
    return space not in _pools(host)
