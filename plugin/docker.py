"""Docker's own list, read over its socket. Only ever outside a driver call, and its absence is fine.

A driver is told neither names nor that Docker has forgotten something; both are read here. Nothing is written.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from drivers.model import Address, IPNetwork
from plugin.unix_http import UnixConnection

_SECONDS: Final = 5.0
_ALWAYS_DOCKERS: Final = {"docker0", "docker_gwbridge"}  # named by Docker's defaults, and in every plan anyway
_POOL: Final = "weft.pool"
_OF_SWARM: Final = {"scope": {"swarm": True}}
_OWN_BRIDGE: Final = "com.docker.network.bridge.name"


@dataclass(frozen=True, slots=True)
class DockerNetwork:
    """A network as Docker lists it. ``containers``: endpoint id -> container name, of running containers.

    The rest is of its IPAM driver: ``pool`` is its option ``weft.pool``, ``addresses`` says what has an address.
    """

    id: str
    name: str
    driver: str
    containers: dict[str, str] = field(default_factory=dict)
    bridge: str | None = None
    ipam: str = ""
    pool: str = ""
    subnets: tuple[IPNetwork, ...] = ()
    addresses: dict[Address, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerContainer:
    """A running container, as one network has it.

    ``endpoint`` is its endpoint there, ``name`` its own name, ``aliases`` its other names there; ``links`` is what it
    was linked to (``name`` or ``name:alias``); ``exposed`` are its ports, each as transport and number.
    """

    id: str
    endpoint: str
    name: str = ""
    aliases: frozenset[str] = frozenset()
    links: tuple[str, ...] = ()
    exposed: frozenset[tuple[str, int]] = frozenset()


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a container: it got on a network, left it (``on`` False), or (no network) started."""

    container: str
    network: str | None = None
    on: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Swarm:
    """The nodes of this host's swarm, itself among them, by the addresses that they gave out: gossip, unchecked.

    ``complete``  no node is missing: it is the list of all, or the host is in no swarm
    ``settled``   the host is in a swarm or in none, and not on the way into it
    """

    nodes: frozenset[str] = frozenset()
    complete: bool = False
    settled: bool = True


class Unreachable(Exception):
    """Docker's socket is absent or does not answer: nothing is known, so nothing may be concluded."""


class Docker:
    """Docker's API, at the path of its socket."""

    def __init__(self, path: Path, plugin: str | None = None) -> None:
        """Read from the socket at ``path``; ``plugin`` is the id that Docker gave us as a managed plugin."""
        self._path = path
        self._plugin = plugin
        self._alias: str | None = None

    def networks(self, *, driver: str) -> list[DockerNetwork]:
        """Return the networks whose driver or IPAM driver is called so, each with its containers.

        ``weft`` is also ``weft:TAG``, and whatever else a managed plugin was installed as (``docker plugin install
        --alias``). Raises :class:`Unreachable`.
        """
        listed = [one for one in self._list() if self._is_ours(one.driver, driver) or self._is_ours(one.ipam, driver)]
        return [self._inspect(one.id) for one in listed]

    def _is_ours(self, name: str, driver: str) -> bool:
        return _plain(name) == driver or (bool(name) and name == self._own_name())

    def _own_name(self) -> str | None:
        """Return what this plugin is installed as; ``None`` for one that dockerd does not manage."""
        if self._alias is None and self._plugin is not None:
            named = (str(one["Name"]) for one in self._get("/plugins") if one.get("Id") == self._plugin)
            self._alias = next(named, None)
        return self._alias

    def bridges(self) -> frozenset[str]:
        """Return the bridges of Docker's own networks that the operator named. Raises :class:`Unreachable`."""
        named = (one.bridge for one in self._list() if one.driver == "bridge" and one.bridge)
        return frozenset(named) - _ALWAYS_DOCKERS

    def swarm(self) -> Swarm:
        """Return the nodes of this host's swarm. Raises :class:`Unreachable`.

        Those of a network are listed on every host that is on it, and ``ingress`` is on all, unless it was removed:
        then those of the other networks are better than none.
        """
        state = (self._get("/info").get("Swarm") or {}).get("LocalNodeState")
        if state != "active":
            away = state == "inactive"
            return Swarm(complete=away, settled=away)
        listed = self._get(f"/networks?filters={quote(json.dumps(_OF_SWARM))}")
        ingress = [one for one in listed if one.get("Ingress")]
        found = [peer for one in ingress or listed for peer in self._peers_of(str(one["Id"]))]
        known = bool(ingress and found)  # else the host has only just joined, or somebody removed ingress
        return Swarm(nodes=frozenset(found), complete=known, settled=known or not ingress)

    def _peers_of(self, network: str) -> list[str]:
        told = self._get(f"/networks/{quote(network, safe='')}").get("Peers") or ()
        return [str(one.get("IP")) for one in told]

    def attached(self, network: str) -> list[str]:
        """Return the ids of the running containers on a network. Raises :class:`Unreachable`.

        A container is in it from the moment that it has joined (20.10.24 to 28.5.2).
        """
        return [str(ident) for ident in self._get(f"/networks/{quote(network, safe='')}").get("Containers") or {}]

    def container(self, ident: str, network: str) -> DockerContainer | None:
        """Return a container as a network has it, or ``None`` if it is not on it. Raises :class:`Unreachable`.

        While it is being started Docker answers when that is done.
        """
        told = self._get(f"/containers/{quote(ident, safe='')}/json")
        there = (told.get("NetworkSettings") or {}).get("Networks") or {}
        mine = next((one for one in there.values() if one.get("NetworkID") == network and one.get("EndpointID")), None)
        if mine is None:
            return None
        ports = (text.partition("/") for text in (told.get("Config") or {}).get("ExposedPorts") or {})
        return DockerContainer(
            id=ident,
            endpoint=str(mine["EndpointID"]),
            name=str(told.get("Name") or "").removeprefix("/"),
            aliases=frozenset(map(str, (*(mine.get("Aliases") or ()), *(mine.get("DNSNames") or ())))),
            links=tuple(map(str, mine.get("Links") or ())),
            exposed=frozenset((transport or "tcp", int(port)) for port, _, transport in ports if port.isdecimal()),
        )

    def events(self) -> Events:
        """Return Docker's events from now on: of containers that get on a network, leave one, or have started.

        Raises :class:`Unreachable`.
        """
        return Events(self._path)

    def _list(self) -> list[DockerNetwork]:
        return [_network(one) for one in self._get("/networks")]

    def _inspect(self, ident: str) -> DockerNetwork:
        return _network(self._get(f"/networks/{quote(ident, safe='')}"))

    def _get(self, path: str) -> Any:  # noqa: ANN401 - JSON
        connection = UnixConnection(self._path, _SECONDS)
        try:
            connection.request("GET", path, headers={"Host": "docker"})
            response = connection.getresponse()
            body = response.read()
            if response.status != http.client.OK:
                raise Unreachable(f"{self._path} answers {response.status} to GET {path}")
            return json.loads(body)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Unreachable(f"{self._path}: {error}") from error
        finally:
            connection.close()


