"""Peers: who named them, of which networks they are, and what a change costs."""

from __future__ import annotations

import errno
import logging
from ipaddress import ip_address
from pathlib import Path

import pytest

from drivers.clashes import Clash
from drivers.contract import Step
from drivers.errors import Conflict, InvalidRequest, NotFound
from drivers.facts import RouteInfo
from drivers.naming import link_name
from drivers.ovs.model import PEERS
from drivers.resources import FloodEntry, Permit, scope_of
from drivers.resources.tunnels import flood_key
from plugin.docker import DockerNetwork
from plugin.engine.views import Views
from plugin.errors import sentence
from plugin.store import Database, Store
from plugin.store.peers import PeerRow
from tests.plugin.samples import network_id, network_request
from tests.plugin.world import World, now

A, B, C = (ip_address(f"192.0.2.{last}") for last in (2, 3, 4))
SIX = ip_address("2001:db8::2")


def make(world: World, number: int = 1, **settings: object) -> None:
    world.networks.create(network_request(number, **({"tunnel": "vxlan", "name": f"net{number}"} | settings)), now())


def floods(world: World, number: int = 1) -> set[str]:
    """Return the peers of a network's tunnel on the host."""
    device = link_name("t", network_id(number))
    held = (one.resource for one in world.host.fake.objects.values())
    return {one.peer for one in held if isinstance(one, FloodEntry) and one.link == device}


def test_a_networks_peers_are_the_hosts_list_and_its_own(world: World) -> None:
    make(world, 1, peers=(A,))
    make(world, 2)
    make(world, 3, tunnel=None, name="")
    world.peers.add(None, B, now())
    world.peers.add(network_id(2), C, now())
    assert (floods(world, 1), floods(world, 2), floods(world, 3)) == ({str(A), str(B)}, {str(B), str(C)}, set())
    assert [(row.network, row.address, row.made_by) for row in world.store.peers.rows()] == [
        (None, B, "command"),
        (network_id(1), A, "option"),
        (network_id(2), C, "command"),
    ]
    world.peers.remove(None, B, now())
    world.peers.remove(network_id(1), A, now())
    assert (floods(world, 1), floods(world, 2)) == (set(), {str(C)})
    world.networks.delete(network_id(2), now())
    assert world.store.peers.rows() == []


def test_a_change_is_one_entry_and_one_element_however_many_peers_there_are(world: World) -> None:
    make(world, 1, peers=tuple(ip_address(f"192.0.2.{last}") for last in range(10, 60)))
    for change in (world.peers.add, world.peers.remove):
        world.host.fake.steps.clear()
        change(None, A, now())
        steps: list[Step] = world.host.fake.steps
        assert {type(step.resource) for step in steps} == {FloodEntry, Permit}
        assert len(steps) == 2


def numbers(world: World, network: int = 1) -> dict[str, int]:
    """Return the number of each peer of a network."""
    return {str(peer.address): peer.number for peer in world.store.peers.numbered(network_id(network), 4)}


def test_a_peer_keeps_its_number_as_long_as_anybody_names_it(world: World) -> None:
    make(world, 1, peers=(A,))
    world.peers.add(None, B, now())
    world.peers.add(None, A, now())
    world.peers.add(None, C, now())
    assert numbers(world) == {str(A): 1, str(B): 2, str(C): 3}
    world.peers.remove(None, A, now())
    world.peers.remove(None, B, now())
    assert numbers(world) == {str(A): 1, str(C): 3}
    world.store.peers.settle((C, B))
    world.store.peers.settle((B, C))
    world.peers.remove(None, C, now(), made_by="command")
    assert numbers(world) == {str(A): 1, str(C): 3, str(B): 4}
    world.networks.delete(network_id(1), now())
    make(world, 2)
    assert numbers(world, 2) == {str(C): 3, str(B): 4}


