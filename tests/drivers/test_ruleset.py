"""The verdicts of table `inet weft`, packet by packet, beside a Docker that drops what is forwarded.

    neighbour  lan0 192.0.2.2  ----  lan0 192.0.2.1   the host: Docker's FORWARD DROP, weft's rules
                                     wfb1   10.71.1.1   own network, masqueraded           <- container 10.71.1.2, .3
                                     wfb2   10.71.2.1   another own network                <- container 10.71.2.2
                                     wfb3   10.71.3.1   internal                           <- container 10.71.3.2
                                     docker0, my-net, br-lan, br-0123456789ab: bridges of others, each with a machine
                                     10.71.{4,5,6,9}.2; br-lan is the operator's, the others are Docker's
                                     lan7   10.71.7.1   the operator's, adopted           <- container .2, bystander .9
                                     lan8   10.71.8.1   the operator's, adopted, internal <- container .2

and the same in IPv6: 2001:db8:71:N::/64. Every link is made by hand, every rule by the planner and the backends.

A packet's fate is known when it has come out at one end, or when it has been seen to enter the host's forward hook
and not to leave it: no test waits for silence.
"""

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from itertools import count
from typing import Final

import pytest

from drivers.bridge.planner import BridgePlanner
from drivers.converge import Converger
from drivers.facts import HostFacts
from drivers.libnftables import Nft
from drivers.marks import Marks
from drivers.model import Endpoint, Network, Subnet, Use
from drivers.naming import LINK_GROUP
from drivers.nft import NftBackend
from drivers.resources import HOST, Resource, Scope, scope_of
from drivers.xtables import XtablesBackend
from tests.lab.wait import await_
from tests.netns import Netns, private_netns, sh, sysctl

pytestmark = pytest.mark.kernel

PORT: Final = 7000
PUBLISHED: Final = 8080
PROBE: Final = """
table inet probe {{}}
delete table inet probe
table inet probe {{
    counter entered {{}}
    counter left {{}}
    chain first {{ type filter hook forward priority -1000; udp dport {port} counter name entered; }}
    chain last {{ type filter hook forward priority 1000; udp dport {port} counter name left; }}
}}
"""


@dataclass(frozen=True)
class Host:
    """A machine of the small internet: a namespace with its address in each version."""

    netns: Netns
    v4: str
    v6: str

    def address(self, version: int) -> str:
        """Return its address."""
        return self.v4 if version == 4 else self.v6

    @contextmanager
    def socket(self, version: int, port: int = 0) -> Iterator[socket.socket]:
        """Yield a UDP socket of this machine."""
        with self.netns.entered():
            udp = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
        with closing(udp):
            udp.settimeout(0)
            udp.bind(("", port))
            yield udp


