"""A street for gateway modes: a network of every kind, and everybody who may knock at its containers.

    neighbour 192.0.2.2     ---- lan0   the host             ---- every kind of house: two containers, one publishes
    trusted   198.51.100.2  ---- trust0   and weft           ---- other, inner: a container on a network each
    yard      10.9.1.2      ---- yard   (the operator's bridge)
    docker    172.17.0.2    ---- docker0

and the same in IPv6. All but `host` send 127.0.0.1 to the host, as no honest machine would.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Interface, IPv6Interface
from typing import Final

from drivers.naming import bridge_mac
from tests.lab.net import HERE, LAN_SIDE, RUN_NETNS, Neighbour, NetNs, Side, wire
from tests.lab.node import Node
from tests.lab.ovs import Ovs
from tests.lab.process import Place
from tests.lab.wait import await_
from tests.lab.weft import Weft
from tests.libnetwork import Container, Libnetwork, Network
from tests.matrix.modes_table import ASKED, CLIENTS, HOUSES, OUTSIDE, House, expected, expected_outside
from tests.matrix.ports_traffic import TALKS, talk
from tests.matrix.table import Party
from tests.matrix.traffic import OPEN, REFUSED, SILENT, Knock, Spot, Traffic

OPTION: Final = "com.docker.network.bridge"
PUBLISHED, UNPUBLISHED, BOUND, OUTSIDE_PORT = 7007, 7008, 7009, 7010
FIRST: Final = 20000
TCP_UDP: Final = (TALKS["tcp"], TALKS["udp"])
SCTP: Final = (TALKS["sctp"],)

_AT_ONCE: Final = 4

Cell = tuple[House, int, str]


def _side(v4: str, v6: str) -> Side:
    return IPv4Interface(v4), IPv6Interface(v6)


TRUST: Final = _side("198.51.100.1/24", "2001:db8:3::1/64"), _side("198.51.100.2/24", "2001:db8:3::2/64")
_YARD: Final = _side("10.9.1.1/24", "fd09:1::1/64"), _side("10.9.1.2/24", "fd09:1::2/64")
_DOCKER: Final = _side("172.17.0.1/16", "fd09:2::1/64"), _side("172.17.0.2/16", "fd09:2::2/64")
_ALLOWED: Final = ",".join(str(one.network) for one in TRUST[0])

FORWARD: Final = """\
*filter
:FORWARD DROP
:DOCKER-USER -
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A DOCKER-USER -j RETURN
COMMIT
"""
"""What dockerd has for its default bridge, as far as it concerns weft."""

SETTINGS: Final = {
    "ipv4/ip_forward": 1,
    "ipv4/icmp_ratelimit": 0,  # or all but one refusal of UDP a second would look like silence
    "ipv4/icmp_msgs_per_sec": 100_000,
    "ipv4/icmp_msgs_burst": 100_000,
    "ipv6/icmp/ratelimit": 0,
}


def _by_version(side: Side) -> dict[int, str]:
    return {one.version: str(one.ip) for one in side}


class Modes:
    """Everybody, and the attempts on every cell."""

    def __init__(self, stack: ExitStack, backend: str) -> None:
        self.backend = backend
        self.node = node = stack.enter_context(Node("modes"))
        neighbour = stack.enter_context(Neighbour(node))
        for program in ("iptables", "ip6tables"):
            node.run(f"{program}-restore", stdin=FORWARD)
        for setting, value in SETTINGS.items():
            node.run("sh", "-c", f"echo {value} >/proc/sys/net/{setting}")
        if backend == "ovs":
            stack.enter_context(Ovs(node))
        self.weft = stack.enter_context(Weft(node, settings={"WEFT_BACKEND": backend}))
        self.traffic = stack.enter_context(Traffic())
        self.docker = stack.enter_context(Libnetwork(self.weft.socket, netns=node.netns))
        self.host = Party(self._spot(node.netns, "host"), HERE)
        neighbour.ip("route", "add", "10.7.0.0/16", "via", HERE[4])
        neighbour.ip("route", "add", "fd07::/16", "via", HERE[6])
        self.parties = {"host": self.host, "neighbour": self._machine(neighbour, LAN_SIDE, HERE[4])}
        for name, link, bridge, sides in (
            ("trusted", "trust0", False, TRUST),
            ("yard", "yard", True, _YARD),
            ("docker", "docker0", True, _DOCKER),
        ):
            place = stack.enter_context(NetNs(name))
            wire(node, place, link, sides, bridge=bridge)
            self.parties[name] = self._machine(place, sides[1], str(sides[0][0].ip))
        self.parties["other"] = self._visitor(self._network(1), "other")
        self.parties["inner"] = self._visitor(self._network(2, internal=True), "inner")
        kinds = [house for house in HOUSES if not (house.adopted and backend == "ovs")]
        self.houses = {house: self._house(number, house) for number, house in enumerate(kinds)}
        await_(self._knows_the_yard, 10, "weft to take the bridge `yard` for the operator's")

    def _knows_the_yard(self) -> bool:
        listed = self.node.run("nft", "list", "set", "inet", "weft", "operator_links").stdout
        return '"yard"' in listed and "docker0" not in listed

    # -- building

    def _spot(self, netns: str, name: str) -> Spot:
        return self.traffic.spot(RUN_NETNS / netns, name)

    def _machine(self, place: NetNs, side: Side, router: str) -> Party:
        spot = self._spot(place.netns, place.netns.split("-")[1])
        talk(spot, [OUTSIDE_PORT])
        _send_loopback_to(place, router)
        return Party(spot, _by_version(side))

    def _network(self, number: int, *, internal: bool = False, **options: str) -> Network:
        return self.docker.create_network(
            subnet=f"10.7.{number}.0/24", subnet6=f"fd07:{number}::/64", internal=internal, options=options
        )

    def _visitor(self, on: Network, name: str) -> Party:
        container = self.docker.start_container(on)
        return self.party(container, on, name)

    def party(self, container: Container, on: Network, name: str) -> Party:
        """Return a container as a party; one without a default route gets it, so that the verdict is asked for."""
        gateways = [str(next(pool.hosts())) for pool in on.pools]
        if on.internal:
            container.route(gateways)
        _send_loopback_to(container, gateways[0])
        spot = self._spot(container.netns, name)
        talk(spot, [OUTSIDE_PORT])
        return Party(spot, {version: str(container.address(on, version)) for version in (4, 6)})

    def _house(self, number: int, house: House) -> "_Built":
        options = {f"{OPTION}.gateway_mode_ipv4": house.mode4, f"{OPTION}.gateway_mode_ipv6": house.mode6}
        if house.trusted:
            options[f"{OPTION}.trusted_host_interfaces"] = "trust0"
        if house.allow:
            options["weft.publish.allow"] = _ALLOWED
        if house.adopted:
            options[f"{OPTION}.name"] = f"theirs{number}"
            self.node.run("ip", "link", "add", f"theirs{number}", "up", "type", "bridge")
        on = self._network(10 + number, internal=house.internal, **options)
        port = FIRST + 2 * number
        publish = [f"{port}:{PUBLISHED}/{transport}" for transport in TALKS]
        publish += [f"127.0.0.1:{port + 1}:{BOUND}/{transport}" for transport in ("tcp", "udp")]
        publisher = self.docker.start_container(on, publish=publish)
        sibling = self.docker.start_container(on)
        for container in (publisher, sibling):
            self._make_up_routes(container, on, house)
        party = self.party(publisher, on, f"{house.name}'s")
        talk(party.spot, (PUBLISHED, UNPUBLISHED, BOUND))
        return _Built(on, publisher, party, self.party(sibling, on, f"{house.name}'s sibling"), port)

    def _make_up_routes(self, container: Container, on: Network, house: House) -> None:
        """Have a container know where the host would be on an isolated network, if it were there."""
        for version, pool in zip((4, 6), on.pools, strict=True):
            if house.mode(version) == "isolated":
                gateway, mac = str(next(pool.hosts())), bridge_mac(on.id)
                container.run("ip", "neigh", "add", gateway, "lladdr", mac, "dev", "eth0", "nud", "permanent")

    # -- trying

    def look(self) -> dict[Cell, list[str]]:
        """Try every cell by TCP, UDP and ping, some houses at a time; return what went otherwise than expected."""
        wrong: dict[Cell, list[str]] = {}
        kinds = list(self.houses)
        for at in range(0, len(kinds), _AT_ONCE):
            houses = kinds[at : at + _AT_ONCE]
            wrong |= self._surprises([one for house in houses for one in (*self._in(house), *self._out(house))])
        return wrong

    def look_with_sctp(self, house: House) -> dict[Cell, list[str]]:
        """Try the ports of a house that can be published for all; every raw socket hears all others, so no more."""
        whats = ("published", "unpublished", "by-host")
        return self._surprises([one for one in self._in(house, SCTP) if one[0][2] in whats])

    def _surprises(self, tried: Sequence[tuple[Cell, Knock]]) -> dict[Cell, list[str]]:
        wrong: dict[Cell, list[str]] = {}
        seen = self.traffic.seen([knock for _, knock in tried])
        for (cell, knock), found in zip(tried, seen, strict=True):
            surprises = wrong.setdefault(cell, [])
            if not knock.agrees(found):
                surprises.append(f"{knock}: {found}, wanted {knock.wanted}")
        return wrong

    def _in(self, house: House, protocols: tuple[str, ...] = TCP_UDP) -> Iterator[tuple[Cell, Knock]]:
        built = self.houses[house]
        for version in (4, 6):
            for what in ASKED:
                address, port, inside = built.asked(what, version)
                if address is None:
                    continue
                for client in CLIENTS:
                    party = self.parties.get(client, built.sibling)
                    said = expected(house, version, what, client)
                    gateway = str(next(built.network.pools[0 if version == 4 else 1].hosts()))
                    for protocol in ("icmp",) if what == "ping" else protocols:
                        wanted = _wanted(said, party.addresses[version], gateway, inside, protocol)
                        yield (house, version, what), Knock(party.spot, address, protocol, port, wanted)

    def _out(self, house: House) -> Iterator[tuple[Cell, Knock]]:
        built = self.houses[house]
        near = {"neighbour": HERE, "trusted": _by_version(TRUST[0])}
        for version in (4, 6):
            for target in OUTSIDE:
                own, host = built.party.addresses[version], near.get(target, HERE)[version]
                said, to = expected_outside(house, version, target), self.parties[target].addresses[version]
                for protocol in TCP_UDP:
                    wanted = _wanted(said, own, host, OUTSIDE_PORT, protocol)
                    yield (house, version, "outside"), Knock(built.party.spot, to, protocol, OUTSIDE_PORT, wanted)


class _Built:
    """A house as it stands: its network, the container that publishes, its sibling, and the first host port."""

    def __init__(self, network: Network, publisher: Container, party: Party, sibling: Party, port: int) -> None:
        self.network, self.publisher, self.party, self.sibling, self.port = network, publisher, party, sibling, port

    def asked(self, what: str, version: int) -> tuple[str | None, int, int]:
        """Return the address and port at which something is asked for, and the container's port; ``None``: nowhere."""
        own, here = self.party.addresses[version], HERE[version]
        loopback = "127.0.0.1" if version == 4 else None
        return {
            "published": (own, PUBLISHED, PUBLISHED),
            "unpublished": (own, UNPUBLISHED, UNPUBLISHED),
            "bound": (own, BOUND, BOUND),
            "ping": (own, 0, 0),
            "by-host": (here, self.port, PUBLISHED),
            "bound-host": (here, self.port + 1, BOUND),
            "loopback": (loopback, self.port + 1, BOUND),
        }[what]


def _wanted(said: str, own: str, other: str, port: int, protocol: str) -> str:
    """Return what is wanted of a knock; ``other`` is the gateway, or the host. Of SCTP no refusal is seen."""
    if said in ".r":
        return REFUSED if said == "r" and protocol != TALKS["sctp"] else SILENT
    return OPEN if protocol == "icmp" else f"{OPEN} from {own if said == 'o' else other} at {port}"


def _send_loopback_to(place: Place, router: str) -> None:
    """Have a machine send 127.0.0.1 to a router, as if it were anybody's."""
    lines = (
        "echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet",
        "ip address del 127.0.0.1/8 dev lo",
        f"ip route add 127.0.0.1 via {router}",
    )
    place.run("sh", "-ec", "; ".join(lines))


@contextmanager
def built(backend: str) -> Iterator[Modes]:
    """Build it for a while. On Open vSwitch there are no houses on a bridge of the operator's."""
    with ExitStack() as stack:
        yield Modes(stack, backend)
