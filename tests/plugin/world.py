"""weft on a fake host: the store, the runtime and the use cases as the server puts them together, without sockets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path

from drivers.clashes import Clash
from drivers.contract import Backend
from drivers.errors import Unsupported
from drivers.facts import HostFacts, LinkInfo, RouteInfo
from drivers.fake import FakeHost
from drivers.model import Address, Encapsulation, Endpoint, IPNetwork, Network, Transport
from drivers.naming import LINK_GROUP
from drivers.obstacles import Obstacle
from drivers.ovsdb import Health
from drivers.resources import Bridge, Resource, Scope, link_key
from plugin.deadline import Deadline
from plugin.engine.addresses import Addresses
from plugin.engine.endpoints import Endpoints
from plugin.engine.networks import Networks
from plugin.engine.peers import Peers
from plugin.engine.ports import Ports
from plugin.engine.tunnels import Tunnels
from plugin.pools import DEFAULT, parse_bases
from plugin.runtime import Runtime
from plugin.store import Database, Store
from tests.lab.wait import await_

FOREVER = 3600.0


@dataclass(frozen=True)
class Announced:
    """One call of :meth:`FakeSide.announce`."""

    link: str
    endpoint: Endpoint
    count: int
    interval: float
    wanted: Callable[[], bool]


@dataclass
class FakeSide:
    """The fake host, and what is looked up on it and told to it.

    ``plugged`` are the links that a container has the other end of; ``announced`` is what :meth:`announce` was given.
    """

    fake: FakeHost
    plugged: set[str] = field(default_factory=set)
    connected: list[tuple[str, IPNetwork]] = field(default_factory=list)
    forwards4: bool = True
    docker_user: set[int] = field(default_factory=set)
    taken: set[tuple[str, int]] = field(default_factory=set)
    announced: list[Announced] = field(default_factory=list)
    in_the_way: list[Obstacle] = field(default_factory=list)
    routes: dict[str, RouteInfo | None] = field(default_factory=dict)
    source: dict[int, Address] = field(
        default_factory=lambda: {4: ip_address("192.0.2.1"), 6: ip_address("2001:db8::1")}
    )
    lacking: set[str] = field(default_factory=set)
    clashing: tuple[Clash, ...] = ()
    others: dict[str, int] = field(default_factory=dict)

    @property
    def backends(self) -> Mapping[str, Backend]:
        """The fake backends."""
        return self.fake.backends

    def facts(self, *, may_forward: bool, ovs: bool = False) -> HostFacts:  # noqa: ARG002 - no OVS here
        """Return what the fake host is."""
        return HostFacts(
            docker_user=frozenset(self.docker_user), may_forward=may_forward, firewalld=self.fake.firewalld
        )

    def link(self, name: str) -> LinkInfo | None:
        """Return what a link is."""
        held = self.fake.objects.get(link_key(name))
        if held is None:
            return None
        kind = "bridge" if isinstance(held.resource, Bridge) else "veth"
        return LinkInfo(
            kind=kind, group=LINK_GROUP if held.mark else 0, mtu=getattr(held.resource, "mtu", None) or 1500
        )

    def connected_subnets(self) -> tuple[tuple[str, IPNetwork], ...]:
        """Return what a test said."""
        return tuple(self.connected)

    def connect(self, link: str, subnet: str) -> None:
        """Let the host be in a subnet."""
        self.connected.append((link, ip_network(subnet)))

    def forwarding4(self) -> bool:
        """Return what a test said."""
        return self.forwards4

    def obstacles(self, networks: Iterable[Network]) -> list[tuple[Network, Obstacle]]:
        """Return what a test put there."""
        return [(network, one) for network in networks for one in self.in_the_way]

    def check_ovs(self, tunnel: Encapsulation | None = None) -> None:
        """Find nothing wrong."""

    def ovs_health(self) -> Health:
        """Say that nobody has asked."""
        return Health(remote="unix:/nowhere", connected=False)

    def ovs_absence(self) -> str:
        """Find it there."""
        return ""

    def speaks6(self) -> bool:
        """Tell what most hosts would."""
        return True

    def free_port(self, transport: Transport, addresses: Sequence[str], candidates: range | None) -> int:
        """Return the first candidate that a test has not taken; by itself, from 32768 on."""
        assert addresses
        free = (port for port in candidates or range(32768, 61000) if (transport, port) not in self.taken)
        return next(free)

    def route_to(self, address: Address) -> RouteInfo | None:
        """Return what a test said; without a word, Ethernet."""
        return self.routes.get(str(address), RouteInfo(link="eth0", mtu=1500, source=self.source[address.version]))

    def is_own(self, address: Address) -> bool:
        """Tell whether a test said that an address is the host's."""
        route = self.route_to(address)
        return route is not None and route.own

    def check_tunnel(self, kind: str) -> None:
        """Refuse what a test said is lacking."""
        if kind in self.lacking:
            raise Unsupported(f"this host's kernel has no {kind}")

    def clashes(self) -> tuple[Clash, ...]:
        """Return what a test said."""
        return self.clashing

    def other_stores(self) -> Mapping[str, int]:
        """Return what a test said."""
        return self.others

    def is_plugged(self, link: str) -> bool:
        """Tell whether a test plugged it."""
        return link in self.plugged

    def announce(
        self, network: Network, endpoint: Endpoint, *, count: int, interval: float, wanted: Callable[[], bool]
    ) -> None:
        """Remember it."""
        self.announced.append(Announced(network.link, endpoint, count, interval, wanted))

    def calls(self) -> Mapping[str, int]:
        """Return what was asked of the backends."""
        return dict(self.fake.calls)


