"""Random hosts, networks and endpoints: whatever the engine could have decided, and nothing it could not."""

import hashlib
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

from hypothesis import strategies as st

from drivers.bridge.planner import BridgePlanner
from drivers.facts import HostFacts
from drivers.model import Address, Endpoint, Interface, Network, OpenPorts, Peer, Subnet, Tunnel, Use
from drivers.naming import FIRST_OWN_VNI, bridge_mac, endpoint_mac, link_name
from drivers.resources import HOST, Resource, Scope, scope_of

PLANNER = BridgePlanner()


def ident(kind: str, number: int) -> str:
    """Return an id as Docker makes them."""
    return hashlib.sha256(f"{kind}{number}".encode()).hexdigest()


@st.composite
def host_facts(draw: st.DrawFn) -> HostFacts:
    """Any host."""
    return HostFacts(
        docker_user=draw(st.frozensets(st.sampled_from((4, 6)))),
        force_forwarding=draw(st.booleans()),
        forwarding6=draw(st.booleans()),
        may_forward=draw(st.booleans()),
        ra_links=draw(st.frozensets(st.sampled_from(("eth0", "eth1", "eth2", "wlan0", "wwan0")))),
        operator_links=draw(_bridges()),
        firewalld=draw(st.booleans()),
    )


def _bridges() -> st.SearchStrategy[frozenset[str]]:
    return st.frozensets(st.sampled_from(("br-lan", "br-dmz", "br-web", "br-iot", "br-vpn", "br-dev")))


@st.composite
def uses(draw: st.DrawFn) -> Use:
    """Any use that stored networks can make of a host."""
    return Use(
        networks=draw(st.integers(0, 2)),
        forwards6=draw(st.booleans()),
        apart=draw(st.booleans()),
        tunnels=draw(st.booleans()),
        docker_links=draw(_bridges()),
    )


@st.composite
def networks(draw: st.DrawFn, number: int) -> Network:
    """Network ``number`` in any variant: its id, its link and its subnets are no other number's."""
    ours, adopted, internal = ident("network", number), draw(st.booleans()), draw(st.booleans())
    tunnel = None if adopted else draw(_tunnels(number))
    modes = st.sampled_from(("nat", "nat-unprotected", "routed", *(("isolated",) if internal else ())))
    return Network(
        id=ours,
        link=f"br{number}" if adopted else link_name("b", ours),
        mac=bridge_mac(ours),
        adopted=adopted,
        subnets=draw(_subnets(number)),
        mtu=draw(st.sampled_from((None, 1280, 1450, 9000))),
        internal=internal,
        mode4=draw(modes),
        mode6=draw(modes),
        masquerade=draw(st.booleans()),
        source4=draw(st.sampled_from((None, IPv4Address("192.0.2.9")))),
        source6=draw(st.sampled_from((None, IPv6Address("2001:db8::9")))),
        icc=adopted or draw(st.booleans()),
        trusted=draw(st.sampled_from(((), ("eth1",), ("eth1", "vpn0")))),
        tunnel=tunnel,
        peers=draw(_peers(tunnel.version)) if tunnel else (),
        zone=None if adopted else draw(st.sampled_from((None, 22272 + number))),
    )


@st.composite
def _peers(draw: st.DrawFn, version: int) -> tuple[Peer, ...]:
    """Any few peers, each with a number."""
    addresses = draw(st.lists(_hosts(version), max_size=3, unique=True))
    return tuple(Peer(address=address, number=number) for number, address in enumerate(addresses, 1))


@st.composite
def _tunnels(draw: st.DrawFn, number: int) -> Tunnel | None:
    """Any tunnel, or none; the VNI is no other number's."""
    kind, version = draw(st.sampled_from((None, "vxlan", "gre", "geneve"))), draw(st.sampled_from((4, 6)))
    if kind is None:
        return None
    local: Address | None = IPv4Address("192.0.2.1") if version == 4 else IPv6Address("2001:db8::1")
    return Tunnel(
        kind=kind,  # type: ignore[arg-type]  # one of them
        vni=FIRST_OWN_VNI + number,
        port=0 if kind == "gre" else draw(st.sampled_from((4789, 6081))),
        version=version,
        local=local if version == 6 or draw(st.booleans()) else None,
    )


