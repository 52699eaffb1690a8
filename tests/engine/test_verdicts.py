"""Who reaches whom beside Docker's own networks, on real engines with FORWARD DROP: networks, neighbour, host.

IPv4 and IPv6, TCP, UDP and ping, with br_netfilter off and on. Everything that should be silent is asked in the same
round as what should answer, from and to the same places, so silence cannot mean that something is broken.
"""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.lab import process
from tests.lab.engine import Engine
from tests.lab.image import NAME
from tests.lab.matrix import both_engines
from tests.lab.net import HERE, RUN_NETNS, THERE, Neighbour
from tests.lab.node import Node
from tests.lab.wait import await_
from tests.lab.weft import Weft
from tests.matrix.docker import party, run, serving, set_br_netfilter
from tests.matrix.table import Party, rows
from tests.matrix.traffic import OPEN, PROTOCOLS, REFUSED, SILENT, Knock, Spot, Traffic

pytestmark = pytest.mark.engine

TABLE = rows(
    """
    # from      to          verdict
    ann         bob         open    as ann     # one weft network
    bob         ann         open    as bob
    ann         cid         closed             # two weft networks
    cid         ann         closed

    ann         docker0     closed             # Docker's default bridge
    ann         br-id       closed             # a bridge that Docker named by its id
    ann         foo0        closed             # one that the operator named
    ann         br-foo      closed             # one that he named like his own
    docker0     ann         closed
    br-id       ann         closed
    foo0        ann         closed
    br-foo      ann         closed
    ann         published0  open               # ports that Docker publishes on the host's address
    ann         published1  open
    ann         published2  open
    ann         published3  open
    ann         published1v6  open
    ann         published2v6  open
    cid         published1  open
    lan         published1  open

    lan         ann         closed             # it has routes to every network
    lan         cid         closed
    ann         lan         open    as host    # the way out, masqueraded; answers come back
    cid         lan         open    as host
    docker0     lan         open               # Docker's own go on as before

    host        ann         open
    ann         host        open    as ann     # what listens on the host's addresses is open, as on Docker's bridge
    ann         gateway     open    as ann
    ann         gateway2    open    as ann     # another network's gateway is the host, too
    br-id       host        open               # (Docker's bridge)

    eve         fay         open    as eve     # an internal network; its containers were given a default route,
    fay         eve         open    as fay     # so that the verdict is asked for
    host        eve         open
    eve         gateway3    open    as eve     # as on Docker's internal bridge
    eve         lan         closed
    lan         eve         closed
    eve         ann         closed
    ann         eve         closed
    eve         docker0     closed
    eve         br-id       closed
    docker0     eve         closed
    br-id       eve         closed
    eve         published1  closed             # (IPv6 is docker-proxy's on 20.10: the host's own service)
    """
)

SUBNETS = {"one": ("10.7.1.0/24", "fd07:1::/64"), "two": ("10.7.2.0/24", "fd07:2::/64")}
INTERNAL = ("10.7.3.0/24", "fd07:3::/64")
DOCKERS = {"br-id": (), "foo0": ("foo0",), "br-foo": ("br-foo",)}


def route_to(neighbour: Neighbour, *subnets: str) -> None:
    """Give the neighbour a route by the node."""
    for subnet in subnets:
        neighbour.ip("route", "add", subnet, "via", str(neighbour.node_v6 if ":" in subnet else neighbour.node_v4))


def create(engine: Engine, name: str, v4: str, v6: str, *args: str, driver: str = "weft") -> None:
    """Create a network of both IP versions."""
    subnets = ("--subnet", v4, "--ipv6", "--subnet", v6)
    engine.docker("network", "create", "-d", driver, *subnets, *args, name)


def forward_drop(node: Node, *more: str) -> None:
    """Assert that Docker drops what nobody accepts: or nothing here shows anything."""
    for program in ("iptables", *more):
        assert "-P FORWARD DROP" in node.run(program, "-S", "FORWARD").stdout


def ip(spot: Spot, *lines: str, version: int) -> None:
    """Run lines of `ip` in a namespace."""
    with spot.entered():
        process.run(["ip", f"-{version}", "-batch", "-"], stdin="".join(f"{line}\n" for line in lines))


@pytest.fixture
def host_of_its_own(private_engine: Engine, private_weft: Weft) -> Iterator[Engine]:
    """Yield the private engine, and clean up while there is a weft to be told."""
    yield private_engine
    private_engine.clean()


@pytest.fixture
def traffic() -> Iterator[Traffic]:
    with Traffic() as traffic:
        yield traffic


