"""What Docker says becomes what is meant, and what cannot be meant is refused with the reason."""

import json
from dataclasses import replace
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface, ip_network
from typing import Any

import pytest

from drivers.errors import InvalidRequest
from drivers.model import Subnet
from plugin import wire
from plugin.pools import LOCAL, SWARM
from plugin.requests import (
    EndpointRequest,
    Joined,
    NetworkRequest,
    NetworkSettings,
    PoolRequest,
    PortRequest,
    Route,
)
from plugin.translate import (
    discovered,
    endpoint_reply,
    endpoint_request,
    gateway_need,
    join_reply,
    mac_address,
    network_request,
    pool_request,
)

NETWORK = "5f" * 32
ENDPOINT = "e0" * 32
V4 = {"AddressSpace": "LocalDefault", "Pool": "10.9.0.0/24", "Gateway": "10.9.0.1/24"}
V6 = {"AddressSpace": "LocalDefault", "Pool": "fd00:9::/64", "Gateway": "fd00:9::1/64"}
SUBNET4 = Subnet(network=ip_network("10.9.0.0/24"), gateway=ip_interface("10.9.0.1/24"))
SUBNET6 = Subnet(network=ip_network("fd00:9::/64"), gateway=ip_interface("fd00:9::1/64"))


def network(
    v4: list[dict[str, Any]] | None = None, v6: list[dict[str, Any]] | None = None, **options: object
) -> NetworkRequest:
    named = {f"com.docker.network.{key}": value for key, value in options.items()}
    body = {"NetworkID": NETWORK, "Options": named, "IPv4Data": v4, "IPv6Data": v6}
    return network_request(wire.CREATE_NETWORK.decode(json.dumps(body).encode()))


def endpoint(interface: dict[str, Any] | None = None, ports: list[dict[str, Any]] | None = None) -> EndpointRequest:
    body = {
        "NetworkID": NETWORK,
        "EndpointID": ENDPOINT,
        "Interface": interface,
        "Options": {"com.docker.network.portmap": ports},
    }
    return endpoint_request(wire.CREATE_ENDPOINT.decode(json.dumps(body).encode()))


def test_a_plain_network() -> None:
    assert network([V4]) == NetworkRequest(id=NETWORK, subnets=(SUBNET4,))


def test_a_network_with_all_that_can_be_said() -> None:
    generic = {
        "weft.backend": "bridge",
        "com.docker.network.bridge.name": "br-lan",
        "com.docker.network.driver.mtu": "1400",
        "com.docker.network.bridge.enable_ip_masquerade": "0",
        "com.docker.network.container_iface_prefix": "net",
        "com.docker.network.advertise_addr_ms": "250",
    }
    assert network([V4], [V6], generic=generic, internal=True, enable_ipv4=True, enable_ipv6=True) == NetworkRequest(
        id=NETWORK,
        subnets=(SUBNET4, SUBNET6),
        internal=True,
        settings=NetworkSettings(
            backend="bridge", bridge="br-lan", mtu=1400, masquerade=False, interface_prefix="net", announce_ms=250
        ),
    )


@pytest.mark.parametrize("v6", [None, [], [{"AddressSpace": "null", "Pool": "::/0"}]])
def test_the_null_ipam_means_no_addresses(v6: list[dict[str, Any]] | None) -> None:
    assert network([{"AddressSpace": "null", "Pool": "0.0.0.0/0"}], v6).subnets == ()


def test_a_pool_is_what_it_is_whichever_list_it_is_in() -> None:
    assert network([V6, V4]).subnets == (SUBNET6, SUBNET4)


@pytest.mark.parametrize(
    ("switches", "subnets"),
    [
        ({}, (SUBNET4, SUBNET6)),
        ({"enable_ipv4": None, "enable_ipv6": None}, (SUBNET4, SUBNET6)),
        ({"enable_ipv4": False, "enable_ipv6": True}, (SUBNET6,)),
        ({"enable_ipv6": False}, (SUBNET4,)),
        ({"enable_ipv4": False, "enable_ipv6": False}, ()),
    ],
)
def test_a_family_that_is_off_has_no_subnets(switches: dict[str, bool | None], subnets: tuple[Subnet, ...]) -> None:
    assert network([V4], [V6], **switches).subnets == subnets


def test_a_subnet_without_gateway_has_none() -> None:
    assert network([{"Pool": "10.9.0.0/24"}]).subnets == (Subnet(network=ip_network("10.9.0.0/24")),)


def test_a_gateway_has_its_pool_s_length() -> None:
    assert network([V4 | {"Gateway": "10.9.0.9/32"}]).subnets[0].gateway == ip_interface("10.9.0.9/24")


