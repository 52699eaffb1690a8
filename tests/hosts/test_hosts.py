"""Three hosts with an engine, Open vSwitch and weft each, and a network over all of them by each kind of tunnel.

a, b   in both lists
c      lists a and b, and is in no list at first
"""

import hashlib
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import permutations

import pytest

from tests.lab.hosts import DockerHost, docker_hosts
from tests.lab.wait import await_
from tests.matrix.docker import run
from tests.matrix.overlay_street import Talk, drain, ear
from tests.matrix.table import Party
from tests.matrix.traffic import OPEN, PROTOCOLS, SILENT, Knock, Traffic

pytestmark = [pytest.mark.engine, pytest.mark.hosts]

SOON = 60  # seconds
COMBINATIONS = {
    "bridge-vxlan": ("weft.tunnel=vxlan", "weft.tunnel.port=4799"),
    "ovs-vxlan": ("weft.backend=ovs", "weft.tunnel=vxlan"),
    "ovs-gre": ("weft.backend=ovs", "weft.tunnel=gre"),
    "ovs-geneve": ("weft.backend=ovs", "weft.tunnel=geneve"),
}
ISOLATED = [f"com.docker.network.bridge.gateway_mode_ipv{version}=isolated" for version in (4, 6)]


@dataclass
class Street:
    """The hosts, and the containers by network and host: two on each."""

    hosts: dict[str, DockerHost]
    traffic: Traffic
    parties: dict[tuple[str, str], list[Party]] = field(default_factory=dict)

    def of(self, network: str, *hosts: str) -> list[Party]:
        """Return the containers of a network on some hosts."""
        return [party for host in hosts for party in self.parties[network, host]]

    def reach(self, network: str, *hosts: str) -> list[str]:
        """Have every container of a network on some hosts ask every other one; return what went otherwise."""
        pairs = permutations(self.of(network, *hosts), 2)
        return self.traffic.surprises([knock for one, other in pairs for knock in knocks(one, other, OPEN)])


def knocks(one: Party, other: Party, wanted: str) -> list[Knock]:
    """Return an attempt by each protocol and IP version; who is let in is seen by his own address."""
    return [
        Knock(
            one.spot,
            other.addresses[version],
            protocol,
            wanted=f"{OPEN} from {one.addresses[version]}" if wanted == OPEN and protocol != "icmp" else wanted,
        )
        for version in (4, 6)
        for protocol in PROTOCOLS
    ]


def all_reach(street: Street, network: str, *hosts: str) -> bool:
    """Tell whether all containers of a network talk on some hosts."""
    return not street.reach(network, *(hosts or ("a", "b")))


@pytest.fixture(scope="module")
def street() -> Iterator[Street]:
    """Build it once."""
    with docker_hosts("abc", peers=(1, 2)) as hosts, Traffic() as traffic:
        street = Street(hosts, traffic)
        for number, (network, options) in enumerate(COMBINATIONS.items(), 1):
            for host in hosts.values():
                host.engine.docker(*host.create(number, *options, f"weft.name={network}")[1:], network)
                street.parties[network, host.name] = [
                    run(host.engine, traffic, f"{network}-{which}", network) for which in (1, 2)
                ]
            # the first packets are lost, while Open vSwitch asks for the MACs of the peers
            await_(partial(all_reach, street, network), SOON, f"{network} to carry what is sent")
        yield street


@pytest.mark.parametrize("network", COMBINATIONS)
def test_every_pair_of_containers_talks_on_the_hosts_that_are_peers_and_on_no_other(
    street: Street, network: str
) -> None:
    assert not street.reach(network, "a", "b")
    alone, others = street.parties[network, "c"], street.of(network, "a", "b")
    pairs = [pair for one in alone for other in others for pair in ((one, other), (other, one))]
    shut = [knock for pair in pairs for knock in knocks(*pair, SILENT)]
    assert not street.traffic.surprises(shut)
    assert not street.reach(network, "c")


