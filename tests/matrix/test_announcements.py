"""An address comes back with another MAC: who reaches it at once, through a running weft, the engine played.

The kernel's own repair (five seconds of silence, then probes) is put off, so that what is seen is the announcement.
"""

import json
import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Final

import pytest

from tests.drivers.announced import Ear
from tests.lab.net import RUN_NETNS
from tests.lab.node import Node
from tests.lab.process import Place
from tests.lab.wait import await_
from tests.lab.weft import Weft
from tests.libnetwork import Container, Libnetwork, Network
from tests.matrix.traffic import OPEN, PORT, SILENT, Knock, Spot, Traffic

pytestmark = pytest.mark.kernel

NMSGS, MS = "com.docker.network.advertise_addr_nmsgs", "com.docker.network.advertise_addr_ms"
NAME = "com.docker.network.bridge.name"
OLD, NEW = "02:00:00:00:00:0d", "02:00:00:00:00:0e"
PUT_OFF = "for file in /proc/sys/net/ipv[46]/neigh/*/delay_first_probe_time; do echo 600 >$file; done"
VERSIONS: Final = (4, 6)


@dataclass(frozen=True, slots=True)
class Street:
    """A node with weft in it, and the engine played."""

    node: Node
    weft: Weft
    docker: Libnetwork
    traffic: Traffic
    host: Spot

    def network(self, number: int, options: dict[str, str]) -> Network:
        """Create a network of both IP versions."""
        return self.docker.create_network(subnet=f"10.7.{number}.0/24", subnet6=f"fd07:{number}::/64", options=options)

    def spot(self, container: Container, name: str) -> Spot:
        """Return where a container is; it answers, and its kernel repairs nothing by itself."""
        container.run("sh", "-c", PUT_OFF)
        spot = self.traffic.spot(RUN_NETNS / container.netns, name)
        spot.serve()
        return spot

    def ear(self, spot: Spot) -> Ear:
        """Hear what comes to a container from now on."""
        return Ear(spot.make(socket.AF_PACKET, socket.SOCK_RAW), "eth0")


@pytest.fixture(scope="module")
def street() -> Iterator[Street]:
    """Build it once."""
    with Node("announce") as node, Weft(node) as weft, Traffic() as traffic:
        node.run("sh", "-c", PUT_OFF)
        host = traffic.spot(RUN_NETNS / node.netns, "host")
        with Libnetwork(weft.socket, netns=node.netns) as docker:
            yield Street(node, weft, docker, traffic, host)


def macs(place: Place, *addresses: str) -> list[str | None]:
    """Return what a neighbour table has for addresses."""
    told = json.loads(place.run("ip", "-j", "neigh").stdout)
    table = {one["dst"]: one.get("lladdr") for one in told}
    return [table.get(address) for address in addresses]


CASES: Final[dict[str, tuple[dict[str, str], bool]]] = {
    "by default": ({}, True),
    "once": ({NMSGS: "1"}, True),
    "on an adopted bridge": ({NAME: "yard"}, True),
    "switched off": ({NMSGS: "0"}, False),
}


@pytest.mark.parametrize("number", range(len(CASES)), ids=list(CASES))
def test_who_is_back_with_another_mac_is_reached_at_once_by_who_knew_the_old_one(street: Street, number: int) -> None:
    options, announced = list(CASES.values())[number]
    if NAME in options:
        mac = "02:00:00:00:00:01"  # its own: one that changes with the ports empties the host's table each time
        street.node.run("ip", "link", "add", options[NAME], "address", mac, "up", "type", "bridge")
    network = street.network(number, options)
    bob, cid = (street.docker.start_container(network) for _ in range(2))
    knowing, asking = street.spot(bob, "bob"), street.spot(cid, "cid")
    web = street.docker.start_container(network, mac=OLD)
    addresses = [str(web.address(network, version)) for version in VERSIONS]
    ip4, ip6 = addresses

    def knocks(source: Spot, wanted: str) -> list[Knock]:
        return [Knock(source, address, protocol, PORT, wanted) for address in addresses for protocol in ("tcp", "udp")]

    street.spot(web, "web")
    street.node.run("sh", "-c", PUT_OFF)  # for the bridge that has come
    assert street.traffic.surprises([*knocks(street.host, OPEN), *knocks(knowing, OPEN)]) == []
    assert macs(street.node, *addresses) == macs(bob, *addresses) == [OLD, OLD]
    web.stop()

    web = street.docker.start_container(network, ip=ip4, ip6=ip6, mac=NEW)
    street.spot(web, "web again")
    if announced:
        await_(lambda: macs(street.node, *addresses) == macs(bob, *addresses) == [NEW, NEW], 20, "the announcement")
    wanted = OPEN if announced else SILENT
    asked = [*knocks(street.host, wanted), *knocks(knowing, wanted), *knocks(asking, OPEN)]
    assert street.traffic.surprises(asked) == []
    assert macs(street.node, *addresses) == macs(bob, *addresses) == ([NEW, NEW] if announced else [OLD, OLD])
    for container in (web, bob, cid):
        container.stop()
    street.docker.remove_network(network)


def test_the_labels_say_how_often_after_a_restart_too_and_a_stop_ends_it(street: Street) -> None:
    network = street.network(20, {NMSGS: "2", MS: "300"})
    ips = [f"10.7.20.{number}" for number in (7, 8, 9, 10)]
    bob = street.docker.start_container(network)
    street.weft.stop()
    street.weft.start()
    with closing(street.ear(street.spot(bob, "bob"))) as ear:
        street.docker.start_container(network, ip=ips[0])
        street.docker.start_container(network, ip=ips[1]).stop()
        at_its_stop = ear.times()[ips[1]]
        for ip in ips[2:]:  # by the second of the second of these, whatever else the first two had is due
            street.docker.start_container(network, ip=ip)
            await_(lambda ip=ip: ear.times()[ip] == 2, 20, f"{ip} to be announced")  # type: ignore[misc]
        assert [ear.times()[ip] for ip in ips] == [2, at_its_stop, 2, 2]
        first, second = (one.at for one in ear.heard if str(one.told.address) == ips[0])
        assert second - first >= 0.3
