"""A swarm: Docker hosts on one LAN, each with weft as its managed plugin in the scope of the swarm.

Engines take no other plugin for a swarm's networks (facts/docker-wire.md 7). Images cannot be pulled, so each host has
the test image, and services are told not to ask a registry for it.
"""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.lab import image
from tests.lab.engine import Engine
from tests.lab.lan import Lan, address4
from tests.lab.node import Node
from tests.lab.ovs import Ovs
from tests.lab.plugin import DRIVER, NAME, PluginHost
from tests.lab.talk import SERVE, Container
from tests.lab.wait import await_

SETTLE = 120
"""Seconds, generously: a manager that comes back meets its swarm again within a minute (the gossip's own interval)."""


class SwarmHost(PluginHost):
    """One host of a swarm; `number` is its place on the LAN."""

    def __init__(
        self, lan: Lan, number: int, storage: Path, command: Path, root: Path | None = None, *, ovs: bool = False
    ) -> None:
        node = Node(f"swarm{number}", root)
        super().__init__(node, Engine(node), storage, command)
        self.number = number
        self.ovs = Ovs(node) if ovs else None
        self._lan = lan

    @property
    def address(self) -> str:
        """Its address on the LAN, by which the others know it."""
        return str(address4(self.number))

    def power_on(self) -> None:
        """Give it power, its wire, its registry, its Open vSwitch if it has one, and its dockerd."""
        self.boot()
        self._lan.plug(self.node, self.number)
        if self.ovs is not None:
            self.ovs.start()
            self.ovs.take_nic("lan0")
        self.engine.start()
        self.engine.load_image()

    def found(self) -> None:
        """`docker swarm init`."""
        self.engine.docker("swarm", "init", "--advertise-addr", self.address)

    def join(self, manager: "SwarmHost") -> None:
        """`docker swarm join`, as a worker."""
        token = manager.engine.docker("swarm", "join-token", "-q", "worker")
        where = f"{manager.address}:2377"
        self.engine.docker("swarm", "join", "--token", token, "--advertise-addr", self.address, where)

    def leave(self) -> None:
        """`docker swarm leave`."""
        self.engine.docker("swarm", "leave", "--force")

    def peers(self) -> set[str]:
        """Return the addresses of the peers that Docker told weft of."""
        rows = json.loads(self.weft("peer", "ls", "--json").stdout)
        return {row["peer"] for row in rows if row["by"] == "docker"}

    @property
    def is_member(self) -> bool:
        """Tell whether it is in a swarm."""
        return bool(self.engine.api("GET", "/info")["Swarm"]["LocalNodeState"] == "active")

    def networks(self) -> set[str]:
        """Return the ids of the networks that weft has on it."""
        return {row["id"] for row in json.loads(self.weft("network", "ls", "--json").stdout)}

    def tasks(self, service: str) -> dict[str, Container]:
        """Return the running containers of a service on this host, by their addresses on its network."""
        found = {}
        filters = f"label=com.docker.swarm.service.name={service}"
        for ident in self.engine.docker("ps", "-q", "--filter", filters).split():
            container = Container(self.engine, ident)
            networks: dict[str, Any] = container.inspected["NetworkSettings"]["Networks"]
            for name, one in networks.items():
                if name not in {"docker_gwbridge", "ingress"} and one["IPAddress"]:
                    found[one["IPAddress"]] = container
        return found