@pytest.mark.parametrize("network", COMBINATIONS)
def test_what_arrives_is_what_was_sent(street: Street, network: str) -> None:
    """A few hundred packets of the largest size, each way."""
    body = hashlib.shake_256(network.encode()).digest(1 << 19)
    one, other = street.parties[network, "a"][0], street.parties[network, "b"][0]
    for client, server in ((one, other), (other, one)):
        with Talk(client.spot, server.spot, server.addresses[4], 7080, 40080) as talk:
            talk.sock.settimeout(SOON)
            talk.served.settimeout(SOON)
            sender = threading.Thread(target=talk.sock.sendall, args=(body,))
            sender.start()
            got = bytearray()
            while len(got) < len(body):
                got += talk.served.recv(1 << 16)
            sender.join()
            assert hashlib.sha256(got).digest() == hashlib.sha256(body).digest()


@pytest.mark.parametrize("network", COMBINATIONS)
def test_a_broadcast_arrives_once_at_everybody(street: Street, network: str) -> None:
    speaker, *here = street.parties[network, "a"]
    listeners = [*here, *street.parties[network, "b"]]
    with ExitStack() as stack:
        ears = [stack.enter_context(ear(one.spot)) for one in listeners]
        mouth = stack.enter_context(speaker.spot.make(socket.AF_INET, socket.SOCK_DGRAM))
        mouth.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        heard: list[list[bytes]] = [[] for _ in ears]

        def listen() -> bool:
            for words, sock in zip(heard, ears, strict=True):
                words.extend(drain(sock))
            return all(b"last" in words for words in heard)

        for word in (b"one", b"two", b"last"):
            mouth.sendto(word, (speaker.addresses[4].rpartition(".")[0] + ".255", 7070))
        await_(listen, SOON, "the last broadcast at everybody")
        assert heard == [[b"one", b"two", b"last"]] * len(ears)


@pytest.mark.parametrize("network", COMBINATIONS)
def test_a_peer_comes_and_goes_while_traffic_runs(street: Street, network: str) -> None:
    one, other = street.parties[network, "a"][0], street.parties[network, "b"][0]
    third = street.parties[network, "c"][0]
    with Talk(one.spot, other.spot, other.addresses[4], 7081, 40081) as talk:
        for host in "ab":
            street.hosts[host].weft.cli("peer", "add", "192.0.2.3", "--network", network)
        await_(lambda: not street.reach(network, "a", "b", "c"), SOON, "the third host's containers")
        for host in "ab":
            street.hosts[host].weft.cli("peer", "rm", "192.0.2.3", "--network", network)
        shut = [*knocks(one, third, SILENT), *knocks(third, other, SILENT)]
        assert not street.traffic.surprises(shut)
        talk()


def test_two_networks_on_one_subnet_stay_apart(street: Street) -> None:
    """The second has no gateway on any host, and containers with the very addresses of the first one's."""
    addresses = {host: street.parties["ovs-gre", host][0].addresses for host in "ab"}
    for host in "ab":
        at = street.hosts[host]
        pool = ("--ipam-driver", "weft", "--ipam-opt", "weft.pool=twin", "--internal")
        options = ("weft.backend=ovs", "weft.tunnel=gre", "weft.name=twin", *ISOLATED)
        at.engine.docker(*at.create(3, *options)[1:], *pool, "twin")
        fixed = ("--ip", addresses[host][4], "--ip6", addresses[host][6])
        street.parties["twin", host] = [run(at.engine, street.traffic, "twin-1", "twin", *fixed)]
    await_(lambda: not street.reach("twin", "a", "b"), SOON, "the second network")
    assert not street.reach("ovs-gre", "a", "b")
    only = street.parties["ovs-gre", "b"][1].addresses[4]
    assert not street.traffic.surprises([Knock(street.parties["twin", "a"][0].spot, only, "tcp", wanted=SILENT)])


def test_the_hosts_are_as_wanted(street: Street) -> None:
    for host in street.hosts.values():
        assert host.weft.cli("status").returncode == 0
