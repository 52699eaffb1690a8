"""What is still to be done about a step, in the words of RFC 7047: pure, from the rows and the step to operations.

It is asked again after each answer, until there is nothing left to do. So a step that was taken already has no
operations, one that takes two transactions (a port that is made anew) has its second part after the first, and one that
was lost with a connection is simply asked for once more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final
from uuid import UUID

from drivers.contract import Step
from drivers.errors import Conflict, HostFailure, InvalidRequest
from drivers.ovsdb.reading import IFINDEX, MARK, SETTINGS, Reader, index_of
from drivers.ovsdb.rows import BridgeRow, PortRow
from drivers.resources import TUNNELS, Foreign, Key, OvsBridge, OvsDevicePort, OvsPort, Resource

Operation = Mapping[str, object]

LOOK_AGAIN: Final[Sequence[Operation]] = ()
"""No operation but the one that ends each transaction: ovs-vswitchd tries once more what it could not make."""

_ROUNDS: Final = 6  # a port that is made anew takes three; more means that somebody undoes what we do
_TAKEN: Final = ("Address already in use", "Device or resource busy")
"""What the kernel's datapath says of VXLAN and of Geneve when somebody else has the UDP port (Linux 6.1)."""
_HINTS: Final[Mapping[str, str]] = {
    "No such device": "there is no such link on this host",
    "File exists": "another port has the same type, key and addresses",
    "Address family not supported": "this build of Open vSwitch lacks it",
}
_LOG: Final = "ovs-vswitchd's log (/var/log/openvswitch/ovs-vswitchd.log) may say why"


class UdpPortTaken(HostFailure):
    """Somebody outside Open vSwitch has the UDP ``port`` of a tunnel: it says that there is one, and not who."""

    def __init__(self, said: str, port: int) -> None:
        """Say so."""
        super().__init__(said)
        self.port = port


def orders(reader: Reader, step: Step, rounds: int, tag: str) -> Sequence[Operation] | None:
    """Return the operations of the next transaction; ``None`` once the step is done.

    ``rounds`` is how many transactions it has had by now; ``tag`` makes the names of new rows its own within one.
    Raises a :class:`WeftError` if it cannot be done, or was and does not work.
    """
    found, ours = reader.seen(step.key), step.resource.scope
    match step.new:
        case None:
            gone = found is None or isinstance(found, Foreign) or found.scope != ours
            more = None if gone else _removal(reader, step.key)
        case new if isinstance(found, Foreign):
            raise Conflict(f"{new.scope}: {new.key} is taken by {found.what}")
        case new if found is not None and found.scope != ours:
            raise Conflict(f"{new.scope}: {new.key} is taken by {found.scope}")
        case new if found == new:
            more = None
        case OvsBridge() as new:
            more = _bridge(reader, new, rounds, tag)
        case OvsPort() as new:
            more = _port(reader, found, new, rounds, tag)
        case _:
            raise InvalidRequest(f"{step.key} is not for Open vSwitch's database")
    if more is not None and rounds >= _ROUNDS:
        raise HostFailure(f"{ours}: {step.key} is changed by somebody else as soon as weft has made it: {step}")
    return more


def _bridge(reader: Reader, new: OvsBridge, rounds: int, tag: str) -> Sequence[Operation]:
    row = reader.rows.bridges.get(new.name)
    if row is None:
        return _new_bridge(reader, new, tag)
    written = reader.written(new.key)
    if written is None or written.resource != new:
        return _changed_bridge(row, new)
    if rounds:
        raise _dead_bridge(reader, new)
    return LOOK_AGAIN


def _port(reader: Reader, found: Resource | None, new: OvsPort, rounds: int, tag: str) -> Sequence[Operation]:
    if new.type not in TUNNELS | {"", "internal"}:
        raise InvalidRequest(
            f"{new.key}: weft makes no port of type {new.type}: allowed are {', '.join(sorted(TUNNELS))} and internal"
        )
    row = reader.rows.ports.get(new.name)
    if row is None:
        return _new_port(reader, new, tag)
    if not _keeps(found, new) or not reader.same_link(row):
        return _removal(reader, new.key)  # and in the next round it is made
    written = reader.written(new.key)
    if written is None or written.resource != new:
        return _changed_port(row, new)
    if rounds:
        raise _dead_port(reader, new)
    return LOOK_AGAIN


def _keeps(found: Resource | None, new: OvsPort) -> bool:
    """Tell whether a port can become another one without being made anew."""
    return isinstance(found, OvsPort) and replace(found, options=(), mac="", mtu=None, sound=True) == replace(
        new, options=(), mac="", mtu=None
    )


# -- in the words of RFC 7047 ---------------------------------------------------------------------------------------


def _new_bridge(reader: Reader, new: OvsBridge, tag: str) -> Sequence[Operation]:
    port, interface, bridge = f"port{tag}", f"interface{tag}", f"bridge{tag}"
    mark = {MARK: reader.marks.write(new.scope)}
    row = {"ports": ["named-uuid", port], "other_config": _map(_settings(new)), "external_ids": _map(mark)}
    return (
        _insert("Interface", interface, {"name": new.name, "type": "internal"}),
        _insert("Port", port, {"name": new.name, "interfaces": ["named-uuid", interface]}),
        _insert("Bridge", bridge, {"name": new.name, "fail_mode": "secure", "datapath_type": new.datapath_type, **row}),
        _mutate("Open_vSwitch", (), "bridges", "insert", ["named-uuid", bridge]),
    )