@dataclass(frozen=True, slots=True)
class Swarm:
    """All of them. The first host is the manager, and the only one."""

    lan: Lan
    hosts: tuple[SwarmHost, ...]

    @property
    def manager(self) -> SwarmHost:
        """The host that made the swarm."""
        return self.hosts[0]

    @property
    def workers(self) -> tuple[SwarmHost, ...]:
        """The others."""
        return self.hosts[1:]

    def network(self, name: str, *flags: str) -> str:
        """Make a network of the whole swarm, and return its id."""
        return self.manager.engine.docker("network", "create", "-d", DRIVER, "--attachable", *flags, name)

    def vni(self, network: str) -> int:
        """Return what tells a network from others on the wire, as every node is told it."""
        return int(self.manager.engine.api("GET", f"/networks/{network}")["Options"]["weft.vni"])

    def service(self, name: str, network: str, *flags: str, mode: str = "dnsrr") -> None:
        """Run a service whose tasks answer who asks them."""
        how = ("--detach", "--no-resolve-image", "--stop-grace-period", "1s", "--restart-delay", "1s")
        where = ("--name", name, "--endpoint-mode", mode, "--network", network)
        self.manager.engine.docker("service", "create", *how, *where, *flags, image.NAME, "/bin/sh", "-c", SERVE)

    def scale(self, service: str, count: int, *flags: str) -> None:
        """`docker service update --replicas`; further flags may be `--force`, which spreads the tasks anew."""
        self.manager.engine.docker("service", "update", "--detach", "--replicas", str(count), *flags, service)

    def tasks(self, service: str) -> dict[str, Container]:
        """Return the running containers of a service, by their addresses."""
        return {
            address: one
            for host in self.hosts
            if host.engine.is_running
            for address, one in host.tasks(service).items()
        }

    def await_met(self, service: str, count: int, *on: SwarmHost) -> dict[str, Container]:
        """Wait until so many tasks run, some on each of these hosts, and each of them knows and reaches all by name."""
        nodes = {host.node.netns for host in on}

        def met() -> dict[str, Container] | None:
            found = self.tasks(service)
            if len(found) != count or {one.engine.node.netns for one in found.values()} != nodes:
                return None
            return found if all(_meets(one, service, set(found)) for one in found.values()) else None

        return await_(met, SETTLE, f"{count} tasks of {service} to meet")

    def await_peers(self, *hosts: SwarmHost) -> None:
        """Wait until these are each other's peers, and have no others."""
        addresses = {host.address for host in hosts}
        for host in hosts:
            wanted = addresses - {host.address}
            await_(partial(_has_peers, host, wanted), SETTLE, f"{host.node.netns} to have the peers {wanted}")

    def takers(self) -> int:
        """Return how many nodes the manager gives tasks on weft's networks: it has to know that the plugin is there."""
        ready = [one for one in self.manager.engine.api("GET", "/nodes") if one["Status"]["State"] == "ready"]
        plugins = [one["Description"]["Engine"]["Plugins"] or () for one in ready]
        return sum({"Type": "Network", "Name": DRIVER} in each for each in plugins)

    def mend(self) -> None:
        """Bring every host back that a test took away, and forget those that are gone."""
        for host in self.hosts:
            if not host.node.is_up:
                host.power_on()
            elif not host.engine.is_running:
                host.engine.start()
            if not host.is_enabled():
                host.docker_plugin("enable", NAME)
            if not host.is_member:
                host.join(self.manager)
        self.await_peers(*self.hosts)
        await_(lambda: len(self.hosts) == self.takers(), SETTLE, "the manager to know of every node's plugin")
        for node in self.manager.engine.api("GET", "/nodes"):
            if node["Status"]["State"] == "down":
                self.manager.engine.docker("node", "rm", "--force", node["ID"])

    def clear(self) -> None:
        """Remove services, containers and networks, and wait until weft has none of them on any host."""
        docker = self.manager.engine.docker
        for service in docker("service", "ls", "-q").split():
            docker("service", "rm", service)
        for host in self.hosts:
            for container in host.engine.docker("ps", "-aq").split():
                host.engine.docker("rm", "-f", container, check=False)  # the swarm may be first
        await_(lambda: not any(host.engine.docker("ps", "-aq") for host in self.hosts), SETTLE, "tasks to be gone")
        for one in self.manager.engine.api("GET", "/networks"):
            if one["Scope"] == "swarm" and not one["Ingress"]:
                await_(partial(self._removed, one["Id"]), SETTLE, f"network {one['Name']} to be removed")
        await_(lambda: not any(host.networks() for host in self.hosts), SETTLE, "weft's networks to be gone")

    def _removed(self, network: str) -> bool:
        self.manager.engine.docker("network", "rm", network, check=False)  # refused while a task is on its way out
        return network not in self.manager.engine.docker("network", "ls", "--no-trunc", "-q").split()


def names(container: Container, name: str) -> set[str]:
    """Return the IPv4 addresses that Docker's DNS has for a name."""
    return told_by_dns(container.engine.docker("exec", container.name, *ask_dns(name), check=False))


def ask_dns(name: str) -> tuple[str, ...]:
    """Return what asks Docker's DNS for a name's IPv4 addresses, in a container."""
    return ("nslookup", "-type=a", name)


def told_by_dns(answer: str) -> set[str]:
    """Return the addresses that busybox's nslookup has printed."""
    _, _, told = answer.partition("Name:")
    return {line.split()[-1] for line in told.splitlines() if line.startswith("Address")}


def _meets(container: Container, service: str, others: set[str]) -> bool:
    return names(container, service) == others and container.answered_by(*others) == others


def _has_peers(host: SwarmHost, wanted: set[str]) -> bool:
    return host.peers() == wanted