def _hosts(version: int) -> st.SearchStrategy[Address]:
    last = st.integers(2, 9)
    return last.map(lambda at: IPv4Address(f"192.0.2.{at}") if version == 4 else IPv6Address(f"2001:db8::{at}"))


@st.composite
def _subnets(draw: st.DrawFn, number: int) -> tuple[Subnet, ...]:
    every: list[tuple[IPv4Network | IPv6Network, Interface]] = [
        (IPv4Network(f"10.{number}.0.0/24"), IPv4Interface(f"10.{number}.0.1/24")),
        (IPv4Network(f"10.{number}.1.0/24"), IPv4Interface(f"10.{number}.1.1/24")),
        (IPv6Network(f"fd00:{number:x}::/64"), IPv6Interface(f"fd00:{number:x}::1/64")),
    ]
    return tuple(
        Subnet(network=network, gateway=gateway if draw(st.booleans()) else None)
        for network, gateway in every
        if draw(st.booleans())
    )


@st.composite
def endpoints(draw: st.DrawFn, network: Network, number: int) -> Endpoint:
    """Endpoint ``number`` of a network; its addresses are no sibling's."""
    ours = ident(f"endpoint {network.id}", number)
    ipv4 = ipv6 = None
    for subnet in network.subnets:
        host = subnet.network.network_address + 2 + number
        match subnet.network:
            case IPv4Network() if ipv4 is None or draw(st.booleans()):
                ipv4 = IPv4Interface((str(host), subnet.network.prefixlen))
            case IPv6Network():
                ipv6 = IPv6Interface((str(host), subnet.network.prefixlen))
            case _:
                pass
    return Endpoint(
        id=ours,
        network=network.id,
        link=link_name("h", ours),
        peer=link_name("c", ours),
        mac=endpoint_mac(network.id, ipv4 or ipv6, ours),
        ipv4=ipv4,
        ipv6=ipv6,
        links=draw(_links(network)),
    )


@st.composite
def _links(draw: st.DrawFn, network: Network) -> tuple[OpenPorts, ...]:
    """Ports of others on the network; some of them meet."""
    addresses = [subnet.network.network_address + 9 for subnet in network.subnets]
    return tuple(
        OpenPorts(address=address, transport=draw(st.sampled_from(("tcp", "udp"))), first=first, last=first + length)
        for address in addresses
        for first, length in draw(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 5)), max_size=3))
    )


@dataclass(frozen=True, slots=True)
class World:
    """A host and all that is wanted on it."""

    facts: HostFacts = field(default_factory=HostFacts)
    networks: tuple[tuple[Network, tuple[Endpoint, ...]], ...] = ()

    @property
    def use(self) -> Use:
        """What the networks ask of the host."""
        return use_of(tuple(network for network, _ in self.networks))

    def plans(self) -> dict[Scope, tuple[Resource, ...]]:
        """Return what is wanted, by scope, in the order in which scopes are built."""
        plans = {HOST: PLANNER.host(self.facts, self.use)}
        for network, attached in self.networks:
            plans[scope_of(network.id)] = PLANNER.network(self.facts, network)
            for endpoint in attached:
                plans[scope_of(network.id, endpoint.id)] = PLANNER.endpoint(self.facts, network, endpoint)
        return plans


def use_of(networks: tuple[Network, ...]) -> Use:
    """Count what networks ask of the host, as the store does."""
    return Use(
        networks=len(networks),
        forwards6=any(one.speaks(6) and not one.internal for one in networks),
        apart=not all(one.icc for one in networks),
        tunnels=any(one.tunnel for one in networks),
    )


@st.composite
def worlds(draw: st.DrawFn, most: int = 3) -> World:
    """Up to ``most`` networks with up to ``most`` endpoints each."""
    stored = []
    for number in range(draw(st.integers(0, most))):
        network = draw(networks(number))
        count = draw(st.integers(0, most))
        stored.append((network, tuple(draw(endpoints(network, at)) for at in range(count))))
    return World(draw(host_facts()), tuple(stored))


@st.composite
def variants(draw: st.DrawFn, network: Network, number: int) -> Network:
    """Any other wish for network ``number``: what its id decides stays."""
    other = replace(draw(networks(number)), link=network.link, adopted=network.adopted)
    return replace(other, tunnel=None, peers=(), zone=None) if network.adopted else other
