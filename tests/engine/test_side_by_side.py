"""The same option on Docker's own bridge and on weft, side by side on one engine: the same probes, the same answers.

Where the answers differ, and why, is in `differences`, and each of these differences is looked for.
"""

from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Interface, IPv6Interface
from typing import Final

import pytest

from tests.engine.conftest import Host
from tests.lab import image
from tests.lab.engine import Engine
from tests.lab.net import HERE, THERE, Neighbour, NetNs, wire
from tests.lab.talk import Container
from tests.lab.weft import Weft
from tests.matrix.docker import serving
from tests.matrix.traffic import OPEN, PORT, REFUSED, SILENT, Knock, Spot, Traffic

pytestmark = pytest.mark.engine

BRIDGE: Final = "com.docker.network.bridge"
ELSE: Final = 7008  # a port that is not published
ALSO_HERE: Final = {4: "192.0.2.50", 6: "2001:db8:2::50"}
LOOPBACK: Final = {4: "127.0.0.1", 6: "::1"}
TRUST: Final = (
    (IPv4Interface("198.51.100.1/24"), IPv6Interface("2001:db8:3::1/64")),
    (IPv4Interface("198.51.100.2/24"), IPv6Interface("2001:db8:3::2/64")),
)


@dataclass(frozen=True, slots=True)
class Option:
    """What is given to `docker network create` and to `docker run -p`; ``since``: the first engine that is asked."""

    name: str
    given: Mapping[str, str] = field(default_factory=dict)
    args: tuple[str, ...] = ()
    at: str = ""
    since: int = 20


def _modes(mode: str) -> dict[str, str]:
    return {f"{BRIDGE}.gateway_mode_ipv4": mode, f"{BRIDGE}.gateway_mode_ipv6": mode}


OPTIONS: Final = (
    Option("no-option"),
    Option("internal", args=("--internal",)),
    Option("bound-to-loopback", at="127.0.0.1:"),
    Option("enable_ip_masquerade", {f"{BRIDGE}.enable_ip_masquerade": "false"}),
    Option("enable_icc", {f"{BRIDGE}.enable_icc": "false"}),
    Option("host_binding_ipv4", {f"{BRIDGE}.host_binding_ipv4": HERE[4]}, since=28),
    Option("host_binding_ipv4-explicit", {f"{BRIDGE}.host_binding_ipv4": "127.0.0.1"}, at=f"{HERE[4]}:"),
    Option("host_binding_ipv4-loopback", {f"{BRIDGE}.host_binding_ipv4": "127.0.0.1"}, since=28),
    Option(
        "mtu-container_iface_prefix-host_ipv4-host_ipv6",
        {
            "com.docker.network.driver.mtu": "1400",
            "com.docker.network.container_iface_prefix": "lan",
            "com.docker.network.host_ipv4": ALSO_HERE[4],
            "com.docker.network.host_ipv6": ALSO_HERE[6],
        },
    ),
    Option("inhibit_ipv4", {f"{BRIDGE}.inhibit_ipv4": "true"}, since=28),
    Option("nat-unprotected", _modes("nat-unprotected"), since=28),
    Option("routed", _modes("routed"), since=28),
    Option("routed-one", {f"{BRIDGE}.gateway_mode_ipv6": "routed"}, since=28),
    Option("routed-enable_icc", _modes("routed") | {f"{BRIDGE}.enable_icc": "false"}, since=28),
    Option("isolated", _modes("isolated"), ("--internal",), since=28),
    Option("trusted_host_interfaces", {f"{BRIDGE}.trusted_host_interfaces": "trust0"}, since=28),
    Option(
        "trusted_host_interfaces-bound",
        {f"{BRIDGE}.trusted_host_interfaces": "trust0"},
        at=f"{HERE[4]}:",
        since=28,
    ),
    Option(
        "trusted_host_interfaces-loopback",
        {f"{BRIDGE}.trusted_host_interfaces": "trust0"},
        at="127.0.0.1:",
        since=28,
    ),
)


@dataclass(frozen=True, slots=True)
class Street:
    """The host, the neighbour, and a machine behind a link that may be trusted."""

    engine: Engine
    weft: Weft
    traffic: Traffic
    host: Spot
    lan: Spot
    trusted: Spot
    neighbour: Neighbour


@pytest.fixture
def street(engine: Engine, weft: Weft, neighbour: Neighbour) -> Iterator[Street]:
    """Build it."""
    node = engine.node
    with NetNs("trust") as place, Traffic() as traffic:
        wire(node, place, "trust0", TRUST)
        for address, length in ((ALSO_HERE[4], 24), (ALSO_HERE[6], 64)):
            node.run("ip", "address", "add", f"{address}/{length}", "dev", "lan0", *(["nodad"] if length == 64 else []))
        host, lan, trusted = (
            serving(traffic, place, name)
            for place, name in ((node, "host"), (neighbour, "neighbour"), (place, "trusted"))
        )
        yield Street(engine, weft, traffic, host, lan, trusted, neighbour)


