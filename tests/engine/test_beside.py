"""weft beside Docker's other kinds of network: none, another container's, the host's own, and Docker's bridge."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import pytest

from tests.lab import image
from tests.lab.engine import Engine
from tests.lab.matrix import both_engines
from tests.lab.net import HERE, THERE, Neighbour
from tests.lab.talk import Container
from tests.lab.wait import await_
from tests.lab.weft import Weft
from tests.matrix.docker import serving
from tests.matrix.table import Party
from tests.matrix.traffic import OPEN, PORT, PROTOCOLS, REFUSED, Knock, Spot, Traffic

pytestmark = pytest.mark.engine

MEADOW: Final = ("--subnet", "10.51.0.0/24", "--ipv6", "--subnet", "fd51::/64")
GATEWAYS: Final = {4: "10.51.0.1", 6: "fd51::1"}


@dataclass(frozen=True, slots=True)
class Street:
    """A weft network called meadow, with ann on it; the host and the neighbour."""

    engine: Engine
    weft: Weft
    traffic: Traffic
    ann: Party
    host: Party
    lan: Party

    def run(self, name: str, network: str, *args: str) -> Container:
        """Start a container."""
        self.engine.docker("run", "-d", "--name", name, "--network", network, *args, image.NAME)
        return Container(self.engine, name)

    def spot(self, container: Container, *, serve: bool = True) -> Spot:
        """Return where a container is, answering on `PORT` there."""
        pid = container.inspected["State"]["Pid"]
        spot = self.traffic.spot(self.engine.node.path(f"/proc/{pid}/ns/net"), container.name)
        if serve:
            spot.serve()
        return spot

    def has(self, *knocks: Knock) -> None:
        """Assert what is seen of attempts, all made at once."""
        assert self.traffic.surprises(knocks) == []

    def published(self) -> set[str]:
        """Return the host ports that `weft port ls` shows."""
        return {one["host"] for one in json.loads(self.weft.cli("port", "ls", "--json").stdout)}


@pytest.fixture
def street(engine: Engine, weft: Weft, neighbour: Neighbour) -> Iterator[Street]:
    """Build it."""
    engine.docker("network", "create", "-d", "weft", *MEADOW, "meadow")
    with Traffic() as traffic:
        host, lan = serving(traffic, engine.node, "host"), serving(traffic, neighbour, "neighbour")
        street = Street(engine, weft, traffic, Party(host, {}), Party(host, HERE), Party(lan, THERE))
        ann = street.run("ann", "meadow")
        addresses = {4: str(ann.v4("meadow")), 6: str(ann.v6("meadow"))}
        yield Street(engine, weft, traffic, Party(street.spot(ann), addresses), street.host, street.lan)


@both_engines
def test_containers_without_a_network_talk_over_a_socket_in_a_shared_volume(street: Street) -> None:
    """A datagram from one to the other, by busybox's syslogd and logger, which have nothing but the socket."""
    engine = street.engine
    engine.docker("volume", "create", "desk")
    clerk, guest = (street.run(name, "none", "-v", "desk:/desk") for name in ("clerk", "guest"))
    for one in (clerk, guest):
        assert one.links() == {}
        assert one.default() is None
        one.run("ln", "-s", "/desk/log", "/dev/log")
    clerk.run("syslogd", "-O", "/tmp/heard")  # noqa: S108 - in a container
    await_(lambda: "log" in guest.run("ls", "/desk").split(), 10, "the socket")
    guest.run("logger", "good morning")
    await_(lambda: "good morning" in clerk.run("cat", "/tmp/heard"), 10, "the word to arrive")  # noqa: S108
    assert clerk.answered_by(street.ann.addresses[4], HERE[4]) == set()