@pytest.mark.parametrize("pool", ["10.9.0.0/31", "10.9.0.0/32"])
def test_the_shortest_pools_have_no_network_address(pool: str) -> None:
    assert network([{"Pool": pool, "Gateway": "10.9.0.0"}]).subnets[0].gateway == ip_interface(pool)


@pytest.mark.parametrize(
    ("pools", "words"),
    [
        ([V4 | {"Gateway": "10.8.0.1/24"}], "gateway 10.8.0.1 is outside its subnet 10.9.0.0/24"),
        ([V4 | {"Gateway": "fd00::1/64"}], "gateway fd00::1 is outside its subnet 10.9.0.0/24"),
        ([V4 | {"Gateway": "10.9.0.0/24"}], "gateway 10.9.0.0 is the network address of 10.9.0.0/24"),
        ([V4 | {"Gateway": "10.9.0.255/24"}], "gateway 10.9.0.255 is the broadcast address of 10.9.0.0/24"),
        ([V4, V4], "subnets 10.9.0.0/24 and 10.9.0.0/24 of one network overlap"),
        ([V6, {"Pool": "fd00::/16"}], "subnets fd00::/16 and fd00:9::/64 of one network overlap"),
        ([{"AddressSpace": "LocalDefault", "Pool": "0.0.0.0/0"}], "subnet 0.0.0.0/0 cannot be"),
        ([{"Pool": "224.1.0.0/16"}], "subnet 224.1.0.0/16 cannot be"),
        ([{"Pool": "127.1.0.0/16"}], "subnet 127.1.0.0/16 cannot be"),
        ([{"Pool": ""}], "network 5f5f5f5f5f5f: a pool without a subnet"),
    ],
)
def test_pools_that_cannot_be_are_refused(pools: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        network(pools)


def test_a_small_mtu_contradicts_ipv6() -> None:
    small = {"com.docker.network.driver.mtu": "1279"}
    assert network([V4], generic=small).settings.mtu == 1279
    assert network([V4], [V6], generic={"com.docker.network.driver.mtu": "1280"}).settings.mtu == 1280
    with pytest.raises(InvalidRequest, match=r"com\.docker\.network\.driver\.mtu=1279 contradicts .* 1280 or more"):
        network([V4], [V6], generic=small)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"weft.vni": "7"}, "weft.vni: without a tunnel"),
        ({"weft.name": "shop", "weft.peers": "192.0.2.2"}, "weft.name, weft.peers: without a tunnel"),
        ({"weft.tunnel": "none", "weft.tunnel.port": "4799"}, r"weft.tunnel.port: without a tunnel"),
        ({"weft.tunnel": "vxlan"}, "weft.tunnel=vxlan needs weft.name or weft.vni, the same on every host"),
        ({"weft.tunnel": "vxlan", "weft.vni": "7", "weft.peers": "192.0.2.2,2001:db8::2"}, "cannot be mixed"),
        ({"weft.tunnel": "gre", "weft.vni": "7", "weft.tunnel.port": "4789"}, "GRE has no port"),
    ],
)
def test_a_tunnel_that_cannot_be_is_refused_wherever_options_come(given: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        network([V4], generic=given)
    with pytest.raises(InvalidRequest, match=words):
        gateway_need(wire.GW_ALLOC_CHECK.decode(json.dumps({"Options": {wire.GENERIC: given}}).encode()))


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ({"DiscoveryType": 1, "DiscoveryData": {"Address": "192.0.2.2", "Self": False}}, ("192.0.2.2", False)),
        ({"DiscoveryType": 1, "DiscoveryData": {"Address": "2001:db8::2", "Self": True}}, ("2001:db8::2", True)),
        ({"DiscoveryType": 1, "DiscoveryData": {"Address": "nonsense"}}, None),
        ({"DiscoveryType": 1, "DiscoveryData": {"Address": "127.0.0.1"}}, None),
        ({"DiscoveryType": 1, "DiscoveryData": None}, None),
        ({"DiscoveryType": 2, "DiscoveryData": {"Keys": ["x"]}}, None),
        ({"DiscoveryType": 2, "DiscoveryData": ["x"]}, None),
        ({}, None),
    ],
)
def test_a_discovered_host_is_read_and_nothing_else_of_discovery(body: dict[str, Any], wanted: object) -> None:
    found = discovered(wire.DISCOVER_NEW.decode(json.dumps(body).encode()))
    assert (found and (str(found.address), found.is_self)) == wanted


def test_a_plain_endpoint() -> None:
    assert endpoint() == EndpointRequest(network=NETWORK, id=ENDPOINT)


