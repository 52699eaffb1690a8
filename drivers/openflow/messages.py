"""The messages of OpenFlow 1.4 that weft says and understands (ONF TS-012), as Open vSwitch 3.1 does.

Every function here makes or reads bytes and does nothing else. What cannot be read raises :class:`Garbled`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, NamedTuple

from drivers.errors import HostFailure

VERSION: Final = 5
HEADER: Final = struct.Struct("!BBHI")  # version, type, length, transaction

ANY: Final = 0xFFFFFFFF  # OFPP_ANY, OFPG_ANY, OFP_NO_BUFFER
ALL_TABLES: Final = 0xFF  # OFPTT_ALL


class Type(IntEnum):
    """Message types."""

    HELLO = 0
    ERROR = 1
    ECHO_REQUEST = 2
    ECHO_REPLY = 3
    FLOW_MOD = 14
    MULTIPART_REQUEST = 18
    MULTIPART_REPLY = 19
    BARRIER_REQUEST = 20
    BARRIER_REPLY = 21
    BUNDLE_CONTROL = 33
    BUNDLE_ADD = 34


class Part(IntEnum):
    """What a multipart message is about."""

    FLOWS = 1
    PORTS = 13
    MONITOR = 16


class Bundle(IntEnum):
    """What a bundle control message asks, or says."""

    OPEN = 0
    OPENED = 1
    COMMIT = 4
    COMMITTED = 5
    DISCARD = 6


class Event(IntEnum):
    """What a flow monitor tells."""

    INITIAL = 0
    ADDED = 1
    REMOVED = 2
    MODIFIED = 3
    ABBREVIATED = 4
    PAUSED = 5
    RESUMED = 6


class Garbled(HostFailure):
    """Bytes that are no message of OpenFlow 1.4."""

    def __init__(self, what: str) -> None:
        super().__init__(f"ovs-vswitchd said what is no OpenFlow 1.4: {what}")


class Message(NamedTuple):
    """A message as it came in: ``body`` is what follows the header."""

    version: int
    type: int
    xid: int
    body: bytes


class Refusal(NamedTuple):
    """The switch's answer to what it does not do: OpenFlow's type and code of an error."""

    type: int
    code: int


class Place(NamedTuple):
    """What the switch itself tells flows apart by. ``match`` is in the order of :mod:`drivers.openflow.matches`."""

    table: int
    priority: int
    match: bytes


class Entry(NamedTuple):
    """What is at a place; ``lasting`` if nothing but a command removes it."""

    cookie: int
    instructions: bytes
    lasting: bool = True


@dataclass(frozen=True, slots=True)
class Update:
    """One thing that a flow monitor tells; ``place`` and ``entry`` where it is about a flow."""

    event: int
    place: Place | None = None
    entry: Entry | None = None


_ADD: Final = 0  # OFPFC_ADD
_DELETE_STRICT: Final = 4  # OFPFC_DELETE_STRICT
_ATOMIC: Final = 3  # OFPBF_ATOMIC | OFPBF_ORDERED
_MORE: Final = 1  # OFPMPF_REPLY_MORE
_TELL: Final = 0b11110  # OFPFMF_ADD | REMOVED | MODIFY | INSTRUCTIONS: what others do, with all of it
_ALL_BITS: Final = (1 << 64) - 1

_VERSIONS: Final = struct.Struct("!HHI")
_BITMAP: Final = 1  # OFPHET_VERSIONBITMAP
_ERROR: Final = struct.Struct("!HH")
_MULTIPART: Final = struct.Struct("!HH4x")
_MATCH: Final = struct.Struct("!HH")
_OXM: Final = 1
_NO_MATCH: Final = _MATCH.pack(_OXM, _MATCH.size) + bytes(4)
_FLOW_MOD: Final = struct.Struct("!QQBBHHHIIIHH")
_FLOWS_REQUEST: Final = struct.Struct("!B3xII4xQQ")
_FLOW: Final = struct.Struct("!HBxIIHHHHH2xQQQ")
_MONITOR: Final = struct.Struct("!IIIHBB")
_UPDATE: Final = struct.Struct("!HH")
_FULL_UPDATE: Final = struct.Struct("!HHBBHHH4xQ")
_PORT: Final = struct.Struct("!IH2x8x16s8x")
_BUNDLE_CONTROL: Final = struct.Struct("!IHH")
_BUNDLE_ADD: Final = struct.Struct("!I2xH")


# -- what is said ---------------------------------------------------------------------------------------------------


def message(kind: Type, xid: int, body: bytes = b"") -> bytes:
    """Return a message."""
    return HEADER.pack(VERSION, kind, HEADER.size + len(body), xid) + body


def hello(xid: int) -> bytes:
    """Return the first message of a connection: this version and no other."""
    return message(Type.HELLO, xid, _VERSIONS.pack(_BITMAP, _VERSIONS.size, 1 << VERSION))


def flows_request(xid: int, table: int = ALL_TABLES) -> bytes:
    """Ask for every flow of a table, or of all."""
    body = _FLOWS_REQUEST.pack(table, ANY, ANY, 0, 0) + _NO_MATCH
    return message(Type.MULTIPART_REQUEST, xid, _MULTIPART.pack(Part.FLOWS, 0) + body)


def ports_request(xid: int) -> bytes:
    """Ask for the names and numbers of the interfaces."""
    return message(Type.MULTIPART_REQUEST, xid, _MULTIPART.pack(Part.PORTS, 0))


def monitor_request(xid: int) -> bytes:
    """Ask to be told of every flow that comes, changes or goes by somebody else's doing (OVS 2.17)."""
    body = _MONITOR.pack(1, ANY, ANY, _TELL, ALL_TABLES, 0) + _NO_MATCH
    return message(Type.MULTIPART_REQUEST, xid, _MULTIPART.pack(Part.MONITOR, 0) + body)


