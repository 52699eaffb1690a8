"""Wire -> model and back: what Docker says in its words, said in ours.

All that is wrong with a request in itself is found here, before the engine hears of it: a gateway outside its pool,
subnets that overlap, an MTU too small for IPv6. Whether the host can do it is the engine's to find out, and so is
whatever needs to know the network (an address outside its subnets).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import Final, TypeVar

from drivers.errors import InvalidRequest
from drivers.model import Address, Interface, IPNetwork, Subnet, Transport
from drivers.naming import vni_of
from plugin import ip_text, option_text, options, wire
from plugin.pools import LOCAL, NAME, SWARM, PoolId, is_unicast
from plugin.ports import Row, runs
from plugin.requests import (
    IPV6_MTU,
    MTU,
    AddressRequest,
    EndpointRequest,
    Joined,
    NetworkRequest,
    NetworkSettings,
    PoolRequest,
    Route,
)
from plugin.routes import check_routes

NULL_SPACE: Final = "null"
"""The address space of Docker's null IPAM driver: its pool, ``0.0.0.0/0``, says that there is none."""

TRANSPORTS: Final[dict[int, Transport]] = {6: "tcp", 17: "udp", 132: "sctp"}

_MAC: Final = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_TYPE: Final = "RequestAddressType"
_GATEWAY: Final = "com.docker.network.gateway"
_MULTICAST_BIT: Final = 0x01
_HAS_BROADCAST: Final = 30  # the longest prefix with a network and a broadcast address (RFC 3021)

I = TypeVar("I", ipaddress.IPv4Interface, ipaddress.IPv6Interface)  # noqa: E741 - an interface


# -- networks -------------------------------------------------------------------------------------------------------


def network_request(call: wire.CreateNetwork) -> NetworkRequest:
    """Return the network that is asked for; raises :class:`InvalidRequest`."""
    settings = options.network_settings(call.options.generic)
    internal = bool(call.options.internal)
    _check_modes(settings, internal=internal)
    _check_tunnel(settings)
    if internal and settings.gwbridge:
        raise InvalidRequest("weft.gwbridge=true contradicts --internal, which has no way out: leave one of them out")
    subnets = tuple(_reached(subnet, settings) for subnet in _subnets(call))
    _check_apart(subnets)
    check_routes(settings.routes, subnets, f"network {call.network[:12]}")
    speaks6 = any(subnet.version == 6 for subnet in subnets)
    if settings.mtu is not None and settings.mtu < IPV6_MTU and speaks6:
        raise InvalidRequest(
            f"{MTU}={settings.mtu} contradicts the IPv6 subnet: IPv6 needs {IPV6_MTU} or more"
            " (RFC 8200); raise it, or leave IPv6 out"
        )
    return NetworkRequest(
        id=call.network,
        subnets=subnets,
        internal=internal,
        pools=tuple(
            (pool.space, pool.pool.network)
            for pool in (*call.ipv4, *call.ipv6)
            if pool.space in {LOCAL, SWARM} and pool.pool is not None
        ),
        settings=settings,
    )


def gateway_need(call: wire.GwAllocCheck) -> wire.GatewayNeed:
    """Return which gateways Docker need not reserve; raises :class:`InvalidRequest` as :func:`network_request` would.

    None where the host is not in the network. Of an internal network whose IPv4 gateway is another machine there is
    none either, for there is no default route to it (both as Docker's bridge driver, 28.5).
    """
    settings = options.network_settings(call.options.generic)
    internal = bool(call.options.internal)
    _check_modes(settings, internal=internal)
    _check_tunnel(settings)
    return wire.GatewayNeed(
        skip_ipv4=settings.mode4 == "isolated" or (settings.inhibit and internal),
        skip_ipv6=settings.mode6 == "isolated",
    )


