"""Every option of Docker's own bridge, and weft's own beside them, as `docker network create -d weft -o` takes them.

Who reaches whom in each mode is tried cell by cell in tests/matrix, and beside Docker's bridge in test_side_by_side.py;
here is what needs a real engine: that the option gets there, and what Docker makes of the answer.
"""

import json
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Interface, IPv6Interface, ip_network
from typing import Any, Final

import pytest

from tests.lab import image
from tests.lab.engine import Engine
from tests.lab.matrix import both_engines
from tests.lab.net import HERE, THERE, Neighbour, NetNs, wire
from tests.lab.talk import Container, start
from tests.lab.wait import await_
from tests.lab.weft import Weft
from tests.libnetwork import Libnetwork
from tests.matrix.docker import run, serving
from tests.matrix.modes_table import House, expected
from tests.matrix.table import Party
from tests.matrix.traffic import OPEN, PORT, REFUSED, SILENT, Knock, Traffic

pytestmark = pytest.mark.engine

BRIDGE: Final = "com.docker.network.bridge"
ALSO_HERE: Final = {4: "192.0.2.50", 6: "2001:db8:2::50"}
UNPUBLISHED: Final = 7008
SUBNETS: Final = {4: "10.51.0.0/24", 6: "fd51::/64"}
DUAL: Final = ("--subnet", SUBNETS[4], "--ipv6", "--subnet", SUBNETS[6])


def create(engine: Engine, network: str, /, *args: str, **options: str) -> str:
    """`docker network create -d weft`, with options of Docker's bridge; return the network's id."""
    given = [word for key, value in options.items() for word in ("-o", f"{BRIDGE}.{key}={value}")]
    return engine.docker("network", "create", "-d", "weft", *args, *given, network)


def refused(engine: Engine, *args: str) -> str:
    """Run `docker` in vain, and return what it says."""
    said = engine.docker(*args, check=False)
    assert "Error" in said or "invalid" in said, said
    return said


def bridge(weft: Weft, network: str) -> str:
    """Return the name of a network's bridge."""
    return str(json.loads(weft.cli("network", "inspect", network, "--json").stdout)["link"])


def on_host(engine: Engine, link: str) -> set[str]:
    """Return the host's addresses on a link, link-local ones left out."""
    (told,) = json.loads(engine.node.run("ip", "-json", "address", "show", link).stdout)
    return {f"{one['local']}/{one['prefixlen']}" for one in told["addr_info"] if one["scope"] == "global"}


def listed(weft: Weft) -> set[str]:
    """Return the host ports that `weft port ls` shows."""
    return {one["host"] for one in json.loads(weft.cli("port", "ls", "--json").stdout)}


@pytest.fixture
def traffic() -> Iterator[Traffic]:
    with Traffic() as traffic:
        yield traffic


@pytest.fixture
def parties(engine: Engine, weft: Weft, neighbour: Neighbour, traffic: Traffic) -> dict[str, Party]:
    """Return the host and the neighbour, who has routes."""
    for version, subnets in ((4, "10.48.0.0/12"), (6, "fd00::/8")):
        neighbour.ip("route", "add", subnets, "via", HERE[version])
    here, there = serving(traffic, engine.node, "host"), serving(traffic, neighbour, "neighbour")
    return {"host": Party(here, HERE), "neighbour": Party(there, THERE)}


def add_addresses(engine: Engine) -> None:
    """Give the host one more address of each IP version on the LAN."""
    engine.node.run("ip", "address", "add", f"{ALSO_HERE[4]}/24", "dev", "lan0")
    # deprecated: never chosen as a source by the kernel itself
    engine.node.run("ip", "address", "add", f"{ALSO_HERE[6]}/64", "dev", "lan0", "nodad", "preferred_lft", "0")


# -- gateway modes, trusted links -----------------------------------------------------------------------------------


