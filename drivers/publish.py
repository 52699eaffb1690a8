"""What a published port is made of: an element in a map, a hold on the host's port, and who may come.

Where the network is routed there is no host port: the container's own is opened at its own address. The same is opened
to trusted links where there is one.

NAT takes whatever it can: the client's address is kept, and nothing passes through weft. What it cannot take is marked
for the relay: clients of [::1] (there is no IPv6 ``route_localnet``), of 127.0.0.1 where the bridge is the operator's
and may not be told to route it, and of the IP version that the container does not have (facts/network.md 9).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from drivers import ruleset
from drivers.model import Address, Endpoint, Interface, Network, OpenPorts, Publication
from drivers.resources import (
    RELAYED_AT_MOST,
    TABLE_KEY,
    Fence,
    Hold,
    Permit,
    Publish,
    Resource,
    Scope,
    element_key,
    hold_key,
    scope_of,
)
from drivers.verdicts import span, united, without

_TABLE: Final = frozenset({TABLE_KEY})
_ANY: Final = {4: "0.0.0.0", 6: "::"}  # noqa: S104 - a key, and what Docker binds by default


def published(network: Network, endpoint: Endpoint) -> Iterator[Resource]:
    """Return the resources of an endpoint's publications and of its allow-list."""
    scope = scope_of(network.id, endpoint.id)
    for one in endpoint.published:
        if not one.routed:
            yield from _publication(network, endpoint, one, scope)
    yield from _direct(network, endpoint, scope)
    yield from _bound(network, endpoint, scope)
    for own in endpoint.addresses:
        if endpoint.allow and (endpoint.published or network.mode(own.version) == "nat-unprotected"):
            yield from _allow_list(endpoint, own, scope)


def by_nat(network: Network, endpoint: Endpoint, one: Publication) -> Address | None:
    """Return the container's address to which NAT takes a publication, or ``None`` if it is all the relay's."""
    own = endpoint.ipv4 if one.version == 4 else endpoint.ipv6
    unroutable = one.host_only and (one.version == 6 or network.adopted)
    return None if own is None or unroutable or one.routed else own.ip


def _direct(network: Network, endpoint: Endpoint, scope: Scope) -> Iterator[Resource]:
    """Open ports at the container's own address: to anybody if they are routed, else to trusted links only.

    A port that is bound to the host's loopback is for the host alone, and never opened so.
    """
    for own in endpoint.addresses:
        runs = (
            _inside(own, one)
            for one in endpoint.published
            if one.version == own.version and (one.routed or network.trusted) and not one.host_only
        )
        for run in united(runs):
            key = element_key(ruleset.DIRECT[own.version], str(own.ip), run.transport, span(run))
            yield Permit(key=key, scope=scope, needs=_TABLE)


def _bound(network: Network, endpoint: Endpoint, scope: Scope) -> Iterator[Resource]:
    """Close ports that are published to the host's loopback and nowhere else, where every port is open."""
    for own in endpoint.addresses:
        if network.mode(own.version) != "nat-unprotected":
            continue
        bound = united(_inside(own, one) for one in endpoint.published if one.host_only)
        others = tuple(united(_inside(own, one) for one in endpoint.published if not one.host_only))
        for run in without(bound, others):
            key = element_key(ruleset.BOUND[own.version], str(own.ip), run.transport, span(run))
            yield Fence(key=key, scope=scope, needs=_TABLE)


def _inside(own: Interface, one: Publication) -> OpenPorts:
    """Return the container's ports of a publication, at one of its addresses."""
    return OpenPorts(address=own.ip, transport=one.transport, first=one.to, last=one.to + one.count - 1)


def _publication(network: Network, endpoint: Endpoint, one: Publication, scope: Scope) -> Iterator[Resource]:
    hold = Hold(
        key=hold_key(one.transport, str(one.host or _ANY[one.version]), one.first, one.last),
        scope=scope,
        relay=_relay(network, endpoint, one),
        allow=tuple(str(source) for source in endpoint.allow),
    )
    yield hold
    if hold.relay is not None:
        yield from _relay_fences(one, scope)
    address = by_nat(network, endpoint, one)
    if address is None:
        return
    needs = _TABLE | {hold.key}
    if network.adopted and one.host is None and one.version == 4:
        at = (one.transport, span(one))
        yield Permit(key=element_key(ruleset.LOOPBACK_RELAYED, *at), scope=scope, needs=needs)
    where = (str(one.host),) if one.host else ()
    if one.count > 1 and one.to == one.first:
        name = (ruleset.RANGE_AT if one.host else ruleset.RANGE)[one.version]
        key = element_key(name, *where, one.transport, span(one))
        yield Publish(key=key, scope=scope, needs=needs, value=(str(address),))
        return
    name = (ruleset.PUBLISH_AT if one.host else ruleset.PUBLISH)[one.version]
    for offset in range(one.count):
        key = element_key(name, *where, one.transport, str(one.first + offset))
        yield Publish(key=key, scope=scope, needs=needs, value=(str(address), str(one.to + offset)))


def _relay(network: Network, endpoint: Endpoint, one: Publication) -> tuple[str, int] | None:
    """Return where the relay passes on what NAT leaves to it, if anything can be left to it."""
    if not network.relay or one.transport == "sctp" or one.count > RELAYED_AT_MOST:
        return None
    own, other = (endpoint.ipv4, endpoint.ipv6) if one.version == 4 else (endpoint.ipv6, endpoint.ipv4)
    has_loopback = one.host is None or one.host.is_loopback
    routes_loopback = one.version == 4 and not network.adopted
    if own is not None and (routes_loopback or not has_loopback):
        return None
    to = own or other
    return None if to is None else (str(to.ip), one.to)


def _relay_fences(one: Publication, scope: Scope) -> Iterator[Resource]:
    """Close the relay's ports to internal networks: it answers as the host, which they may otherwise talk to."""
    if one.host is not None and one.host.is_loopback:
        return
    name = (ruleset.RELAYED_AT if one.host else ruleset.RELAYED)[one.version]
    where = (str(one.host),) if one.host else ()
    for port in range(one.first, one.last + 1):
        yield Fence(key=element_key(name, *where, one.transport, str(port)), scope=scope, needs=_TABLE)


def _allow_list(endpoint: Endpoint, own: Interface, scope: Scope) -> Iterator[Resource]:
    """Close what is open at an address to everybody but the listed sources; the host itself is always served.

    That is the published ports; of an unprotected container all of them, though it publish none.
    """
    version, ip = own.version, str(own.ip)
    yield Fence(key=element_key(ruleset.RESTRICTED[version], ip), scope=scope, needs=_TABLE)
    for source in endpoint.allow:
        if source.version == version:
            one = source.network_address if source.num_addresses == 1 else source  # as nft spells it
            yield Permit(key=element_key(ruleset.ALLOWED[version], ip, str(one)), scope=scope, needs=_TABLE)
