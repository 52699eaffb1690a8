"""A container as the network sees it: a namespace, and what dockerd does to an interface that it moves into it.

What is done, in which order, is osl's ``AddInterface`` and ``SetGateway`` (libnetwork 20.10.24 and 28.5.2).
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface

from tests.lab.net import RUN_NETNS
from tests.lab.process import Place, run

Interface = IPv4Interface | IPv6Interface


@dataclass(frozen=True, slots=True)
class Plug:
    """An interface to be: the link on the host, its name in the sandbox, and what it is given there."""

    source: str
    name: str
    mac: str
    addresses: tuple[Interface, ...]
    routes: tuple[tuple[str, ...], ...] = ()


class Sandbox(Place):
    """A network namespace called ``name``; ``host`` is the namespace links come from, by its name."""

    def __init__(self, name: str, host: str | None) -> None:
        self.netns = name
        self._host = host
        self._has_gateway = False

    @property
    def key(self) -> str:
        """The path that Join is given."""
        return str(RUN_NETNS / self.netns)

    def door(self) -> tuple[str, ...]:
        """Return the words that run a command in here: its links, the machine's files."""
        return ("nsenter", f"--net={self.key}", "--")

    def make(self) -> None:
        """Make the namespace: lo up, IPv6 off on what comes until it is given an address."""
        run(["ip", "netns", "add", self.netns])
        self.run("sh", "-c", "ip link set lo up; echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6")

    def remove(self) -> None:
        """Take the namespace away; one that is not there is fine."""
        if (RUN_NETNS / self.netns).exists():
            run(["ip", "netns", "del", self.netns])

    def plug(self, plug: Plug) -> None:
        """Move a link in, rename it, give it its MAC, addresses and routes, and put it up.

        Raises ``CommandFailedError`` if there is no such link, or the kernel refuses any of it.
        """
        run([*self._ip_on_host(), "link", "set", plug.source, "netns", self.netns])
        self._batch((f"link set {plug.source} down", f"link set {plug.source} name {plug.name}"))
        if any(address.version == 6 for address in plug.addresses):
            self.run("sh", "-c", f"echo 0 >/proc/sys/net/ipv6/conf/{plug.name}/disable_ipv6")
        nodad = {4: "", 6: " nodad"}
        self._batch(
            (
                *([f"link set {plug.name} address {plug.mac}"] if plug.mac else []),
                *(f"address add {address} dev {plug.name}{nodad[address.version]}" for address in plug.addresses),
                f"link set {plug.name} up",
                *(f"route add {' '.join(route)}" for route in plug.routes),
            )
        )

    def unplug(self, plug: Plug) -> None:
        """Give a link back to the host under its old name, down; one that is gone already is fine."""
        home = self._host or str(os.getpid())
        lines = (
            f"link set {plug.name} down",
            f"link set {plug.name} name {plug.source}",
            f"link set {plug.source} netns {home}",
        )
        self._batch(lines, check=False)

    def route(self, gateways: Sequence[str]) -> None:
        """Make these the default gateways, and no others."""
        if self._has_gateway:
            run(["ip", "-n", self.netns, "route", "del", "default"], check=False)
            run(["ip", "-n", self.netns, "-6", "route", "del", "default"], check=False)
        self._batch([f"route add default via {gateway}" for gateway in gateways])
        self._has_gateway = bool(gateways)

    def _batch(self, lines: Iterable[str], *, check: bool = True) -> None:
        text = "".join(f"{line}\n" for line in lines)
        if text:
            run(["ip", "-n", self.netns, "-batch", "-"], stdin=text, check=check)

    def _ip_on_host(self) -> tuple[str, ...]:
        return ("ip", "-n", self._host) if self._host else ("ip",)
