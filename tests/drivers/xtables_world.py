"""What the tests of iptables share: the rules that planners want."""

from typing import Final

from drivers.bridge.planner import BridgePlanner
from drivers.facts import HostFacts
from drivers.model import Use
from drivers.resources import (
    Chain,
    Jump,
    Resource,
    Rule,
    rule_key,
    scope_of,
)

ENDPOINT: Final = scope_of("n" * 64, "e" * 64)
ADDRESS: Final = {4: "192.0.2.7", 6: "2001:db8::7"}
CLOSING: Final = "-j RETURN"


def planned(version: int) -> tuple[Chain, Jump]:
    """Return what the host planner wants, with a bridge of the operator's and one of Docker's in it."""
    facts = HostFacts(docker_user=frozenset({version}), operator_links=frozenset({"br-lan"}))
    parts = BridgePlanner().host(facts, Use(networks=1, docker_links=frozenset({"my-net"})))
    (chain,) = (part for part in parts if isinstance(part, Chain))
    (jump,) = (part for part in parts if isinstance(part, Jump))
    return chain, jump


def rules(version: int) -> tuple[Rule, Rule]:
    """Return an endpoint's rules on a bridge that a pattern of the host's rules would catch."""
    specs = (f"-i br-lan -s {ADDRESS[version]} -j ACCEPT", f"-o br-lan -d {ADDRESS[version]} -j ACCEPT")
    one, two = (Rule(key=rule_key(version, spec), scope=ENDPOINT) for spec in specs)
    return one, two


def every(version: int) -> tuple[Resource, ...]:
    return (*planned(version), *rules(version))