@both_engines
@pytest.mark.parametrize("modes", [("routed", "nat-unprotected"), ("nat-unprotected", "routed")], ids="-".join)
def test_gateway_modes(
    engine: Engine, weft: Weft, traffic: Traffic, parties: dict[str, Party], modes: tuple[str, str]
) -> None:
    create(engine, "meadow", *DUAL, gateway_mode_ipv4=modes[0], gateway_mode_ipv6=modes[1])
    create(engine, "yard", "--subnet", "10.52.0.0/24", "--ipv6", "--subnet", "fd52::/64")
    web = run(engine, traffic, "web", "meadow", "-p", f"8080:{PORT}", "-p", f"8080:{PORT}/udp")
    web.spot.serve(UNPUBLISHED)
    clients = parties | {
        "sibling": run(engine, traffic, "sibling", "meadow"),
        "other": run(engine, traffic, "other", "yard"),
        "docker": run(engine, traffic, "docker", "bridge"),
    }
    asked = {"published": (web.addresses, PORT), "unpublished": (web.addresses, UNPUBLISHED), "by-host": (HERE, 8080)}
    gateways = {4: "10.51.0.1", 6: "fd51::1"}
    knocks = []
    for (what, (addresses, port)), (name, client), version in (
        (one, two, three) for one in asked.items() for two in clients.items() for three in (4, 6)
    ):
        if version in client.addresses:
            said = expected(House(*modes), version, what, name)
            as_itself = OPEN if name == "docker" else f"{OPEN} from {client.addresses[version]}"  # Docker masquerades
            seen = {".": SILENT, "r": REFUSED, "o": as_itself}
            wanted = seen.get(said, f"{OPEN} from {gateways[version]}")
            knocks += [Knock(client.spot, addresses[version], by, port, wanted) for by in ("tcp", "udp")]
    knocks += [
        Knock(
            web.spot, THERE[version], by, wanted=f"{OPEN} from {(web.addresses if mode == 'routed' else HERE)[version]}"
        )
        for version, mode in zip((4, 6), modes, strict=True)
        for by in ("tcp", "udp")
    ]
    assert traffic.surprises(knocks) == []


TRUST: Final = (
    (IPv4Interface("198.51.100.1/24"), IPv6Interface("2001:db8:3::1/64")),
    (IPv4Interface("198.51.100.2/24"), IPv6Interface("2001:db8:3::2/64")),
)


@both_engines
def test_trusted_links(engine: Engine, weft: Weft, traffic: Traffic, parties: dict[str, Party]) -> None:
    with NetNs("trust") as place:
        wire(engine.node, place, "trust0", TRUST)
        trusted = serving(traffic, place, "trusted")
        create(engine, "meadow", *DUAL, trusted_host_interfaces="trust0:vpn0")
        ports = ("-p", f"8080:{PORT}", "-p", f"127.0.0.1:8081:{UNPUBLISHED}")
        web = run(engine, traffic, "web", "meadow", *ports)
        web.spot.serve(UNPUBLISHED)
        opened = {(trusted, PORT)}
        knocks = [
            Knock(spot, address, "tcp", port, OPEN if (spot, port) in opened else SILENT)
            for spot in (trusted, parties["neighbour"].spot)
            for address in web.addresses.values()
            for port in (PORT, UNPUBLISHED)
        ]
        assert traffic.surprises(knocks) == []


@both_engines
def test_isolated_has_no_gateway(engine: Engine, engine_version: str, weft: Weft) -> None:
    assert "--internal" in refused(
        engine, "network", "create", "-d", "weft", "-o", f"{BRIDGE}.gateway_mode_ipv4=isolated", "cave"
    )
    ident = create(engine, "cave", "--internal", *DUAL, gateway_mode_ipv4="isolated", gateway_mode_ipv6="isolated")
    bear, bat = (start(engine, name, "cave") for name in ("bear", "bat"))
    assert on_host(engine, bridge(weft, ident)) == set()
    assert (bear.default(4), bear.default(6)) == (None, None)
    for ping in (["ping"], ["ping", "-6"]):
        assert "1 packets received" in bear.run(*ping, "-c1", "-W5", "bat")
    if engine_version == "28":  # which asks before it reserves one (GwAllocCheck)
        shown = engine.api("GET", f"/networks/{ident}")["IPAM"]["Config"]
        assert [row.get("Gateway", "") for row in shown] == ["", ""]
        assert {str(bear.v4("cave")), str(bat.v4("cave"))} == {"10.51.0.1", "10.51.0.2"}


# -- containers apart -----------------------------------------------------------------------------------------------


@both_engines
def test_containers_apart_and_links(engine: Engine, weft: Weft, traffic: Traffic, parties: dict[str, Party]) -> None:
    create(engine, "meadow", *DUAL, enable_icc="false")
    bob = run(engine, traffic, "bob", "meadow", "-p", f"8080:{PORT}")
    link = ",".join((f"{bob.addresses[4]}:{PORT}/tcp", f"[{bob.addresses[6]}]:{PORT}/tcp"))
    ann = run(engine, traffic, "ann", f'name=meadow,"driver-opt=weft.link={link}"')
    cid = run(engine, traffic, "cid", "meadow")

    def knocks(client: Party, tcp: str, udp: str = SILENT) -> list[Knock]:
        return [
            Knock(client.spot, bob.addresses[version], protocol, wanted=wanted)
            for version in (4, 6)
            for protocol, wanted in (("tcp", tcp), ("udp", udp), ("icmp", udp))
        ]

    others = [Knock(bob.spot, address, by) for address in ann.addresses.values() for by in ("tcp", "udp", "icmp")]
    by_host = [Knock(client.spot, HERE[4], "tcp", 8080, OPEN) for client in (*parties.values(), ann, bob, cid)]
    outside = [Knock(cid.spot, THERE[version], "tcp", wanted=f"{OPEN} from {HERE[version]}") for version in (4, 6)]
    assert traffic.surprises([*knocks(ann, OPEN), *knocks(cid, SILENT), *others, *by_host, *outside]) == []
    engine.docker("rm", "-f", "ann")
    engine.docker("network", "disconnect", "meadow", "cid")
    engine.docker("network", "connect", "--driver-opt", f'"weft.link={link}"', "meadow", "cid")  # read as CSV
    assert traffic.surprises(knocks(cid, OPEN)) == []
    engine.docker("rm", "-f", "cid")
    for version in (4, 6):
        elements = engine.node.beside.run("nft", "list", "set", "inet", "weft", f"linked{version}").stdout
        assert "elements" not in elements


