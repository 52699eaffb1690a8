"""The whole datapath of a bridge network, case by case: what is wanted, and the lines it takes.

Each file under data/ is a host and a network in TOML, a line of dashes, and the plan of each scope, in the order in
which it is made: the rank, and the line a person would type. ``WEFT_UPDATE=1 pytest tests/drivers/bridge`` writes the
plans anew; read the diff.
"""

import os
import re
import tomllib
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any

import pytest

from drivers import ruleset, ruleset_bridge
from drivers.contract import Step
from drivers.converge import order
from drivers.facts import HostFacts
from drivers.model import Endpoint, Interface, Network, OpenPorts, Peer, Publication, Subnet, Tunnel, Use
from drivers.naming import bridge_mac, endpoint_mac, link_name
from drivers.registry import PLANNERS
from drivers.resources import Chain, Element, Flow, Hold, Jump, Publish, Resource, Rule, Setting, Table, program

CASES = sorted((Path(__file__).parent / "data").glob("*.txt"))
NETWORK = "a1b2c3d4e5f6" + "0" * 52
ENDPOINT = "0e1d2c3b4a59" + "0" * 52
RULE = "-" * 80 + "\n"


def _subnet(text: str) -> Subnet:
    """Read ``10.1.0.0/24`` or ``10.1.0.0/24 gateway 10.1.0.1``, perhaps with ``elsewhere`` behind it."""
    network, _, rest = text.partition(" gateway ")
    gateway, _, elsewhere = rest.partition(" ")
    subnet = ip_network(network)
    return Subnet(
        network=subnet,
        gateway=ip_interface(f"{gateway}/{subnet.prefixlen}") if gateway else None,
        elsewhere=elsewhere == "elsewhere",
    )


def _link(text: str) -> OpenPorts:
    """Read ``10.1.0.5:80-82/tcp``; IPv6 without brackets."""
    where, _, transport = text.partition("/")
    address, _, ports = where.rpartition(":")
    first, _, last = ports.partition("-")
    return OpenPorts(
        address=ip_address(address),
        transport=transport,  # type: ignore[arg-type]  # one of three
        first=int(first),
        last=int(last or first),
    )


def _tunnel(local: str = "", **wanted: Any) -> Tunnel:  # noqa: ANN401 - TOML
    return Tunnel(local=ip_address(local) if local else None, **wanted)


def _network(wanted: dict[str, Any]) -> Network:
    subnets = tuple(map(_subnet, wanted.pop("subnets", ())))
    link = wanted.pop("adopt", None)
    wanted |= {name: ip_address(wanted[name]) for name in ("source4", "source6") if name in wanted}
    trusted = tuple(wanted.pop("trusted", ()))
    tunnel = _tunnel(**wanted.pop("tunnel")) if "tunnel" in wanted else None
    return Network(
        id=NETWORK,
        link=link or link_name("b", NETWORK),
        mac=bridge_mac(f"vni {tunnel.vni}" if tunnel else NETWORK),
        tunnel=tunnel,
        peers=tuple(Peer(address=ip_address(one)) for one in wanted.pop("peers", ())),
        adopted=link is not None,
        subnets=subnets,
        trusted=trusted,
        **wanted,
    )


def _publication(wanted: dict[str, Any]) -> Publication:
    host = wanted.pop("host", None)
    return Publication(host=ip_address(host) if host else None, **wanted)


def _endpoint(
    addresses: Iterable[str],
    published: Iterable[dict[str, Any]] = (),
    allow: Iterable[str] = (),
    links: Iterable[str] = (),
    slot: int = 0,
) -> Endpoint:
    given: list[Interface] = [ip_interface(address) for address in addresses]
    return Endpoint(
        published=tuple(map(_publication, published)),
        allow=tuple(map(ip_network, allow)),
        links=tuple(map(_link, links)),
        slot=slot,
        id=ENDPOINT,
        network=NETWORK,
        link=link_name("h", ENDPOINT),
        peer=link_name("c", ENDPOINT),
        mac=endpoint_mac(NETWORK, given[0] if given else None, ENDPOINT),
        ipv4=next((one for one in given if isinstance(one, IPv4Interface)), None),
        ipv6=next((one for one in given if isinstance(one, IPv6Interface)), None),
    )


def _frozen(wanted: dict[str, Any]) -> dict[str, Any]:
    return {name: frozenset(value) if isinstance(value, list) else value for name, value in wanted.items()}


