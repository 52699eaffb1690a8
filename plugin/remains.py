"""What is left of weft on a host where it runs no longer, and taking it away: the same converge, with nothing wanted.

What is weft's is told by its marks alone, which carry the id of the store that wanted it. The store is read with SQLite
and nothing else, so that the command needs none of the server's libraries.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from drivers.converge import Converger
from drivers.diff import Difference
from drivers.errors import NotFound, Refusing
from drivers.host import Host, OpenVSwitch
from drivers.marks import Marks
from drivers.resources import HOST, Key, Resource, Scope, Setting, Veth, scope_of, setting

_SET_TO: Final = {"accept_ra": "2"}
"""What weft sets a switch of the host to (spec/ownership.md), where that is not 1."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What a store knows that the host does not tell.

    ``settings``: switches of the host by path, as weft found them; ``bridges``: the networks by their bridges, for an
    address on an adopted bridge carries no id; ``scopes``: all that is stored, for a flow carries a hash of its own.
    """

    store: str
    settings: Mapping[str, str] = field(default_factory=dict)
    bridges: Mapping[str, str] = field(default_factory=dict)
    scopes: tuple[Scope, ...] = ()

    def owner(self, link: str) -> Scope | None:
        """Return the scope of the network that has a bridge."""
        network = self.bridges.get(link)
        return scope_of(network) if network is not None else None


def recall(database: Path) -> Memory:
    """Read a store, changing nothing. Raises :class:`NotFound` if there is none, :class:`Refusing` if it is damaged."""
    if not database.exists():
        raise NotFound(
            f"there is no store at {database}, so nobody knows which marks are its own: WEFT_STATE_DIR or --state-dir "
            "says where it is; if it is lost, give its id with --store (`ip -d link show group 22511` shows it: "
            "weft:ID:...)"
        )
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)) as store:
            ((ident,),) = store.execute("SELECT value FROM meta WHERE key = 'store'").fetchall()
            settings = dict(store.execute("SELECT path, found FROM host_settings").fetchall())
            bridges = dict(store.execute("SELECT link, id FROM networks").fetchall())
            endpoints = store.execute("SELECT network, id FROM endpoints").fetchall()
    except (sqlite3.Error, ValueError) as error:
        raise Refusing(f"the store {database} cannot be read ({error}): give its id with --store") from error
    scopes = (*(scope_of(*one) for one in endpoints), *map(scope_of, bridges.values()))
    return Memory(ident, settings, bridges, scopes)


def forget_settings(database: Path) -> None:
    """Take note that the host's switches were given back: nobody gives them back a second time."""
    with closing(sqlite3.connect(database, timeout=10)) as store, store:
        store.execute("DELETE FROM host_settings")


class Remains:
    """All that one store's marks are on, on this host."""

    def __init__(self, memory: Memory, ovs: OpenVSwitch) -> None:
        """Look at this host, and at its Open vSwitch. Raises Unsupported where a library is missing that it takes."""
        self._memory = memory
        self._host = Host(Marks(memory.store), memory.owner, lambda: memory.scopes, ovs)
        self._converger = Converger(self._host.backends)
        found = self._converger.survey()
        self._found: dict[Scope, Mapping[Key, Resource]] = {HOST: {}} | dict(found)

    def close(self) -> None:
        """Close the host."""
        self._host.close()

    def plugged(self) -> list[str]:
        """Return the links that running containers have."""
        veths = (one for resources in self._found.values() for one in resources.values() if isinstance(one, Veth))
        return sorted(one.key.at[0] for one in veths if self._host.is_plugged(one.key.at[0]))

    def steps(self) -> Iterator[tuple[Scope, Difference]]:
        """Yield what would be done, scope by scope, in order."""
        for scope in self._in_order():
            difference = self._converger.difference(scope, self._wanted(scope), self._found[scope])
            if difference:
                yield scope, difference

    def remove(self) -> list[Exception]:
        """Take everything away; return what failed. The rest is taken away all the same."""
        failures: list[Exception] = []
        for scope in self._in_order():
            try:
                failures += self._converger.converge(scope, self._wanted(scope), self._found[scope]).lacking
            except ExceptionGroup as failed:
                failures += failed.exceptions
        return failures

    def _in_order(self) -> list[Scope]:
        """Return endpoints, then networks, then the host: as they depend on each other."""
        return sorted(self._found, key=lambda scope: (not scope.endpoint, not scope.network, scope))

    def _wanted(self, scope: Scope) -> tuple[Setting, ...]:
        """Return nothing; of the host its switches as they were found, unless somebody has changed them since."""
        if scope != HOST:
            return ()
        keys = [setting(path, found).key for path, found in self._memory.settings.items()]
        now = {key.at[0]: one for key, one in self._converger.observe(keys).items() if isinstance(one, Setting)}
        return tuple(
            setting(path, found)
            for path, found in sorted(self._memory.settings.items())
            if path in now and now[path].value == _SET_TO.get(path.rpartition("/")[2], "1")
        )
