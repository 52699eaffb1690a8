"""What is decided of a tunnel when its network is made, and what of it changes later."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from drivers.errors import Conflict, InvalidRequest, Unsupported
from drivers.facts import RouteInfo
from drivers.model import Network, OpenPorts, Subnet, Tunnel
from drivers.naming import FIRST_OWN_VNI, VNIS, bridge_mac, endpoint_mac, link_local, link_name, vni_of
from drivers.resources import HOST, Bridge, FloodEntry, PeerTunnel, Vxlan, flood_key, link_key
from drivers.tunnels import overhead
from tests.plugin.samples import endpoint_request, network_id, network_request, subnet
from tests.plugin.world import World, now

PEER4, PEER6 = ip_address("192.0.2.2"), ip_address("2001:db8::2")
OWN4, OWN6 = ip_address("192.0.2.1"), ip_address("2001:db8::1")


def made(world: World, number: int = 1, **settings: object) -> Network:
    """Make a network and return it as it is stored."""
    given = {"tunnel": "vxlan", "name": f"net{number}"} | settings
    world.networks.create(network_request(number, **given), now())
    row = world.store.network(network_id(number))
    assert row is not None
    return row.network


def test_without_a_tunnel_nothing_is_decided_of_one(world: World) -> None:
    network = made(world, tunnel=None, name="")
    assert (network.tunnel, network.mtu, network.mac) == (None, None, bridge_mac(network.id))


def test_a_vni_is_the_one_that_is_given_or_the_names_own(world: World) -> None:
    assert made(world, 1, vni=7).tunnel == Tunnel(kind="vxlan", vni=7, port=4789)
    named = made(world, 2, name="shop").tunnel
    assert named is not None
    assert named.vni == vni_of("shop") == 8147549  # for ever: other hosts have it, too
    assert all(FIRST_OWN_VNI <= vni_of(str(number)) < VNIS.stop for number in range(2000))


def test_gateway_and_containers_have_the_same_macs_on_every_host(world: World, tmp_path: Path) -> None:
    other = World(tmp_path / "other")
    other.start()
    networks = made(world, 1, name="shop"), made(other, 2, name="shop", bridge=None)
    assert {network.mac for network in networks} == {bridge_mac(f"vni {vni_of('shop')}")}
    assert networks[0].id != networks[1].id
    mac = world.endpoints.create(endpoint_request(1), now())
    assert mac == endpoint_mac(networks[0].identity, endpoint_request(1).ipv4, "")
    assert mac == endpoint_mac(networks[1].identity, endpoint_request(1).ipv4, "")
    other.close()


def test_a_link_local_address_is_the_kernels() -> None:
    assert str(link_local("02:5c:cb:54:83:ea")) == "fe80::5c:cbff:fe54:83ea"


@pytest.mark.parametrize(
    ("settings", "kind", "port"),
    [
        ({}, "vxlan", 4789),
        ({"port": 4799}, "vxlan", 4799),
        ({"tunnel": "geneve"}, "geneve", 6081),
        ({"tunnel": "geneve", "port": 6082}, "geneve", 6082),
        ({"tunnel": "gre"}, "gre", 0),
    ],
)
def test_the_port_is_the_one_that_is_given_or_the_kinds_own(
    world: World, settings: dict[str, object], kind: str, port: int
) -> None:
    tunnel = made(world, 1, **settings).tunnel
    assert tunnel is not None
    assert (tunnel.kind, tunnel.port) == (kind, port)


@pytest.mark.parametrize(
    ("kind", "peer", "route", "mtu"),
    [
        ("vxlan", PEER4, 1500, 1450),
        ("vxlan", PEER6, 1500, 1430),
        ("gre", PEER4, 1500, 1458),
        ("gre", PEER6, 1500, 1438),
        ("geneve", PEER4, 1500, 1450),
        ("geneve", PEER6, 1500, 1430),
        ("vxlan", PEER4, 1550, 1500),
        ("vxlan", PEER4, 9000, 8950),
        ("vxlan", PEER4, 1400, 1350),
    ],
)
def test_containers_get_the_mtu_of_the_route_less_the_overhead(
    world: World, kind: str, peer: object, route: int, mtu: int
) -> None:
    world.host.routes[str(peer)] = RouteInfo(link="eth0", mtu=route, source=OWN4 if peer is PEER4 else OWN6)
    network = made(world, tunnel=kind, peers=(peer,))
    assert network.mtu == mtu
    with pytest.raises(InvalidRequest, match=f"carries {route} bytes, less {route - mtu} for {kind} .* is {mtu}"):
        made(world, 2, tunnel=kind, peers=(peer,), mtu=mtu + 1)
    assert made(world, 3, tunnel=kind, peers=(peer,), mtu=mtu).mtu == mtu
    assert made(world, 4, tunnel=kind, peers=(peer,), mtu=1280).mtu == 1280


def test_the_mtu_table_of_the_documents_is_what_is_reckoned() -> None:
    table = Path("docs/multihost.md").read_text(encoding="utf-8")
    for kind in ("vxlan", "geneve", "gre"):
        cells = [1500 - overhead(kind, version) for version in (4, 6)]
        cells += [9000 - overhead(kind, version) for version in (4, 6)]
        assert f"| {kind} | {' | '.join(map(str, cells))} |" in table


def test_the_narrowest_route_decides_and_without_a_peer_the_way_out(world: World) -> None:
    world.host.routes |= {
        "192.0.2.3": RouteInfo(link="eth1", mtu=1400, source=OWN4),
        "192.0.2.1": RouteInfo(link="eth2", mtu=1480, source=OWN4),
    }
    assert made(world, 1, peers=(PEER4, ip_address("192.0.2.3"))).mtu == 1350
    assert made(world, 2).mtu == 1430
    world.host.routes["192.0.2.1"] = None
    assert made(world, 3).mtu == 1450


def test_ipv6_needs_1280_bytes_of_the_tunnel(world: World) -> None:
    world.host.routes[str(PEER4)] = RouteInfo(link="eth0", mtu=1320, source=OWN4)
    assert made(world, 1, peers=(PEER4,)).mtu == 1270
    with pytest.raises(InvalidRequest, match="IPv6 needs an MTU of 1280"):
        made(world, 2, peers=(PEER4,), subnets=(subnet("fd00::/64"),))


def test_this_hosts_address_is_that_of_the_route_unless_one_is_advertised(world: World) -> None:
    for number, peers, local in ((1, (PEER4,), OWN4), (2, (PEER6,), OWN6), (3, (), None)):
        tunnel = made(world, number, peers=peers).tunnel
        assert tunnel is not None
        assert tunnel.local == local
    world.advertise = ip_address("198.51.100.1")
    world.restart()
    for number in (1, 3):
        row = world.store.network(network_id(number))
        assert row is not None
        assert row.network.tunnel is not None
        assert row.network.tunnel.local == world.advertise
        device = world.host.fake.objects[link_key(link_name("t", row.id))].resource
        assert isinstance(device, Vxlan)
        assert device.local == "198.51.100.1"
    six = world.store.network(network_id(2))
    assert six is not None
    assert six.network.tunnel is not None
    assert six.network.tunnel.local == OWN6  # of another IP version


def test_an_address_that_the_host_has_lost_is_not_kept(world: World) -> None:
    made(world, peers=(PEER4,))
    world.host.routes[str(OWN4)] = RouteInfo(link="eth0", mtu=1500, source=OWN4, own=True)
    world.host.source[4] = ip_address("192.0.2.77")
    world.restart()
    row = world.store.network(network_id(1))
    assert row is not None
    assert row.network.tunnel is not None
    assert row.network.tunnel.local == OWN4  # it has it still
    world.host.routes[str(OWN4)] = RouteInfo(link="eth0", mtu=1500)
    world.restart()
    row = world.store.network(network_id(1))
    assert row is not None
    assert row.network.tunnel is not None
    assert row.network.tunnel.local == ip_address("192.0.2.77")


def test_an_ipv6_tunnel_needs_an_address_of_this_host(world: World) -> None:
    world.host.routes[str(PEER6)] = None
    with pytest.raises(InvalidRequest, match=r"there is no route to 2001:db8::2.*WEFT_ADVERTISE"):
        made(world, peers=(PEER6,))


@pytest.mark.parametrize(("kind", "peer", "link"), [("gre", PEER4, "gretap"), ("gre", PEER6, "ip6gretap")])
def test_a_kernel_without_the_tunnel_is_told_of_before_anything_is_made(
    world: World, kind: str, peer: object, link: str
) -> None:
    world.host.lacking.add(link)
    with pytest.raises(Unsupported, match=link):
        made(world, tunnel=kind, peers=(peer,))
    assert world.store.networks() == []


def test_a_vni_is_one_networks_and_both_are_named(world: World) -> None:
    made(world, 1, name="shop")
    with pytest.raises(Conflict, match=f"{network_id(2)[:12]}: VNI 8147549 is that of network {network_id(1)[:12]}"):
        made(world, 2, vni=8147549)
    world.networks.delete(network_id(1), now())
    assert made(world, 3, name="shop").tunnel is not None


def test_a_tunnel_is_not_on_a_bridge_of_the_operators(world: World) -> None:
    world.host.fake.plant(Bridge(key=link_key("br0"), scope=HOST, mtu=1500))
    with pytest.raises(InvalidRequest, match="cannot be on br0, a bridge of your own"):
        made(world, bridge="br0")


def test_the_same_request_again_is_a_success_whatever_the_routes_are_now(world: World) -> None:
    made(world, peers=(PEER4,))
    world.host.routes[str(PEER4)] = RouteInfo(link="eth0", mtu=1300, source=OWN4)
    assert made(world, peers=(PEER4,)).mtu == 1450
    with pytest.raises(Conflict, match="differs"):
        made(world, peers=(PEER4,), port=4799)


def test_networks_on_one_subnet_may_be_if_one_at_most_has_a_gateway(world: World) -> None:
    """Each that has none has a conntrack zone of its own, which is free again when it is gone."""
    without = Subnet(network=ip_network("10.1.0.0/24"))
    world.networks.create(network_request(1), now())
    for number in (2, 3):
        world.networks.create(network_request(number, subnets=(without,), internal=True), now())
    rows = {row.id: row.network.zone for row in world.store.networks()}
    assert rows == {network_id(1): None, network_id(2): 0x5700, network_id(3): 0x5701}
    with pytest.raises(Conflict, match=f"overlaps one of network {network_id(1)[:12]}, and the host has a gateway in"):
        world.networks.create(network_request(4, subnets=(subnet("10.1.0.0/25"),)), now())
    world.networks.delete(network_id(2), now())
    world.networks.create(network_request(5, subnets=()), now())
    row = world.store.network(network_id(5))
    assert row is not None
    assert row.network.zone == 0x5700


def test_a_subnet_that_the_host_is_in_is_fine_for_a_network_without_a_gateway(world: World) -> None:
    world.host.connect("eth0", "10.1.0.0/16")
    without = Subnet(network=ip_network("10.1.0.0/24"))
    world.networks.create(network_request(1, subnets=(without,), internal=True), now())
    with pytest.raises(Conflict, match="leave the host out of the network"):
        world.networks.create(network_request(2, subnets=(subnet("10.1.0.0/24"),)), now())


def test_a_link_where_containers_are_kept_apart_is_between_those_of_one_host(world: World) -> None:
    made(world, icc=False, peers=(PEER4,))
    run = OpenPorts(address=ip_address("10.1.0.2"), transport="tcp", first=80, last=80)
    with pytest.raises(InvalidRequest, match="a link is between containers of one host"):
        world.endpoints.create(endpoint_request(2, links=(run,)), now())
    world.endpoints.create(endpoint_request(1), now())
    world.endpoints.create(endpoint_request(2, links=(run,)), now())
    assert [row.endpoint.links for row in world.store.endpoints()] == [(), (run,)]


def test_each_peer_is_one_entry_or_one_link(world: World) -> None:
    peers = (PEER4, ip_address("192.0.2.3"))
    vxlan, gre = made(world, 1, peers=peers), made(world, 2, tunnel="gre", peers=peers)
    objects = world.host.fake.objects
    device = link_name("t", vxlan.id)
    assert {key for key in objects if key.kind == "flood"} == {flood_key(device, str(peer)) for peer in peers}
    links = [held.resource for held in objects.values() if isinstance(held.resource, PeerTunnel)]
    assert {link.remote for link in links} == set(map(str, peers))
    assert all(link.bridge == gre.link for link in links)
    assert {one.resource.link for one in objects.values() if isinstance(one.resource, FloodEntry)} == {device}
