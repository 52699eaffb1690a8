"""Containers of one network that are kept apart (ICC off): by no packet and no frame, but for what a link opens.

    apart  10.7.1.0/24  ann, who has links to bob; bob, who publishes a port; cid        enable_icc=false
    open   10.7.2.0/24  eve, fay                                                         for comparison

With br_netfilter off and on, for the kernel takes other ways then (facts/network.md 7).
"""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

import pytest

from drivers.naming import bridge_mac
from tests.lab.net import HERE, THERE
from tests.lab.wait import await_
from tests.libnetwork import Container, Network
from tests.matrix.docker import set_br_netfilter
from tests.matrix.frames import Station, evade, evasions, neighbour_discovery
from tests.matrix.ports_street import BACKENDS, Street
from tests.matrix.table import Party, rows
from tests.matrix.traffic import OPEN, SILENT, Knock

pytestmark = pytest.mark.kernel

OFF: Final = {"com.docker.network.bridge.enable_icc": "false"}
GATEWAYS: Final = {4: "10.7.1.1", 6: "fd07:1::1"}

TCP, RANGE, BELOW, ABOVE = 7000, 7015, 7009, 7020
PORTS: Final = (7007, TCP, RANGE, BELOW, ABOVE)
BOB: Final = ("10.7.1.3", "[fd07:1::3]")
LINKS: Final = ",".join(f"{bob}:7000/tcp,{bob}:7010-7019/udp" for bob in BOB)

TABLE = rows(
    """
    # from  to          verdict
    ann     bob         closed            # a port without a link, and ping
    bob     ann         closed
    cid     bob         closed
    cid     ann         closed
    bob     cid         closed
    cid     bob-local   closed            # by link-local addresses
    ann     bob-local   closed
    bob     ann-local   closed
    eve     fay         open    as eve    # (a network whose containers do reach each other)
    eve     fay-local   open

    ann     bob-tcp     open    as ann    # its links
    ann     bob-range   open    as ann
    ann     bob-udp     closed            # the other transport
    ann     bob-stream  closed
    ann     bob-below   closed            # the ports beside the range
    ann     bob-above   closed
    cid     bob-tcp     closed            # another container
    cid     bob-range   closed
    bob     ann-tcp     closed            # the other way
    bob     ann-range   closed

    ann     gateway     open    as ann    # the host, and the world
    cid     gateway     open    as cid
    cid     host        open    as cid
    cid     lan         open    as host
    host    cid         open
    lan     cid         closed
    cid     eve         closed
    eve     cid         closed

    lan     published   open    as lan    # what bob publishes
    host    published   open    as host
    eve     published   open    as eve
    ann     published   open    as gateway
    cid     published   open    as gateway
    bob     published   open    as gateway
    """
)


@dataclass(frozen=True, slots=True)
class Apart:
    """The street, with its containers as parties of the table and as stations on the wire."""

    street: Street
    network: Network
    parties: dict[str, Party]
    stations: dict[str, Station]
    containers: dict[str, Container]


@pytest.fixture(scope="module", params=BACKENDS)
def apart(request: pytest.FixtureRequest) -> Iterator[Apart]:
    """Build it once for each backend."""
    with Street.built("icc", request.param) as street:
        yield _settle(street)