class Events:
    """Docker's events, as they come, until somebody closes this or the engine ends. Made when the stream is open."""

    def __init__(self, path: Path) -> None:
        """Ask for them at a socket. Raises :class:`Unreachable`."""
        self._connection = UnixConnection(path, _SECONDS)
        try:
            self._connection.request("GET", f"/events?filters={quote(json.dumps(_EVENTS))}", headers={"Host": "docker"})
            self._response = self._connection.getresponse()
            self._connection.wait_forever()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise Unreachable(f"{path}: {error}") from error
        if self._response.status != http.client.OK:
            self._connection.close()
            raise Unreachable(f"{path} answers {self._response.status} to GET /events")

    def __iter__(self) -> Iterator[Event]:
        """Yield them; end with the stream."""
        try:
            while line := self._response.readline():
                yield _event(json.loads(line))
        except (OSError, http.client.HTTPException, ValueError, KeyError):
            return  # the engine went away in the middle of a word
        finally:
            self._connection.close()

    def close(self) -> None:
        """End the iteration, from any thread."""
        self._connection.hang_up()


_EVENTS: Final = {
    "type": {"network": True, "container": True},
    "event": {"connect": True, "disconnect": True, "start": True},
}


def _event(told: dict[str, Any]) -> Event:
    actor = told["Actor"]
    if told.get("Type") != "network":
        return Event(str(actor["ID"]))
    return Event(str(actor["Attributes"]["container"]), str(actor["ID"]), told.get("Action") == "connect")


def _network(row: dict[str, Any]) -> DockerNetwork:
    containers = row.get("Containers") or {}
    options = row.get("Options") or {}
    ipam = row.get("IPAM") or {}
    ranges = [one for one in ipam.get("Config") or () if one.get("Subnet")]
    return DockerNetwork(
        id=str(row["Id"]),
        name=str(row["Name"]),
        driver=str(row["Driver"]),
        containers={str(one.get("EndpointID")): str(one.get("Name")) for one in containers.values()},
        bridge=options.get(_OWN_BRIDGE),
        ipam=str(ipam.get("Driver") or ""),
        pool=str((ipam.get("Options") or {}).get(_POOL, "")),
        subnets=tuple(ip_network(one["Subnet"], strict=False) for one in ranges),
        addresses=dict(_addresses(ranges, containers)),
    )


def _addresses(ranges: list[dict[str, Any]], containers: dict[str, Any]) -> Iterator[tuple[Address, str]]:
    """Return what has an address: the gateway, what was set aside, running containers."""
    for one in ranges:
        if gateway := one.get("Gateway"):
            yield ip_interface(gateway).ip, "gateway"
        for name, text in (one.get("AuxiliaryAddresses") or {}).items():
            yield ip_interface(text).ip, str(name)
    for container in containers.values():
        for key in ("IPv4Address", "IPv6Address"):
            if text := container.get(key):
                yield ip_interface(text).ip, str(container.get("Name"))


def _plain(name: str) -> str:
    """Return a driver's name without registry (which may have a port) and tag."""
    return name.rpartition("/")[2].partition(":")[0]
