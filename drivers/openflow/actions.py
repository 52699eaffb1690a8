"""A flow's actions: text to the bytes of one OpenFlow instruction ("apply these actions"), and back.

What weft never writes is decoded as ``unknown(...)``: it differs from everything that is wanted, and so is replaced.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Final

from drivers.errors import InvalidRequest
from drivers.openflow import learning
from drivers.openflow.fields import (
    BY_ASSIGNED,
    BY_HEADER,
    BY_WIDE_NAME,
    HEADERS,
    WIDE,
    Name,
    Number,
    no_name,
    no_number,
    plain_header,
    port_number,
    port_text,
    read,
    read_plain_header,
    size,
    split,
    tlv,
    write,
)
from drivers.openflow.learning import NICIRA, padded
from drivers.resources.flow_text import DROP, IN_PORT

IN_PORT_NUMBER: Final = 0xFFFFFFF8  # OFPP_IN_PORT

_APPLY: Final = 4  # OFPIT_APPLY_ACTIONS
_OUTPUT: Final = 0  # OFPAT_OUTPUT
_SET_FIELD: Final = 25  # OFPAT_SET_FIELD
_EXPERIMENTER: Final = 0xFFFF
_MOVE: Final = 6  # NXAST_REG_MOVE
_RESUBMIT: Final = 14  # NXAST_RESUBMIT_TABLE
_SAME_PORT: Final = 0xFFF8  # of resubmit: the packet's own input port

_INSTRUCTION: Final = struct.Struct("!HH4x")
_ACTION: Final = struct.Struct("!HH")
_OUTPUT_BODY: Final = struct.Struct("!HHIH6x")
_RESUBMIT_BODY: Final = struct.Struct("!HHIHHB3x")
_MOVE_BODY: Final = struct.Struct("!HHIHHHH")
_NICIRA_HEAD: Final = struct.Struct("!HHIH")

_REMEMBERED: Final = 2048  # the same actions come again and again
_PART: Final = re.compile(r"(?:[^,()]|\([^()]*\))+")
_ONE: Final = re.compile(r"(?P<verb>[a-z_]+)[:(](?P<rest>.*)")
_MOVED: Final = re.compile(r"(\w+)\[\]->(\w+)\[\]")
_RESUBMITTED: Final = re.compile(r",(\d{1,3})\)")


def encode(text: str, number: Number) -> bytes:
    """Return a flow's instruction; ``drop`` is none. Raises InvalidRequest, or what ``number`` raises."""
    if text == DROP:
        return b""
    parts = _PART.findall(text)
    if not parts or ",".join(parts) != text:
        raise InvalidRequest(f"these are no actions of a flow: {text}")
    body = b"".join(_output(part, number) if part.startswith("output:") else _encoded(part) for part in parts)
    return _INSTRUCTION.pack(_APPLY, _INSTRUCTION.size + len(body)) + body


def decode(data: bytes, name: Name) -> str:
    """Return the text of a flow's instructions."""
    if not data:
        return DROP
    try:
        kind, length = _INSTRUCTION.unpack_from(data)
        if kind != _APPLY or length != len(data):
            return _unknown(data)
        return ",".join(_decoded(one, name) for one in _split(data[_INSTRUCTION.size :])) or DROP
    except (ValueError, struct.error):
        return _unknown(data)


