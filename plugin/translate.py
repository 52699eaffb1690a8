"""Wire -> model and back: what Docker says in its words, said in ours.

All that is wrong with a request in itself is found here, before the engine hears of it: a gateway outside its pool,
subnets that overlap, an MTU too small for IPv6. Whether the host can do it is the engine's to find out, and so is
whatever needs to know the network (an address outside its subnets).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import Final

from drivers.errors import InvalidRequest
from drivers.model import Address, Interface, IPNetwork, Subnet
from plugin import options, wire
from plugin.requests import EndpointRequest, Joined, NetworkRequest, PortBinding, Protocol, Route

NULL_SPACE: Final = "null"
"""The address space of Docker's null IPAM driver: its pool, ``0.0.0.0/0``, says that there is none."""

PROTOCOLS: Final[dict[int, Protocol]] = {6: "tcp", 17: "udp", 132: "sctp"}

_MAC: Final = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_MULTICAST_BIT: Final = 0x01
_HAS_BROADCAST: Final = 30  # the longest prefix with a network and a broadcast address (RFC 3021)


# -- networks -------------------------------------------------------------------------------------------------------


def network_request(call: wire.CreateNetwork) -> NetworkRequest:
    """Return the network that is asked for; raises :class:`InvalidRequest`."""
    settings = options.network_settings(call.options.generic)
    subnets = tuple(_subnets(call))
    _check_apart(subnets)
    speaks6 = any(subnet.version == 6 for subnet in subnets)  # noqa: PLR2004 - IPv6 is called 6
    if settings.mtu is not None and settings.mtu < options.IPV6_MTU and speaks6:
        raise InvalidRequest(
            f"{options.MTU}={settings.mtu} contradicts the IPv6 subnet: IPv6 needs {options.IPV6_MTU} or more"
            " (RFC 8200); raise it, or leave IPv6 out"
        )
    return NetworkRequest(
        id=call.network,
        subnets=subnets,
        internal=bool(call.options.internal),
        backend=settings.backend,
        bridge=settings.bridge,
        mtu=settings.mtu,
        masquerade=settings.masquerade,
        interface_prefix=settings.interface_prefix,
    )


def check_options(given: wire.GwAllocCheck | wire.AllocateNetwork) -> None:
    """Raise :class:`InvalidRequest` for options that :func:`network_request` would not take."""
    match given:
        case wire.GwAllocCheck():
            options.network_settings(given.options.generic)
        case wire.AllocateNetwork():
            options.network_settings(given.options)


def _subnets(call: wire.CreateNetwork) -> Iterator[Subnet]:
    """Return the subnets of the families that are switched on.

    The pool itself tells its family, not the list it is in (Swarm lists IPv6 pools under IPv4). A family that is
    switched off has no subnets, whatever pools there are.
    """
    switched_off = {version for version, switch in ((4, call.options.ipv4), (6, call.options.ipv6)) if switch is False}
    for pool in (*call.ipv4, *call.ipv6):
        if pool.space == NULL_SPACE:
            continue
        if pool.pool is None:
            raise InvalidRequest(f"network {call.network[:12]}: a pool without a subnet came from the IPAM driver")
        if pool.pool.version not in switched_off:
            yield _subnet(pool.pool.network, pool.gateway)


def _subnet(network: IPNetwork, gateway: Interface | None) -> Subnet:
    if network.prefixlen == 0 or network.is_multicast or network.is_loopback:
        raise InvalidRequest(f"subnet {network} cannot be: allowed is a range of unicast addresses")
    if gateway is None:
        return Subnet(network=network)
    if gateway.ip not in network:
        raise InvalidRequest(f"gateway {gateway.ip} is outside its subnet {network}: choose one from it with --gateway")
    if network.version == 4 and network.prefixlen <= _HAS_BROADCAST:  # noqa: PLR2004 - IPv4 is called 4
        for what, address in (("network", network.network_address), ("broadcast", network.broadcast_address)):
            if gateway.ip == address:
                raise InvalidRequest(
                    f"gateway {gateway.ip} is the {what} address of {network}: choose another with --gateway"
                )
    return Subnet(network=network, gateway=ipaddress.ip_interface((gateway.ip, network.prefixlen)))