class World:
    """One host and its store, through any number of starts of weft."""

    def __init__(self, directory: Path) -> None:
        """Keep the store in ``directory``."""
        self._path = directory / "weft.db"
        self.time = 1_000_000.0  # seconds since 1970, for leases
        self.store = Store(Database(self._path))
        self.host = FakeSide(FakeHost(self.store.id, docker_user=()))
        self.advertise: Address | None = None
        self.setting: tuple[Address, ...] = ()
        self._compose()

    def _compose(self) -> None:
        self.runtime = Runtime(self.store, self.host, interval=FOREVER)
        self.tunnels = Tunnels(self.store, self.host, advertise=self.advertise)
        self.peers = Peers(self.store, self.runtime, self.tunnels, setting=self.setting)
        self.networks = Networks(self.store, self.runtime, self.host, self.tunnels, backend="bridge")
        self.endpoints = Endpoints(self.store, self.runtime, self.host)
        self.ports = Ports(self.store, self.runtime, self.host, self.endpoints)
        self.addresses = Addresses(self.store, self.host, bases=parse_bases(DEFAULT), clock=lambda: self.time)

    def start(self) -> None:
        """Start as the server does, and wait for the first look at the host."""
        self.store.withdraw_unanswered()
        self.peers.settle()
        self.tunnels.settle()
        self.runtime.start()
        assert self.runtime.settled(30)

    def restart(self) -> None:
        """Forget everything but the store and the host, and start again."""
        self.close()
        self.store = Store(Database(self._path))
        self._compose()
        self.start()

    def close(self) -> None:
        """Stop the threads and close the store."""
        self.runtime.stop()
        self.store.close()

    def marked(self) -> dict[Scope, list[Resource]]:
        """Return all of ours on the host, by scope."""
        found: dict[Scope, list[Resource]] = {}
        for backend in self.host.backends.values():
            for resource in backend.survey().values():
                found.setdefault(resource.scope, []).append(resource)
        return found

    def await_as_wanted(self) -> None:
        """Wait until the host is as wanted and nothing is being withdrawn."""
        await_(lambda: not self.runtime.findings() and not self.deleting(), 30, "the host to be as wanted")

    def deleting(self) -> list[str]:
        """Return the ids that are being withdrawn."""
        rows = [(row.phase, row.id) for row in self.store.networks()]
        rows += [(row.phase, row.id) for row in self.store.endpoints()]
        return [ident for phase, ident in rows if phase == "deleting"]


def now() -> Deadline:
    """Return a deadline that no test meets."""
    return Deadline(60)