def test_an_endpoint_with_addresses() -> None:
    found = endpoint({"Address": "10.9.0.2/24", "AddressIPv6": "fd00:9::2/64", "MacAddress": "02-AB-00-00-00-0F"})
    assert (found.ipv4, found.ipv6) == (IPv4Interface("10.9.0.2/24"), IPv6Interface("fd00:9::2/64"))
    assert found.mac == "02:ab:00:00:00:0f"


@pytest.mark.parametrize(
    "mac",
    [
        "01:00:5e:00:00:01",
        "ff:ff:ff:ff:ff:ff",
        "00:00:00:00:00:00",
        "02:00:00:00:00",
        "02:00:00:00:00:00:00:01",
        "0200.0000.0001",
        "x",
        "02:00:00:00:00:0g",
    ],
)
def test_a_mac_that_no_interface_can_have_is_refused(mac: str) -> None:
    with pytest.raises(InvalidRequest, match=r"MAC address .* cannot be: allowed is"):
        mac_address(mac)


def test_ports_come_in_order_and_once() -> None:
    rows = [
        {"Proto": 17, "Port": 53, "HostIP": "", "HostPort": 0, "HostPortEnd": 0},
        {"Proto": 6, "Port": 80, "HostIP": "127.0.0.1", "HostPort": 8080, "HostPortEnd": 8080},
        {"Proto": 6, "Port": 80, "HostIP": "", "HostPort": 6000, "HostPortEnd": 6002},
        {"Proto": 132, "Port": 9, "HostIP": "::1", "HostPort": 7},
    ]
    wanted = (
        PortRequest(transport="sctp", container_first=9, host=ip_address("::1"), host_first=7, host_last=7),
        PortRequest(transport="tcp", container_first=80, host_first=6000, host_last=6002),
        PortRequest(transport="tcp", container_first=80, host=ip_address("127.0.0.1"), host_first=8080, host_last=8080),
        PortRequest(transport="udp", container_first=53),
    )
    assert endpoint(ports=rows).ports == wanted
    assert endpoint(ports=[*reversed(rows), rows[0]]).ports == wanted


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"Proto": 1, "Port": 80}, r"published port 80 of protocol 1 cannot be: allowed is .* tcp \(6\), udp \(17\)"),
        ({"Port": 80}, "protocol 0 cannot be"),
        ({"Proto": 6}, "published port 0"),
        ({"Proto": 6, "Port": 80, "HostPort": 90, "HostPortEnd": 80}, "host ports 90-80 for 80/tcp cannot be"),
        ({"Proto": 6, "Port": 80, "HostPort": 0, "HostPortEnd": 80}, "host ports 0-80 for 80/tcp cannot be"),
        ({"Proto": 6, "Port": 80, "HostIP": "localhost"}, "host address 'localhost' of a published port is no IP"),
    ],
)
def test_ports_that_cannot_be_are_refused(row: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        endpoint(ports=[row])


def test_only_what_docker_had_not_decided_is_answered() -> None:
    mac = "02:00:00:00:00:02"
    chosen = EndpointRequest(
        network=NETWORK, id=ENDPOINT, mac=mac, ipv4=IPv4Interface("10.9.0.7/24"), ipv6=IPv6Interface("fd09::7/64")
    )
    nothing = wire.EndpointInterface()
    assert endpoint_reply(nothing, chosen, mac).interface.model_dump() == {
        "Address": "10.9.0.7/24",
        "AddressIPv6": "fd09::7/64",
        "MacAddress": mac,
    }
    everything = wire.EndpointInterface.model_validate(
        {"Address": "10.9.0.7/24", "AddressIPv6": "fd09::7/64", "MacAddress": mac}
    )
    assert set(endpoint_reply(everything, chosen, mac).interface.model_dump().values()) == {""}


def of(interface: dict[str, str], **options: str) -> EndpointRequest:
    """Return the endpoint that is asked for with --driver-opt weft.KEY=VALUE."""
    given = {f"weft.{key}": value for key, value in options.items()}
    body = {"NetworkID": NETWORK, "EndpointID": ENDPOINT, "Interface": interface, "Options": given}
    return endpoint_request(wire.CREATE_ENDPOINT.decode(json.dumps(body).encode()))


def test_without_ipam_an_endpoint_s_options_give_it_its_address() -> None:
    chosen = of({}, ip="10.9.0.7/24,fd09::7/64", mac="02:00:00:00:00:02")
    assert (chosen.ipv4, chosen.ipv6) == (IPv4Interface("10.9.0.7/24"), IPv6Interface("fd09::7/64"))
    assert chosen.mac == "02:00:00:00:00:02"
    with pytest.raises(InvalidRequest, match=r"weft\.ip=10\.9\.0\.7 lacks its prefix length"):
        of({}, ip="10.9.0.7")


def test_with_ipam_they_must_not_contradict_it() -> None:
    given = {"Address": "10.9.0.7/24", "MacAddress": "02:00:00:00:00:02"}
    same = of(given, ip="10.9.0.7", mac="02:00:00:00:00:02")
    assert replace(same, settings=of(given).settings) == of(given)
    with pytest.raises(InvalidRequest, match=r"weft\.ip=10\.9\.0\.8 contradicts 10\.9\.0\.7, .* choose it with --ip"):
        of(given, ip="10.9.0.8")
    with pytest.raises(
        InvalidRequest, match=r"weft\.mac=02:00:00:00:00:03 contradicts --mac-address 02:00:00:00:00:02"
    ):
        of(given, mac="02:00:00:00:00:03")


def pool(**fields: object) -> PoolRequest:
    """Return the pool that is asked for."""
    return pool_request(wire.REQUEST_POOL.decode(json.dumps(fields).encode()))


def test_a_pool_tells_its_own_family() -> None:
    assert pool(Pool="fd09::/64", V6=False) == PoolRequest(space=LOCAL, version=6, subnet=ip_network("fd09::/64"))
    assert pool(AddressSpace=SWARM, Pool="", V6=True) == PoolRequest(space=SWARM, version=6)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"SubPool": "10.9.0.0/24"}, "--ip-range 10.9.0.0/24 needs the subnet"),
        ({"Pool": "224.0.0.0/8"}, "subnet 224.0.0.0/8 cannot be"),
        ({"Pool": "0.0.0.0/0"}, "subnet 0.0.0.0/0 cannot be"),
        ({"Pool": "127.0.0.0/24"}, "subnet 127.0.0.0/24 cannot be"),
        ({"Pool": "10.9.0.0/24", "SubPool": "10.9.0.0/16"}, "--ip-range 10.9.0.0/16 is not within"),
        ({"Pool": "10.9.0.0/24", "SubPool": "fd09::/64"}, "--ip-range fd09::/64 is not within"),
        ({"Pool": "10.9.0.0/24", "SubPool": "10.9.0.0/32"}, "--ip-range 10.9.0.0/32 has no address"),
        ({"AddressSpace": "a/b"}, "address space 'a/b' cannot be"),
        ({"Options": {"weft.pol": "x"}}, "unknown IPAM option 'weft.pol': did you mean weft.pool"),
    ],
)
def test_requests_for_pools_that_cannot_be_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        pool(**fields)


