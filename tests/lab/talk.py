"""Who can talk to whom, and as whom.

Every container that `start` starts, and the neighbour once it `listens`, answers one question over HTTP: who am I, as
you see me? So a test reads from one answer that a packet got there, that its answer came back, and what NAT made of it.
"""

import json
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

from tests.lab import image
from tests.lab.engine import Engine
from tests.lab.process import Place
from tests.lab.wait import await_

Address = IPv4Address | IPv6Address

PORT = 9000
WHO = "/cgi-bin/who"
PATIENCE = 1
"""Seconds for one answer. Tests wait for an answer with `await_`; where none may come they wait this long."""

SERVE = f"""\
mkdir -p /www/cgi-bin
printf '#!/bin/sh\\necho\\necho $REMOTE_ADDR\\n' >/www/cgi-bin/who
chmod +x /www/cgi-bin/who
trap 'exit 0' TERM
httpd -f -p {PORT} -h /www &
wait
"""
ANSWERED = f"for one; do (ping -c1 -W{PATIENCE} $one >/dev/null 2>&1 && echo $one) & done; wait"


def _url(address: Address | str) -> str:
    host = f"[{address}]" if isinstance(address, IPv6Address) else str(address)
    return f"http://{host}:{PORT}{WHO}"


def _told(answer: str) -> Address | None:
    """Read "[::ffff:192.0.2.1]", "[2001:db8::1]" or nothing."""
    text = answer.strip().strip("[]").removeprefix("::ffff:")
    return ip_address(text) if text else None


@dataclass(frozen=True, slots=True)
class Link:
    """A link as the container has it; addresses without the kernel's own fe80::."""

    mac: str
    mtu: int
    addresses: frozenset[str]


@dataclass(frozen=True, slots=True)
class Container:
    """A container, by its name: what is asked in it, and what Docker says of it."""

    engine: Engine
    name: str

    def run(self, *argv: str) -> str:
        """Run a program in it: `docker exec`."""
        return self.engine.docker("exec", self.name, *argv)

    def remove(self) -> None:
        """`docker rm -f`."""
        self.engine.docker("rm", "-f", self.name)

    @property
    def inspected(self) -> Any:  # noqa: ANN401 - JSON is anything
        """What `docker inspect` says of it."""
        return self.engine.api("GET", f"/containers/{self.name}/json")

    def on(self, network: str) -> dict[str, Any]:
        """Return what `docker inspect` says of its endpoint on a network."""
        found: dict[str, Any] = self.inspected["NetworkSettings"]["Networks"][network]
        return found

    def v4(self, network: str) -> IPv4Address:
        """Return the IPv4 address that Docker says it has."""
        return IPv4Address(self.on(network)["IPAddress"])

    def v6(self, network: str) -> IPv6Address:
        """Return the IPv6 address that Docker says it has."""
        return IPv6Address(self.on(network)["GlobalIPv6Address"])

    def ip(self, *args: str) -> Any:  # noqa: ANN401 - JSON is anything
        """Run `ip -json` in its network namespace, where busybox's has no -json."""
        pid = str(self.inspected["State"]["Pid"])
        return json.loads(self.engine.node.run("nsenter", "-t", pid, "-n", "ip", "-json", *args).stdout or "[]")

    def links(self) -> dict[str, Link]:
        """Return its links but lo, by name."""
        return {
            link["ifname"]: Link(
                link["address"],
                link["mtu"],
                frozenset(
                    f"{one['local']}/{one['prefixlen']}" for one in link["addr_info"] if one["scope"] == "global"
                ),
            )
            for link in self.ip("address")
            if link["ifname"] != "lo"
        }

    def default(self, version: int = 4) -> tuple[str, str] | None:
        """Return gateway and link of its default route; None if it has none."""
        routes = self.ip(f"-{version}", "route", "show", "default")
        return (routes[0]["gateway"], routes[0]["dev"]) if routes else None

    def seen_by(self, address: Address | str) -> Address | None:
        """Ask an address, or a name, who we are; None if nobody answers."""
        argv = ("wget", "-qO-", "-T", str(PATIENCE), _url(address))
        return _told(self.engine.docker("exec", self.name, "sh", "-c", f"{' '.join(argv)} 2>/dev/null", check=False))

    def answered_by(self, *targets: Address | str) -> set[str]:
        """Ping all of them at once; return who answered. A name is asked for its IPv4 address."""
        return set(self.run("sh", "-c", ANSWERED, "sh", *map(str, targets)).split())


def start(engine: Engine, name: str, network: str, *args: str) -> Container:
    """Start a container that listens; `args` are further ones of `docker run`."""
    engine.docker("run", "-d", "--name", name, "--network", network, *args, image.NAME, "/bin/sh", "-c", SERVE)
    return Container(engine, name)


def listen(place: Place, folder: Path) -> None:
    """Let a namespace answer the question; `folder` is an empty one of the test's."""
    busybox = image.busybox()
    who = folder / f"www{WHO}"
    who.parent.mkdir(parents=True)
    who.write_text(f"#!{busybox} sh\necho\necho $REMOTE_ADDR\n", encoding="utf-8")
    who.chmod(0o755)
    place.spawn(busybox, "httpd", "-f", "-p", str(PORT), "-h", folder / "www", log=folder / "log")
    await_(lambda: seen_by(place, IPv4Address("127.0.0.1")), 10, "the answer of a namespace to itself")


def seen_by(place: Place, address: Address) -> Address | None:
    """Ask an address from a namespace who that is; None if nobody answers."""
    done = place.run(image.busybox(), "wget", "-qO-", "-T", str(PATIENCE), _url(address), check=False)
    return _told(done.stdout)
