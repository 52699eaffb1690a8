"""A host for a weft that dies: a network namespace, the hooked weft in it, and what is on it by others' word."""

import json
import os
import re
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab.names import BIN, REPO
from tests.lab.net import NetNs
from tests.lab.unixhttp import call
from tests.lab.wait import await_

Body = Mapping[str, Any]

ENDPOINTS_OWN = re.compile(r'"weft:\w+:\w+:\w+"')

LOOK = """
ip -j -d address
echo '\x1e'; nft -j -s list table inet weft 2>/dev/null
echo '\x1e'; iptables-save -t filter | grep '^[-:]'
echo '\x1e'; ip6tables-save -t filter | grep '^[-:]'
"""

LIKE_DOCKER = """
for program in iptables ip6tables; do
  $program -N DOCKER-USER && $program -A DOCKER-USER -j RETURN && $program -I FORWARD -j DOCKER-USER
  $program -P FORWARD DROP
done
"""


class Died(Exception):
    """weft died while it was asked."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What is on the host as lines, by `ip`, `nft` and `iptables`; and what the store holds, by `weft ... ls`."""

    host: frozenset[str]
    store: frozenset[str]

    def difference(self, after: "Seen") -> str:
        """Say what came (+) and what went (-)."""
        old, new = self.host | self.store, after.host | after.store
        return "\n".join([f"- {line}" for line in sorted(old - new)] + [f"+ {line}" for line in sorted(new - old)])


class CrashHost:
    """A host in a namespace, with Docker's DOCKER-USER in it, and weft."""

    def __init__(self, net: NetNs, folder: Path) -> None:
        self.net = net
        self.folder = folder
        self.socket = folder / "weft.sock"
        self.control = folder / "control.sock"
        self.environment = {
            "PYTHONPATH": str(REPO),
            "WEFT_SOCKET": str(self.socket),
            "WEFT_CONTROL": str(self.control),
            "WEFT_STATE_DIR": str(folder / "state"),
            "WEFT_RECONCILE_INTERVAL": "3600",
            "DOCKER_HOST": f"unix://{folder}/docker.sock",
        }
        self._line: socket.socket | None = None
        self._pid = 0
        net.run("sh", "-ec", LIKE_DOCKER)
        log = folder / "weft.log"
        net.spawn(sys.executable, "-m", "tests.crash.hooked", folder, log=log, env=self.environment)

    # -- weft's life

    @property
    def is_running(self) -> bool:
        """Tell whether any part of weft lives."""
        if self._line is None:
            return False
        try:
            return self._line.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True

    def await_death(self) -> None:
        """Wait until nothing of it lives."""
        await_(lambda: not self.is_running, 20, "the end of weft")

    def start(self) -> None:
        """Start weft and wait until it answers; raises :class:`Died`."""
        self.close()
        self._line = line = await_(self._connected, 20, "the hooked weft to be imported")
        self._pid = int(line.makefile().readline())

        def answers() -> bool:
            if not self.is_running:
                raise Died("at its start")
            return call(self.socket, "POST", "/Plugin.Activate", timeout=20).status == 200

        await_(answers, 20, "weft to answer")

    def kill(self) -> None:
        """SIGKILL for all of it."""
        if self.is_running:
            os.killpg(self._pid, signal.SIGKILL)
            self.await_death()

    def close(self) -> None:
        """Let go of a weft that is dead."""
        if self._line is not None:
            self._line.close()
            self._line = None

    def _connected(self) -> socket.socket:
        line = socket.socket(socket.AF_UNIX)
        try:
            line.connect(str(self.folder / "start"))
        except OSError:
            line.close()
            raise
        return line

    def arm(self, effects: int) -> None:
        """Let this many further effects through, then die."""
        partial = self.folder / "arm.partial"
        partial.write_text(str(effects), encoding="ascii")
        partial.rename(self.folder / "arm")

    def disarm(self) -> None:
        """Let the next weft live; an armed one stays armed."""
        (self.folder / "arm").unlink(missing_ok=True)

    # -- what is asked of it

    def ask(self, method: str, body: Body) -> dict[str, Any]:
        """Make a call of NetworkDriver's and return the answer, which must not be an error; raises :class:`Died`."""
        try:
            answer: dict[str, Any] = call(self.socket, "POST", f"/NetworkDriver.{method}", body).json
        except OSError as error:
            self.await_death()
            raise Died(method) from error
        assert not answer.get("Err"), f"{method}: {answer}"
        return answer

    def read(self, target: str) -> Any:  # noqa: ANN401 - JSON
        """Ask a reader; raises :class:`Died`."""
        try:
            reply = call(self.control, "GET", target)
        except OSError as error:
            self.await_death()
            raise Died(target) from error
        assert reply.status == 200, reply.body
        return reply.json

    def await_healthy(self) -> None:
        """Wait until nothing differs and nothing is left to be removed; raises :class:`Died`."""
        await_(lambda: self.read("/v1/status")["healthy"], 20, "a healthy weft")

    def cli(self, *args: str) -> str:
        """Run a command of weft's, which must end with 0."""
        return self.net.run(BIN / "weft", *args, env=self.environment).stdout

    def journal(self) -> list[tuple[str, str]]:
        """Return the journal's lines: thread, what."""
        text = (self.folder / "journal").read_text(encoding="utf-8")
        return [(thread, what) for thread, _, what in (line.partition("\t") for line in text.splitlines())]

    # -- what others see

    def sh(self, script: str) -> str:
        """Run a script in the namespace."""
        return self.net.run("sh", "-ec", script).stdout

    def seen(self) -> Seen:
        """Look at the host, and at the store."""
        links, table, *xtables = self.net.run("sh", "-c", LOOK).stdout.split("\x1e\n")
        host = {line for one in json.loads(links) for line in _link(one)}
        host |= {line for one in json.loads(table)["nftables"] for line in _nft(one)} if table.strip() else set()
        for program, text in zip(("iptables", "ip6tables"), xtables, strict=True):
            host |= set(_rules(program, text))
        store = {
            f"store {json.dumps({key: row[key] for key in ('id', 'phase', 'link')})}"
            for row in (*self.read("/v1/networks"), *self.read("/v1/endpoints"))
        }
        return Seen(frozenset(host), frozenset(store))