# -- addresses ------------------------------------------------------------------------------------------------------


@both_engines
@pytest.mark.parametrize("adopted", [False, True], ids=["own", "adopted"])
def test_what_leaves_carries_the_address_that_was_named(
    engine: Engine, weft: Weft, traffic: Traffic, parties: dict[str, Party], *, adopted: bool
) -> None:
    add_addresses(engine)
    if adopted:
        engine.node.run("ip", "link", "add", "br-lan", "up", "type", "bridge")
    try:
        options = (
            "-o",
            f"com.docker.network.host_ipv4={ALSO_HERE[4]}",
            "-o",
            f"com.docker.network.host_ipv6={ALSO_HERE[6]}",
        )
        create(engine, "meadow", *DUAL, *options, **({"name": "br-lan"} if adopted else {}))
        create(engine, "yard", "--subnet", "10.52.0.0/24", "--ipv6", "--subnet", "fd52::/64")
        ann, bob = run(engine, traffic, "ann", "meadow"), run(engine, traffic, "bob", "yard")
        knocks = [
            Knock(client.spot, THERE[version], protocol, wanted=f"{OPEN} from {source[version]}")
            for client, source in ((ann, ALSO_HERE), (bob, HERE))
            for version in (4, 6)
            for protocol in ("tcp", "udp")
        ]
        assert traffic.surprises(knocks) == []
    finally:
        engine.clean()
        if adopted:
            engine.node.run("ip", "link", "del", "br-lan")


@both_engines
def test_ports_are_bound_where_the_network_says_unless_the_command_does(
    engine: Engine, weft: Weft, traffic: Traffic, parties: dict[str, Party]
) -> None:
    add_addresses(engine)
    for number, (name, at) in enumerate((("four", HERE[4]), ("six", HERE[6])), 1):
        subnets = ("--subnet", f"10.5{number}.0.0/24", "--ipv6", "--subnet", f"fd5{number}::/64")
        create(engine, name, *subnets, host_binding_ipv4=at)
        run(
            engine,
            traffic,
            f"web-{name}",
            name,
            "-p",
            f"808{number}:{PORT}",
            "-p",
            f"{ALSO_HERE[4]}:909{number}:{PORT}",
        )
    assert listed(weft) == {
        *(f"{HERE[4]}:8081", f"{ALSO_HERE[4]}:9091"),
        *(f"[{HERE[6]}]:8082", f"{ALSO_HERE[4]}:9092"),
    }
    lan = parties["neighbour"].spot
    wanted = {
        (HERE[4], 8081): OPEN,
        (ALSO_HERE[4], 8081): REFUSED,
        (HERE[6], 8081): REFUSED,
        (HERE[6], 8082): OPEN,
        (ALSO_HERE[6], 8082): REFUSED,
        (HERE[4], 8082): REFUSED,
        (ALSO_HERE[4], 9091): OPEN,
        (HERE[4], 9091): REFUSED,
        (ALSO_HERE[4], 9092): OPEN,
    }
    assert traffic.surprises([Knock(lan, address, "tcp", port, seen) for (address, port), seen in wanted.items()]) == []


@both_engines
def test_inhibit_ipv4_leaves_the_gateway_to_another_machine(engine: Engine, weft: Weft) -> None:
    ident = create(engine, "meadow", *DUAL, inhibit_ipv4="true")
    ann = start(engine, "ann", "meadow")
    link = bridge(weft, ident)
    assert on_host(engine, link) == {"fd51::1/64"}
    assert (ann.default(4), ann.default(6)) == (("10.51.0.1", "eth0"), ("fd51::1", "eth0"))
    with NetNs("router") as router:
        ip = ("ip", "-n", engine.node.netns, "link")
        engine.node.beside.run(*ip, "add", "guest", "type", "veth", "peer", "name", "eth0", "netns", router.netns)
        engine.node.beside.run(*ip, "set", "guest", "up", "master", link)
        router.ip("address", "add", "10.51.0.1/24", "dev", "eth0")
        router.ip("link", "set", "eth0", "up")
        router.ip("address", "add", "203.0.113.7/32", "dev", "lo")
        await_(lambda: ann.answered_by("203.0.113.7"), 10, "an answer by way of the other gateway")


