"""What is asked of the engine and what it answers: typed, checked, and free of Docker's spelling."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface
from typing import Literal

from drivers.model import Address, IPNetwork, Subnet

Protocol = Literal["tcp", "udp", "sctp"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkRequest:
    """A network to be made. Every option was understood and is in range; whether the host can do it is open.

    ``bridge`` is the name the operator gave; ``mtu`` is in bytes; ``interface_prefix`` is how the container's
    interfaces are called, before their number.
    """

    id: str
    subnets: tuple[Subnet, ...] = ()
    internal: bool = False
    backend: str | None = None
    bridge: str | None = None
    mtu: int | None = None
    masquerade: bool = True
    interface_prefix: str = "eth"


@dataclass(frozen=True, slots=True, kw_only=True)
class PortBinding:
    """A run of container ports that the operator wants reached by host ports, as he wrote it.

    ``host_first`` 0: weft chooses. ``host_last`` may be above ``host_first`` for one container port: pick one.
    """

    protocol: Protocol
    container_port: int
    host_address: Address | None = None
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
    ports: tuple[PortBinding, ...] = ()


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
