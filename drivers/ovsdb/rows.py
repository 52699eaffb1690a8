"""The rows of the database that concern us, as values, and where each of them is found by its name.

Only the columns that somebody here looks at are asked for: each change of another one (statistics, every 5 s for each
port) would wake us up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

_STRINGS: Final = {"key": "string", "value": "string", "min": 0, "max": "unlimited"}
_SET: Final = {"key": "string", "min": 0, "max": "unlimited"}
_MAYBE_STRING: Final = {"key": "string", "min": 0, "max": 1}
_MAYBE_INTEGER: Final = {"key": "integer", "min": 0, "max": 1}
_ROWS: Final = {"key": "uuid", "min": 0, "max": "unlimited"}

COLUMNS: Final[Mapping[str, Mapping[str, object]]] = {
    "Open_vSwitch": {"next_cfg": "integer", "cur_cfg": "integer", "datapath_types": _SET, "iface_types": _SET},
    "Bridge": {
        "name": "string",
        "ports": _ROWS,
        "datapath_type": "string",
        "datapath_id": _MAYBE_STRING,
        "fail_mode": _MAYBE_STRING,
        "other_config": _STRINGS,
        "external_ids": _STRINGS,
    },
    "Port": {"name": "string", "interfaces": _ROWS, "external_ids": _STRINGS},
    "Interface": {
        "name": "string",
        "type": "string",
        "options": _STRINGS,
        "mac": _MAYBE_STRING,
        "mtu_request": _MAYBE_INTEGER,
        "ofport": _MAYBE_INTEGER,
        "error": _MAYBE_STRING,
        "ifindex": _MAYBE_INTEGER,
    },
}
"""Table -> column -> type, as in vswitch.ovsschema; all of them are in every OVS since 2.7 (``mtu_request``)."""

SCHEMA: Final = {
    "name": "Open_vSwitch",
    "version": "0.0.0",
    "tables": {
        table: {"columns": {column: {"type": kind} for column, kind in columns.items()}}
        for table, columns in COLUMNS.items()
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RootRow:
    """The one row of table Open_vSwitch. ``cur_cfg`` follows ``next_cfg`` once ovs-vswitchd has taken the change."""

    uuid: UUID
    next_cfg: int = 0
    cur_cfg: int = 0
    datapath_types: frozenset[str] = frozenset()
    iface_types: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeRow:
    """A bridge. ``datapath_id`` is empty until ovs-vswitchd has made it."""

    uuid: UUID
    name: str
    ports: frozenset[UUID] = frozenset()
    datapath_type: str = ""
    datapath_id: str = ""
    fail_mode: str = ""
    other_config: Mapping[str, str] = field(default_factory=dict)
    external_ids: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PortRow:
    """A port of a bridge; of ours each has one interface, with the same name."""

    uuid: UUID
    name: str
    interfaces: frozenset[UUID] = frozenset()
    external_ids: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfaceRow:
    """What is behind a port.

    ``ofport``   its number for flows; -1: ovs-vswitchd could not make it, and ``error`` says why; ``None``: it has not
                 looked yet
    ``ifindex``  of its link, as ovs-vswitchd sees it; 0: the link is gone, or there never was one (a tunnel)
    """

    uuid: UUID
    name: str
    type: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    mac: str = ""
    mtu_request: int | None = None
    ofport: int | None = None
    error: str = ""
    ifindex: int | None = None


Row = RootRow | BridgeRow | PortRow | InterfaceRow


class Rows:
    """All rows, by name. Whoever shares it between threads locks it."""

    def __init__(self) -> None:
        self.root: RootRow | None = None
        self.bridges: dict[str, BridgeRow] = {}
        self.ports: dict[str, PortRow] = {}
        self.interfaces: dict[str, InterfaceRow] = {}
        self._bridge_of: dict[UUID, str] = {}  # a port's uuid -> its bridge's name

    def bridge_of(self, port: PortRow) -> str:
        """Return the name of the bridge that has this port; "" if none has."""
        return self._bridge_of.get(port.uuid, "")

    def interface_of(self, port: PortRow) -> InterfaceRow | None:
        """Return what is behind a port; ``None`` if that is not the one interface of the port's own name."""
        interface = self.interfaces.get(port.name)
        return interface if interface and port.interfaces == {interface.uuid} else None

    def ports_of(self, bridge: BridgeRow) -> Iterator[PortRow]:
        """Yield the ports of a bridge. It looks at all ports there are."""
        return (port for port in self.ports.values() if port.uuid in bridge.ports)

    def clear(self) -> None:
        """Forget all rows."""
        self.root = None
        for index in (self.bridges, self.ports, self.interfaces, self._bridge_of):
            index.clear()

    def put(self, row: Row) -> None:
        """Take in a row that is new or has changed."""
        match row:
            case RootRow():
                self.root = row
            case BridgeRow():
                before = self.bridges.get(row.name)
                if before is not None:
                    self._part(before, before.ports - row.ports)
                self.bridges[row.name] = row
                self._bridge_of |= dict.fromkeys(row.ports - before.ports if before else row.ports, row.name)
            case PortRow():
                self.ports[row.name] = row
            case InterfaceRow():
                self.interfaces[row.name] = row

    def drop(self, row: Row) -> None:
        """Forget a row. Its name may have another one by now, which stays."""
        match row:
            case RootRow():
                self.root = None
            case BridgeRow():
                found = self.bridges.get(row.name)
                if found is not None and found.uuid == row.uuid:
                    del self.bridges[row.name]
                self._part(row, row.ports)
            case PortRow():
                if row.name in self.ports and self.ports[row.name].uuid == row.uuid:
                    del self.ports[row.name]
            case InterfaceRow():
                if row.name in self.interfaces and self.interfaces[row.name].uuid == row.uuid:
                    del self.interfaces[row.name]

    def _part(self, bridge: BridgeRow, ports: Iterable[UUID]) -> None:
        for port in ports:
            if self._bridge_of.get(port) == bridge.name:
                del self._bridge_of[port]