def _settle(street: Street) -> Apart:
    apart = street.docker.create_network(subnet="10.7.1.0/24", subnet6="fd07:1::/64", options=OFF)
    beside = street.network(2)
    parties = {
        "host": Party(street.host, HERE),
        "lan": Party(street.lan, THERE),
        "gateway": Party(street.host, GATEWAYS),
    }
    stations: dict[str, Station] = {}
    containers: dict[str, Container] = {}
    for name, on, last in (
        ("ann", apart, 2),
        ("bob", apart, 3),
        ("cid", apart, 4),
        ("eve", beside, 2),
        ("fay", beside, 3),
    ):
        publish = ["8000:7000/tcp", "8000:7000/udp"] if name == "bob" else []
        links = {"weft.link": LINKS} if name == "ann" else {}
        container = _start(street, on, last, publish=publish, driver_opts=links)
        containers[name], party = container, street.party(container, name, on)
        parties[name] = party
        stations[name] = station = _station(container, on, party)
        parties[f"{name}-local"] = Party(party.spot, {6: f"{station.link_local}%eth0"})
        for port in PORTS:
            party.spot.serve(port)
    for spot in (street.host, street.lan):
        spot.serve()
    for name in ("ann", "bob"):
        spot, addresses = parties[name].spot, parties[name].addresses
        for what, port, transport in (
            *(("tcp", TCP, "tcp"), ("udp", TCP, "udp"), ("range", RANGE, "udp"), ("stream", RANGE, "tcp")),
            *(("below", BELOW, "udp"), ("above", ABOVE, "udp")),
        ):
            parties[f"{name}-{what}"] = Party(spot, addresses, port, (transport,))
    parties["published"] = Party(street.host, HERE, 8000, ("tcp", "udp"))
    for subnet in ("10.7.0.0/16", "fd07::/16"):
        street.neighbour.ip("route", "add", subnet, "via", HERE[6 if ":" in subnet else 4])
    return Apart(street, apart, parties, stations, containers)


def _start(street: Street, on: Network, last: int, *, publish: list[str], driver_opts: dict[str, str]) -> Container:
    v4, v6 = (str(pool.network_address + last) for pool in on.pools)
    return street.docker.start_container(on, publish=publish, ip=v4, ip6=v6, driver_opts=driver_opts)


def _station(container: Container, on: Network, party: Party) -> Station:
    return Station.of(party.spot, container.endpoint(on).mac, party.addresses[4], party.addresses[6])


@pytest.fixture(params=[0, 1], ids=["br_netfilter-0", "br_netfilter-1"])
def br_netfilter(apart: Apart, request: pytest.FixtureRequest) -> int:
    """Set it for both IP versions."""
    value: int = request.param
    set_br_netfilter(apart.street.node, value)
    return value


# Open vSwitch answers ARP by itself, and knows the addresses of each port: tests/drivers/ovs_pipeline has its frames
on_a_bridge = pytest.mark.parametrize("apart", ["bridge"], indirect=True)


def test_who_reaches_whom(apart: Apart, br_netfilter: int) -> None:
    knocks = [knock for row in TABLE for knock in row.knocks(apart.parties)]
    assert apart.street.traffic.surprises(knocks) == []


@on_a_bridge
def test_no_frame_gets_through(apart: Apart, br_netfilter: int) -> None:
    cid, bob = apart.stations["cid"], apart.stations["bob"]
    assert evade(cid, bob, evasions(cid, bob, bridge_mac(apart.network.id), GATEWAYS[4])) == []


@on_a_bridge
def test_the_same_frames_get_through_where_containers_reach_each_other(apart: Apart) -> None:
    """Else the test above would show nothing."""
    set_br_netfilter(apart.street.node, 0)
    eve, fay = apart.stations["eve"], apart.stations["fay"]
    endpoint = apart.containers["eve"].endpoints[0]
    bridge = bridge_mac(endpoint.network.id)
    frames = evasions(eve, fay, bridge, "10.7.2.1")
    to_all_by_the_host = {name for name in frames if name.endswith(f" by {bridge}")}  # which the host does not pass on
    assert set(frames) - set(evade(eve, fay, frames)) == to_all_by_the_host


@on_a_bridge
def test_arp_and_neighbour_discovery_get_through(apart: Apart, br_netfilter: int) -> None:
    cid, bob = apart.stations["cid"], apart.stations["bob"]
    frames = neighbour_discovery(cid, bob)
    assert set(evade(cid, bob, frames)) == set(frames)


