"""What a Linux bridge network is made of, in three pure functions: the host's part, a network's, an endpoint's.

Here are the links; what the verdict tables have to know of them is :mod:`drivers.verdicts`.
"""

from __future__ import annotations

from typing import Final

from drivers import ruleset, ruleset_bridge, tunnels, verdicts
from drivers.facts import HostFacts
from drivers.model import Endpoint, Network, Use
from drivers.naming import LINK_GROUP
from drivers.publish import by_nat, published
from drivers.resources import (
    BRIDGE_TABLE_KEY,
    HOST,
    TABLE_KEY,
    ZONE_KEY,
    Bridge,
    Chain,
    HostAddress,
    Jump,
    Permit,
    Resource,
    Table,
    Veth,
    Zone,
    address_key,
    chain_key,
    element_key,
    jump_key,
    link_key,
    scope_of,
    setting,
)
from drivers.verdicts import behind_fences

FORWARDING6: Final = "net/ipv6/conf/all/forwarding"
FORCE_FORWARDING6: Final = "net/ipv6/conf/all/force_forwarding"
FORCE_FORWARDING6_LATER: Final = "net/ipv6/conf/default/force_forwarding"
DOCKER_LINKS: Final = ("docker0", "docker_gwbridge")

_TABLE: Final = frozenset({TABLE_KEY})


class BridgePlanner:
    """The planner of ``weft.backend=bridge``."""

    def host(self, facts: HostFacts, use: Use) -> tuple[Resource, ...]:
        """Return the verdict table, the answers to Docker's FORWARD DROP and to firewalld, and IPv6 forwarding."""
        if not use.networks:
            return ()
        operators = facts.operator_links - use.docker_links
        return (
            Table(key=TABLE_KEY, scope=HOST, text=ruleset.TEXT),
            *([Table(key=BRIDGE_TABLE_KEY, scope=HOST, text=ruleset_bridge.TEXT)] if use.apart or use.tunnels else ()),
            *(_host_permit(ruleset.OPERATOR_LINKS, name) for name in sorted(operators)),
            *(
                part
                for version in sorted(facts.docker_user)
                for part in _forward_drop_answer(version, sorted(use.docker_links), sorted(operators))
            ),
            *((Zone(key=ZONE_KEY, scope=HOST, needs=_TABLE),) if facts.firewalld else ()),
            *(_forwarding6(facts) if use.forwards6 and facts.may_forward else ()),
        )

    def network(self, facts: HostFacts, network: Network) -> tuple[Resource, ...]:
        """Return the bridge, the host's addresses on it, its tunnel, and what the verdicts and firewalld must know."""
        scope = scope_of(network.id)
        link = link_key(network.link)
        bridge = Bridge(
            key=link,
            scope=scope,
            adopted=network.adopted,
            mac=network.mac,
            mtu=network.mtu,
            ipv6=network.speaks(6) and network.mode6 != "isolated",
            route_localnet=network.loopback,
        )
        addresses = [
            HostAddress(
                key=address_key(network.link, gateway),
                scope=scope,
                needs=frozenset({link}),
                shared=network.adopted,
            )
            for gateway in network.gateways
        ]
        passed = verdicts.in_zone(facts, network)
        return behind_fences(bridge, *addresses, *passed, *tunnels.of_network(network), *verdicts.of_network(network))

    def endpoint(self, facts: HostFacts, network: Network, endpoint: Endpoint) -> tuple[Resource, ...]:
        """Return the veth pair, what keeps it apart from others, and its part of the verdicts and published ports."""
        scope = scope_of(network.id, endpoint.id)
        veth = Veth(
            key=link_key(endpoint.link),
            scope=scope,
            bridge=network.link,
            mtu=network.mtu,
            peer=endpoint.peer,
            mac=endpoint.mac,
            hairpin=any(by_nat(network, endpoint, one) for one in endpoint.published),
        )
        return behind_fences(
            veth,
            *verdicts.apart(network, endpoint.link, scope),
            *tunnels.of_endpoint(network, endpoint),
            *verdicts.of_endpoint(facts, network, endpoint),
            *published(network, endpoint),
        )


def _host_permit(set_name: str, link: str) -> Resource:
    return Permit(key=element_key(set_name, link), scope=HOST, needs=_TABLE)


def _forward_drop_answer(version: int, docker_links: list[str], operators: list[str]) -> tuple[Resource, ...]:
    """Accept our links where Docker's FORWARD policy would drop them; leave what goes to Docker's own to Docker.

    The verdicts are in ``inet weft``, which must be there first: a drop there is final (facts/network.md 1).
    """
    ours = f"-m devgroup --src-group {LINK_GROUP:#x}"
    chain = Chain(
        key=chain_key(version),
        scope=HOST,
        needs=_TABLE,
        rules=(
            # before the names: a bridge of ours may be called br-something by the operator
            f"-m devgroup --dst-group {LINK_GROUP:#x} -j ACCEPT",
            *(f"-o {name} -j RETURN" for name in (*DOCKER_LINKS, *docker_links)),
            *(f"-o {name} {ours} -j ACCEPT" for name in operators),
            "-o br-+ -j RETURN",
            f"{ours} -j ACCEPT",
        ),
    )
    return (chain, Jump(key=jump_key(version), scope=HOST, needs=_TABLE | {chain.key}))


def _forwarding6(facts: HostFacts) -> tuple[Resource, ...]:
    """Switch IPv6 forwarding on without taking the host's own IPv6 away (facts/network.md 4).

    Where the kernel can (Linux 6.17), by ``force_forwarding``, which leaves router advertisements alone: ``all`` sets
    the links that exist, ``default`` those made later (seen on 6.18). Else by the global switch, after the links that
    live on advertisements have been told to go on accepting them.
    """
    if facts.forwarding6:
        return ()
    if facts.force_forwarding:
        later = setting(FORCE_FORWARDING6_LATER, "1")
        return (later, setting(FORCE_FORWARDING6, "1", needs=frozenset({later.key})))
    keep = tuple(setting(f"net/ipv6/conf/{name}/accept_ra", "2") for name in sorted(facts.ra_links))
    return (*keep, setting(FORWARDING6, "1", needs=frozenset(one.key for one in keep)))
