"""What is asked of the engine and what it answers: typed, checked, and free of Docker's spelling."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface

from drivers.model import Address, IPNetwork, Subnet, Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkRequest:
    """A network to be made. Every option was understood and is in range; whether the host can do it is open.

    ``bridge`` is the name the operator gave; ``pools`` are those of its subnets that come from weft's own IPAM driver,
    with their address spaces; ``mtu`` is in bytes; ``interface_prefix`` is how the container's interfaces are called,
    before their number; ``relay`` and ``allow`` are of its published ports.
    """

    id: str
    subnets: tuple[Subnet, ...] = ()
    internal: bool = False
    backend: str | None = None
    bridge: str | None = None
    pools: tuple[tuple[str, IPNetwork], ...] = ()
    mtu: int | None = None
    masquerade: bool = True
    interface_prefix: str = "eth"
    relay: bool = True
    allow: tuple[IPNetwork, ...] = ()


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
class EndpointRequest:
    """An endpoint to be made. ``mac`` is the operator's choice, or ``None``."""

    network: str
    id: str
    ipv4: IPv4Interface | None = None
    ipv6: IPv6Interface | None = None
    mac: str | None = None
    ports: tuple[PortRequest, ...] = ()
    allow: tuple[IPNetwork, ...] = ()


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
class Route:
    """A route in the container: ``gateway`` None means on the link."""

    destination: IPNetwork
    gateway: Address | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """What Docker needs to move the container's end into its sandbox."""

    link: str
    prefix: str
    gateway4: Address | None = None
    gateway6: Address | None = None
    routes: tuple[Route, ...] = ()