def addition(xid: int, place: Place, entry: Entry) -> bytes:
    """Make a flow, in the place of one that is there already."""
    return _flow_mod(xid, _ADD, place, cookie=entry.cookie, instructions=entry.instructions)


def deletion(xid: int, place: Place, cookie: int) -> bytes:
    """Delete the flow at a place if it has this cookie."""
    return _flow_mod(xid, _DELETE_STRICT, place, cookie=cookie, mask=_ALL_BITS)


def bundled(bundle: int, inner: bytes) -> bytes:
    """Put a message into a bundle, under its own transaction: an error names it."""
    _, _, _, xid = HEADER.unpack_from(inner)
    return message(Type.BUNDLE_ADD, xid, _BUNDLE_ADD.pack(bundle, _ATOMIC) + inner)


def bundle_control(xid: int, bundle: int, what: Bundle) -> bytes:
    """Open, commit or discard a bundle: all of it or nothing, in order, and no packet meets half of it."""
    return message(Type.BUNDLE_CONTROL, xid, _BUNDLE_CONTROL.pack(bundle, what, _ATOMIC))


def _flow_mod(xid: int, command: int, place: Place, *, cookie: int, mask: int = 0, instructions: bytes = b"") -> bytes:
    head = _FLOW_MOD.pack(cookie, mask, place.table, command, 0, 0, place.priority, ANY, ANY, ANY, 0, 0)
    return message(Type.FLOW_MOD, xid, head + _match(place.match) + instructions)


def _match(fields: bytes) -> bytes:
    length = _MATCH.size + len(fields)
    return _MATCH.pack(_OXM, length) + fields + bytes(-length % 8)


# -- what is heard --------------------------------------------------------------------------------------------------