class Side:
    """A network of one driver with two containers, of which `one` publishes a port."""

    def __init__(self, street: Street, driver: str, number: int, option: Option, versions: tuple[int, ...]) -> None:
        self.street, self.driver, self.option, self.versions = street, driver, option, versions
        self.network, self.port = f"n-{driver}", 8080 + number
        self.subnets = {4: f"10.8.{number}.0/24", 6: f"fd08:{number}::/64"}
        self.gateways = {4: f"10.8.{number}.1", 6: f"fd08:{number}::1"}
        self.id = self._create()
        at = f"{option.at}{self.port}:{PORT}"
        self.one = self._run("one", "-p", at, "-p", f"{at}/udp")
        self.two = self._run("two")
        self.own = _addresses(self.one, self.network)
        self.names = self._names()
        self.spots = self._serving()

    def _create(self) -> str:
        given = [word for key, value in self.option.given.items() for word in ("-o", f"{key}={value}")]
        subnets = [word for version in self.versions for word in ("--subnet", self.subnets[version])]
        ipv6 = ["--ipv6"] if 6 in self.versions else []
        return self.street.engine.docker(
            "network", "create", "-d", self.driver, *ipv6, *subnets, *given, *self.option.args, self.network
        )

    def _run(self, name: str, *args: str) -> Container:
        name = f"{name}-{self.driver}"
        self.street.engine.docker("run", "-d", "--name", name, "--network", self.network, *args, image.NAME)
        return Container(self.street.engine, name)

    def looks(self) -> dict[str, object]:
        """Return what Docker, the host and a container show of the network."""
        links = {name: (link.mtu, len(link.addresses)) for name, link in self.one.links().items()}
        gateways = {version: self._named(str(self.one.default(version))) for version in self.versions}
        shown = self.street.engine.api("GET", f"/networks/{self.id}")["IPAM"]["Config"]
        return {
            "the links of a container": links,
            "its gateways": gateways,
            "gateways that Docker shows": [self._named(row.get("Gateway", "")) for row in shown],
            "the host's addresses": {version: self._on_host(version) for version in self.versions},
        }

    def _on_host(self, version: int) -> bool:
        addresses = self.street.engine.node.run("ip", "-o", f"-{version}", "address").stdout
        return f" {self.gateways[version]}/" in addresses

    def tried(self, awaited: Collection[str] = ()) -> dict[str, str]:
        """Try everything, and return what is seen; those that are ``awaited`` are given time."""
        made = {
            f"{name} -> {self._named(address)} {'the port' if port == self.port else port} {protocol}{version}": Knock(
                self.spots[name], address, protocol, port
            )
            for version in self.versions
            for names, address, port, protocols in self._asked(version)
            for name in names.split()
            for protocol in protocols.split()
        }
        knocks = [replace(knock, wanted=OPEN if what in awaited else SILENT) for what, knock in made.items()]
        seen = self.street.traffic.seen(knocks)
        return {what: self._named(found) for what, found in zip(made, seen, strict=True)}

    def _asked(self, version: int) -> tuple[tuple[str, str, int, str], ...]:
        """Return who asks for what: address, port, and by which protocols."""
        own = self.own[version]
        return (
            ("neighbour trusted", own, PORT, "tcp udp icmp"),
            ("neighbour trusted", own, ELSE, "tcp udp"),
            ("host two", own, PORT, "tcp udp icmp"),
            ("neighbour trusted", HERE[version], self.port, "tcp udp"),
            ("neighbour", ALSO_HERE[version], self.port, "tcp"),
            ("host two", HERE[version], self.port, "tcp"),  # not by UDP: docker-proxy answers it from another address
            ("host", LOOPBACK[version], self.port, "tcp"),
            ("one", THERE[version], PORT, "tcp udp icmp"),
            ("one", HERE[version], PORT, "tcp udp icmp"),
            ("one", self.gateways[version], PORT, "tcp udp icmp"),
        )

    def _serving(self) -> dict[str, Spot]:
        spots = {}
        for name, container in (("one", self.one), ("two", self.two)):
            pid = container.inspected["State"]["Pid"]
            netns = self.street.engine.node.path(f"/proc/{pid}/ns/net")
            spots[name] = self.street.traffic.spot(netns, container.name)
        for port in (PORT, ELSE):
            spots["one"].serve(port)
        return spots | {"host": self.street.host, "neighbour": self.street.lan, "trusted": self.street.trusted}

    def _names(self) -> dict[str, str]:
        """Return names for addresses, the longest first: some begin like others."""
        names: dict[str, str] = {}
        for version in self.versions:
            names |= {self.gateways[version]: "gateway", HERE[version]: "host", THERE[version]: "neighbour"}
            names |= {ALSO_HERE[version]: "also host", str(TRUST[1][0 if version == 4 else 1].ip): "trusted"}
            names |= {self.own[version]: "one", _addresses(self.two, self.network)[version]: "two"}
        return {address: names[address] for address in sorted(names, key=len, reverse=True)}

    def _named(self, text: str) -> str:
        """Return a text with names in the place of addresses."""
        for address, name in self.names.items():
            text = text.replace(address, name)
        return text


