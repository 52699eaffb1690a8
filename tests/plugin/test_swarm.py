"""Networks of a swarm: what the manager is answered, what nodes are told, and who is a peer; from recorded calls."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from drivers.errors import Refusing
from drivers.facts import RouteInfo
from drivers.model import Address, Tunnel
from drivers.naming import VNIS, link_name, vni_of
from drivers.resources import Vxlan, link_key, scope_of
from plugin.app import create_app
from plugin.docker import Swarm
from plugin.engine.nodes import APART_SECONDS
from plugin.engine.refusal import RefusedDriver
from tests.plugin.swarm_node import ENGINES, ID, Node, recorded
from tests.plugin.test_recordings import Recorded
from tests.plugin.world import World, now

A, B, C = (ip_address(f"192.0.2.{last}") for last in (2, 3, 4))


@pytest.fixture
def node(world: World) -> Iterator[Node]:
    """Yield a node of no swarm yet."""
    node = Node(world)
    yield node
    node.nodes.stop()


# -- what the manager asks ------------------------------------------------------------------------------------------


def test_docker_is_told_who_makes_networks(node: Node) -> None:
    answer = node.call("NetworkDriver.GetCapabilities", None)
    assert (answer["Scope"], answer["ConnectivityScope"]) == ("global", "global")


def test_and_so_it_is_by_a_weft_that_refuses_all_else() -> None:
    """Docker keeps what it is told until it is started again."""
    app = create_app(RefusedDriver(Refusing("the store is lost")), scope="global")
    answer = app.test_client().post("/NetworkDriver.GetCapabilities").get_json()
    assert (answer["Scope"], answer["ConnectivityScope"]) == ("global", "global")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_manager_is_given_a_tunnel_and_a_vni_for_each_network(node: Node, engine: str) -> None:
    seen = set()
    for row in recorded(engine, "AllocateNetwork", "d01-managed-global"):
        options = node.call("NetworkDriver.AllocateNetwork", row.request)["Options"]
        chosen = {"weft.tunnel": "vxlan", "weft.vni": str(vni_of(row.request["NetworkID"]))}
        assert options == row.request["Options"] | chosen  # what is not in the answer no node hears of
        seen.add(int(options["weft.vni"]))
    assert len(seen) == 2
    assert all(vni >= 1 << 20 and vni in VNIS for vni in seen)


def test_a_vni_is_the_same_for_ever_whichever_manager_is_asked(node: Node) -> None:
    assert node.allocated({})["weft.vni"] == "15801915"


@pytest.mark.parametrize("engine", ENGINES)
def test_asked_again_with_its_own_answer_it_answers_the_same(node: Node, engine: str) -> None:
    """The manager has restarted: d05, where the second call has what the first was answered."""
    first, again = recorded(engine, "AllocateNetwork", "d05-manager-and-worker-restart")
    assert again.request["Options"] == first.request["Options"] | {"rec.alloc": "seg-42"}  # as the recorder answered
    ident, operators = first.request["NetworkID"], {"com.docker.network.driver.mtu": "1400"}
    answer = node.allocated(operators, ident)
    for _ in range(2):
        assert node.allocated(answer, ident) == answer


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"weft.tunnel": "gre"}, {"weft.tunnel": "gre", "weft.vni": str(vni_of(ID))}),
        ({"weft.tunnel": "geneve", "weft.vni": "77"}, {"weft.tunnel": "geneve", "weft.vni": "77"}),
        ({"weft.vni": "77"}, {"weft.tunnel": "vxlan", "weft.vni": "77"}),
        ({"weft.name": "a"}, {"weft.name": "a", "weft.tunnel": "vxlan", "weft.vni": str(vni_of("a"))}),
        ({"weft.tunnel": "none"}, {"weft.tunnel": "none"}),
    ],
)
def test_what_the_operator_says_of_the_tunnel_holds(node: Node, given: dict[str, str], wanted: dict[str, str]) -> None:
    answer = node.allocated(given)
    assert answer == wanted
    assert node.allocated(answer) == wanted
    assert node.create(answer) == {}
    row = node.world.store.network(ID)
    assert row is not None
    assert (row.network.tunnel is None) == ("weft.vni" not in wanted)


def test_the_nodes_hear_all_that_the_operator_said(node: Node) -> None:
    """Swarm keeps the answer in the place of the operator's options."""
    given = {"weft.backend": "ovs", "com.docker.network.bridge.enable_icc": "false", "com.example.theirs": "1"}
    for tunnel in ({}, {"weft.tunnel": "none"}):
        answer = node.allocated(given | tunnel)
        assert answer.items() >= (given | tunnel).items()


