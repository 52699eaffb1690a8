"""Static routes into containers: which of them a container of a network could have. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from drivers.errors import InvalidRequest
from drivers.model import Subnet
from plugin.requests import Route


def check_routes(routes: Iterable[Route], subnets: Collection[Subnet], whose: str) -> None:
    """Raise :class:`InvalidRequest` for a route that no container of these subnets could have."""
    for route in routes:
        near = [str(one.network) for one in subnets if one.version == route.destination.version]
        if not subnets:  # without IPAM nothing is known of the addresses
            continue
        if not near:
            raise InvalidRequest(
                f"{whose}: weft.routes={route.destination}: there is no IPv{route.destination.version} on this network"
            )
        if route.gateway is not None and not any(route.gateway in one.network for one in subnets):
            raise InvalidRequest(
                f"{whose}: weft.routes={route.destination} via {route.gateway}: that is none of the network's own"
                f" addresses, so no container could reach it; allowed is one in {', '.join(near)}"
            )
        if any(one.version == route.destination.version and one.network == route.destination for one in subnets):
            raise InvalidRequest(f"{whose}: weft.routes={route.destination} is the network's own subnet: leave it out")
