"""The action ``learn``: a flow that writes flows, made from the packet that it matched (NXAST_LEARN2, OVS 2.8)."""

from __future__ import annotations

import re
import struct
from typing import Final

from drivers.openflow.fields import BY_WIDE_NAME, WIDE, plain_header, read_plain_header, size
from drivers.resources.flow_text import Field

NICIRA: Final = 0x2320
SUBTYPE: Final = 45

_EXPERIMENTER: Final = 0xFFFF
_DELETE_LEARNED: Final = 2
_FIXED: Final = struct.Struct("!HHIHHHHQHBxHHIHH")
"""Type, length, vendor, subtype; idle and hard timeout, priority, cookie, flags, table; timeouts after FIN (2);
limit, and where to write whether it was reached (2)."""
_SPEC: Final = struct.Struct("!H")
_PLACE: Final = struct.Struct("!4sH")
"""A field's header, and the first of its bits."""

_IMMEDIATE: Final = 0x2000
_LOAD: Final = 0x0800
_BITS: Final = 0x07FF

_HEAD: Final = re.compile(
    r"table=(?P<table>\d+),hard_timeout=(?P<seconds>\d+),priority=(?P<priority>\d+),delete_learned,"
    r"cookie=(?P<cookie>0x[0-9a-f]+),limit=(?P<limit>\d+)((?:,[^,]+)*)\)"
)
_MATCHED: Final = re.compile(r"(\w+)\[\](?:=(\w+)\[\])?")
_LOADED: Final = re.compile(r"load:(?:(0x[0-9a-f]+)|(\w+)\[\])->(\w+)\[\]")


def encode(rest: str) -> bytes:
    """Return the action from what follows ``learn(``; nothing if that is not as ours is."""
    found = _HEAD.fullmatch(rest)
    if found is None:
        return b""
    specs = [_spec(part) for part in filter(None, found[6].split(","))]
    if not all(specs):
        return b""
    body = padded(b"".join(specs))
    table, seconds, priority, limit = (int(found[name]) for name in ("table", "seconds", "priority", "limit"))
    cookie = int(found["cookie"], 16)
    head = (_EXPERIMENTER, _FIXED.size + len(body), NICIRA, SUBTYPE)
    return _FIXED.pack(*head, 0, seconds, priority, cookie, _DELETE_LEARNED, table, 0, 0, limit, 0, 0) + body


def decode(data: bytes) -> str:
    """Return the text of the action; nothing if it is not as ours is."""
    *_, idle, seconds, priority, cookie, flags, table, fin_idle, fin_hard, limit, result, more = _FIXED.unpack_from(
        data
    )
    specs = _read_specs(data)
    if specs is None or any((idle, fin_idle, fin_hard, result, more)) or flags != _DELETE_LEARNED:
        return ""
    head = f"table={table},hard_timeout={seconds},priority={priority},delete_learned,cookie={cookie:#x},limit={limit}"
    return f"learn({','.join((head, *specs))})"


def padded(data: bytes) -> bytes:
    """Return the data with zeros up to the next multiple of 8."""
    return data + bytes(-len(data) % 8)


def _spec(part: str) -> bytes:
    if found := _MATCHED.fullmatch(part):
        target, source = BY_WIDE_NAME.get(found[1]), BY_WIDE_NAME.get(found[2] or found[1])
        return _SPEC.pack(target.bits) + _place(source) + _place(target) if target and source else b""
    if found := _LOADED.fullmatch(part):
        value, named, written = found.groups()
        target, source = BY_WIDE_NAME.get(written), BY_WIDE_NAME.get(named or written)
        if target is None or source is None:
            return b""
        if value is None:
            return _SPEC.pack(_LOAD | target.bits) + _place(source) + _place(target)
        constant = int(value, 16).to_bytes(_constant_size(target.bits), "big")
        return _SPEC.pack(_IMMEDIATE | _LOAD | target.bits) + constant + _place(target)
    return b""


def _read_specs(data: bytes) -> list[str] | None:
    """Return the specs' text, ``None`` if there is one that weft never writes."""
    told: list[str] = []
    at = _FIXED.size
    while at + _SPEC.size <= len(data):
        (head,) = _SPEC.unpack_from(data, at)
        if not head:  # the padding
            break
        at += _SPEC.size
        bits = head & _BITS
        value, source = "", None
        if head & _IMMEDIATE:
            length = _constant_size(bits)
            value = f"{int.from_bytes(data[at : at + length], 'big'):#x}"
            at += length
        else:
            source = _read_place(data, at, bits)
            at += _PLACE.size
        target = _read_place(data, at, bits)
        at += _PLACE.size
        kind = head & ~_BITS
        if target is None or (source is None and not value) or kind not in (0, _LOAD, _LOAD | _IMMEDIATE):
            return None
        told.append(_spelled(kind, value, source, target))
    return told


def _spelled(kind: int, value: str, source: Field | None, target: Field) -> str:
    wide = source.wide if source else ""
    if kind:
        return f"load:{value or f'{wide}[]'}->{target.wide}[]"
    return f"{target.wide}[]" if source == target else f"{target.wide}[]={wide}[]"


def _place(field: Field) -> bytes:
    return _PLACE.pack(plain_header(WIDE[field.name], size(field)), 0)


def _read_place(data: bytes, at: int, bits: int) -> Field | None:
    """Return the field at a place, ``None`` if it is not one of ours, or not the whole of it."""
    _, first = _PLACE.unpack_from(data, at)
    field = read_plain_header(data, at)
    return field if field is not None and not first and field.bits == bits else None


def _constant_size(bits: int) -> int:
    """Return the bytes that a constant takes: whole 16-bit words."""
    return (bits + 15) // 16 * 2