def build(engine: Engine, neighbour: Neighbour, traffic: Traffic) -> dict[str, Party]:
    """Build everybody in the table."""
    node = engine.node
    host, lan = serving(traffic, node, "host"), serving(traffic, neighbour, "lan")
    parties = {"host": Party(host, HERE), "lan": Party(lan, THERE)}
    for name, subnets in SUBNETS.items():
        create(engine, name, *subnets)
        route_to(neighbour, *subnets)
    create(engine, "inside", *INTERNAL, "--internal")
    route_to(neighbour, *INTERNAL)
    for number, (name, bridge) in enumerate(DOCKERS.items(), 1):
        named = [word for link in bridge for word in ("-o", f"com.docker.network.bridge.name={link}")]
        create(engine, name, f"10.8.{number}.0/24", f"fd08:{number}::/64", *named, driver="bridge")
    places = {"ann": "one", "bob": "one", "cid": "two", "eve": "inside", "fay": "inside", "docker0": "bridge"}
    ports = {name: 8080 + number for number, name in enumerate(("docker0", *DOCKERS))}
    places |= {name: name for name in DOCKERS}

    def start(name: str) -> None:
        publish = ("-p", f"{ports[name]}:7007", "-p", f"{ports[name]}:7007/udp") if name in ports else ()
        engine.docker("run", "-d", "--name", name, "--network", places[name], *publish, NAME)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(start, places))
    parties |= {name: party(engine, traffic, name) for name in places}
    for number, name in enumerate(("gateway", "gateway2", "gateway3"), 1):
        parties[name] = Party(host, {4: f"10.7.{number}.1", 6: f"fd07:{number}::1"})
    for name in ("eve", "fay"):
        for version, gateway in ((4, "10.7.3.1"), (6, "fd07:3::1")):
            ip(parties[name].spot, f"route add default via {gateway}", version=version)
    for number, port in enumerate(ports.values()):
        parties[f"published{number}"] = Party(host, {4: HERE[4]}, port, ("tcp", "udp"))
        # 20.10 has a proxy for IPv6, which answers UDP from the address nearest to the client
        parties[f"published{number}v6"] = Party(host, {6: HERE[6]}, port, ("tcp",))
    return parties


@both_engines
def test_who_reaches_whom(host_of_its_own: Engine, private_weft: Weft, traffic: Traffic) -> None:
    engine, node = host_of_its_own, host_of_its_own.node
    with Neighbour(node) as neighbour:
        parties = build(engine, neighbour, traffic)
        private_weft.call("NetworkDriver.Leave")  # a call without a body makes weft look at Docker's list
        await_(lambda: {"foo0", "br-foo"} <= docker_links(node), 10, "weft to know Docker's bridges by their names")
        forward_drop(node, *(["ip6tables"] if node.root else []))  # 20.10 leaves IPv6 alone
        knocks = [knock for row in TABLE for knock in row.knocks(parties)]
        for value in (0, 1):
            set_br_netfilter(node, value)
            assert traffic.surprises(knocks) == []


def docker_links(node: Node) -> set[str]:
    """Return the bridges that weft leaves to Docker by name."""
    listed = node.run("iptables", "-S", "WEFT").stdout
    return set(re.findall(r"-o (\S+) .*-j RETURN", listed)) - {"docker0", "docker_gwbridge", "br-+"}


def operator_links(node: Node) -> set[str]:
    """Return the bridges that weft takes for the operator's."""
    listed = node.beside.run("nft", "list", "set", "inet", "weft", "operator_links").stdout
    return set(re.findall(r'"([^"]+)" comment', listed))


@both_engines
@pytest.mark.parametrize("name", ["foo1", "br-bar"])
def test_a_bridge_of_dockers_is_known_as_soon_as_a_container_is_on_it(engine: Engine, weft: Weft, name: str) -> None:
    create(engine, "one", *SUBNETS["one"])
    option = f"com.docker.network.bridge.name={name}"
    engine.docker("network", "create", "-o", option, name)
    engine.docker("run", "-d", "--network", name, NAME)
    await_(lambda: name in docker_links(engine.node), 10, f"{name} to be known as Docker's")
    assert name not in operator_links(engine.node)


@both_engines
def test_a_container_does_not_reach_what_listens_on_the_hosts_loopback(
    engine: Engine, weft: Weft, traffic: Traffic
) -> None:
    """A container that may send any frame sends it to 127.0.0.1 by the gateway: only the answer must not come."""
    forward_drop(engine.node)
    create(engine, "one", *SUBNETS["one"])
    ann = run(engine, traffic, "ann", "one")
    host = traffic.spot(RUN_NETNS / engine.node.netns, "host")
    loopback, gateways = ("127.0.0.1", "::1"), ("10.7.1.1", "fd07:1::1")
    for address in (*loopback, *gateways):
        host.serve(host=address)
    with ann.spot.entered():
        process.run(["sh", "-c", "echo 1 >/proc/sys/net/ipv4/conf/eth0/route_localnet"])
    for version, at, gateway in zip((4, 6), loopback, gateways, strict=True):
        ip(
            ann.spot,
            f"rule add pref 10 to {at} lookup 7",
            "rule add pref 20 lookup local",
            "rule del pref 0",
            f"route add {at} via {gateway} dev eth0 table 7",
            version=version,
        )
    knocks = [Knock(ann.spot, address, protocol) for address in loopback for protocol in PROTOCOLS]
    knocks += [Knock(ann.spot, address, protocol, wanted=OPEN) for address in gateways for protocol in PROTOCOLS]
    assert traffic.surprises(knocks) == []