def test_a_number_is_given_again_when_there_is_no_higher_one(world: World) -> None:
    addresses = [ip_address(f"192.0.{high}.{low}") for high in range(4, 8) for low in range(256)][: PEERS - 1]
    world.store.peers.settle(addresses)
    with pytest.raises(Conflict, match="one peer too many: weft has places for 1023"):
        world.peers.add(None, A, now())
    assert str(A) not in numbers(world)
    world.store.peers.settle([one for one in addresses if one != addresses[499]])
    world.peers.add(None, A, now())
    assert numbers(world)[str(A)] == 500


def test_a_peer_is_of_the_networks_of_its_ip_version(world: World) -> None:
    make(world, 1, peers=(A,))
    make(world, 2, peers=(SIX,))
    world.peers.add(None, B, now())
    world.peers.add(None, ip_address("2001:db8::3"), now())
    assert floods(world, 1) == {str(A), str(B)}
    assert floods(world, 2) == {str(SIX), "2001:db8::3"}
    with pytest.raises(InvalidRequest, match="has IPv4 peers, and 2001:db8::9 is IPv6"):
        world.peers.add(network_id(1), ip_address("2001:db8::9"), now())


def test_this_host_is_left_out_so_that_a_list_can_be_the_same_everywhere(world: World) -> None:
    world.host.routes[str(A)] = RouteInfo(link="lo", mtu=65536, source=A, own=True)
    world.setting = (A, B)
    world.restart()
    make(world)
    assert floods(world) == {str(B)}


def test_the_setting_is_what_it_says_at_each_start_and_the_rest_stays(world: World) -> None:
    world.setting = (A, B)
    world.restart()
    make(world)
    world.peers.add(None, C, now())
    world.peers.add(None, A, now())
    world.setting = (B,)
    world.restart()
    world.await_as_wanted()
    assert floods(world) == {str(A), str(B), str(C)}
    world.peers.remove(None, B, now())  # it is back at the next start, and the log says so
    assert floods(world) == {str(A), str(C)}
    world.restart()
    world.await_as_wanted()
    assert floods(world) == {str(A), str(B), str(C)}


def test_a_peer_that_the_setting_no_longer_names_is_gone_after_the_start(world: World) -> None:
    world.setting = (A, B)
    world.restart()
    make(world)
    world.setting = ()
    world.restart()
    world.await_as_wanted()
    assert floods(world) == set()


def test_a_network_that_fails_keeps_no_other_from_its_peers(world: World) -> None:
    for number in (1, 2, 3):
        make(world, number)
    for number in (1, 3):
        world.host.fake.fail(flood_key(link_name("t", network_id(number)), str(A)), OSError(errno.ENOMEM, "no memory"))
    with pytest.raises(ExceptionGroup) as failed:
        world.peers.add(None, A, now())
    assert [network_id(number)[:12] in sentence(failed.value) for number in (1, 2, 3)] == [True, False, True]
    assert [floods(world, number) for number in (1, 2, 3)] == [set(), {str(A)}, set()]
    world.runtime.reconcile(now())
    assert [floods(world, number) for number in (1, 2, 3)] == [{str(A)}] * 3


def test_what_is_no_peer_cannot_be_removed(world: World) -> None:
    make(world)
    with pytest.raises(NotFound, match="is no peer of the host"):
        world.peers.remove(None, A, now())
    world.peers.add(None, A, now())
    with pytest.raises(NotFound, match="is no peer of network 000000000001 alone"):
        world.peers.remove(network_id(1), A, now())


def test_a_network_of_this_host_only_takes_no_peer(world: World) -> None:
    make(world, tunnel=None, name="")
    with pytest.raises(InvalidRequest, match="is of this host only"):
        world.peers.add(network_id(1), A, now())
    with pytest.raises(NotFound):
        world.peers.add(network_id(9), A, now())