def _link(link: dict[str, Any]) -> Iterator[str]:
    name = link["ifname"]
    if name == "lo":
        return
    keys = ("master", "group", "ifalias", "mtu", "address", "inet6_addr_gen_mode")
    kind = link.get("linkinfo", {}).get("info_kind")
    yield f"link {name} {kind} {'UP' in link['flags']} " + " ".join(f"{key}={link.get(key)}" for key in keys)
    for info in link["addr_info"]:
        if info["scope"] != "link":
            yield f"address {name} {info['local']}/{info['prefixlen']}"


def _nft(item: dict[str, Any]) -> Iterator[str]:
    ((kind, what),) = item.items()
    if kind == "metainfo":
        return
    what.pop("handle", None)
    for element in what.pop("elem", ()):
        yield f"nft element {what['name']} {json.dumps(element)}"
    yield f"nft {kind} {json.dumps(what, sort_keys=True)}"


def _rules(program: str, text: str) -> Iterator[str]:
    """Yield the rules with their numbers, for order matters; but among endpoints' own, of different addresses, not."""
    at = 0
    for line in text.splitlines():
        at += not ENDPOINTS_OWN.search(line)
        yield f"{program} {at} {line.partition(' [')[0]}"


@contextmanager
def crash_host(folder: Path, label: str) -> Iterator[CrashHost]:
    """Make a host, start nothing on it, and take it away."""
    with NetNs(label) as net:
        host = CrashHost(net, folder)
        try:
            yield host
        finally:
            host.close()