@pytest.mark.engine28
def test_ipv6_without_a_subnet_is_given_one(engine: Engine, weft: Weft) -> None:
    create(engine, "meadow", "--ipv6")
    shown = [ip_network(row["Subnet"]) for row in engine.api("GET", "/networks/meadow")["IPAM"]["Config"]]
    (six,) = (one for one in shown if one.version == 6)
    assert six.prefixlen == 64
    assert six.subnet_of(ip_network("fd00::/8"))  # type: ignore[arg-type]  # both are of IPv6
    ann, bob = (start(engine, name, "meadow") for name in ("ann", "bob"))
    assert ann.v6("meadow") in six
    assert ann.default(6) == (str(six[1]), "eth0")
    assert "1 packets received" in ann.run("ping", "-6", "-c1", "-W5", "bob")
    bob.remove()


# -- links and routes in containers ---------------------------------------------------------------------------------


def routes(container: Container) -> Mapping[str, str]:
    """Return a container's routes by way of somebody, or on the link if the kernel did not make them."""
    told: list[dict[str, Any]] = [one for version in ("-4", "-6") for one in container.ip(version, "route")]
    return {
        one["dst"]: one.get("gateway", "")
        for one in told
        if one.get("protocol") != "kernel" and one["dst"] != "default"
    }


@both_engines
def test_routes_are_in_the_containers(engine: Engine, weft: Weft) -> None:
    said = "203.0.113.0/24 via 10.51.0.7,198.51.100.0/24,2001:db8:9::/48 via fd51::7"
    create(engine, "meadow", *DUAL, "-o", f"weft.routes={said}")
    ann = start(engine, "ann", "meadow")
    of_all = {"203.0.113.0/24": "10.51.0.7", "198.51.100.0/24": "", "2001:db8:9::/48": "fd51::7"}
    assert routes(ann) == of_all
    own = "203.0.113.0/24 via 10.51.0.8,192.0.2.128/25 via 10.51.0.9"
    bob = start(engine, "bob", f'name=meadow,"driver-opt=weft.routes={own}"')
    assert routes(bob) == of_all | {"203.0.113.0/24": "10.51.0.8", "192.0.2.128/25": "10.51.0.9"}
    assert bob.default() == ("10.51.0.1", "eth0")


@both_engines
def test_a_next_hop_that_is_not_on_the_network_is_refused(engine: Engine, weft: Weft) -> None:
    astray = "weft.routes=203.0.113.0/24 via 10.99.0.1"
    said = refused(engine, "network", "create", "-d", "weft", *DUAL, "-o", astray, "meadow")
    assert "10.99.0.1: that is none of the network's own addresses" in said
    create(engine, "meadow", *DUAL)
    said = refused(engine, "run", "-d", "--name", "ann", "--network", f'name=meadow,"driver-opt={astray}"', image.NAME)
    assert "10.99.0.1: that is none of the network's own addresses" in said


@both_engines
def test_a_bridge_and_links_are_called_as_the_network_says(engine: Engine, weft: Weft) -> None:
    options = ("-o", "com.docker.network.container_iface_prefix=lan", "-o", "com.docker.network.driver.mtu=1400")
    ident = create(engine, "meadow", *DUAL, *options, name="lab0")
    assert bridge(weft, ident) == "lab0"
    assert on_host(engine, "lab0") == {"10.51.0.1/24", "fd51::1/64"}
    ann = start(engine, "ann", "meadow")
    assert {name: link.mtu for name, link in ann.links().items()} == {"lan0": 1400}


@both_engines
def test_a_whole_interface_name_is_told_to_the_engine(engine: Engine, weft: Weft) -> None:
    """Engines up to 28.5 do not ask for it (of plugins): they take it, and number the interface as ever."""
    option = "com.docker.network.endpoint.ifname"
    create(engine, "meadow", "--subnet", SUBNETS[4])
    ann = start(engine, "ann", f"name=meadow,driver-opt={option}=data0")
    assert set(ann.links()) == {"eth0"}
    with Libnetwork(weft.socket, netns=engine.node.netns) as played:
        network = played.create_network(subnet="10.53.0.0/24")
        container = played.start_container(network, driver_opts={option: "data0"})
        (joined,) = (answer for method, _, answer in played.calls if method == "NetworkDriver.Join")
        assert joined["InterfaceName"]["DstName"] == "data0"
        container.stop()
        played.remove_network(network)
