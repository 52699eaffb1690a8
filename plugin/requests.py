"""What is asked of the engine and what it answers: typed, checked, and free of Docker's spelling."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from typing import Final, Literal

from drivers.model import Address, Encapsulation, GatewayMode, Interface, IPNetwork, OpenPorts, Subnet, Transport

DriverScope = Literal["local", "global"]
"""Who makes networks: each host by itself, or a swarm's manager for all its nodes (WEFT_SCOPE)."""

MTU: Final = "com.docker.network.driver.mtu"
"""The option's key."""

IPV6_MTU: Final = 1280
"""Bytes every IPv6 link must carry (RFC 8200, section 5)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A route in the container: ``gateway`` None means on the link."""

    destination: IPNetwork
    gateway: Address | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSettings:
    """What the options of a network ask for; a default is what Docker's bridge driver does without the option.

    ``bridge`` is the name the operator gave; ``mtu`` is in bytes; ``interface_prefix`` is how interfaces are called in
    containers, before their number; ``routes`` are the containers'. ``inhibit``: the IPv4 gateway is another machine on
    the link. ``host_binding`` is where ports are published that do not say where; ``None``: on every address. A
    container's addresses are announced ``announce_count`` times when it joins, ``announce_ms`` milliseconds apart.
    ``tunnel`` is how the network goes on at other hosts; ``vni`` and ``name`` tell which it is there, of which one is
    needed; ``peers`` are those hosts, beside the host's own list; ``port`` is the UDP port. ``gwbridge``: the
    way out, and so published ports, are left to Docker's docker_gwbridge. The rest is as in
    :class:`drivers.model.Network`.
    """

    backend: str | None = None
    bridge: str | None = None
    mtu: int | None = None
    masquerade: bool = True
    mode4: GatewayMode = "nat"
    mode6: GatewayMode = "nat"
    inhibit: bool = False
    source4: IPv4Address | None = None
    source6: IPv6Address | None = None
    icc: bool = True
    trusted: tuple[str, ...] = ()
    host_binding: Address | None = None
    interface_prefix: str = "eth"
    routes: tuple[Route, ...] = ()
    relay: bool = True
    allow: tuple[IPNetwork, ...] = ()
    announce_count: int = 3
    announce_ms: int = 1000
    tunnel: Encapsulation | None = None
    vni: int | None = None
    name: str = ""
    peers: tuple[Address, ...] = ()
    port: int | None = None
    gwbridge: bool = False


DEFAULTS: Final = NetworkSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkRequest:
    """A network to be made. Every option was understood and is in range; whether the host can do it is open.

    ``pools`` are those of its subnets that come from weft's own IPAM driver, with their address spaces.
    """

    id: str
    subnets: tuple[Subnet, ...] = ()
    internal: bool = False
    pools: tuple[tuple[str, IPNetwork], ...] = ()
    settings: NetworkSettings = DEFAULTS


@dataclass(frozen=True, slots=True, kw_only=True)
class PortRequest:
    """A run of container ports that the operator wants reached by as many host ports, in the same order.

    ``host`` None: every address of the host. ``host_first`` 0: weft chooses the host port. Where there is one container
    port, ``host_last`` may be above ``host_first``: any one of them.
    """

    transport: Transport
    container_first: int
    count: int = 1
    host: Address | None = None
    host_first: int = 0
    host_last: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSettings:
    """What the options of an endpoint ask for.

    ``addresses``: at most one of each IP version; a length may be left out. ``ifname`` is how the interface is to be
    called in the container. The rest is as in :class:`NetworkSettings` and :class:`drivers.model.Endpoint`.
    """

    addresses: tuple[Interface, ...] = ()
    mac: str | None = None
    allow: tuple[IPNetwork, ...] = ()
    links: tuple[OpenPorts, ...] = ()
    ifname: str = ""
    routes: tuple[Route, ...] = ()


ENDPOINT_DEFAULTS: Final = EndpointSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointRequest:
    """An endpoint to be made. The addresses and ``mac`` are Docker's choice or the operator's, or ``None``."""

    network: str
    id: str
    ipv4: IPv4Interface | None = None
    ipv6: IPv6Interface | None = None
    mac: str | None = None
    ports: tuple[PortRequest, ...] = ()
    settings: EndpointSettings = ENDPOINT_DEFAULTS


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRequest:
    """A pool to be reserved. ``subnet`` None: any of IP ``version``; addresses are chosen ``within``, if given."""

    space: str
    version: int
    subnet: IPNetwork | None = None
    within: IPNetwork | None = None
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressRequest:
    """An address to be leased from a pool. ``address`` None: any; ``gateway``: it is to be the network's gateway."""

    pool: str
    address: Address | None = None
    gateway: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """What Docker needs to move the container's end into its sandbox: ``name``, or ``prefix`` and a number.

    No engine seen reads ``name`` (20.10.24 to 28.5.2). ``gwbridge``: Docker is to attach docker_gwbridge as well.
    """

    link: str
    prefix: str
    name: str = ""
    gateway4: Address | None = None
    gateway6: Address | None = None
    routes: tuple[Route, ...] = ()
    gwbridge: bool = False
