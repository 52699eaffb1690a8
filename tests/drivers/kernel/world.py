"""What the tests of the kernel's backend share: links as they are wanted, and as `ip` shows them."""

import json
import subprocess
from collections.abc import Collection
from ipaddress import IPv4Interface, IPv6Interface, ip_interface, ip_network
from typing import Any

from drivers.bridge.planner import BridgePlanner
from drivers.converge import Converger
from drivers.facts import HostFacts
from drivers.marks import Marks
from drivers.model import Endpoint, Network, Subnet
from drivers.naming import bridge_mac, endpoint_mac, link_name
from drivers.resources import (
    Bridge,
    HostAddress,
    Key,
    Resource,
    Scope,
    Veth,
    address_key,
    link_key,
    scope_of,
)

MARKS = Marks("0123456789abcdef")
NETWORK = scope_of("n1")
ENDPOINT = scope_of("n1", "e1")
MAC = "02:00:00:00:00:01"


def ip(*args: str) -> Any:  # noqa: ANN401 - JSON
    told = subprocess.run(["ip", "-j", "-d", *args], check=True, capture_output=True, text=True).stdout
    return json.loads(told) if told.strip() else []


def link(name: str) -> Any:  # noqa: ANN401 - JSON
    (one,) = ip("link", "show", "dev", name)
    return one


def bridge(name: str = "wfb1", **wanted: Any) -> Bridge:  # noqa: ANN401 - any field of a bridge
    return Bridge(**{"key": link_key(name), "scope": NETWORK, "mac": MAC, **wanted})


def veth(name: str = "wfh1", **wanted: Any) -> Veth:  # noqa: ANN401 - any field of a veth
    peer = name.replace("wfh", "wfc")
    return Veth(**{"key": link_key(name), "scope": ENDPOINT, "bridge": "wfb1", "peer": peer, **wanted})


def host_address(text: str, on: str = "wfb1", *, shared: bool = False) -> HostAddress:
    return HostAddress(key=address_key(on, ip_interface(text)), scope=NETWORK, shared=shared)


def plan(network: Network, *endpoints: Endpoint) -> dict[Scope, list[Resource]]:
    """Return the kernel's part of the plans, by scope."""
    planner, facts = BridgePlanner(), HostFacts()
    plans = [planner.network(facts, network), *(planner.endpoint(facts, network, one) for one in endpoints)]
    return {part[0].scope: [one for one in part if one.key.backend == "kernel"] for part in plans}


def network_of(ident: str, octet: int, *, ipv6: bool = True, mtu: int | None = None, adopted: str = "") -> Network:
    subnets = [
        Subnet(network=ip_network(f"10.9.{octet}.0/24"), gateway=IPv4Interface(f"10.9.{octet}.1/24")),
        Subnet(network=ip_network(f"fd09:{octet}::/64"), gateway=IPv6Interface(f"fd09:{octet}::1/64")),
    ]
    return Network(
        id=ident,
        link=adopted or link_name("b", ident),
        mac=bridge_mac(ident),
        subnets=tuple(subnets if ipv6 else subnets[:1]),
        mtu=mtu,
        adopted=bool(adopted),
    )


def endpoint_of(network: Network, ident: str) -> Endpoint:
    mac = endpoint_mac(network.id, None, ident)
    return Endpoint(id=ident, network=network.id, link=link_name("h", ident), peer=link_name("c", ident), mac=mac)


def ident(number: int, first: str = "0") -> str:
    """Return an id as Docker makes them: what tells two apart is in the first twelve digits."""
    return f"{first}{number:011x}".ljust(64, "7")


def settle(converger: Converger, plans: dict[Scope, list[Resource]], keys: Collection[Key] = ()) -> None:
    for scope, wanted in plans.items():
        converger.converge(scope, wanted, keys)