class World:
    """The host in this thread's namespace, and the machines around it."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._numbers = count(1)
        self._nft = Nft()
        stack.callback(self._nft.close)
        self.nft = NftBackend(Marks("a"))
        stack.callback(self.nft.close)
        self.converger = Converger({"nft": self.nft, "xtables": XtablesBackend(Marks("a"))})

    def bridge(self, name: str, number: int, *, ours: bool = False) -> None:
        """Make a bridge with the host's addresses in network `number`."""
        group = ("group", str(LINK_GROUP)) if ours else ()
        sh("ip", "link", "add", name, *group, "type", "bridge")
        sh("ip", "link", "set", name, "up")
        self._address(name, f"10.71.{number}.1/24", f"2001:db8:71:{number}::1/64")

    def machine(self, bridge: str, number: int, host: int) -> Host:
        """Plug a machine into a bridge, with the host as its router."""
        v4, v6 = f"10.71.{number}.{host}", f"2001:db8:71:{number}::{host}"
        port = f"p{next(self._numbers)}"
        netns = self._wire(port, v4 + "/24", v6 + "/64", f"10.71.{number}.1", f"2001:db8:71:{number}::1")
        sh("ip", "link", "set", port, "master", bridge)
        return Host(netns, v4, v6)

    def neighbour(self) -> Host:
        """Wire up the host next door; it routes to the host's networks, as a curious neighbour would."""
        netns = self._wire("lan0", "192.0.2.2/24", "2001:db8:2::2/64", "192.0.2.1", "2001:db8:2::1")
        self._address("lan0", "192.0.2.1/24", "2001:db8:2::1/64")
        return Host(netns, "192.0.2.2", "2001:db8:2::2")

    def _wire(self, port: str, v4: str, v6: str, *routers: str) -> Netns:
        netns = self._stack.enter_context(Netns())
        sh("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", netns.path)
        sh("ip", "link", "set", port, "up")
        with netns.entered():
            sh("ip", "link", "set", "eth0", "up")
            self._address("eth0", v4, v6)
            for router in routers:
                sh("ip", "route", "add", "default", "via", router)
        return netns

    def _address(self, link: str, v4: str, v6: str) -> None:
        sh("ip", "address", "add", v4, "dev", link)
        sh("ip", "address", "add", v6, "dev", link, "nodad")

    def want(self, scope: Scope, resources: tuple[Resource, ...]) -> None:
        """Converge what the planner wants of the two firewall backends."""
        self.converger.converge(scope, [one for one in resources if one.key.backend in ("nft", "xtables")])

    def send(self, source: Host, target: Host, version: int, *, via: tuple[str, int] | None = None) -> str | None:
        """Send a datagram, and return the address it came from as the target saw it; `None`: it was dropped.

        `via`: the address and port that it is sent to, where that is not the target's own.
        """
        self._nft.run(PROBE.format(port=PORT))
        text = f"datagram {next(self._numbers)}".encode()
        with source.socket(version) as sender, target.socket(version, PORT) as receiver:
            sender.sendto(text, via or (target.address(version), PORT))

            def fate() -> tuple[str | None] | None:
                dropped = self._count("entered") > self._count("left")
                try:
                    received, sender_seen = receiver.recvfrom(100)
                except BlockingIOError:
                    return (None,) if dropped else None
                assert received == text
                receiver.sendto(b"answer", sender_seen)
                await_(lambda: sender.recv(100) == b"answer", 10, "the answer to a datagram that got through")
                return (sender_seen[0],)

            return await_(fate, 10, f"the fate of a datagram from {source.address(version)} to {target}")[0]

    def _count(self, name: str) -> int:
        listing = json.loads(self._nft.run(f"list counter inet probe {name}", json=True))
        packets: int = listing["nftables"][1]["counter"]["packets"]
        return packets


@dataclass(frozen=True)
class Hosts:
    """All machines by what they are."""

    world: World
    one: Host
    one_too: Host
    two: Host
    inner: Host
    inner_too: Host
    docker: Host
    docker_named: Host
    docker_hex: Host
    operators: Host
    adopted: Host
    adopted_inner: Host
    bystander: Host
    neighbour: Host


def network(ident: str, link: str, number: int, *, internal: bool = False, adopted: bool = False) -> Network:
    return Network(
        id=ident,
        link=link,
        mac="02:00:00:00:00:01",
        adopted=adopted,
        internal=internal,
        subnets=tuple(
            Subnet(network=gateway.network, gateway=gateway)
            for gateway in (ip_interface(f"10.71.{number}.1/24"), ip_interface(f"2001:db8:71:{number}::1/64"))
        ),
    )


def docker(policy: str) -> None:
    """Do as a dockerd, which sets FORWARD DROP if it switched forwarding on, and makes the operator's chain."""
    for program in ("iptables", "ip6tables"):
        sh(program, "-N", "DOCKER-USER")
        sh(program, "-A", "DOCKER-USER", "-j", "RETURN")
        sh(program, "-P", "FORWARD", policy)
        sh(program, "-A", "FORWARD", "-j", "DOCKER-USER")
        sh(program, "-A", "FORWARD", "-o", "docker0", "-m", "conntrack", "--ctstate", "ESTABLISHED", "-j", "ACCEPT")
        sh(program, "-A", "FORWARD", "-i", "docker0", "-j", "ACCEPT")
    sysctl("ipv4/ip_forward", "1")
    sysctl("ipv6/conf/all/forwarding", "1")


@pytest.fixture(scope="module", params=["DROP", "ACCEPT"], ids="policy={}".format)
def policy(request: pytest.FixtureRequest) -> str:
    """Return FORWARD's policy: what weft opens shows beside DROP, what weft closes beside ACCEPT."""
    chosen: str = request.param
    return chosen


