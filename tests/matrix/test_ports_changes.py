"""When published ports come and go, and where the relay ends: real traffic, the engine played."""

import re
import socket
from collections.abc import Iterator
from typing import Final

import pytest

from tests.lab.net import HERE, THERE
from tests.libnetwork import CallRefusedError
from tests.matrix.ports_street import BACKENDS, LOOPBACK, Street
from tests.matrix.ports_table import ROWS, Row
from tests.matrix.ports_traffic import TALKS
from tests.matrix.traffic import OPEN, SILENT, Knock

pytestmark = pytest.mark.kernel

ONLY4: Final = frozenset({4})


@pytest.fixture(scope="module", params=BACKENDS)
def street(request: pytest.FixtureRequest) -> Iterator[Street]:
    """Build it once for each backend."""
    with Street.built("changes", request.param) as street:
        yield street


def knock(street: Street, port: int, wanted: str, *, version: int = 4, transport: str = "tcp") -> Knock:
    """Return the neighbour's attempt."""
    return Knock(street.lan, HERE[version], TALKS[transport], port, wanted)


def closed(street: Street, *knocks: Knock) -> bool:
    """Tell whether nobody answers."""
    return not any(seen.startswith(OPEN) for seen in street.traffic.seen(knocks))


def leftovers(street: Street) -> list[str]:
    """Return what there is for published ports: elements of maps, and sockets on the ports of this file."""
    table = street.node.run("nft", "list", "table", "inet", "weft").stdout
    sockets = street.node.run("ss", "-Hlntu").stdout
    mapped = [line for line in table.splitlines() if '" : ' in line]
    return mapped + [line for line in sockets.splitlines() if re.search(r":8[0-3]\d\d ", line)]


def test_ports_follow_the_way_out_and_go_with_the_last(street: Street) -> None:
    """NAT, holds and the relay are open between Program and Revoke, and at no other time."""
    home, away = street.docker.create_network(name="m", subnet="10.8.1.0/24"), street.network(11)
    away.name = "a"  # sorts before: whenever it is connected, it is the way out
    publish = ["8001:7000/tcp", "8001:7000/udp", "8001:7000/sctp"]
    web = street.docker.start_container(home, publish=publish)
    street.party(web, "web", home, 7000)

    def look(gateway6: str) -> None:
        by_relay = f"{OPEN} from {gateway6} at 7000"
        assert (
            street.traffic.surprises(
                [
                    *(knock(street, 8001, f"{OPEN} from {THERE[4]} at 7000", transport=name) for name in TALKS),
                    *(knock(street, 8001, by_relay, version=6, transport=name) for name in ("tcp", "udp")),
                ]
            )
            == []
        )
        assert len({one["endpoint"] for one in street.published()}) == 1

    look("10.8.1.1")
    for _ in range(3):
        web.connect(away)
        assert {one["endpoint"] for one in street.published()} == {web.endpoint(away).id}
        look(THERE[6])  # with IPv6 there is no need of the relay
        web.disconnect(away)
        assert {one["endpoint"] for one in street.published()} == {web.endpoint(home).id}
        look("10.8.1.1")
    assert leftovers(street)
    web.stop()
    assert street.published() == []
    assert leftovers(street) == []
    assert closed(street, *(knock(street, 8001, SILENT, version=v, transport=t) for v in (4, 6) for t in TALKS))
    with street.host.make(socket.AF_INET, socket.SOCK_STREAM) as sock:  # and somebody else may have it
        sock.bind(("0.0.0.0", 8001))  # noqa: S104 - it must be free everywhere


@pytest.mark.parametrize("row", [row for row in ROWS if not row.starts], ids=lambda row: row.name)
def test_what_nothing_can_serve_does_not_start(street: Street, row: Row) -> None:
    number = 20 + ROWS.index(row)
    network = street.network(number, row.house.versions)
    address = {"host": HERE, "loopback": LOOPBACK}[row.bound][row.version]
    address = f"[{address}]" if ":" in address else address
    with pytest.raises(CallRefusedError, match=f"container has no IPv{row.version} address"):
        street.docker.start_container(network, publish=["8300:80/tcp", f"{address}:8301:80/{row.transport}"])
    assert street.published() == []
    assert leftovers(street) == []


def test_the_relay_can_be_switched_off(street: Street) -> None:
    network = street.network(12, ONLY4, weft__relay="off")
    web = street.docker.start_container(network, publish=["8010:7000/tcp"])
    street.party(web, "web", network, 7000)
    assert street.traffic.surprises([knock(street, 8010, f"{OPEN} from {THERE[4]} at 7000")]) == []
    assert closed(street, knock(street, 8010, SILENT, version=6))
    assert [one["host"] for one in street.published()] == ["0.0.0.0:8010"]
    web.stop()


@pytest.mark.parametrize(("count", "relayed"), [(100, True), (101, False)])
def test_the_relay_passes_on_a_hundred_ports(street: Street, count: int, relayed: bool) -> None:
    network = street.network(13 + count - 100, ONLY4)
    ports = range(8100, 8100 + count)
    web = street.docker.start_container(network, publish=[f"{port}:{port}/udp" for port in ports])
    street.party(web, "web", network, ports[0], ports[-1])
    ends = (ports[0], ports[-1])
    there = [knock(street, port, f"{OPEN} from {THERE[4]} at {port}", transport="udp") for port in ends]
    assert street.traffic.surprises(there) == []
    if relayed:
        by_relay = [knock(street, port, OPEN, version=6, transport="udp") for port in ends]
        assert street.traffic.surprises(by_relay) == []
    else:
        assert closed(street, *(knock(street, port, SILENT, version=6, transport="udp") for port in ends))
    web.stop()


def test_an_internal_network_reaches_no_published_port_by_the_relay_either(street: Street) -> None:
    """The relay answers as the host, which a container of an internal network may otherwise talk to."""
    network = street.network(29, ONLY4)
    web = street.docker.start_container(network, publish=["8350:7000/tcp"])
    street.party(web, "web", network, 7000)
    internal = street.docker.create_network(subnet="10.8.30.0/24", subnet6="fd08:30::/64", internal=True)
    inmate = street.docker.start_container(internal)
    spot = street.party(inmate, "eve", internal).spot
    inmate.route(["10.8.30.1", "fd08:30::1"])  # so that the verdict is asked for, not the missing route
    at_the_host = [Knock(spot, address, "tcp-talk", 8350) for address in ("fd08:30::1", HERE[6], "10.8.30.1", HERE[4])]
    neighbours = knock(street, 8350, f"{OPEN} from 10.7.29.1 at 7000", version=6)
    seen = street.traffic.seen([*at_the_host, neighbours])
    assert seen[-1].startswith(OPEN)
    assert not any(one.startswith(OPEN) for one in seen[:-1])
    for container, its in ((web, network), (inmate, internal)):
        container.stop()
        street.docker.remove_network(its)
