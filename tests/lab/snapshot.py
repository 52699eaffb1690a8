"""What a host's network looks like, so that what a test left behind can be told.

Only what somebody decided is looked at: counters, handles, states of links and what the kernel adds by itself to a link
that goes up (fe80::/10, its routes) are left out.
"""

import difflib
import json
import re
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, fields, replace

from tests.lab.names import REPO
from tests.lab.node import Node

SCRIPT = REPO / "tests/lab/snapshot.sh"
STORE = "/var/lib/weft/weft.db"
TABLES = ("networks", "endpoints")

MARK = "\x1e"
VOLATILE = re.compile(r" \[\d+:\d+\]|counter packets \d+ bytes \d+ ?|^#.*\n", re.MULTILINE)
XTABLES = re.compile(r"^table ip6? (filter|nat|mangle|raw|security) \{\n(?:[ \t]+.*\n|\n)*\}\n", re.MULTILINE)
"""What iptables-nft made; it is in iptables-save's words already."""
EMPTY = re.compile(r"^\*\w+\n(?::\w+ ACCEPT.*\n)*COMMIT\n", re.MULTILINE)
"""A table that says nothing: iptables makes one when it is first asked about it, and no engine ever removes it."""
DOCKERS_JUMP = "-A FORWARD -j DOCKER-USER"
"""dockerd's own, which it takes out and puts in again with each network: on a busy machine 20.10 leaves it twice."""
STATE = re.compile(r" (linkdown|dead|onlink|expires \S+|pref \S+|proto kernel)\b")

Lines = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A host's network as lines a person can read; equal snapshots mean that nothing was left behind."""

    links: Lines
    addresses: Lines
    routes: Lines
    nftables: Lines
    iptables: Lines
    ip6tables: Lines
    sysctls: Lines
    store: Lines

    def without(self, *knobs: str) -> "Snapshot":
        """Leave out some sysctls: switches that, once needed, stay on by design."""
        return replace(self, sysctls=tuple(line for line in self.sysctls if line.partition(" ")[0] not in knobs))

    def difference(self, after: "Snapshot") -> str:
        """Say what came (+) and what went (-) between this snapshot and a later one; empty if nothing did."""
        said: list[str] = []
        for field in fields(self):
            old, new = getattr(self, field.name), getattr(after, field.name)
            changes = [line for line in difflib.ndiff(old, new) if line[0] in "+-"]
            if changes:
                said += [f"{field.name}:", *(f"  {line}" for line in changes)]
        return "\n".join(said)


def snapshot(node: Node) -> Snapshot:
    """Read all of it, in one call into the node (some 40 ms)."""
    said = node.run("/bin/sh", "-s", stdin=SCRIPT.read_text(encoding="utf-8")).stdout
    links, routes, nftables, iptables, ip6tables, sysctls = said.split(f"{MARK}\n")
    table = json.loads(links)
    return Snapshot(
        links=tuple(sorted(f"{_name(link)} master {link.get('master')} group {link.get('group')}" for link in table)),
        addresses=tuple(sorted(_addresses(table))),
        routes=tuple(sorted(STATE.sub("", line).strip() for line in routes.splitlines() if "fe80::/" not in line)),
        nftables=_rules(XTABLES.sub("", nftables)),
        iptables=_rules(EMPTY.sub("", iptables)),
        ip6tables=_rules(EMPTY.sub("", ip6tables)),
        sysctls=tuple(sorted(sysctls.splitlines())),
        store=tuple(_rows(node)),
    )


def _name(link: dict[str, object]) -> str:
    return str(link["ifname"])


def _addresses(table: Iterable[dict[str, object]]) -> Iterable[str]:
    for link in table:
        infos = link["addr_info"]
        assert isinstance(infos, list)
        for info in infos:
            if info["scope"] != "link" or info["family"] == "inet":
                yield f"{_name(link)} {info['local']}/{info['prefixlen']}"


def _rules(text: str) -> Lines:
    lines = [line.rstrip() for line in VOLATILE.sub("", text).splitlines() if line.strip()]
    return tuple(line for at, line in enumerate(lines) if line != DOCKERS_JUMP or DOCKERS_JUMP not in lines[:at])


def _rows(node: Node) -> Iterable[str]:
    """Count the store's rows, if there is one. Read only; a node with another root keeps it on its disk likewise."""
    path = node.disk / STORE.lstrip("/")
    if not path.exists():
        return
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as store:
        there = {name for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        for name in TABLES:
            if name in there:
                (count,) = store.execute(f"SELECT count(*) FROM {name}").fetchone()  # noqa: S608 - our own names
                yield f"{name}: {count} rows"