@pytest.fixture(scope="module", params=["0", "1"], ids="bridge-nf={}".format)
def hosts(request: pytest.FixtureRequest, policy: str) -> Iterator[Hosts]:
    """Build the whole picture above, with and without br_netfilter, and put weft's rules into it."""
    with private_netns(), ExitStack() as stack:
        for program in ("iptables", "ip6tables"):
            sysctl(f"bridge/bridge-nf-call-{program}", request.param)
        docker(policy)
        world = World(stack)
        for name, number in (("wfb1", 1), ("wfb2", 2), ("wfb3", 3)):
            world.bridge(name, number, ours=True)
        for name, number in OTHERS:
            world.bridge(name, number)
        hosts = Hosts(
            world=world,
            one=world.machine("wfb1", 1, 2),
            one_too=world.machine("wfb1", 1, 3),
            two=world.machine("wfb2", 2, 2),
            inner=world.machine("wfb3", 3, 2),
            inner_too=world.machine("wfb3", 3, 3),
            docker=world.machine("docker0", 4, 2),
            docker_named=world.machine("my-net", 5, 2),
            docker_hex=world.machine("br-0123456789ab", 9, 2),
            operators=world.machine("br-lan", 6, 2),
            adopted=world.machine("lan7", 7, 2),
            adopted_inner=world.machine("lan8", 8, 2),
            bystander=world.machine("lan7", 7, 9),
            neighbour=world.neighbour(),
        )
        for version in (4, 6):  # else every test of the answer to FORWARD DROP would pass without the answer
            before = world.send(hosts.one, hosts.neighbour, version)
            assert before == (None if policy == "DROP" else hosts.one.address(version))
        give_rules(world)
        yield hosts


def give_rules(world: World) -> None:
    """Converge the firewall's part of four networks and one endpoint."""
    plan = BridgePlanner()
    facts = HostFacts(docker_user=frozenset({4, 6}), operator_links=frozenset({"br-lan"}))
    use = Use(networks=4, docker_links=frozenset({"my-net"}))
    world.want(HOST, plan.host(facts, use))
    for one in (
        network("1" * 64, "wfb1", 1),
        network("2" * 64, "wfb2", 2),
        network("3" * 64, "wfb3", 3, internal=True),
        network("7" * 64, "lan7", 7, adopted=True),
        network("8" * 64, "lan8", 8, adopted=True, internal=True),
    ):
        world.want(scope_of(one.id), plan.network(facts, one))
        if one.adopted:
            endpoint = Endpoint(
                id=one.id,
                network=one.id,
                link=f"wfh{one.link}",
                peer=f"wfc{one.link}",
                mac="02:00:00:00:00:02",
                ipv4=IPv4Interface(f"10.71.{one.id[0]}.2/24"),
                ipv6=IPv6Interface(f"2001:db8:71:{one.id[0]}::2/64"),
            )
            world.want(scope_of(one.id, endpoint.id), plan.endpoint(facts, one, endpoint))


OTHERS: Final = (("docker0", 4), ("my-net", 5), ("br-lan", 6), ("lan7", 7), ("lan8", 8), ("br-0123456789ab", 9))
HOSTS_ADDRESS: Final = {4: "192.0.2.1", 6: "2001:db8:2::1"}
GATEWAY: Final = {4: "10.71.{}.1", 6: "2001:db8:71:{}::1"}
ITSELF: Final = "itself"  # the target sees the sender's own address
THE_HOST: Final = "the host"  # the target sees the host's address
DROPPED: Final = "dropped"

VERDICTS: Final = (
    # source, target, what the target sees
    ("one", "one_too", ITSELF),
    ("one", "two", DROPPED),
    ("two", "one", DROPPED),
    ("one", "neighbour", THE_HOST),
    ("neighbour", "one", DROPPED),
    ("one", "docker", DROPPED),
    ("docker", "one", DROPPED),
    ("one", "docker_named", DROPPED),
    ("docker_named", "one", DROPPED),
    ("one", "docker_hex", DROPPED),
    ("docker_hex", "one", DROPPED),
    ("operators", "one", DROPPED),
    ("inner", "inner_too", ITSELF),
    ("inner", "neighbour", DROPPED),
    ("neighbour", "inner", DROPPED),
    ("inner", "one", DROPPED),
    ("one", "inner", DROPPED),
    ("inner", "docker", DROPPED),
    ("inner", "operators", DROPPED),
    ("adopted", "neighbour", THE_HOST),
    ("neighbour", "adopted", DROPPED),
    ("adopted", "one", DROPPED),
    ("one", "adopted", DROPPED),
    ("adopted", "docker", DROPPED),
    ("adopted", "docker_hex", DROPPED),
    ("adopted_inner", "neighbour", DROPPED),
    ("adopted_inner", "operators", DROPPED),
    ("neighbour", "adopted_inner", DROPPED),
    ("adopted", "bystander", ITSELF),
    ("bystander", "adopted", ITSELF),
)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(("source", "target", "seen"), VERDICTS)
def test_verdict(hosts: Hosts, source: str, target: str, seen: str, version: int) -> None:
    sender: Host = getattr(hosts, source)
    expected = {ITSELF: sender.address(version), THE_HOST: HOSTS_ADDRESS[version], DROPPED: None}[seen]
    assert hosts.world.send(sender, getattr(hosts, target), version) == expected


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("source", ["one", "adopted"])
def test_the_operators_own_bridge_is_open(hosts: Hosts, source: str, version: int) -> None:
    sender: Host = getattr(hosts, source)
    assert hosts.world.send(sender, hosts.operators, version) == GATEWAY[version].format(6)


