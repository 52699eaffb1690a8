"""Networks and endpoints for tests: real ids, nothing special."""

from __future__ import annotations

from ipaddress import IPv4Interface, IPv6Interface, ip_interface, ip_network

from drivers.model import Endpoint, Network, Subnet
from drivers.naming import bridge_mac, endpoint_mac, link_name
from plugin.requests import EndpointRequest, EndpointSettings, NetworkRequest, NetworkSettings


def network_id(number: int) -> str:
    """Return an id as Docker makes them, a different one for each number."""
    return f"{number:012x}" + "a" * 52


def endpoint_id(number: int) -> str:
    """Return an id as Docker makes them, a different one for each number."""
    return f"{number:012x}" + "e" * 52


def subnet(text: str, gateway: str | None = None) -> Subnet:
    """Return a subnet, by default with its first address as gateway."""
    network = ip_network(text)
    return Subnet(network=network, gateway=ip_interface(f"{gateway or network[1]}/{network.prefixlen}"))


def network(number: int = 1, **changes: object) -> Network:
    """Return a network 10.NUMBER.0.0/24."""
    ident = network_id(number)
    fields: dict[str, object] = {
        "id": ident,
        "link": link_name("b", ident),
        "mac": bridge_mac(ident),
        "subnets": (subnet(f"10.{number}.0.0/24"),),
    }
    return Network(**(fields | changes))  # type: ignore[arg-type]


def endpoint(number: int = 1, on: int = 1, **changes: object) -> Endpoint:
    """Return an endpoint 10.ON.0.(NUMBER + 1) on network ON."""
    ident, address = endpoint_id(number), IPv4Interface(f"10.{on}.0.{number + 1}/24")
    fields: dict[str, object] = {
        "id": ident,
        "network": network_id(on),
        "link": link_name("h", ident),
        "peer": link_name("c", ident),
        "mac": endpoint_mac(network_id(on), address, ident),
        "ipv4": address,
    }
    return Endpoint(**(fields | changes))  # type: ignore[arg-type]


def network_request(number: int = 1, **changes: object) -> NetworkRequest:
    """Return the request for :func:`network`; what is a setting may be among the changes."""
    fields: dict[str, object] = {"id": network_id(number), "subnets": (subnet(f"10.{number}.0.0/24"),)}
    given = {name: changes.pop(name) for name in NetworkSettings.__dataclass_fields__ if name in changes}
    settings = NetworkSettings(**given)  # type: ignore[arg-type]
    return NetworkRequest(**(fields | changes), settings=settings)  # type: ignore[arg-type]


def endpoint_request(
    number: int = 1, on: int = 1, *, address: str | None = None, ipv6: str | None = None, **changes: object
) -> EndpointRequest:
    """Return the request for :func:`endpoint`; ``allow``, ``links``, ``ifname`` and ``routes`` are settings."""
    fields: dict[str, object] = {
        "id": endpoint_id(number),
        "network": network_id(on),
        "ipv4": IPv4Interface(address or f"10.{on}.0.{number + 1}/24"),
        "ipv6": IPv6Interface(ipv6) if ipv6 else None,
    }
    given = {name: changes.pop(name) for name in ("allow", "links", "ifname", "routes") if name in changes}
    settings = EndpointSettings(**given)  # type: ignore[arg-type]
    return EndpointRequest(**(fields | changes), settings=settings)  # type: ignore[arg-type]