def _check_apart(subnets: Iterable[Subnet]) -> None:
    for one, other in combinations((subnet.network for subnet in subnets), 2):
        if one.version == other.version and one.overlaps(other):
            raise InvalidRequest(f"subnets {one} and {other} of one network overlap: choose ranges apart with --subnet")


# -- endpoints ------------------------------------------------------------------------------------------------------


def endpoint_request(call: wire.CreateEndpoint) -> EndpointRequest:
    """Return the endpoint that is asked for; raises :class:`InvalidRequest`."""
    options.check_endpoint_options(call.options.flat)
    return EndpointRequest(
        network=call.network,
        id=call.endpoint,
        ipv4=call.interface.ipv4,
        ipv6=call.interface.ipv6,
        mac=mac_address(call.interface.mac) if call.interface.mac else None,
        ports=_ports(call.options.ports),
    )


def mac_address(text: str) -> str:
    """Return a MAC in lower case with colons; raises :class:`InvalidRequest` for one that no interface can have."""
    mac = text.lower().replace("-", ":")
    if not _MAC.fullmatch(mac):
        raise InvalidRequest(f"MAC address {text[:80]!r} cannot be: allowed is six bytes, like 02:42:ac:11:00:02")
    if int(mac[:2], 16) & _MULTICAST_BIT or not mac.strip("0:"):
        raise InvalidRequest(
            f"MAC address {mac} cannot be: allowed is a unicast address (first byte even) that is not all zero"
        )
    return mac


def _ports(rows: Iterable[wire.PortRow]) -> tuple[PortBinding, ...]:
    """Return the published ports, each once and in order: Docker sends them in the random order of a Go map."""
    bindings = {_binding(row) for row in rows}
    return tuple(
        sorted(
            bindings, key=lambda b: (b.protocol, b.container_port, str(b.host_address or ""), b.host_first, b.host_last)
        )
    )


def _binding(row: wire.PortRow) -> PortBinding:
    protocol = PROTOCOLS.get(row.get("protocol", 0))
    port = row.get("container_port", 0)
    if protocol is None or port == 0:
        allowed = ", ".join(f"{name} ({number})" for number, name in PROTOCOLS.items())
        raise InvalidRequest(
            f"published port {port} of protocol {row.get('protocol', 0)} cannot be: allowed is 1 to 65535 of {allowed}"
        )
    first = row.get("host_first", 0)
    last = row.get("host_last", 0) or first
    if last < first or (last and not first):
        raise InvalidRequest(
            f"host ports {first}-{last} for {port}/{protocol} cannot be: allowed is first-last, upwards"
        )
    return PortBinding(
        protocol=protocol,
        container_port=port,
        host_address=_host_address(row.get("host_address", "")),
        host_first=first,
        host_last=last,
    )


def _host_address(text: str) -> Address | None:
    if not text:
        return None
    try:
        return ipaddress.ip_address(text)
    except ValueError as error:
        raise InvalidRequest(f"host address {text[:80]!r} of a published port is no IP address") from error


# -- replies --------------------------------------------------------------------------------------------------------


def endpoint_reply(request: EndpointRequest, mac: str) -> wire.EndpointCreated:
    """Return the reply to CreateEndpoint: the MAC only where Docker had none; it takes no change (all engines)."""
    return wire.EndpointCreated(interface=wire.GivenInterface(mac="" if request.mac else mac))


def join_reply(joined: Joined) -> wire.JoinedReply:
    """Return the reply to Join: no address means no gateway, never Docker's docker_gwbridge."""
    return wire.JoinedReply(
        interface=wire.InterfaceName(source=joined.link, prefix=joined.prefix),
        gateway=_text(joined.gateway4),
        gateway6=_text(joined.gateway6),
        routes=tuple(_route(route) for route in joined.routes),
    )


def _route(route: Route) -> wire.StaticRoute:
    return wire.StaticRoute(
        destination=str(route.destination), kind=1 if route.gateway is None else 0, next_hop=_text(route.gateway)
    )


def _text(address: Address | None) -> str:
    return "" if address is None else str(address)