def _split(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        _, length = _ACTION.unpack_from(data, at)
        if not _ACTION.size <= length <= len(data) - at:
            raise ValueError("an action was cut short")
        yield data[at : at + length]
        at += length


def _output(part: str, number: Number) -> bytes:
    try:
        return _OUTPUT_BODY.pack(_OUTPUT, _OUTPUT_BODY.size, port_number(part.partition(":")[2], number), 0)
    except (ValueError, struct.error):
        raise InvalidRequest(f"no flow of ours does {part}") from None


@lru_cache(_REMEMBERED)
def _encoded(part: str) -> bytes:
    if part == IN_PORT:
        return _OUTPUT_BODY.pack(_OUTPUT, _OUTPUT_BODY.size, IN_PORT_NUMBER, 0)
    found = _ONE.fullmatch(part)
    data = b""
    with suppress(struct.error):  # a number that is too large
        data = _ENCODE[found["verb"]](found["rest"]) if found and found["verb"] in _ENCODE else b""
    if not data:
        raise InvalidRequest(f"no flow of ours does {part}")
    return data


def _set_field(rest: str) -> bytes:
    text, _, assigned = rest.partition("->")
    if assigned not in BY_ASSIGNED:
        return b""
    field = BY_ASSIGNED[assigned]
    body = tlv(HEADERS[field.name], write(field, text, no_number))
    return padded(_ACTION.pack(_SET_FIELD, padded_size(_ACTION.size + len(body))) + body)


def _move(rest: str) -> bytes:
    found = _MOVED.fullmatch(rest)
    if found is None or found[1] not in BY_WIDE_NAME or found[2] not in BY_WIDE_NAME:
        return b""
    source, target = BY_WIDE_NAME[found[1]], BY_WIDE_NAME[found[2]]
    body = b"".join(plain_header(WIDE[field.name], size(field)) for field in (source, target))
    return _MOVE_BODY.pack(_EXPERIMENTER, _MOVE_BODY.size + 8, NICIRA, _MOVE, source.bits, 0, 0) + body


def _resubmit(rest: str) -> bytes:
    found = _RESUBMITTED.fullmatch(rest)
    if found is None:
        return b""
    table = int(found[1])
    return _RESUBMIT_BODY.pack(_EXPERIMENTER, _RESUBMIT_BODY.size, NICIRA, _RESUBMIT, _SAME_PORT, table)


def _decoded(data: bytes, name: Name) -> str:
    kind, _ = _ACTION.unpack_from(data)
    if kind == _OUTPUT:
        _, _, number, _ = _OUTPUT_BODY.unpack(data)
        return IN_PORT if number == IN_PORT_NUMBER else f"output:{port_text(number, name)}"
    return _decoded_rest(data)


@lru_cache(_REMEMBERED)
def _decoded_rest(data: bytes) -> str:
    kind, _ = _ACTION.unpack_from(data)
    if kind == _SET_FIELD:
        return _decoded_set_field(data)
    if kind == _EXPERIMENTER:
        _, _, vendor, subtype = _NICIRA_HEAD.unpack_from(data)
        if vendor == NICIRA and subtype in _DECODE:
            return _DECODE[subtype](data)
    return _unknown(data)


def _decoded_set_field(data: bytes) -> str:
    length = data[_ACTION.size + 3]
    header, value, mask = split(data[_ACTION.size : _ACTION.size + 4 + length])
    field = BY_HEADER.get(header)
    if field is None or mask or not field.assigned:
        return _unknown(data)
    return f"set_field:{read(field, value, no_name)}->{field.assigned}"


def _decoded_move(data: bytes) -> str:
    *_, bits, at, to = _MOVE_BODY.unpack_from(data)
    source, target = (read_plain_header(data, _MOVE_BODY.size + place) for place in (0, 4))
    if source is None or target is None or bits != source.bits or at or to:
        return _unknown(data)
    return f"move:{source.wide}[]->{target.wide}[]"


def _decoded_resubmit(data: bytes) -> str:
    *_, port, table = _RESUBMIT_BODY.unpack(data)
    return f"resubmit(,{table})" if port == _SAME_PORT else _unknown(data)


def _decoded_learn(data: bytes) -> str:
    return learning.decode(data) or _unknown(data)


def _unknown(data: bytes) -> str:
    return f"unknown({data.hex()})"


def padded_size(length: int) -> int:
    """Return the length rounded up to what OpenFlow aligns to."""
    return length + 7 & ~7


_ENCODE: Final[Mapping[str, Callable[[str], bytes]]] = {
    "set_field": _set_field,
    "move": _move,
    "resubmit": _resubmit,
    "learn": learning.encode,
}
_DECODE: Final[Mapping[int, Callable[[bytes], str]]] = {
    _MOVE: _decoded_move,
    _RESUBMIT: _decoded_resubmit,
    learning.SUBTYPE: _decoded_learn,
}