def allocation(call: wire.AllocateNetwork) -> wire.Allocated:
    """Return what every node of a swarm is told of a network: all that the operator said, and its tunnel.

    Swarm keeps the reply in the place of the operator's options: what is not in it no node hears of (seen on 20.10.24).
    VXLAN where nothing is said; none where ``weft.tunnel=none`` is. The VNI is the operator's, or a hash of his name
    for the network or of its id, so any manager answers the same, also with this reply among the options. Raises
    :class:`InvalidRequest` for options that :func:`network_request` would not take.
    """
    settings = options.network_settings(call.options)
    if settings.tunnel is None and options.TUNNEL in call.options:
        _check_tunnel(settings)
        return wire.Allocated(options=call.options)
    vni = settings.vni if settings.vni is not None else vni_of(settings.name or call.network)
    settings = replace(settings, tunnel=settings.tunnel or "vxlan", vni=vni)
    _check_tunnel(settings)
    chosen = {options.TUNNEL: str(settings.tunnel), options.VNI: str(settings.vni)}
    return wire.Allocated(options={**call.options, **chosen})


def _check_modes(settings: NetworkSettings, *, internal: bool) -> None:
    for version, mode in ((4, settings.mode4), (6, settings.mode6)):
        if mode == "isolated" and not internal:
            raise InvalidRequest(
                f"com.docker.network.bridge.gateway_mode_ipv{version}=isolated is for networks that have no way out:"
                " give --internal, too, or choose another mode"
            )


def _check_tunnel(settings: NetworkSettings) -> None:
    """Raise :class:`InvalidRequest` for what a tunnel needs and has not, or for what is said of none."""
    if settings.tunnel is None:
        named = {"vni": settings.vni, "name": settings.name, "peers": settings.peers, "tunnel.port": settings.port}
        if said := [f"weft.{key}" for key, value in named.items() if value]:
            raise InvalidRequest(
                f"{', '.join(said)}: without a tunnel the network is of this host only; give weft.tunnel=vxlan (or "
                "gre, geneve), too"
            )
        return
    if settings.vni is None and not settings.name:
        raise InvalidRequest(
            f"weft.tunnel={settings.tunnel} needs weft.name or weft.vni, the same on every host: Docker's name and id "
            "of a network are of one host only, so nothing else tells which networks belong together"
        )
    if len({peer.version for peer in settings.peers}) > 1:
        raise InvalidRequest(
            f"weft.peers={','.join(map(str, settings.peers))}: IPv4 and IPv6 peers of one network cannot be mixed; "
            "name every host by an address of the same IP version"
        )
    if settings.tunnel == "gre" and settings.port is not None:
        raise InvalidRequest(
            f"weft.tunnel.port={settings.port}: GRE has no port; leave it out, or choose vxlan or geneve"
        )


def _reached(subnet: Subnet, settings: NetworkSettings) -> Subnet:
    """Return a subnet with what the host is in it: its gateway, a neighbour of the gateway, or nobody.

    Engines before 28 reserve a gateway whatever the mode; it is nobody's then.
    """
    if (settings.mode4 if subnet.version == 4 else settings.mode6) == "isolated":
        return replace(subnet, gateway=None)
    return replace(subnet, elsewhere=settings.inhibit and subnet.version == 4 and subnet.gateway is not None)


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
    if not is_unicast(network):
        raise InvalidRequest(f"subnet {network} cannot be: allowed is a range of unicast addresses")
    if gateway is None:
        return Subnet(network=network)
    if gateway.ip not in network:
        raise InvalidRequest(f"gateway {gateway.ip} is outside its subnet {network}: choose one from it with --gateway")
    if network.version == 4 and network.prefixlen <= _HAS_BROADCAST:
        for what, address in (("network", network.network_address), ("broadcast", network.broadcast_address)):
            if gateway.ip == address:
                raise InvalidRequest(
                    f"gateway {gateway.ip} is the {what} address of {network}: choose another with --gateway"
                )
    return Subnet(network=network, gateway=ipaddress.ip_interface((gateway.ip, network.prefixlen)))


