"""Gateway modes, trusted links and lists of who may come, cell by cell, the engine played."""

import errno
import json
import socket
from collections.abc import Iterator

import pytest

from tests.lab.net import HERE
from tests.lab.wait import await_
from tests.matrix.docker import set_br_netfilter
from tests.matrix.modes_street import PUBLISHED, UNPUBLISHED, Cell, Modes, built
from tests.matrix.modes_table import ASKED, HOUSES, MODES, House
from tests.matrix.ports_street import BACKENDS
from tests.matrix.table import Party
from tests.matrix.traffic import OPEN, PROTOCOLS, SILENT, Knock

pytestmark = pytest.mark.kernel

CELLS = [
    pytest.param((house, version, what), id=f"{house.name}-v{version}-{what}")
    for house in HOUSES
    for version in (4, 6)
    for what in (*ASKED, "outside")
    if (version, what) != (6, "loopback")  # [::1] is routed by nobody
]


@pytest.fixture(scope="module", params=BACKENDS)
def street(request: pytest.FixtureRequest) -> Iterator[Modes]:
    """Build it once for each backend."""
    with built(request.param) as street:
        yield street


@pytest.fixture(scope="module", params=[0, 1], ids=["br_netfilter-0", "br_netfilter-1"])
def surprises(street: Modes, request: pytest.FixtureRequest) -> dict[Cell, list[str]]:
    """Return what went otherwise than expected, by cell."""
    set_br_netfilter(street.node, request.param)
    return street.look()


@pytest.mark.parametrize("cell", CELLS)
def test_who_reaches_whom(street: Modes, surprises: dict[Cell, list[str]], cell: Cell) -> None:
    if cell[0] not in street.houses:
        pytest.skip("a bridge of the operator's has no place on Open vSwitch")
    assert surprises[cell] == []


@pytest.mark.parametrize("mode", MODES)
def test_sctp_is_no_exception(street: Modes, mode: str) -> None:
    seen = street.look_with_sctp(House(mode, mode, trusted=True))
    assert {cell: surprises for cell, surprises in seen.items() if surprises} == {}


def test_a_routed_network_takes_no_port_of_the_hosts(street: Modes) -> None:
    """Neither bound nor held: anybody else can have it, in the IP version that is routed."""
    for mode4 in MODES:
        for mode6 in MODES:
            port = street.houses[House(mode4, mode6, trusted=True)].port
            for version, mode, family in ((4, mode4, socket.AF_INET), (6, mode6, socket.AF_INET6)):
                with street.host.spot.make(family, socket.SOCK_STREAM) as sock:
                    taken = _bind(sock, HERE[version], port)
                assert taken == (0 if mode == "routed" else errno.EADDRINUSE), (mode4, mode6, version)


def _bind(sock: socket.socket, address: str, port: int) -> int:
    try:
        sock.bind((address, port))
    except OSError as error:
        return error.errno or 0
    return 0


def test_the_ports_of_a_routed_network_are_listed_at_the_containers_address(street: Modes) -> None:
    house = House("nat", "routed", trusted=True)
    there = street.houses[house]
    listed = json.loads(street.weft.cli("port", "ls", "--json").stdout)
    (endpoint,) = there.publisher.endpoints
    assert sorted((row["host"], row["transport"]) for row in listed if row["endpoint"] == endpoint.id) == [
        (f"0.0.0.0:{there.port}", "sctp"),
        (f"0.0.0.0:{there.port}", "tcp"),
        (f"0.0.0.0:{there.port}", "udp"),
        (f"127.0.0.1:{there.port + 1}", "tcp"),
        (f"127.0.0.1:{there.port + 1}", "udp"),
        (f"[{there.party.addresses[6]}]:{PUBLISHED}", "sctp"),
        (f"[{there.party.addresses[6]}]:{PUBLISHED}", "tcp"),
        (f"[{there.party.addresses[6]}]:{PUBLISHED}", "udp"),
    ]