def test_options_that_no_node_would_take_are_refused_by_the_manager(node: Node) -> None:
    body = {"NetworkID": ID, "Options": {"weft.tunel": "gre"}}
    assert "did you mean weft.tunnel?" in node.call("NetworkDriver.AllocateNetwork", body)["Err"]
    assert node.call("NetworkDriver.FreeNetwork", {"NetworkID": ID}) == {}


# -- what a node is told --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_a_network_is_made_on_a_node_as_the_manager_was_answered(node: Node, engine: str) -> None:
    """The node's own call, recorded, with weft's answer in the place of the recorder's, which sent back all options."""
    asked = recorded(engine, "AllocateNetwork", "d01-managed-global")[0]
    (made,) = (row for row in recorded(engine, "CreateNetwork", "d01-managed-global") if _same(row, asked))
    answer = node.call("NetworkDriver.AllocateNetwork", asked.request)["Options"]
    request = json.loads(json.dumps(made.request))
    request["Options"]["com.docker.network.generic"] = answer
    for _ in range(2):  # the second time it is there already
        assert node.call("NetworkDriver.CreateNetwork", request) == {}
    ident = request["NetworkID"]
    row = node.world.store.network(ident)
    assert row is not None
    assert row.network.tunnel == Tunnel(kind="vxlan", vni=int(answer["weft.vni"]), port=4789)
    assert row.network.mtu == 1400
    device = node.world.host.fake.objects[link_key(link_name("t", ident))].resource
    assert isinstance(device, Vxlan)
    assert link_name("t", ident) == f"wft{ident[:12]}"
    assert node.call("NetworkDriver.DeleteNetwork", {"NetworkID": ident}) == {}
    assert scope_of(ident) not in node.world.marked()


def _same(made: Recorded, asked: Recorded) -> bool:
    return bool(made.request["NetworkID"] == asked.request["NetworkID"])


def test_two_nodes_have_one_gateway_and_one_segment(node: Node, tmp_path: Path) -> None:
    other = World(tmp_path / "other")
    other.start()
    answer = node.allocated({})
    rows = []
    for one in (node, Node(other)):
        assert one.create(answer) == {}
        row = one.world.store.network(ID)
        assert row is not None
        rows.append(row.network)
    assert rows[0].mac == rows[1].mac
    assert rows[0].tunnel == rows[1].tunnel
    other.close()


# -- who is a peer --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_nodes_that_are_discovered_are_peers_until_they_are_gone(node: Node, engine: str) -> None:
    node.create(node.allocated({}))
    for row in recorded(engine, "DiscoverNew", "d05-manager-and-worker-restart"):
        assert node.call("NetworkDriver.DiscoverNew", row.request) == {}
    others = {str(row.address) for row in node.peers()}
    assert others == _addresses(engine, "DiscoverNew", is_self=False) == node.floods()
    for row in recorded(engine, "DiscoverDelete", "d05-manager-and-worker-restart"):
        assert node.call("NetworkDriver.DiscoverDelete", row.request) == {}
    left = others - _addresses(engine, "DiscoverDelete", is_self=False)
    assert left < others
    assert node.floods() == left


def _addresses(engine: str, method: str, *, is_self: bool) -> set[str]:
    told = [row.request["DiscoveryData"] for row in recorded(engine, method, "d05-manager-and-worker-restart")]
    return {one["Address"] for one in told if one["Self"] == is_self}


def test_peers_outlive_weft_and_docker_takes_away_only_what_it_gave(node: Node) -> None:
    node.create(node.allocated({}))
    node.discover(A)
    node.world.peers.add(None, A, now())
    node.world.restart()
    again = Node(node.world)
    again.world.await_as_wanted()
    assert again.floods() == {str(A)}
    again.discover(A, gone=True)
    assert again.floods() == {str(A)}  # the operator named it, too
    assert [row.made_by for row in again.peers()] == ["command"]