def docker_user(node: Node, program: str = "iptables") -> list[str]:
    """Return the rules of DOCKER-USER in their order."""
    return node.run(program, "-S", "DOCKER-USER").stdout.splitlines()[1:]


def jump_is_in_place(node: Node) -> bool:
    """Tell whether our jump is there, once, below everything else but the RETURN with which 20.10 closes the chain."""
    rules = docker_user(node)
    if rules[-1:] == ["-A DOCKER-USER -j RETURN"]:
        rules.pop()
    return [at for at, rule in enumerate(rules) if rule.endswith("-j WEFT")] == [len(rules) - 1]


@both_engines
def test_the_operators_rules_stay_above_ours_and_count(
    engine: Engine, weft: Weft, neighbour: Neighbour, traffic: Traffic
) -> None:
    node = engine.node
    other = "192.0.2.77"
    neighbour.ip("address", "add", f"{other}/24", "dev", "lan0")
    serving(traffic, neighbour, "lan")
    early = ("-i", "lan0", "-s", other, "-j", "DROP")  # answers, too: he means what he says
    late = ("-d", str(neighbour.v4), "-j", "REJECT")

    def surprises(ann: Party, lan: str, at_other: str) -> list[str]:
        wanted = {str(neighbour.v4): lan, other: at_other}
        return traffic.surprises([Knock(ann.spot, address, "tcp", wanted=what) for address, what in wanted.items()])

    as_host = f"{OPEN} from {neighbour.node_v4}"
    forward_drop(node)
    node.run("iptables", "-I", "DOCKER-USER", *early)
    try:
        create(engine, "one", *SUBNETS["one"])
        ann = run(engine, traffic, "ann", "one")
        assert jump_is_in_place(node)
        assert surprises(ann, as_host, SILENT) == []
        node.run("iptables", "-R", "DOCKER-USER", "1", "-i", "lan0", "!", "-s", other, "-j", "DROP")
        assert surprises(ann, SILENT, as_host) == []
        node.run("iptables", "-D", "DOCKER-USER", "1")
        node.run("iptables", "-I", "DOCKER-USER", *late)
        assert surprises(ann, REFUSED, as_host) == []
        assert jump_is_in_place(node)
        node.run("iptables", "-D", "DOCKER-USER", *late)
        node.run("iptables", "-I", "DOCKER-USER", *early)
        engine.restart()
        assert docker_user(node)[0] == f"-A DOCKER-USER -s {other}/32 -i lan0 -j DROP"
        assert await_(lambda: jump_is_in_place(node), 10, "the jump after a restart of dockerd")
        engine.docker("start", "ann")
        again = party(engine, traffic, "ann")
        assert surprises(again, as_host, SILENT) == []
    finally:
        for rule in (early, late):
            node.run("iptables", "-D", "DOCKER-USER", *rule, check=False)


@both_engines
def test_drops_are_there_before_the_accept_and_go_after_it(engine: Engine, weft: Weft, tmp_path: Path) -> None:
    """The kernel itself tells in which order: `nft monitor` hears iptables-nft as well."""
    node = engine.node
    monitor = node.beside.spawn("nft", "monitor", log=tmp_path / "monitor")

    def mark(name: str) -> int:
        """Return where a table of ours appears in what the monitor says: all that came before it has been said."""

        def said() -> bool:
            node.run("nft", f"add table inet {name}; delete table inet {name}")
            return f"delete table inet {name}" in monitor.text()

        await_(said, 10, "nft monitor to speak")
        return monitor.text().splitlines().index(f"delete table inet {name}")

    start = mark("start")
    create(engine, "one", *SUBNETS["one"])
    made = mark("made")
    engine.docker("network", "rm", "one")
    gone = mark("gone")
    monitor.kill()
    lines = monitor.text().splitlines()

    def where(first: int, last: int, *words: str) -> list[int]:
        found = [at for at in range(first, last) if all(word in lines[at] for word in words)]
        assert found, "\n".join((f"no line with {words} among:", *lines[first:last]))
        return found

    drops = where(start, made, "add rule inet weft", "drop")
    accepts = where(start, made, "add rule ip filter WEFT", "accept")
    jumps = where(start, made, " rule ip filter DOCKER-USER", "jump WEFT")
    assert max(drops) < min(accepts) < min(jumps)
    unhooked = where(made, gone, "delete rule ip filter DOCKER-USER")
    shut = where(made, gone, "delete chain ip filter WEFT")
    assert max(unhooked) < min(shut) < min(where(made, gone, "delete rule inet weft"))