def test_hosts_that_docker_discovers_are_peers_and_this_one_is_not(world: World) -> None:
    make(world)
    world.peers.discovered(A, is_self=True, gone=False, deadline=now())
    world.peers.discovered(B, is_self=False, gone=False, deadline=now())
    assert floods(world) == {str(B)}
    world.peers.add(None, B, now())
    world.peers.discovered(B, is_self=False, gone=True, deadline=now())
    assert floods(world) == {str(B)}  # the operator named it, too
    world.peers.discovered(C, is_self=False, gone=True, deadline=now())
    assert world.store.peers.rows() == [PeerRow(network=None, address=B, made_by="command")]


def test_a_peer_behind_a_narrower_way_is_warned_of(world: World, caplog: pytest.LogCaptureFixture) -> None:
    make(world, peers=(A,))
    world.host.routes[str(B)] = RouteInfo(link="tun0", mtu=1400, source=None)
    with caplog.at_level(logging.WARNING):
        world.peers.add(None, B, now())
        world.peers.add(None, C, now())
    (said,) = [record for record in caplog.records if "narrower than its network" in record.message]
    assert (said.__dict__["peer"], said.__dict__["mtu"], said.__dict__["fits"]) == (B, 1450, 1350)


def test_a_clash_is_told_once_and_stays_in_the_status(world: World, caplog: pytest.LogCaptureFixture) -> None:
    make(world, peers=(A,))
    world.host.clashing = (Clash(scope_of(network_id(1), "e" * 64), "10.1.0.2"),)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            world.runtime._heal(None)
    said = [record for record in caplog.records if "has on another host" in record.message]
    assert [record.__dict__["what"] for record in said] == ["10.1.0.2"]
    assert "10.1.0.2 was also seen on another host" in views(world).status()["notes"][0]


def test_the_commands_show_and_change_peers(world: World) -> None:
    make(world)
    world.host.routes[str(C)] = None
    world.host.routes["192.0.2.1"] = RouteInfo(link="lo", mtu=65536, own=True)
    shown = views(world)
    shown.add_peer(str(A), "")
    shown.add_peer(str(C), network_id(1)[:12])
    assert [(one["peer"], one["network"], one["by"], one["link"], one["mtu"]) for one in shown.peers()] == [
        (str(A), None, "command", "eth0", 1500),
        (str(C), network_id(1), "command", None, None),
    ]
    assert [one["peer"] for one in shown.remove_peer(str(C), network_id(1)[:12])] == [str(C)]
    for nonsense in ("", "fe80::1", "::", "255.255.255.255", "224.0.0.1", "::1", "::ffff:192.0.2.9", "bob"):
        with pytest.raises(InvalidRequest, match="cannot be a peer"):
            shown.add_peer(nonsense, "")
    with pytest.raises(InvalidRequest, match="this host's own address"):
        shown.add_peer("192.0.2.1", "")
    assert floods(world) == {str(A)}
    assert shown.network(network_id(1))["tunnel"]["kind"] == "vxlan"


def test_a_store_with_peers_is_read_again(tmp_path: Path) -> None:
    """Opening looks at every page; SQLite 3.40.1 finds NULLs where a table's key is not in its first columns."""
    store = Store(Database(tmp_path / "weft.db"))
    store.peers.settle((A, SIX))
    store.peers.add(network_id(1), B, "option")
    store.close()
    again = Store(Database(tmp_path / "weft.db"))
    assert again.peers.of(network_id(1), 4) == (A, B)
    assert again.peers.of(network_id(2), 6) == (SIX,)
    again.close()


def views(world: World) -> Views:
    return Views(world.store, world.runtime, world.ports, _NoDocker(), world.host, peers=world.peers)


class _NoDocker:
    """Docker's list, empty."""

    def networks(self, *, driver: str) -> list[DockerNetwork]:  # noqa: ARG002 - Docker's shape
        """Return none."""
        return []

    def bridges(self) -> frozenset[str]:
        """Return none."""
        return frozenset()