def test_a_network_says_which_of_its_subnets_are_weft_s_pools() -> None:
    rows = [V4 | {"AddressSpace": LOCAL}, {"AddressSpace": "LocalDefault", "Pool": "10.8.0.0/24"}]
    asked = network_request(
        wire.CREATE_NETWORK.decode(json.dumps({"NetworkID": NETWORK, "IPv4Data": rows, "IPv6Data": []}).encode())
    )
    assert asked.pools == ((LOCAL, ip_network("10.9.0.0/24")),)


def test_joining() -> None:
    joined = Joined(
        link="wfc0",
        prefix="net",
        name="web0",
        gateway4=ip_address("10.9.0.1"),
        gateway6=ip_address("fd00:9::1"),
        routes=(
            Route(destination=ip_network("10.8.0.0/16"), gateway=ip_address("10.9.0.7")),
            Route(destination=ip_network("fd00:8::/64")),
        ),
    )
    assert json.loads(join_reply(joined).model_dump_json()) == {
        "InterfaceName": {"SrcName": "wfc0", "DstPrefix": "net", "DstName": "web0"},
        "Gateway": "10.9.0.1",
        "GatewayIPv6": "fd00:9::1",
        "StaticRoutes": [
            {"Destination": "10.8.0.0/16", "RouteType": 0, "NextHop": "10.9.0.7"},
            {"Destination": "fd00:8::/64", "RouteType": 1, "NextHop": ""},
        ],
        "DisableGatewayService": True,
    }


def test_docker_gwbridge_comes_only_where_it_was_asked_for() -> None:
    reply = join_reply(Joined(link="wfc0", prefix="eth"))
    assert (reply.gateway, reply.gateway6, reply.no_gateway_service) == ("", "", True)
    asked = join_reply(Joined(link="wfc0", prefix="eth", gwbridge=True))
    assert (asked.gateway, asked.gateway6, asked.no_gateway_service) == ("", "", False)