def _plans(case: dict[str, Any]) -> Iterator[tuple[str, tuple[Resource, ...]]]:
    facts = HostFacts(**_frozen(case.pop("host", {})))
    network = _network(case["network"]) if "network" in case else None
    speaks6 = network is not None and network.speaks(6)
    use = Use(**{"networks": 1, "forwards6": speaks6} | _frozen(case.pop("use", {})))
    planner = PLANNERS[network.backend] if network else PLANNERS["bridge"]
    yield "host", tuple(one for every in PLANNERS.values() for one in every.host(facts, use))
    if network is not None:
        del case["network"]
        yield "network", planner.network(facts, network)
        if "endpoint" in case:
            yield "endpoint", planner.endpoint(facts, network, _endpoint(**case.pop("endpoint")))
    assert not case, f"nobody reads {case}"


def _lines(resource: Resource) -> Iterator[str]:
    told = f"{resource}"
    if isinstance(resource, Setting):
        told += "  # given back at uninstall"
    elif resource.adopted:
        told += "  # the operator's to make: never made, changed or removed by weft"
    if resource.shared:
        told += "  # unless it is there already"
    yield f"  {resource.rank.name:8} {told}"
    if isinstance(resource, Chain):
        yield from (f"  {'':8} {program(resource.version)} -A WEFT {rule}" for rule in resource.rules)


def _rendered(case: dict[str, Any]) -> str:
    parts = []
    for scope, plan in _plans(case):
        lines = [line for step in order(Step(None, one) for one in plan) for line in _lines(step.resource)]
        parts.append("\n".join((scope, *(lines or ["  nothing"]))))
    return "\n\n".join(parts) + "\n"


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_plan(path: Path) -> None:
    wanted, _, planned = path.read_text().partition(RULE)
    rendered = _rendered(tomllib.loads(wanted))
    if os.environ.get("WEFT_UPDATE"):
        path.write_text(wanted + RULE + rendered)
        return
    assert planned == rendered


def test_there_are_cases() -> None:
    assert len(CASES) >= 20


def _every_plan() -> Iterator[tuple[str, tuple[Resource, ...]]]:
    for path in CASES:
        yield from _plans(tomllib.loads(path.read_text().partition(RULE)[0]))


def test_the_cases_show_every_set_and_every_kind_of_thing() -> None:
    """Whoever adds one to the planner adds a case."""
    shown = [resource for _, plan in _every_plan() for resource in plan]
    sets = set(re.findall(r"^ *(?:set|map) (\w+) ", ruleset.TEXT + ruleset_bridge.TEXT, re.MULTILINE))
    assert {one.set_name for one in shown if isinstance(one, Element)} == sets
    assert {type(one).__name__ for one in shown} == {
        *("Table", "Chain", "Jump", "Rule", "Bridge", "Veth", "HostAddress", "Setting", "Forwarding"),
        *("Fence", "Permit", "Publish", "Hold", "Zone", "InZone", "Vxlan", "PeerTunnel", "FloodEntry"),
        *("OvsBridge", "OvsPort", "OvsDevicePort", "GatewayLink", "Flow", "FlowFence", "FlowEntry"),
    }


def test_nothing_but_the_host_s_plan_is_the_same_for_all_networks() -> None:
    """A link's name is in every key that a network or an endpoint has.

    But for what is published: host ports are claimed in the store, and so is the container's address.
    """
    claimed = {ruleset.LOOPBACK_RELAYED, *ruleset.RESTRICTED.values(), *ruleset.ALLOWED.values()}
    claimed |= {*ruleset.RELAYED.values(), *ruleset.RELAYED_AT.values()}
    claimed |= {*ruleset.DIRECT.values(), *ruleset.BOUND.values(), *ruleset.LINKED.values()}
    claimed |= {ruleset.VNIS, *ruleset.PEERS.values()}  # VNIs are, too
    tunnels = {link_name("t", NETWORK), *(link_name("t", f"{NETWORK}/{peer}") for peer in ("192.0.2.2", "2001:db8::2"))}
    for scope, plan in _every_plan():
        for one in plan:
            if scope != "host":
                assert not isinstance(one, Table | Chain | Jump)
                if isinstance(one, Publish | Hold | Flow) or one.key.kind in claimed:
                    continue  # flows: the network's number, claimed in the store, is in every key
                whole = isinstance(one, Rule) or one.key.kind == ruleset.TRUSTED
                text = " ".join(one.key.at) if whole else one.key.at[0]
                ours = {link_name("b", NETWORK), "br0", link_name("h", ENDPOINT), *tunnels}
                assert any(link in text for link in ours)