@both_engines
def test_containers_share_the_network_of_one_on_weft(street: Street) -> None:
    bob = street.run("bob", "meadow", "-p", f"8080:{PORT}", "-p", f"8080:{PORT}/udp")
    tail = street.run("tail", "container:bob")
    assert tail.links() == bob.links() != {}
    assert tail.default() == bob.default() == (GATEWAYS[4], "eth0")
    spot = street.spot(tail)  # it is the one that answers
    knocks = [Knock(street.lan.spot, HERE[4], by, 8080, f"{OPEN} from {THERE[4]}") for by in ("tcp", "udp")]
    for version, address in street.ann.addresses.items():
        own = str(bob.v4("meadow") if version == 4 else bob.v6("meadow"))
        knocks += [Knock(spot, address, by, wanted=OPEN) for by in PROTOCOLS]
        knocks += [Knock(street.ann.spot, own, by, wanted=OPEN) for by in PROTOCOLS]
        knocks += [Knock(spot, THERE[version], "tcp", wanted=f"{OPEN} from {HERE[version]}")]
    street.has(*knocks)
    tail.remove()
    street.engine.docker("restart", "-t", "0", "bob")
    street.spot(bob)
    street.has(*(Knock(street.lan.spot, HERE[4], by, 8080, f"{OPEN} from {THERE[4]}") for by in ("tcp", "udp")))


@both_engines
def test_a_container_on_the_hosts_network_is_the_host(street: Street) -> None:
    bob = street.run("bob", "meadow", "-p", f"127.0.0.1:8080:{PORT}")
    street.spot(bob)
    guest = street.run("guest", "host")
    spot = street.spot(guest, serve=False)
    spot.serve(7008)
    knocks = [Knock(spot, "127.0.0.1", "tcp", 8080, f"{OPEN} from {GATEWAYS[4]}")]
    for version, address in street.ann.addresses.items():
        knocks += [Knock(spot, address, by, wanted=OPEN) for by in PROTOCOLS]
        knocks += [Knock(street.ann.spot, at[version], "tcp", 7008, OPEN) for at in (GATEWAYS, HERE)]
    street.has(*knocks)


@both_engines
def test_a_container_on_weft_and_on_dockers_bridge_at_once(street: Street) -> None:
    """Docker chooses the way out by the networks' names: acre, hill, yard. Published ports move along."""
    engine = street.engine
    drivers = {"acre": "bridge", "hill": "weft", "yard": "bridge"}  # IPv4 only: a network of both would go first
    for number, (name, driver) in enumerate(drivers.items(), 1):
        engine.docker("network", "create", "-d", driver, "--subnet", f"10.8.{number}.0/24", name)
    near = {name: street.run(f"{name}s", name) for name in drivers}
    spots = {name: street.spot(container) for name, container in near.items()}
    bob = street.run("bob", "hill", "-p", f"8080:{PORT}", "-p", f"8080:{PORT}/udp")
    spot = street.spot(bob)

    def reaches(*networks: str, by_weft: bool) -> None:
        """Assert which networks bob is on, and that his port is published by whoever is his way out."""
        own = {name: str(bob.v4(name)) for name in networks}
        knocks = [Knock(street.lan.spot, HERE[4], by, 8080, f"{OPEN} from {THERE[4]}") for by in ("tcp", "udp")]
        knocks += [Knock(street.host.spot, HERE[4], "tcp", 8080, OPEN)]
        knocks += [Knock(spot, THERE[4], by, wanted=f"{OPEN} from {HERE[4]}") for by in ("tcp", "udp")]
        for name in networks:
            there, address = spots[name], str(near[name].v4(name))
            knocks += [Knock(spot, address, by, wanted=f"{OPEN} from {own[name]}") for by in ("tcp", "udp")]
            knocks += [Knock(there, own[name], by, wanted=f"{OPEN} from {address}") for by in ("tcp", "udp")]
        street.has(*knocks)
        assert bool(street.published()) is by_weft

    reaches("hill", by_weft=True)
    engine.docker("network", "connect", "acre", "bob")
    assert bob.default() == ("10.8.1.1", "eth1")
    reaches("hill", "acre", by_weft=False)
    engine.docker("network", "disconnect", "acre", "bob")
    assert bob.default() == ("10.8.2.1", "eth0")
    reaches("hill", by_weft=True)
    engine.docker("network", "connect", "yard", "bob")
    assert bob.default() == ("10.8.2.1", "eth0")
    reaches("hill", "yard", by_weft=True)
    engine.docker("network", "disconnect", "hill", "bob")
    reaches("yard", by_weft=False)
    bob.remove()
    street.has(*(Knock(street.lan.spot, HERE[4], by, 8080, REFUSED) for by in ("tcp", "udp")))