def _addresses(container: Container, network: str) -> dict[int, str]:
    on = container.on(network)
    return {4: on["IPAddress"], 6: on["GlobalIPv6Address"]}


def differences(engine: str, option: Option) -> dict[str, tuple[object, object]]:
    """Return what is known to differ: what Docker's bridge shows, and weft."""
    known: dict[str, tuple[object, object]] = {}
    if engine == "20":
        # until 28, published ports are open at the container's own address, even those that are bound to loopback
        for client, address in (("neighbour", "neighbour"), ("trusted", "trusted")):
            for protocol in ("tcp", "udp"):
                known[f"{client} -> one {PORT} {protocol}4"] = f"open from {address}", SILENT
        if option.name == "internal":
            # until 26, containers of an internal network are told of a gateway, and the host answers them anywhere
            known = {"its gateways": ({4: "('gateway', 'eth0')"}, {4: "None"})}
            known |= {f"one -> host {PORT} {protocol}4": (seen, "no route") for protocol, seen in OPENED.items()}
            known |= {f"one -> neighbour {PORT} {protocol}4": (SILENT, "no route") for protocol in OPENED}
            known |= {"two -> host the port tcp4": (REFUSED, "no route")}
    elif option.name == "enable_ip_masquerade":
        # 28 drops whatever comes to a container's own address before it is known to be an answer
        for version in (4, 6):
            known |= {
                f"one -> neighbour {PORT} {protocol}{version}": (SILENT, seen) for protocol, seen in OPENED.items()
            }
    elif option.name == "routed-enable_icc":
        # 28 lets ping pass between containers that are kept apart, if they are routed
        known |= {f"two -> one {PORT} icmp{version}": (OPEN, SILENT) for version in (4, 6)}
    elif option.name == "trusted_host_interfaces-loopback":
        # 28 opens to trusted links what is for the host's loopback
        known |= {f"trusted -> one {PORT} {protocol}4": ("open from trusted", SILENT) for protocol in ("tcp", "udp")}
    return known


OPENED: Final = {"tcp": "open from one", "udp": "open from one", "icmp": OPEN}


@pytest.fixture
def bridges_that_were(host: Host) -> None:
    """Have Docker made a bridge once: with the first one, 28 sets policies that stay."""
    subnets = ("--subnet", "10.8.99.0/24", "--ipv6", "--subnet", "fd08:99::/64")
    host.engine.docker("network", "create", *subnets, "first")
    host.engine.docker("network", "rm", "first")


CASES: Final = [
    pytest.param(engine, option, id=f"{option.name}-{engine}", marks=[pytest.mark.engine28] if engine == "28" else [])
    for engine in ("20", "28")
    for option in OPTIONS
    if option.since <= int(engine)
]


@pytest.mark.parametrize(("engine_version", "option"), CASES)
def test_an_option_does_on_weft_what_it_does_on_dockers_bridge(
    bridges_that_were: None, street: Street, engine_version: str, option: Option
) -> None:
    versions = (4, 6) if engine_version == "28" else (4,)  # 20.10 leaves IPv6 open, and unpublished
    with ThreadPoolExecutor(2) as pool:
        sides = list(pool.map(lambda it: Side(street, it[1], it[0], option, versions), ((1, "bridge"), (2, "weft"))))
    for side in sides:
        for version in versions:
            street.neighbour.ip("route", "add", side.subnets[version], "via", HERE[version])
    known = differences(engine_version, option)
    glances = [side.tried() for side in sides]
    answered = [what for what in glances[0] if any(glance[what] != SILENT for glance in glances)]
    docker, weft = (
        side.looks() | side.tried([what for what in answered if known.get(what, "??")[at] != SILENT])
        for at, side in enumerate(sides)
    )
    assert {what: (found, weft[what]) for what, found in docker.items() if weft[what] != found} == known