def _place(network: IPNetwork) -> tuple[int, int]:
    return int(network.network_address), network.prefixlen


def _check_apart(subnets: Iterable[Subnet]) -> None:
    ordered = sorted((subnet.network for subnet in subnets), key=lambda one: (one.version, *_place(one)))
    for one, other in pairwise(ordered):  # one that holds another has its next one inside
        if one.version == other.version and one.overlaps(other):
            raise InvalidRequest(f"subnets {one} and {other} of one network overlap: choose ranges apart with --subnet")


# -- endpoints ------------------------------------------------------------------------------------------------------


def endpoint_request(call: wire.CreateEndpoint) -> EndpointRequest:
    """Return the endpoint that is asked for; raises :class:`InvalidRequest`."""
    settings = options.endpoint_settings(call.options.flat)
    given = call.interface
    return EndpointRequest(
        network=call.network,
        id=call.endpoint,
        ipv4=_chosen(given.ipv4, settings.addresses, ipaddress.IPv4Interface),
        ipv6=_chosen(given.ipv6, settings.addresses, ipaddress.IPv6Interface),
        mac=_chosen_mac(mac_address(given.mac) if given.mac else None, settings.mac),
        ports=runs(map(_row, call.options.ports)),
        settings=settings,
    )


def _chosen(given: I | None, options: Iterable[Interface], kind: type[I]) -> I | None:
    """Return the address that Docker's IPAM gave, or ``weft.ip``'s where there is no IPAM; both must be equal."""
    wanted = next((one for one in options if isinstance(one, kind)), None)
    if wanted is None:
        return given
    if given is None:
        if wanted.network.prefixlen == wanted.max_prefixlen:
            raise InvalidRequest(
                f"weft.ip={wanted.ip} lacks its prefix length: this network has no IPAM and no subnet to take it from;"
                f" say it like weft.ip={wanted.ip}/24"
            )
        return wanted
    if wanted.ip != given.ip:
        raise InvalidRequest(
            f"weft.ip={wanted.ip} contradicts {given.ip}, which the network's IPAM driver chose before weft was asked:"
            f" choose it with --ip (--ip6) {wanted.ip}; weft.ip is for networks of --ipam-driver null"
        )
    return given


def _chosen_mac(given: str | None, wanted: str | None) -> str | None:
    if given and wanted and given != wanted:
        raise InvalidRequest(f"weft.mac={wanted} contradicts --mac-address {given}: leave one of them out")
    return given or wanted


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


def _row(row: wire.PortRow) -> Row:
    """Return a row of Docker's, checked."""
    transport = TRANSPORTS.get(row.get("protocol", 0))
    port = row.get("container_port", 0)
    if transport is None or port == 0:
        allowed = ", ".join(f"{name} ({number})" for number, name in TRANSPORTS.items())
        raise InvalidRequest(
            f"published port {port} of protocol {row.get('protocol', 0)} cannot be: allowed is 1 to 65535 of {allowed}"
        )
    first = row.get("host_first", 0)
    last = row.get("host_last", 0) or first
    if last < first or (last and not first):
        raise InvalidRequest(
            f"host ports {first}-{last} for {port}/{transport} cannot be: allowed is first-last, upwards"
        )
    return transport, _host_address(row.get("host_address", "")), port, first, last


@lru_cache(maxsize=64)
def _host_address(text: str) -> str:
    """Return a host address as it is spelled everywhere in weft; thousands of rows have the same."""
    try:
        return str(ip_text.address(text)) if text else ""
    except ValueError as error:
        raise InvalidRequest(f"host address {text[:80]!r} of a published port is no IP address") from error


NODE_DISCOVERY: Final = 1


@dataclass(frozen=True, slots=True)
class Discovered:
    """A host that Docker tells of."""

    address: Address
    is_self: bool


