"""Everybody who may use a published port, on one node: four kinds of containers that publish in every way there is."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

import pytest

from tests.lab.net import HERE, RUN_NETNS, THERE, Neighbour
from tests.lab.node import Node
from tests.lab.ovs import Ovs
from tests.lab.weft import Weft
from tests.libnetwork import Container, Libnetwork, Network
from tests.matrix.ports_table import (
    BOUNDS,
    CLIENTS,
    CLOSED,
    HOUSES,
    NAT,
    NOBODY,
    ROWS,
    TRANSPORTS,
    House,
    Row,
    expected,
)
from tests.matrix.ports_traffic import TALKS, talk
from tests.matrix.table import Party
from tests.matrix.test_reach import DOCKERS
from tests.matrix.traffic import OPEN, SILENT, Knock, Spot, Traffic

BACKENDS: Final = ("bridge", pytest.param("ovs", marks=pytest.mark.ovs))
LOOPBACK: Final[dict[int, str]] = {4: "127.0.0.1", 6: "::1"}

_SINGLE, _SHIFTED, _CHOSEN = 7000, 7200, 7300  # the container's ports; those of a range are the host's
_COUNT: Final = 3


@dataclass(frozen=True, slots=True)
class Street:
    """One node with its neighbour, weft in it, and the engine played."""

    node: Node
    neighbour: Neighbour
    weft: Weft
    docker: Libnetwork
    traffic: Traffic
    host: Spot
    lan: Spot

    @classmethod
    @contextmanager
    def built(cls, label: str, backend: str = "bridge") -> Iterator["Street"]:
        """Build a street for a while: FORWARD is DROP, and the host forwards."""
        with (
            Node(label) as node,
            Neighbour(node, f"{label}-lan") as neighbour,
            Ovs(node) if backend == "ovs" else nullcontext(),
            Weft(node, settings={"WEFT_BACKEND": backend}) as weft,
            Traffic() as traffic,
        ):
            for program in ("iptables", "ip6tables"):
                node.run(f"{program}-restore", stdin=DOCKERS)
            node.run("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
            host, lan = (
                traffic.spot(RUN_NETNS / place.netns, name) for place, name in ((node, "host"), (neighbour, "lan"))
            )
            with Libnetwork(weft.socket, netns=node.netns) as docker:
                yield cls(node, neighbour, weft, docker, traffic, host, lan)

    def network(self, number: int, versions: frozenset[int] = frozenset({4, 6}), **options: str) -> Network:
        """Create a network 10.7.NUMBER.0/24, fd07:NUMBER::/64."""
        return self.docker.create_network(
            subnet=f"10.7.{number}.0/24" if 4 in versions else None,
            subnet6=f"fd07:{number}::/64" if 6 in versions else None,
            ipv4=4 in versions,
            options={key.replace("__", "."): value for key, value in options.items()},
        )

    def party(self, container: Container, name: str, on: Network, *ports: int) -> Party:
        """Return a container that answers on ports."""
        spot = self.traffic.spot(RUN_NETNS / container.netns, name)
        talk(spot, ports)
        return Party(spot, {pool.version: str(container.address(on, pool.version)) for pool in on.pools})

    def published(self) -> list[dict[str, Any]]:
        """Return what `weft port ls` says."""
        told: list[dict[str, Any]] = json.loads(self.weft.cli("port", "ls", "--json").stdout)
        return told


class Publishers:
    """The containers of the table, and the attempts on every cell of it."""

    def __init__(self, street: Street) -> None:
        self.street = street
        other = street.network(99)
        cid = street.party(street.docker.start_container(other), "cid", other)
        self.clients: dict[House, dict[str, Party]] = {}
        self.gateways: dict[House, dict[int, str]] = {}
        for number, house in enumerate(HOUSES, 1):
            options = {}
            if house.adopted:
                street.node.run("ip", "link", "add", "yard", "up", "type", "bridge")
                options = {"com__docker__network__bridge__name": "yard", "weft__backend": "bridge"}
            network = street.network(number, house.versions, **options)
            publish = [text for row in ROWS if row.house is house and row.starts for text in _publish(row)]
            container = street.docker.start_container(network, publish=list(dict.fromkeys(publish)))
            inside = {port for at in BOUNDS for port in _range(house, at)}
            own = (_SINGLE, *range(_SHIFTED, _SHIFTED + _COUNT), _CHOSEN)
            host = Party(street.host, HERE)
            self.clients[house] = {
                "neighbour": Party(street.lan, THERE),
                "host": host,
                "loopback": host,
                "other": cid,
                "sibling": street.party(street.docker.start_container(network), f"{house.name}'s sibling", network),
                "itself": street.party(container, house.name, network, *inside, *own),
            }
            self.gateways[house] = {pool.version: str(next(iter(pool.hosts()))) for pool in network.pools}
        self.chosen = {
            (one["transport"], one["host"].rpartition(":")[0], one["endpoint"]): int(one["host"].rpartition(":")[2])
            for one in street.published()
            if one["container_ports"] == f"{_CHOSEN}"
        }
        self._endpoints = {
            house: next(
                endpoint.id
                for container in street.docker.containers
                for endpoint in container.endpoints
                if container.ports["com.docker.network.portmap"]
                and str(endpoint.network.pools[0]) == self._subnet(house)
            )
            for house in HOUSES
        }

    def _subnet(self, house: House) -> str:
        number = HOUSES.index(house) + 1
        return f"10.7.{number}.0/24" if 4 in house.versions else f"fd07:{number}::/64"

    def look(self) -> dict[tuple[Row, str], list[str]]:
        """Try every cell; return what went otherwise than expected by row and shape."""
        wrong: dict[tuple[Row, str], list[str]] = {}
        for house in HOUSES:
            rows = [row for row in ROWS if row.house is house and row.starts]
            for round_ in _rounds(rows):
                tried = [((row, shape), knock) for row in round_ for shape, knock in self._knocks(row)]
                assert any(knock.wanted != SILENT for _, knock in tried)
                seen = self.street.traffic.seen([knock for _, knock in tried])
                for (cell, knock), found in zip(tried, seen, strict=True):
                    surprises = wrong.setdefault(cell, [])
                    if found.startswith(OPEN) if knock.wanted == SILENT else found != knock.wanted:
                        surprises.append(f"{knock}: {found}, wanted {knock.wanted}")
        return wrong

    def _knocks(self, row: Row) -> Iterator[tuple[str, Knock]]:
        for shape, port, inside in self._ports(row):
            for client, party in self.clients[row.house].items():
                what = expected(row, client)
                if row.version not in party.addresses:
                    continue
                address = LOOPBACK[row.version] if client == "loopback" else HERE[row.version]
                wanted = SILENT if what == CLOSED else f"{OPEN} from {self._seen_as(row, party, what)} at {inside}"
                yield shape, Knock(party.spot, address, TALKS[row.transport], port, wanted)

    def _seen_as(self, row: Row, client: Party, what: str) -> str:
        """Return the client's address as the container sees it."""
        gateways = self.gateways[row.house]
        if what == NAT:
            return client.addresses[row.version]
        return gateways.get(row.version) or next(iter(gateways.values()))

    def _ports(self, row: Row) -> Iterator[tuple[str, int, int]]:
        """Yield shape, host port and container port; of a range all of them."""
        base, at = _base(row.house), BOUNDS.index(row.bound)
        yield "single", base + at, _SINGLE
        for port in _range(row.house, row.bound):
            yield "range", port, port
        for n in range(_COUNT):
            yield "shifted", base + 200 + 10 * at + n, _SHIFTED + n
        (port,) = {
            found
            for host in _hosts(row)
            if (found := self.chosen.get((row.transport, host, self._endpoints[row.house]))) is not None
        }
        yield "chosen", port, _CHOSEN


