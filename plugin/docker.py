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


class Unreachable(Exception):
    """Docker's socket is absent or does not answer: nothing is known, so nothing may be concluded."""


class Docker:
    """Docker's API, at the path of its socket."""

    def __init__(self, path: Path) -> None:
        """Read from the socket at ``path``."""
        self._path = path

    def networks(self, *, driver: str) -> list[DockerNetwork]:
        """Return the networks whose driver or IPAM driver is called so, each with its containers.

        ``weft`` is also ``weft:TAG``, of a managed plugin. Raises :class:`Unreachable`.
        """
        listed = [one for one in self._list() if driver in {_plain(one.driver), _plain(one.ipam)}]
        return [self._inspect(one.id) for one in listed]

    def bridges(self) -> frozenset[str]:
        """Return the bridges of Docker's own networks that the operator named. Raises :class:`Unreachable`."""
        named = (one.bridge for one in self._list() if one.driver == "bridge" and one.bridge)
        return frozenset(named) - _ALWAYS_DOCKERS

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
    """Return a driver's name without registry and tag."""
    return name.partition(":")[0].rpartition("/")[2]