@pytest.mark.parametrize(
    "data",
    [
        {"Address": "127.0.0.1"},
        {"Address": "fe80::1%eth0; reboot"},
        {"Address": "224.0.0.1", "Self": False},
        {"Address": "::"},
        {"Address": "192.0.2.2 } ; flush ruleset"},
        {"Address": ["192.0.2.2"]},
        {"Address": ""},
        {},
        None,
        "192.0.2.2",
    ],
)
def test_what_cannot_be_a_peer_is_none(node: Node, data: object) -> None:
    for method in ("DiscoverNew", "DiscoverDelete"):
        answer = node.call(f"NetworkDriver.{method}", {"DiscoveryType": 1, "DiscoveryData": data})
        assert answer == {}
    assert node.peers() == []


def test_the_address_that_the_swarm_knows_is_the_tunnels(node: Node) -> None:
    """Peers let in what comes from the address that they were told of: --advertise-addr, perhaps not the route's."""
    own = ip_address("198.51.100.7")
    node.world.host.routes[str(own)] = RouteInfo(link="lo", mtu=65536, source=own, own=True)
    node.create(node.allocated({}))
    assert _local(node) is None
    node.discover(own, is_self=True)
    node.world.await_as_wanted()
    assert _local(node) == own
    device = node.world.host.fake.objects[link_key(link_name("t", ID))].resource
    assert isinstance(device, Vxlan)
    assert device.local == str(own)
    node.create(node.allocated({}, "later"), "later", "10.0.2")
    assert _local(node, "later") == own
    node.world.restart()
    assert node.world.store.swarm_address == own
    assert node.peers() == []


def test_an_address_behind_nat_is_not_the_tunnels(node: Node) -> None:
    node.discover("203.0.113.9", is_self=True)  # the host does not have it, so the kernel would send nothing from it
    node.create(node.allocated({}))
    assert _local(node) is None


def _local(node: Node, ident: str = ID) -> Address | None:
    row = node.world.store.network(ident)
    assert row is not None
    assert row.network.tunnel is not None
    return row.network.tunnel.local


# -- what Docker lists ----------------------------------------------------------------------------------------------


def test_a_late_plugin_reads_who_was_there_before(node: Node) -> None:
    """It is told of its own node alone: d09."""
    node.world.host.routes["192.0.2.1"] = RouteInfo(link="lo", mtu=65536, own=True)
    node.discover("192.0.2.1", is_self=True)
    node.create(node.allocated({}))
    node.listed.lists("192.0.2.1", A, B, "unknown", "127.0.0.1", "x; reboot")
    node.nodes.look()
    assert node.floods() == {str(A), str(B)}
    assert {row.made_by for row in node.peers()} == {"docker"}


def test_who_left_while_weft_was_away_is_forgotten_after_two_looks(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    node.create(node.allocated({}))
    node.discover(A)
    node.discover(B)
    node.listed.lists(A)
    node.nodes.look()
    assert node.floods() == {str(A), str(B)}
    node.time += APART_SECONDS
    with caplog.at_level(logging.INFO):
        node.nodes.look()
    assert node.floods() == {str(A)}
    assert "peer removed" in caplog.text


def test_who_was_only_just_discovered_stays(node: Node) -> None:
    node.create(node.allocated({}))
    node.discover(A)
    node.listed.lists()
    node.nodes.look()
    node.time += APART_SECONDS / 2
    node.listed.lists(A)
    node.nodes.look()
    node.time += APART_SECONDS
    node.listed.lists()
    node.nodes.look()
    assert node.floods() == {str(A)}


@pytest.mark.parametrize("said", [None, Swarm(settled=False), Swarm(nodes=frozenset({str(B)}))])
def test_nothing_is_concluded_from_what_was_not_read_completely(node: Node, said: Swarm | None) -> None:
    node.create(node.allocated({}))
    node.discover(A)
    for _ in range(3):
        node.listed.said = said
        node.nodes.look()
        node.time += APART_SECONDS
    assert str(A) in node.floods()
    assert (str(B) in node.floods()) == (said is not None and bool(said.nodes))


def test_a_host_that_left_its_swarm_has_no_peers_of_it(node: Node) -> None:
    node.create(node.allocated({}))
    node.discover(A)
    node.world.peers.add(None, C, now())
    node.listed.lists()
    node.nodes.look()
    node.time += APART_SECONDS
    node.nodes.look()
    assert node.floods() == {str(C)}


def test_without_the_scope_nothing_is_kept_of_a_swarm(node: Node) -> None:
    node.discover("198.51.100.7", is_self=True)
    node.discover(A)
    node.world.peers.add(None, B, now())
    node.world.peers.forget_docker()
    assert [(row.address, row.made_by) for row in node.peers()] == [(B, "command")]
    assert node.world.store.swarm_address is None
