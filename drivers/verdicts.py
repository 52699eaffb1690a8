"""What the verdict tables have to know of a network and of an endpoint, whatever carries their frames.

A network is one element for each thing that it is: its link in the set of that thing. On a bridge that weft adopted the
endpoints are told one by one, for the link is not weft's to judge (facts/network.md 6).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from drivers import ruleset, ruleset_bridge
from drivers.facts import HostFacts
from drivers.model import Endpoint, Interface, Network, OpenPorts, Publication
from drivers.resources import (
    BRIDGE_TABLE_KEY,
    TABLE_KEY,
    ZONE_KEY,
    Fence,
    InZone,
    Permit,
    Resource,
    Rule,
    Scope,
    bridge_element_key,
    chain_key,
    element_key,
    in_zone_key,
    rule_key,
    scope_of,
)

VERSIONS: Final = (4, 6)
_TABLE: Final = frozenset({TABLE_KEY})


def of_network(network: Network) -> Iterator[Resource]:
    """Return the elements of a network."""
    scope, link = scope_of(network.id), network.link
    yield _permit(scope, ruleset.SAME, link, link)
    if not network.icc:
        yield _fence(scope, ruleset.APART, link)
    if not network.adopted:
        yield from _own(network, scope)
    if network.zone is not None:
        yield replace(_fence(scope, ruleset.ZONES, link), value=(str(network.zone),))
    if network.tunnel is not None:
        yield _permit(scope, ruleset.CLAMPED, link)
    if network.internal:
        return
    for version in VERSIONS:
        match network.mode(version):
            case "routed" if network.speaks(version):
                yield _permit(scope, ruleset.ROUTED[version], link)
            case "nat-unprotected" if network.speaks(version):
                yield _permit(scope, ruleset.UNPROTECTED[version], link)
    for trusted in network.trusted:
        yield _permit(scope, ruleset.TRUSTED, trusted, link)


def in_zone(facts: HostFacts, network: Network) -> Iterator[Resource]:
    """Return what lets a network through firewalld, if that runs: the link by which the host is in it, in our zone."""
    if facts.firewalld and not network.adopted:
        needs = _TABLE | {ZONE_KEY}
        yield InZone(key=in_zone_key(network.link), scope=scope_of(network.id), needs=needs, shared=True)


def of_endpoint(facts: HostFacts, network: Network, endpoint: Endpoint) -> Iterator[Resource]:
    """Return the elements of an endpoint: its links and, on an adopted bridge, what the link group does for our own."""
    scope = scope_of(network.id, endpoint.id)
    if not network.icc:
        yield from _links(endpoint, scope)
    if network.adopted:
        for address in endpoint.addresses:
            yield from _adopted(facts, network, scope, address)


def apart(network: Network, port: str, scope: Scope) -> Iterator[Resource]:
    """Return what keeps a port of the bridge apart from others of its network, where containers are to be (ICC off).

    What comes from it is handed to the host, which decides, and nothing else passes between such ports.
    """
    if not network.icc:
        yield bridge_fence(scope, ruleset_bridge.HANDED, port, leads=(network.mac,))
        yield bridge_fence(scope, ruleset_bridge.APART_PORTS, port)


def bridge_fence(scope: Scope, name: str, *at: str, leads: tuple[str, ...] = ()) -> Fence:
    """Return an element of table ``bridge weft``."""
    return Fence(key=bridge_element_key(name, *at), scope=scope, needs=frozenset({BRIDGE_TABLE_KEY}), value=leads)


def behind_fences(*parts: Resource) -> tuple[Resource, ...]:
    """Let everything need the fences of its own scope: where closing fails, nothing is opened."""
    fences = frozenset(part.key for part in parts if isinstance(part, Fence))
    return tuple(part if part.key in fences else replace(part, needs=part.needs | fences) for part in parts)


def _own(network: Network, scope: Scope) -> Iterator[Resource]:
    if network.internal:
        yield _fence(scope, ruleset.INTERNAL, network.link)
        for version in VERSIONS:
            if network.mode(version) == "isolated":
                yield _fence(scope, ruleset.ISOLATED[version], network.link)
        return
    for version in VERSIONS:
        if network.speaks(version) and _translates(network, version):
            yield _leaving(network, version, scope, network.link)


def _translates(network: Network, version: int) -> bool:
    """Tell whether what leaves carries an address of the host's."""
    return network.masquerade and network.mode(version) in ("nat", "nat-unprotected")


