"""Containers of a real engine as parties of a table."""

from typing import Any

from tests.lab.engine import Engine
from tests.lab.image import NAME
from tests.lab.net import RUN_NETNS, HasNetns
from tests.lab.node import Node
from tests.matrix.table import Party
from tests.matrix.traffic import PORT, Spot, Traffic

NETFILTER = ("iptables", "ip6tables")


def run(engine: Engine, traffic: Traffic, name: str, network: str, *args: str) -> Party:
    """Start a container that answers on `PORT`, and return it as a party."""
    engine.docker("run", "-d", "--name", name, "--network", network, *args, NAME)
    return party(engine, traffic, name)


def party(engine: Engine, traffic: Traffic, name: str) -> Party:
    """Return a running container of one network as a party that answers on `PORT`."""
    container: dict[str, Any] = engine.api("GET", f"/containers/{name}/json")
    spot = traffic.spot(engine.node.path(f"/proc/{container['State']['Pid']}/ns/net"), name)
    spot.serve()
    (network,) = container["NetworkSettings"]["Networks"].values()
    addresses = {4: network["IPAddress"], 6: network["GlobalIPv6Address"]}
    return Party(spot, {version: address for version, address in addresses.items() if address})


def serving(traffic: Traffic, place: HasNetns, name: str, port: int = PORT) -> Spot:
    """Return the namespace of a node or a neighbour, answering on a port."""
    spot = traffic.spot(RUN_NETNS / place.netns, name)
    spot.serve(port)
    return spot


def set_br_netfilter(node: Node, value: int) -> None:
    """Pass what goes through bridges to iptables and nft as well, or not."""
    for name in NETFILTER:
        node.run("sh", "-c", f"echo {value} >/proc/sys/net/bridge/bridge-nf-call-{name}")