@pytest.mark.parametrize(
    "house", [House("routed", "routed"), House("nat", "nat", trusted=True)], ids=lambda it: it.name
)
def test_a_port_beside_an_open_one_is_opened_and_closed_live(street: Modes, house: House) -> None:
    """Both are one element of a set while they are open."""
    there, client = street.houses[house], street.parties["trusted" if house.trusted else "neighbour"].spot
    (endpoint,) = there.publisher.endpoints

    def surprises(beside: str) -> list[str]:
        wanted = {PUBLISHED: OPEN, UNPUBLISHED: beside}
        address = there.party.addresses[4]
        return street.traffic.surprises([Knock(client, address, "tcp-talk", *one) for one in wanted.items()])

    port = f"{there.port + 1000}:{UNPUBLISHED}"
    street.weft.cli("port", "add", endpoint.id, port)
    assert surprises(OPEN) == []
    street.weft.cli("port", "rm", endpoint.id, port)
    assert surprises(SILENT) == []


def test_the_host_is_not_on_an_isolated_network(street: Modes) -> None:
    """It has no address there in that IP version, and no container is told of a gateway."""
    links = {one["id"]: one["link"] for one in json.loads(street.weft.cli("network", "ls", "--json").stdout)}
    for house, there in street.houses.items():
        (endpoint,) = there.publisher.endpoints
        addresses = street.node.run("ip", "-o", "address", "show", links[there.network.id], check=False).stdout
        for version, kind in ((4, "inet "), (6, "inet6 ")):
            isolated = house.mode(version) == "isolated"
            assert (kind in addresses) is not isolated, (house.name, version)
            told = [address for address in endpoint.gateways if (":" in address) == (version == 6)]
            assert bool(told) is not house.internal, (house.name, version)


def test_nothing_gets_from_an_isolated_network_to_the_host(street: Modes) -> None:
    """No answer would come back anyway, so the host is asked what it has heard: of this network nothing."""
    isolated, internal = (street.houses[House(mode, mode, internal=True)] for mode in ("isolated", "nat"))
    for version, family in ((4, socket.AF_INET), (6, socket.AF_INET6)):
        with (
            street.host.spot.make(family, socket.SOCK_DGRAM) as host,
            isolated.sibling.spot.make(family, socket.SOCK_DGRAM) as inside,
            internal.sibling.spot.make(family, socket.SOCK_DGRAM) as other,
        ):
            host.bind((HERE[version], UNPUBLISHED))
            inside.sendto(b"isolated", (HERE[version], UNPUBLISHED))
            other.sendto(b"internal", (HERE[version], UNPUBLISHED))
            assert await_(lambda host=host: host.recv(16), 10, "a word from the internal network") == b"internal"  # type: ignore[misc]


def test_a_list_closes_all_of_an_unprotected_container_that_publishes_nothing(street: Modes) -> None:
    there = street.houses[House("nat-unprotected", "nat-unprotected", trusted=True, allow=True)]
    quiet = street.party(street.docker.start_container(there.network), there.network, "quiet")
    knocks = [
        Knock(street.parties[client].spot, address, protocol, wanted=wanted)
        for client, wanted in (("neighbour", SILENT), ("yard", SILENT), ("trusted", OPEN))
        for address in quiet.addresses.values()
        for protocol in PROTOCOLS
    ]
    quiet.spot.serve()
    assert street.traffic.surprises(knocks) == []


def test_nobody_but_the_host_reaches_its_loopback(street: Modes) -> None:
    """A service on 127.0.0.1 that weft knows nothing of; every packet does get to the host."""
    street.host.spot.serve(host="127.0.0.1")
    street.node.run("nft", "-f", "-", stdin=PROBE)
    visitors = [party for name, party in street.parties.items() if name != "host"]
    parties: list[Party] = [*visitors, *(there.party for there in street.houses.values())]
    knocks = [Knock(party.spot, "127.0.0.1", protocol) for party in parties for protocol in PROTOCOLS]
    knocks += [Knock(street.host.spot, "127.0.0.1", protocol, wanted=OPEN) for protocol in PROTOCOLS]
    assert street.traffic.surprises(knocks) == []
    counted = json.loads(street.node.run("nft", "-j", "list", "counter", "inet", "probe", "came").stdout)
    assert counted["nftables"][1]["counter"]["packets"] >= 3 * len(parties)


PROBE = """
table inet probe {
    counter came {}
    chain first { type filter hook prerouting priority -310; iifname != "lo" ip daddr 127.0.0.0/8 counter name came; }
}
"""