def cut(buffer: bytearray) -> Iterator[Message]:
    """Take the whole messages off a buffer's front. Raises :class:`Garbled`."""
    at = 0
    try:
        while len(buffer) - at >= HEADER.size:
            version, kind, length, xid = HEADER.unpack_from(buffer, at)
            if length < HEADER.size:
                raise Garbled(f"a message of {length} bytes")
            if len(buffer) - at < length:
                return
            yield Message(version, kind, xid, bytes(buffer[at + HEADER.size : at + length]))
            at += length
    finally:
        del buffer[:at]


def meets(greeting: Message) -> bool:
    """Tell whether the other side speaks this version: by its bitmap, else by the newest version that it speaks."""
    if not greeting.body:
        return greeting.version >= VERSION
    kind, _, bitmap = _unpack(_VERSIONS, greeting.body, 0)
    return kind == _BITMAP and bool(bitmap & 1 << VERSION)


def read_refusal(body: bytes) -> Refusal:
    """Read an error."""
    return Refusal(*_unpack(_ERROR, body, 0))


def read_bundle_control(body: bytes) -> int:
    """Return what the switch says about a bundle."""
    _, what, _ = _unpack(_BUNDLE_CONTROL, body, 0)
    return int(what)


def read_multipart(body: bytes) -> tuple[int, bool, bytes]:
    """Return what a part is about, whether more of it is to come, and the rest."""
    about, flags = _unpack(_MULTIPART, body, 0)
    return about, bool(flags & _MORE), body[_MULTIPART.size :]


def read_flows(body: bytes) -> Iterator[tuple[Place, Entry]]:
    """Yield the flows of a part, with their matches in the switch's order."""
    return ((place, entry) for place, entry, _ in read_counted(body))


def read_counted(body: bytes) -> Iterator[tuple[Place, Entry, int]]:
    """Yield the same, each with how many packets it took."""
    at = 0
    while at < len(body):
        length, table, _, _, priority, idle, hard, _, _, cookie, packets, _ = _unpack(_FLOW, body, at)
        _within(length, _FLOW.size, len(body) - at)
        fields, instructions = _read_match(body, at + _FLOW.size, at + length)
        yield Place(table, priority, fields), Entry(cookie, instructions, not (idle or hard)), packets
        at += length


def read_ports(body: bytes) -> Iterator[tuple[int, str]]:
    """Yield number and name of the interfaces of a part."""
    at = 0
    while at < len(body):
        number, length, name = _unpack(_PORT, body, at)
        _within(length, _PORT.size, len(body) - at)
        yield number, name.partition(b"\0")[0].decode(errors="replace")
        at += length


def read_updates(body: bytes) -> Iterator[Update]:
    """Yield what a flow monitor tells."""
    at = 0
    while at < len(body):
        length, event = _unpack(_UPDATE, body, at)
        _within(length, _UPDATE.size, len(body) - at)
        if event <= Event.MODIFIED:
            _, _, table, _, idle, hard, priority, cookie = _unpack(_FULL_UPDATE, body, at)
            fields, instructions = _read_match(body, at + _FULL_UPDATE.size, at + length)
            yield Update(event, Place(table, priority, fields), Entry(cookie, instructions, not (idle or hard)))
        else:
            yield Update(event)
        at += length


def _read_match(body: bytes, at: int, end: int) -> tuple[bytes, bytes]:
    """Return a match's fields, and what follows it up to ``end``."""
    kind, length = _unpack(_MATCH, body, at)
    if kind != _OXM:
        raise Garbled(f"a match of type {kind}")
    _within(length, _MATCH.size, end - at)
    return body[at + _MATCH.size : at + length], body[at + length + (-length % 8) : end]


def _unpack(form: struct.Struct, body: bytes, at: int) -> tuple[Any, ...]:
    try:
        return form.unpack_from(body, at)
    except struct.error as why:
        raise Garbled(f"a message was cut short: {why}") from None


def _within(length: int, least: int, most: int) -> None:
    if not least <= length <= most:
        raise Garbled(f"a length of {length}, where {least} to {most} are left")
