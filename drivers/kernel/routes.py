"""How packets for an address leave this host, as the kernel decides it now."""

from __future__ import annotations

import errno
from typing import Final

from drivers.facts import RouteInfo
from drivers.kernel import requests, tunnel_wire
from drivers.kernel.links import Links
from drivers.kernel.netlink import Netlink
from drivers.model import Address

_NO_WAY: Final = frozenset(
    {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL, errno.EAFNOSUPPORT, errno.ENODEV}
)
"""No route, or one that says so (unreachable, prohibit, blackhole), or no such IP version here."""


def route_to(netlink: Netlink, links: Links, to: Address) -> RouteInfo | None:
    """Return the route to an address, or ``None`` if there is no way there. Two requests."""
    route = _route(netlink, to)
    link = None if route is None else links.at(route.index)
    if route is None or link is None:
        return None
    return RouteInfo(link=link.name, mtu=route.mtu or link.mtu, source=route.source, own=route.own)


def is_own(netlink: Netlink, address: Address) -> bool:
    """Tell whether an address is this host's. One request."""
    route = _route(netlink, address)
    return route is not None and route.own


def _route(netlink: Netlink, to: Address) -> tunnel_wire.Route | None:
    try:
        (told,) = netlink.ask(requests.get_route(to))
    except OSError as error:
        if error.errno in _NO_WAY:
            return None
        raise
    return tunnel_wire.route(told)
