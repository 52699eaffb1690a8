"""What was in the database at the last look, and so what others have changed since.

OVSDB does not say who changed a row. Ours are told by what is in flight: a server tells of a transaction's changes
before it answers it (RFC 7047, 4.1.6). What others do to the same rows in that moment is seen when the step is asked
for again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from drivers.ovsdb.reading import Reader, Written
from drivers.ovsdb.rows import BridgeRow, InterfaceRow, PortRow, RootRow, Row
from drivers.resources import Key, Scope, ovs_bridge_key, ovs_port_key


@dataclass(frozen=True, slots=True)
class Changed:
    """What concerns others: the scopes whose rows somebody else changed, and the ports with another number, or none."""

    scopes: frozenset[Scope] = frozenset()
    ports: frozenset[str] = frozenset()


class Ledger:
    """The books about the rows of one store, and the numbers of all ports."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._known: dict[Key, Written] = {}
        self.ofports: dict[str, int] = {}

    def open(self) -> Changed:
        """Begin anew, from all rows there are."""
        rows = self._reader.rows
        keys = (*map(ovs_bridge_key, rows.bridges), *map(ovs_port_key, rows.ports))
        written = ((key, self._reader.written(key)) for key in keys)
        self._known = {key: found for key, found in written if found is not None}
        before, self.ofports = self.ofports, {}
        for name in rows.interfaces:
            self._number(name)
        names = before.keys() | self.ofports.keys()
        return Changed(ports=frozenset(name for name in names if before.get(name) != self.ofports.get(name)))

    def enter(self, rows: Iterable[Row], own: Collection[Key]) -> Changed:
        """Note what became of rows that were put or dropped; ``own`` are the keys that we are changing ourselves."""
        keys = {_key(row) for row in rows if not isinstance(row, RootRow)}
        scopes: set[Scope] = set()
        for key in keys:
            before, after = self._known.pop(key, None), self._reader.written(key)
            if after is not None:
                self._known[key] = after
            if key not in own and _differs(before, after):
                scopes |= {one.resource.scope for one in (before, after) if one is not None}
        names = {key.at[0] for key in keys}
        return Changed(frozenset(scopes), frozenset(name for name in names if self._number(name)))

    def is_hopeless(self, name: str) -> bool:
        """Tell whether ovs-vswitchd has given up on a port."""
        interface = self._reader.rows.interfaces.get(name)
        return interface is not None and interface.ofport is not None and interface.ofport <= 0

    def said_about(self, name: str) -> str:
        """Return why a port has no number."""
        interface = self._reader.rows.interfaces.get(name)
        if interface is None:
            return "there is no such port"
        if interface.ofport is None:
            return "ovs-vswitchd has not looked at it yet"
        return interface.error or "Open vSwitch could not make it, and does not say why"

    def _number(self, name: str) -> bool:
        """Note a port's number, and tell whether it is another one than before."""
        interface = self._reader.rows.interfaces.get(name)
        number = interface.ofport if interface else None
        before = self.ofports.pop(name, None)
        if number is None or number <= 0:
            return before is not None
        self.ofports[name] = number
        return before != number


def _key(row: BridgeRow | PortRow | InterfaceRow) -> Key:
    return ovs_bridge_key(row.name) if isinstance(row, BridgeRow) else ovs_port_key(row.name)


def _differs(before: Written | None, after: Written | None) -> bool:
    """Tell whether there is something to put right: also a link that was lost, but not one that is back."""
    if before is None or after is None:
        return before is not after
    return (before.resource, before.ifindex) != (after.resource, after.ifindex) or (after.lost and not before.lost)
