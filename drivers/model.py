"""What is wanted, in our words: networks and the endpoints on them.

Every value here is a decision already made (a name, a MAC, an address), so a planner only has to spell it out.
Nothing here knows of Docker, and nothing is a handle: no ifindex, no rule number.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Literal

Transport = Literal["tcp", "udp", "sctp"]
GatewayMode = Literal["nat", "nat-unprotected", "routed", "isolated"]
Encapsulation = Literal["vxlan", "gre", "geneve"]
Address = IPv4Address | IPv6Address
Interface = IPv4Interface | IPv6Interface
IPNetwork = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Subnet:
    """One address range of a network, and the host's own address in it.

    ``gateway`` is what the bridge answers as, with the subnet's prefix length; ``None`` where the host has no
    address in the subnet. ``elsewhere``: containers are told of the gateway, but it is another machine's on the link.
    """

    network: IPNetwork
    gateway: Interface | None = None
    elsewhere: bool = False

    @property
    def version(self) -> int:
        """4 or 6."""
        return self.network.version


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunnel:
    """How a network goes on at other hosts. Every choice is made; who the peers are is :attr:`Network.peers`.

    ``vni``      what tells the network from others on the wire, 1 to 2^24-1: VXLAN's and Geneve's VNI, GRE's key
    ``port``     the UDP port, the same on every host; 0 for GRE, which has none
    ``version``  4 or 6: the IP version of the peers, one for all
    ``local``    this host's address as the peers know it; ``None`` (IPv4 only): the kernel's choice for each peer
    """

    kind: Encapsulation
    vni: int
    port: int = 0
    version: int = 4
    local: Address | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Another host to which networks go on.

    ``number``  tells it from this host's other peers, from 1 on; claimed in the store
    """

    address: Address
    number: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A layer-2 segment: of this host or, with a tunnel, of several.

    ``link``        the bridge's name, at most 15 bytes
    ``adopted``     the bridge is the operator's own: it must exist, and is neither made nor removed nor configured
    ``mac``         the bridge's own MAC; unused on an adopted bridge
    ``subnets``     empty for a network without addresses (layer 2 only)
    ``mtu``         in bytes; ``None`` leaves the kernel's default (1500)
    ``internal``    no way out and no way in
    ``mode4``, ``mode6``  what the host is to the network, for each IP version:
                    ``nat``              translates what leaves it, and published ports into it
                    ``nat-unprotected``  the same, and every port is open at the container's own address
                    ``routed``           only routes: published ports are open at the container's own address
                    ``isolated``         nothing; the network is internal, and the host has no address in it
    ``masquerade``  what leaves the network carries the host's address, unless it is only routed
    ``source4``, ``source6``  that address, where it is not to be that of the link by which it leaves
    ``icc``         containers of the network reach each other; else only by :attr:`Endpoint.links`
    ``trusted``     the host's links from which published ports are open at the container's own address
    ``loopback``    some endpoint publishes a port to the host's own loopback: counted in the store, not stored
    ``relay``       what NAT cannot publish is passed on by weft itself
    ``allow``       who may use published ports, where the endpoint does not say; empty: anybody
    ``number``      tells it from the other networks on this host's Open vSwitch; 0 on a Linux bridge
    ``tunnel``      how it goes on at other hosts, if it does
    ``peers``       the other hosts, all of the tunnel's IP version: counted in the store, not stored
    ``zone``        the conntrack zone of its frames, where the host has no address on it: else its connections would
                    meet those of another network with the same addresses; ``None``: the host's own
    """

    id: str
    link: str
    mac: str
    backend: str = "bridge"
    adopted: bool = False
    subnets: tuple[Subnet, ...] = ()
    mtu: int | None = None
    internal: bool = False
    mode4: GatewayMode = "nat"
    mode6: GatewayMode = "nat"
    masquerade: bool = True
    source4: IPv4Address | None = None
    source6: IPv6Address | None = None
    icc: bool = True
    trusted: tuple[str, ...] = ()
    loopback: bool = False
    relay: bool = True
    allow: tuple[IPNetwork, ...] = ()
    number: int = 0
    tunnel: Tunnel | None = None
    peers: tuple[Peer, ...] = ()
    zone: int | None = None

    @property
    def identity(self) -> str:
        """What tells the segment from others on every host it is on: the VNI, where there is one."""
        return f"vni {self.tunnel.vni}" if self.tunnel else self.id

    @property
    def gateways(self) -> tuple[Interface, ...]:
        """The host's own addresses on it."""
        return tuple(one.gateway for one in self.subnets if one.gateway is not None and not one.elsewhere)

    def speaks(self, version: int) -> bool:
        """Whether the network has a subnet of IP version 4 or 6."""
        return any(subnet.version == version for subnet in self.subnets)

    def mode(self, version: int) -> GatewayMode:
        """Return what the host is to the network for IP version 4 or 6."""
        return self.mode4 if version == 4 else self.mode6

    def source(self, version: int) -> Address | None:
        """Return the address that what leaves is to carry, if one was named."""
        return self.source4 if version == 4 else self.source6

    def is_forwarded(self, version: int) -> bool:
        """Whether the host passes on what the containers send: to the world, or to each other where ICC is off."""
        return self.speaks(version) and not (self.internal and self.icc)

    def is_routed_by_host(self, version: int) -> bool:
        """Whether the host has an address among the containers', and so is on their way."""
        return any(one.version == version and one.gateway and not one.elsewhere for one in self.subnets)

    def gateway_for(self, address: Interface | None) -> Address | None:
        """Return the gateway that ``address`` can reach on the link, or ``None`` if there is none."""
        if address is None or self.internal:
            return None
        gateways = (s.gateway.ip for s in self.subnets if s.gateway is not None and address.ip in s.network)
        return next(gateways, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """A run of host ports that lead to a run of container ports, as many and in the same order.

    ``routed``   no host port leads there: the container's ports are open at its own address, unless ``host`` is the
                 host's loopback: then they are open to nobody
    ``version``  4 or 6: the IP version of the clients
    ``host``     the host's address they use; ``None``: every one of that version
    ``first``, ``last``  host ports; ``to`` is the container's port for the first of them
    """

    transport: Transport
    version: int
    host: Address | None = None
    first: int
    last: int
    to: int
    routed: bool = False

    @property
    def count(self) -> int:
        """How many ports."""
        return self.last - self.first + 1

    @property
    def host_only(self) -> bool:
        """Whether only the host itself can use it, by its loopback."""
        return self.host is not None and self.host.is_loopback

    @property
    def opens(self) -> bool:
        """Whether anybody is served by it: not where it is for the host's loopback, and nothing leads there from it."""
        return not (self.routed and self.host_only)

    @property
    def serves_loopback(self) -> bool:
        """Whether clients of 127.0.0.0/8 are among those it serves: their packets leave by the bridge."""
        return self.version == 4 and not self.routed and (self.host is None or self.host_only)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenPorts:
    """A run of a container's ports that are open at its own address."""

    address: Address
    transport: Transport
    first: int
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One container's attachment to a network.

    ``link``      the host's end of the veth pair: the port of the bridge
    ``peer``      the container's end, as it is called until the container has it
    ``mac``       of the container's end
    ``ipv4``, ``ipv6``  what the container is given on it; both ``None`` on a layer-2 network
    ``published``  the ports by which it is reached now, while it is its container's way out; counted from the store
    ``allow``      who may use them; empty: anybody
    ``links``      the ports of siblings that are open to it where ICC is off; those that the operator named, and while
                   a plan is made those that the store has beside them
    ``slot``       its number among its network's ports, where that is on Open vSwitch
    """

    id: str
    network: str
    link: str
    peer: str
    mac: str
    ipv4: IPv4Interface | None = None
    ipv6: IPv6Interface | None = None
    published: tuple[Publication, ...] = ()
    allow: tuple[IPNetwork, ...] = ()
    links: tuple[OpenPorts, ...] = ()
    slot: int = 0

    @property
    def addresses(self) -> tuple[Interface, ...]:
        """The endpoint's addresses, IPv4 first."""
        return tuple(address for address in (self.ipv4, self.ipv6) if address is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What the stored networks ask of the host as a whole, counted in the store.

    ``networks``      how many there are
    ``forwards6``     some network routes IPv6 through the host
    ``apart``         some network keeps its containers apart (ICC off)
    ``ovs``           some network is on Open vSwitch
    ``tunnels``       some network goes on at other hosts
    ``ovs_tunnels``   the kinds of tunnels of those on Open vSwitch, each with its UDP port (GRE: 0)
    ``docker_links``  the bridges of Docker's own networks to which the operator gave names
    """

    networks: int = 0
    forwards6: bool = False
    apart: bool = False
    ovs: bool = False
    tunnels: bool = False
    ovs_tunnels: frozenset[tuple[Encapsulation, int]] = frozenset()
    docker_links: frozenset[str] = frozenset()
