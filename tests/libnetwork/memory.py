"""What an engine remembers of its networks and endpoints, and the addresses its IPAM gave out."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

from tests.libnetwork.sandbox import Interface, Plug


@dataclass(eq=False)
class Network:
    """A network as Docker remembers it, with the addresses its IPAM gave out.

    ``reserved``: of a network whose IPAM driver is weft, the ids of its pools, each with its gateway once it is leased.
    """

    id: str
    name: str
    internal: bool
    ipam: str = "default"
    reserved: dict[str, str] = field(default_factory=dict)
    pools: list[IPv4Network | IPv6Network] = field(default_factory=list)
    taken: set[IPv4Address | IPv6Address] = field(default_factory=set)
    endpoints: int = 0

    def add_pool(self, subnet: str, gateway: str | None, aux: Mapping[str, str]) -> dict[str, Any]:
        """Take a subnet with its gateway (the first address, unless another is named), and return its row."""
        pool = ipaddress.ip_network(subnet)
        self.pools.append(pool)
        first = ipaddress.ip_address(gateway or str(next(iter(pool.hosts()))))
        self.taken |= {first, *map(ipaddress.ip_address, aux.values())}
        row: dict[str, Any] = {
            "AddressSpace": "LocalDefault",
            "Pool": str(pool),
            "Gateway": f"{first}/{pool.prefixlen}",
        }
        return row | ({"AuxAddresses": {name: f"{at}/{pool.prefixlen}" for name, at in aux.items()}} if aux else {})

    def take(self, version: int, wanted: str | None) -> Interface | None:
        """Reserve the address that is wanted, or else the first free one of that version; None without such a pool."""
        for pool in (pool for pool in self.pools if pool.version == version):
            for address in [ipaddress.ip_address(wanted)] if wanted else pool.hosts():
                if address not in self.taken and address in pool:
                    self.taken.add(address)
                    return ipaddress.ip_interface(f"{address}/{pool.prefixlen}")
        assert wanted is None, f"{self.name}: {wanted} is in no pool, or is taken"
        return None


@dataclass(eq=False)
class Endpoint:
    """One attachment, from CreateEndpoint to DeleteEndpoint."""

    id: str
    network: Network
    addresses: tuple[Interface, ...]
    mac: str
    plug: Plug | None = None
    gateways: tuple[str, ...] = ()

    @property
    def ids(self) -> dict[str, Any]:
        """What every call about it carries."""
        return {"NetworkID": self.network.id, "EndpointID": self.id}

    def address(self, version: int) -> Interface | None:
        """Return its address of an IP version."""
        return next((address for address in self.addresses if address.version == version), None)