def discovered(call: wire.Discover) -> Discovered | None:
    """Return the host that is told of; ``None`` if none is, or one that cannot be a peer."""
    if call.kind != NODE_DISCOVERY or call.node is None or call.node.address is None:
        return None
    try:
        return Discovered(option_text.peer(str(call.node.address)), call.node.is_self)
    except ValueError:
        return None


# -- replies --------------------------------------------------------------------------------------------------------


def endpoint_reply(given: wire.EndpointInterface, request: EndpointRequest, mac: str) -> wire.EndpointCreated:
    """Return the reply to CreateEndpoint: only what Docker had not decided; it takes no change (all engines)."""
    return wire.EndpointCreated(
        interface=wire.GivenInterface(
            ipv4="" if given.ipv4 else str(request.ipv4 or ""),
            ipv6="" if given.ipv6 else str(request.ipv6 or ""),
            mac="" if given.mac else mac,
        )
    )


# -- pools and addresses --------------------------------------------------------------------------------------------


def pool_request(call: wire.RequestPool) -> PoolRequest:
    """Return the pool that is asked for; raises :class:`InvalidRequest`.

    The subnet itself tells its IP version: a swarm's manager asks for IPv6 pools with V6 false (20.10.24, 28.5.2).
    """
    space = call.space or LOCAL
    if not NAME.fullmatch(space):
        raise InvalidRequest(f"address space {space[:80]!r} cannot be: allowed are {LOCAL} and {SWARM}")
    name = options.pool_name(call.options)
    if call.pool is None:
        if call.subpool is not None:
            raise InvalidRequest(
                f"--ip-range {call.subpool} needs the subnet that it is a part of: name it with --subnet"
            )
        return PoolRequest(space=space, version=6 if call.v6 else 4, name=name)
    if not is_unicast(call.pool):
        raise InvalidRequest(f"subnet {call.pool} cannot be: allowed is a range of unicast addresses")
    if call.subpool is not None and (
        call.subpool.version != call.pool.version or not _contains(call.pool, call.subpool)
    ):
        raise InvalidRequest(f"--ip-range {call.subpool} is not within --subnet {call.pool}: choose a part of it")
    if PoolId(space, call.pool, call.subpool).choice is None:
        raise InvalidRequest(
            f"--ip-range {call.subpool} has no address that an interface can have: choose a larger one"
        )
    return PoolRequest(space=space, version=call.pool.version, subnet=call.pool, within=call.subpool, name=name)


def _contains(network: IPNetwork, part: IPNetwork) -> bool:
    return part.network_address in network and part.broadcast_address in network


def pool_reply(pool: PoolId) -> wire.PoolGranted:
    """Return the reply to RequestPool."""
    return wire.PoolGranted(id=str(pool), pool=str(pool.subnet))


def address_request(call: wire.RequestAddress) -> AddressRequest:
    """Return the address that is asked for. A swarm's manager repeats every ``--ipam-opt`` here: judged before."""
    return AddressRequest(pool=call.pool, address=call.address, gateway=call.options.get(_TYPE) == _GATEWAY)


def join_reply(joined: Joined) -> wire.JoinedReply:
    """Return the reply to Join: no address means no gateway, and docker_gwbridge only where it was asked for."""
    return wire.JoinedReply(
        interface=wire.InterfaceName(source=joined.link, prefix=joined.prefix, name=joined.name),
        gateway=_text(joined.gateway4),
        gateway6=_text(joined.gateway6),
        routes=tuple(_route(route) for route in joined.routes),
        no_gateway_service=not joined.gwbridge,
    )


def _route(route: Route) -> wire.StaticRoute:
    return wire.StaticRoute(
        destination=str(route.destination), kind=1 if route.gateway is None else 0, next_hop=_text(route.gateway)
    )


def _text(address: Address | None) -> str:
    return "" if address is None else str(address)
