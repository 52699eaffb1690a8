"""Rows as resources: whose they are, and whether they work.

What is *written* in the database is what a person or a program wanted; whether it is *in effect* is for ovs-vswitchd to
say, and for the kernel, which knows the links. A resource is sound when both agree.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from drivers.marks import Marks, describe
from drivers.ovsdb.rows import BridgeRow, InterfaceRow, PortRow, Rows
from drivers.resources import (
    Foreign,
    Key,
    OvsBridge,
    OvsDevicePort,
    OvsPort,
    Resource,
    Scope,
    ovs_bridge_key,
    ovs_port_key,
)

MARK: Final = "weft"
"""The key in ``external_ids`` of bridges and ports that has our mark."""

IFINDEX: Final = "weft-ifindex"
"""The key in ``external_ids`` of a port that has the index of the link that was there when the port was made."""

SETTINGS: Final[Mapping[str, str]] = {"disable-in-band": "true"}
"""What is in ``other_config`` of each bridge of ours, besides its MAC (``hwaddr``)."""


@dataclass(frozen=True, slots=True)
class Written:
    """What is in the database at a key of ours, and what shows that somebody took the link away from below it."""

    resource: Resource
    ifindex: str
    lost: bool


class Reader:
    """Reads the rows of one store."""

    def __init__(self, rows: Rows, marks: Marks) -> None:
        self.rows = rows
        self.marks = marks

    def seen(self, key: Key) -> Resource | Foreign | None:
        """Return what is at a key: a look at a few rows, and at one link of the kernel's."""
        match key.kind, key.at:
            case "bridge", (name,):
                bridge = self.rows.bridges.get(name)
                return None if bridge is None else self._bridge(bridge)
            case "port", (name,):
                port = self.rows.ports.get(name)
                return None if port is None else self._port(port)
            case _:
                return None

    def survey(self) -> Iterable[Resource]:
        """Return all that carries our mark."""
        keys = (*map(ovs_bridge_key, self.rows.bridges), *map(ovs_port_key, self.rows.ports))
        return (seen for key in keys if isinstance(seen := self.seen(key), Resource))

    def written(self, key: Key) -> Written | None:
        """Return what a change by others would change; ``None`` where nothing of ours is."""
        name = key.at[0]
        row = self.rows.bridges.get(name) if key.kind == "bridge" else self.rows.ports.get(name)
        scope = self._scope(row)
        match row:
            case BridgeRow() if scope is not None:
                return Written(_bridge(row, scope), "", lost=False)
            case PortRow() if scope is not None:
                interface, index = self.rows.interface_of(row), row.external_ids.get(IFINDEX, "")
                port = _port(row, interface, self.rows.bridge_of(row), scope)
                return Written(port, index, lost=interface is not None and _lost(interface, index))
            case _:
                return None

    def same_link(self, port: PortRow) -> bool:
        """Tell whether the link behind a port is the one that it was made for; of a tunnel there is none."""
        interface = self.rows.interface_of(port)
        match interface.type if interface else None:
            case "":
                return index_of(port.name) == (port.external_ids.get(IFINDEX) or "")
            case "internal":
                return index_of(port.name) != ""
            case _:
                return True

    def _scope(self, row: BridgeRow | PortRow | None) -> Scope | None:
        return self.marks.read(row.external_ids.get(MARK)) if row else None

    def _bridge(self, row: BridgeRow) -> OvsBridge | Foreign:
        key, scope = ovs_bridge_key(row.name), self._scope(row)
        if scope is None:
            return Foreign(
                key,
                f"a bridge of Open vSwitch with {len(row.ports)} ports, {_maker(row)} (OVN and Neutron have a br-int, "
                f"too): let weft use another name, or if nothing needs it, ovs-vsctl del-br {row.name}",
            )
        bridge = _bridge(row, scope)
        return replace(bridge, sound=bridge.sound and row.datapath_id != "")

    def _port(self, row: PortRow) -> OvsPort | Foreign:
        key, scope, bridge = ovs_port_key(row.name), self._scope(row), self.rows.bridge_of(row)
        if scope is None:
            return Foreign(
                key,
                f"a port of Open vSwitch's bridge {bridge}, {_maker(row)}: if nothing needs it, "
                f"ovs-vsctl del-port {bridge} {row.name}",
            )
        interface = self.rows.interface_of(row)
        port = _port(row, interface, bridge, scope)
        return replace(port, sound=port.sound and _works(interface) and self.same_link(row))


def index_of(name: str) -> str:
    """Return the index of the kernel's link of this name in the thread's network namespace; "" if there is none."""
    try:
        return f"{socket.if_nametoindex(name)}"
    except OSError:
        return ""


def _maker(row: BridgeRow | PortRow) -> str:
    return describe(row.external_ids.get(MARK))


def _bridge(row: BridgeRow, scope: Scope) -> OvsBridge:
    """Return what is written about a bridge."""
    closed = row.fail_mode == "secure" and SETTINGS.items() <= row.other_config.items()
    return OvsBridge(
        key=ovs_bridge_key(row.name),
        scope=scope,
        datapath_type=row.datapath_type or "system",  # OVS's own default
        mac=row.other_config.get("hwaddr", ""),
        sound=closed,
    )


def _port(row: PortRow, interface: InterfaceRow | None, bridge: str, scope: Scope) -> OvsPort:
    """Return what is written about a port. Without its one interface somebody made a bond of it."""
    key = ovs_port_key(row.name)
    if interface is None:
        return OvsPort(key=key, scope=scope, bridge=bridge, type="", sound=False)
    kind = OvsPort if interface.type else OvsDevicePort
    return kind(
        key=key,
        scope=scope,
        bridge=bridge,
        type=interface.type,
        options=tuple(interface.options.items()),
        mac=interface.mac,
        mtu=interface.mtu_request,
    )


def _works(interface: InterfaceRow | None) -> bool:
    """Tell whether ovs-vswitchd has made what is behind a port."""
    return interface is not None and not interface.error and (interface.ofport or -1) > 0


def _lost(interface: InterfaceRow, index: str) -> bool:
    """Tell whether ovs-vswitchd sees another link, or none, behind a port that has one."""
    if interface.ifindex is None or interface.type not in ("", "internal"):
        return False
    return interface.ifindex == 0 or (interface.type == "" and f"{interface.ifindex}" != index)
