"""An engine that remembers what it was asked, checks every type, and fails as it is told to."""

from dataclasses import dataclass, field
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_interface,
    ip_network,
)
from typing import get_args

from drivers.model import Address, GatewayMode, Interface, Subnet
from plugin.pools import PoolId
from plugin.requests import AddressRequest, EndpointRequest, Joined, NetworkRequest, PoolRequest, PortRequest

MAC = "02:00:00:00:00:01"


def check_network(request: NetworkRequest) -> None:
    """Fail unless every value of a network is of the type it is declared as."""
    assert type(request.id) is str
    assert type(request.internal) is bool
    settings = request.settings
    for truth in (settings.masquerade, settings.icc, settings.inhibit, settings.relay):
        assert type(truth) is bool
    assert type(settings.interface_prefix) is str
    assert settings.mtu is None or type(settings.mtu) is int
    for text in (settings.backend, settings.bridge, *settings.trusted):
        assert text is None or type(text) is str
    for mode in (settings.mode4, settings.mode6):
        assert mode in get_args(GatewayMode)
    for address in (settings.source4, settings.source6, settings.host_binding):
        assert address is None or isinstance(address, IPv4Address | IPv6Address)
    for subnet in request.subnets:
        assert type(subnet) is Subnet
        assert isinstance(subnet.network, IPv4Network | IPv6Network)
        if subnet.gateway is not None:
            assert isinstance(subnet.gateway, IPv4Interface | IPv6Interface)
            assert subnet.gateway.network == subnet.network


def check_pool(request: PoolRequest) -> None:
    """Fail unless every value of a pool is of the type it is declared as."""
    assert type(request.space) is str
    assert type(request.name) is str
    assert request.version in {4, 6}
    for network in (request.subnet, request.within):
        assert network is None or isinstance(network, IPv4Network | IPv6Network)
        assert network is None or network.version == request.version


def check_address(request: AddressRequest) -> None:
    """Fail unless every value of a request for an address is of the type it is declared as."""
    assert type(request.pool) is str
    assert type(request.gateway) is bool
    assert request.address is None or isinstance(request.address, IPv4Address | IPv6Address)


def check_endpoint(request: EndpointRequest) -> None:
    """Fail unless every value of an endpoint is of the type it is declared as."""
    assert type(request.network) is str
    assert type(request.id) is str
    assert request.ipv4 is None or type(request.ipv4) is IPv4Interface
    assert request.ipv6 is None or type(request.ipv6) is IPv6Interface
    assert request.mac is None or type(request.mac) is str
    for binding in request.ports:
        assert type(binding) is PortRequest
        assert binding.transport in {"tcp", "udp", "sctp"}
        assert 1 <= binding.container_first <= binding.container_first + binding.count - 1 <= 65535
        assert 0 <= binding.host_first <= binding.host_last <= 65535
        assert binding.host is None or isinstance(binding.host, IPv4Address | IPv6Address)


@dataclass
class FakeDriver:
    """A NetworkDriver and IpamDriver. ``fails`` is raised by every call, ``asked`` holds the calls, with arguments."""

    fails: Exception | None = None
    joined: Joined = field(default_factory=lambda: Joined(link="wfc0123456789ab", prefix="eth"))
    asked: list[tuple[object, ...]] = field(default_factory=list)
    suspicions: int = 0
    greetings: int = 0

    def create_network(self, request: NetworkRequest) -> None:
        """Check it."""
        check_network(request)
        self._ask("create_network", request)

    def delete_network(self, network: str) -> None:
        """Check it."""
        self._ask("delete_network", network)

    def create_endpoint(self, request: EndpointRequest) -> str:
        """Check it; answer with the MAC that was asked for, or one."""
        check_endpoint(request)
        self._ask("create_endpoint", request)
        return request.mac or MAC

    def delete_endpoint(self, network: str, endpoint: str) -> None:
        """Check it."""
        self._ask("delete_endpoint", network, endpoint)

    def join(self, network: str, endpoint: str, sandbox: str) -> Joined:
        """Check it; answer with what the test says."""
        self._ask("join", network, endpoint, sandbox)
        return self.joined

    def leave(self, network: str, endpoint: str) -> None:
        """Check it."""
        self._ask("leave", network, endpoint)

    def program_external(self, network: str, endpoint: str) -> None:
        """Check it."""
        self._ask("program_external", network, endpoint)

    def revoke_external(self, network: str, endpoint: str) -> None:
        """Check it."""
        self._ask("revoke_external", network, endpoint)

    def discovered(self, peer: Address, *, is_self: bool, gone: bool) -> None:
        """Check it."""
        assert isinstance(peer, IPv4Address | IPv6Address)
        self._ask("discovered", peer, is_self, gone)

    def greet(self) -> None:
        """Count it."""
        self.greetings += 1

    def request_pool(self, request: PoolRequest) -> PoolId:
        """Check it; answer with the pool that was asked for, or one."""
        check_pool(request)
        self._ask("request_pool", request)
        free = ip_network("10.9.0.0/24" if request.version == 4 else "fd09::/64")
        return PoolId(request.space, request.subnet or free, request.within, request.name)

    def release_pool(self, pool: str) -> None:
        """Check it."""
        self._ask("release_pool", pool)

    def request_address(self, request: AddressRequest) -> Interface:
        """Check it; answer with the address that was asked for, or one."""
        check_address(request)
        self._ask("request_address", request)
        return ip_interface((request.address or IPv4Address("10.9.0.2"), 24))

    def release_address(self, pool: str, address: Address) -> None:
        """Check it."""
        assert isinstance(address, IPv4Address | IPv6Address)
        self._ask("release_address", pool, address)

    def suspect(self) -> None:
        """Count it."""
        self.suspicions += 1

    def _ask(self, name: str, *arguments: object) -> None:
        if name in {"delete_network", "delete_endpoint", "join", "leave", "program_external", "revoke_external"}:
            assert all(type(argument) is str for argument in arguments)
        self.asked.append((name, *arguments))
        if self.fails is not None:
            raise self.fails