def _changed_bridge(row: BridgeRow, new: OvsBridge) -> Sequence[Operation]:
    """Set what is ours to say; what else is in ``other_config`` is the operator's."""
    here = _is(row.uuid)
    return (
        _update("Bridge", here, {"fail_mode": "secure", "datapath_type": new.datapath_type}),
        _mutate("Bridge", here, "other_config", "delete", ["set", ["hwaddr", *SETTINGS]]),
        _mutate("Bridge", here, "other_config", "insert", _map(_settings(new))),
    )


def _settings(new: OvsBridge) -> Mapping[str, str]:
    return {**SETTINGS, **({"hwaddr": new.mac} if new.mac else {})}


def _new_port(reader: Reader, new: OvsPort, tag: str) -> Sequence[Operation]:
    bridge = reader.rows.bridges.get(new.bridge)
    if bridge is None:
        raise HostFailure(f"{new.scope}: {new.key} cannot be made: Open vSwitch has no bridge {new.bridge}")
    if reader.marks.read(bridge.external_ids.get(MARK)) is None:
        raise Conflict(f"{new.scope}: {new.key} cannot be made: bridge {new.bridge} is not weft's")
    port, interface = f"port{tag}", f"interface{tag}"
    ids = {MARK: reader.marks.write(new.scope)}
    if isinstance(new, OvsDevicePort) and (index := index_of(new.name)):
        ids[IFINDEX] = index
    row = {"name": new.name, "interfaces": ["named-uuid", interface], "external_ids": _map(ids)}
    return (
        _insert("Interface", interface, {"name": new.name, **_behind(new)}),
        _insert("Port", port, row),
        _mutate("Bridge", _is(bridge.uuid), "ports", "insert", ["named-uuid", port]),
    )


def _changed_port(row: PortRow, new: OvsPort) -> Sequence[Operation]:
    (interface,) = row.interfaces
    return (_update("Interface", _is(interface), _behind(new)),)


def _behind(new: OvsPort) -> Mapping[str, object]:
    return {
        "type": new.type,
        "options": _map(dict(new.options)),
        "mac": new.mac or _NONE,
        "mtu_request": new.mtu or _NONE,
    }


def _removal(reader: Reader, key: Key) -> Sequence[Operation]:
    """Take a bridge or a port out of what holds it: the server deletes what nothing refers to."""
    name, rows = key.at[0], reader.rows
    if key.kind == "port":
        port = rows.ports[name]
        bridge = rows.bridges[rows.bridge_of(port)]
        return (_mutate("Bridge", _is(bridge.uuid), "ports", "delete", _uuid(port.uuid)),)
    bridge = rows.bridges[name]
    strangers = [port.name for port in rows.ports_of(bridge) if port.name != name and _is_strange(reader, port)]
    if strangers:
        raise Conflict(
            f"bridge {name} would take along ports that weft did not make: {', '.join(sorted(strangers))}; "
            f"if nothing needs them, remove each with ovs-vsctl del-port {name} PORT"
        )
    return (_mutate("Open_vSwitch", (), "bridges", "delete", _uuid(bridge.uuid)),)


def _is_strange(reader: Reader, port: PortRow) -> bool:
    return reader.marks.read(port.external_ids.get(MARK)) is None


_NONE: Final = ["set", []]


def _insert(table: str, name: str, row: Mapping[str, object]) -> Operation:
    return {"op": "insert", "table": table, "uuid-name": name, "row": row}


def _update(table: str, where: Sequence[object], row: Mapping[str, object]) -> Operation:
    return {"op": "update", "table": table, "where": where, "row": row}


def _mutate(table: str, where: Sequence[object], column: str, how: str, value: Sequence[object]) -> Operation:
    """Add to or take from a set, so that what others change in it at the same time is kept."""
    return {"op": "mutate", "table": table, "where": where, "mutations": [[column, how, value]]}


def _is(uuid: UUID) -> Sequence[object]:
    return [["_uuid", "==", _uuid(uuid)]]


def _uuid(uuid: UUID) -> Sequence[object]:
    return ["uuid", f"{uuid}"]


def _map(values: Mapping[str, str]) -> Sequence[object]:
    return ["map", [[key, value] for key, value in values.items()]]


# -- what OVS said --------------------------------------------------------------------------------------------------


def _dead_bridge(reader: Reader, new: OvsBridge) -> HostFailure:
    hint = "; datapath type system needs the kernel module openvswitch" if new.datapath_type == "system" else ""
    return HostFailure(f"{new.scope}: {new.key} has no datapath: {_said(reader, new.name)}{hint} (by hand: {new})")


def _dead_port(reader: Reader, new: OvsPort) -> HostFailure:
    told = f"{new.scope}: {new.key} on bridge {new.bridge} does not work: {_said(reader, new.name)}"
    if new.type in TUNNELS and any(words in told for words in _TAKEN):
        hint = "another tunnel or program has its UDP port: see `ip -d link` and `ss -lnu`"
        return UdpPortTaken(f"{told}: {hint} (by hand: {new})", int(dict(new.options).get("dst_port", 0)))
    return HostFailure(f"{told} (by hand: {new})")


def _said(reader: Reader, name: str) -> str:
    interface = reader.rows.interfaces.get(name)
    if interface is None or not interface.error:
        return f"Open vSwitch does not say why; {_LOG}"
    hint = next((f": {hint}" for part, hint in _HINTS.items() if part in interface.error), "")
    return f"Open vSwitch says: {interface.error}{hint}"