def _rounds(rows: list[Row]) -> Iterator[list[Row]]:
    """Yield what is tried at once: each with open cells in it, or silence would show nothing.

    Of SCTP no more than a row, and the rows that are closed to all: every raw socket hears all others.
    """
    for transport in TRANSPORTS:
        alike = [row for row in rows if row.transport == transport]
        if transport != "sctp":
            yield alike
            continue
        some = [row for row in alike if {expected(row, client) for client in CLIENTS} - {CLOSED, NOBODY}]
        rest = [row for row in alike if row not in some]
        for number, row in enumerate(some):
            yield [row, *(rest if number == 0 else [])]


def _base(house: House) -> int:
    return 8000 + 1000 * HOUSES.index(house)


def _range(house: House, bound: str) -> range:
    first = _base(house) + 100 + 10 * BOUNDS.index(bound)
    return range(first, first + _COUNT)


def _address(row: Row) -> str:
    """Return what `-p` says, "" for all addresses."""
    address = {"any": "", "host": HERE[row.version], "loopback": LOOPBACK[row.version]}[row.bound]
    return f"[{address}]" if ":" in address else address


def _hosts(row: Row) -> tuple[str, ...]:
    """Return what `weft port ls` says; of all addresses, one port is chosen for both versions."""
    return (_address(row),) if _address(row) else ("0.0.0.0", "[::]")  # noqa: S104 - it is read, not bound


def _publish(row: Row) -> Iterator[str]:
    """Yield `-p` for a row, in all shapes, a port at a time as dockerd sends them.

    weft chooses among all ports, or among some where two rows might be given the same for different addresses.
    """
    base, at = _base(row.house), BOUNDS.index(row.bound)
    where = f"{_address(row)}:" if _address(row) else ""
    pairs = [(base + at, _SINGLE)]
    pairs += [(port, port) for port in _range(row.house, row.bound)]
    pairs += [(base + 200 + 10 * at + n, _SHIFTED + n) for n in range(_COUNT)]
    for outside, inside in pairs:
        yield f"{where}{outside}:{inside}/{row.transport}"
    first = base + 300 + 10 * at
    among = "" if row.bound == "any" and row.transport != "sctp" else f"{first}-{first + _COUNT - 1}:"
    yield f"{where}{among}{_CHOSEN}/{row.transport}"