def _leaving(network: Network, version: int, scope: Scope, *at: str) -> Resource:
    """Return what says which address is carried by what leaves: the one that was named, else the host's nearest."""
    plain, named = (ruleset.MASQUERADE, ruleset.SOURCE) if len(at) == 1 else _ADOPTED_LEAVING
    source = network.source(version)
    if source is None:
        return _permit(scope, plain[version], *at)
    return replace(_permit(scope, named[version], *at), value=(str(source),))


_ADOPTED_LEAVING: Final = (ruleset.ADOPTED_MASQUERADE, ruleset.ADOPTED_SOURCE)


def _links(endpoint: Endpoint, scope: Scope) -> Iterator[Resource]:
    """Return what is open to the endpoint though its network keeps its containers apart."""
    for own in endpoint.addresses:
        for one in united(run for run in endpoint.links if run.address.version == own.version):
            yield _permit(scope, ruleset.LINKED[own.version], str(own.ip), str(one.address), one.transport, span(one))


def united(runs: Iterable[OpenPorts]) -> Iterator[OpenPorts]:
    """Join runs that meet: whoever named a port, it is in one element."""

    def place(one: OpenPorts) -> tuple[int, int, str, int]:
        return one.address.version, int(one.address), one.transport, one.first

    last: OpenPorts | None = None
    for one in sorted(runs, key=place):
        if last and place(last)[:3] == place(one)[:3] and one.first <= last.last + 1:
            last = replace(last, last=max(last.last, one.last))
            continue
        if last:
            yield last
        last = one
    if last:
        yield last


def without(runs: Iterable[OpenPorts], others: Sequence[OpenPorts]) -> Iterator[OpenPorts]:
    """Return what is left of runs when others, in order, are taken out."""
    for run in runs:
        first = run.first
        for other in others:
            if (other.address, other.transport) != (run.address, run.transport) or other.last < first:
                continue
            if other.first > run.last:
                break
            if other.first > first:
                yield replace(run, first=first, last=other.first - 1)
            first = other.last + 1
        if first <= run.last:
            yield replace(run, first=first)


def span(one: OpenPorts | Publication) -> str:
    """Return a run of ports as nft writes it."""
    return f"{one.first}-{one.last}" if one.last > one.first else f"{one.first}"


def _adopted(facts: HostFacts, network: Network, scope: Scope, address: Interface) -> Iterator[Resource]:
    version, link, ip = address.version, network.link, str(address.ip)
    yield _fence(scope, ruleset.ADOPTED[version], link, ip)
    if network.internal:
        yield _fence(scope, ruleset.ADOPTED_INTERNAL[version], link, ip)
    elif _translates(network, version):
        yield _leaving(network, version, scope, link, ip)
    if version in facts.docker_user:
        needs = frozenset({chain_key(version)})
        for spec in (f"-i {link} -s {ip} -j ACCEPT", f"-o {link} -d {ip} -j ACCEPT"):
            yield Rule(key=rule_key(version, spec), scope=scope, needs=needs)


def _fence(scope: Scope, name: str, *at: str) -> Fence:
    return Fence(key=element_key(name, *at), scope=scope, needs=_TABLE)


def _permit(scope: Scope, name: str, *at: str) -> Permit:
    return Permit(key=element_key(name, *at), scope=scope, needs=_TABLE)