@contextmanager
def mouths(*wanted: tuple[Party, int], version: int) -> Iterator[list[socket.socket]]:
    """Yield a UDP socket for each party and port, in one IP version."""
    with ExitStack() as stack:
        made = []
        for party, port in wanted:
            sock = party.spot.make(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
            sock.bind((party.addresses[version], port))
            made.append(stack.enter_context(sock))
        yield made


def say(sock: socket.socket, to: socket.socket, word: bytes) -> None:
    sock.sendto(word, to.getsockname()[:2])


def heard(sock: socket.socket, word: bytes) -> bool:
    """Wait for a word, and tell whether it is all that came."""
    return await_(lambda: sock.recv(64), 10, f"{word!r} to come") == word  # BlockingIOError: not yet


@pytest.mark.parametrize("version", [4, 6])
def test_a_link_is_open_one_way_in_the_middle_of_a_conversation_too(
    apart: Apart, br_netfilter: int, version: int
) -> None:
    ann, bob = apart.parties["ann"], apart.parties["bob"]
    port = 6000 + 2 * br_netfilter  # a conversation is remembered for longer than a test
    ports = ((ann, port), (ann, port + 1), (bob, 7016), (bob, 7017))
    with mouths(*ports, version=version) as (mine, my_other, his, his_other):
        say(mine, his, b"question")
        assert heard(his, b"question")
        say(his, mine, b"answer")
        assert heard(mine, b"answer")
        say(his_other, mine, b"from another port")
        say(his, my_other, b"to another port")
        say(my_other, his, b"one more question")
        say(his, mine, b"end")
        assert heard(mine, b"end")
        assert heard(his, b"one more question")
        say(his, my_other, b"end")
        assert heard(my_other, b"end")


@pytest.mark.parametrize("version", [4, 6])
def test_links_go_with_their_endpoint(apart: Apart, br_netfilter: int, version: int) -> None:
    """Those who get its address next have none, though they go on with its conversations."""
    street, network, bob = apart.street, apart.network, apart.parties["bob"]
    first = _start(street, network, 9, publish=[], driver_opts={"weft.link": LINKS})
    party = street.party(first, "dan", network)
    with mouths((party, 6000), (bob, 7016), version=version) as (mine, his):
        say(mine, his, b"question")
        assert heard(his, b"question")
        first.stop()
        second = _start(street, network, 9, publish=[], driver_opts={})
        heir = street.party(second, "dan's heir", network)
        assert heir.addresses == party.addresses
        with mouths((heir, 6000), (apart.parties["ann"], 6000), version=version) as (again, ann):
            say(again, his, b"another question")
            say(ann, his, b"end")
            assert heard(his, b"end")
        knocks = [Knock(heir.spot, bob.addresses[version], what, port) for what, port in (("tcp", TCP), ("udp", RANGE))]
        knocks += [Knock(apart.parties["ann"].spot, bob.addresses[version], "tcp", TCP, OPEN)]
        assert street.traffic.surprises(knocks) == []
        second.stop()
    elements = street.node.run("nft", "list", "set", "inet", "weft", f"linked{version}").stdout
    assert party.addresses[version] not in elements


def test_links_work_on_an_internal_network_though_no_other_needs_the_host_to_forward() -> None:
    with Street.built("inner") as street:
        network = street.docker.create_network(subnet="10.7.1.0/24", subnet6="fd07:1::/64", internal=True, options=OFF)
        ann, bob, cid = (
            street.party(
                _start(street, network, last, publish=[], driver_opts={"weft.link": LINKS} if last == 2 else {}),
                f"{last}",
                network,
            )
            for last in (2, 3, 4)
        )
        for port in (TCP, RANGE):
            bob.spot.serve(port)
        knocks = [
            Knock(one.spot, address, transport, port, wanted)
            for one, wanted in ((ann, OPEN), (cid, SILENT))
            for address in bob.addresses.values()
            for transport, port in (("tcp", TCP), ("udp", RANGE))
        ]
        for value in (0, 1):
            set_br_netfilter(street.node, value)
            assert street.traffic.surprises(knocks) == []