@pytest.mark.parametrize("version", [4, 6])
def test_a_bystander_on_an_adopted_bridge_is_neither_opened_nor_closed(hosts: Hosts, version: int, policy: str) -> None:
    """Docker's policy decides on him, there and back: our table has no word on it."""
    for sender, receiver in ((hosts.bystander, hosts.neighbour), (hosts.neighbour, hosts.bystander)):
        expected = sender.address(version) if policy == "ACCEPT" else None
        assert hosts.world.send(sender, receiver, version) == expected


@contextmanager
def published(target: Host, version: int) -> Iterator[tuple[str, int]]:
    """Translate a port of the host to the target, as a published port does; yield where to send to."""
    family, address = ("ip", target.v4) if version == 4 else ("ip6", f"[{target.v6}]")
    rule = f"udp dport {PUBLISHED} dnat to {address}:{PORT}"
    sh("nft", f"table {family} published {{ chain pre {{ type nat hook prerouting priority -105; {rule}; }}; }}")
    try:
        yield HOSTS_ADDRESS[version], PUBLISHED
    finally:
        sh("nft", f"delete table {family} published")


@pytest.mark.parametrize("version", [4, 6])
def test_what_was_translated_to_get_in_is_let_in(hosts: Hosts, version: int) -> None:
    send = hosts.world.send
    with published(hosts.one, version) as port:
        assert send(hosts.neighbour, hosts.one, version, via=port) == hosts.neighbour.address(version)
        assert send(hosts.two, hosts.one, version, via=port) == hosts.two.address(version)
        assert send(hosts.adopted, hosts.one, version, via=port) == hosts.adopted.address(version)
        assert send(hosts.inner, hosts.one, version, via=port) is None
    with published(hosts.adopted, version) as port:
        assert send(hosts.neighbour, hosts.adopted, version, via=port) == hosts.neighbour.address(version)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("target", ["inner", "adopted_inner"])
def test_an_internal_network_is_closed_to_what_was_translated_too(hosts: Hosts, target: str, version: int) -> None:
    with published(getattr(hosts, target), version) as port:
        assert hosts.world.send(hosts.neighbour, getattr(hosts, target), version, via=port) is None


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(("target", "number"), [("docker", 4), ("docker_named", 5), ("docker_hex", 9)])
def test_docker_itself_judges_what_goes_to_its_own_published_ports(
    hosts: Hosts, policy: str, target: str, number: int, version: int
) -> None:
    """Nothing accepts it here but the policy: WEFT must not, for it may be a port that Docker does not open to us."""
    with published(getattr(hosts, target), version) as port:
        seen = hosts.world.send(hosts.one, getattr(hosts, target), version, via=port)
    assert seen == (GATEWAY[version].format(number) if policy == "ACCEPT" else None)


@pytest.mark.parametrize("version", [4, 6])
def test_the_operators_drop_in_docker_user_wins(hosts: Hosts, version: int) -> None:
    """Our jump is below his rules, so what he refuses stays refused."""
    program = "iptables" if version == 4 else "ip6tables"
    his = ("DOCKER-USER", "-i", "wfb2", "-j", "DROP")
    assert hosts.world.send(hosts.two, hosts.neighbour, version) == HOSTS_ADDRESS[version]
    sh(program, "-I", *his)
    try:
        assert hosts.world.send(hosts.two, hosts.neighbour, version) is None
    finally:
        sh(program, "-D", *his)
