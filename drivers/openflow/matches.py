"""A match: the text of a flow's key to the bytes that the switch knows it by, and back.

The bytes are cut into pieces, one per field, and pieces are remembered: the same ones come again and again.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from drivers.errors import InvalidRequest
from drivers.openflow.fields import (
    BY_HEADER,
    ETH_TYPE,
    HEADERS,
    IP_PROTO,
    LATE,
    Name,
    Number,
    no_name,
    no_number,
    pieces,
    read,
    split,
    tlv,
    write,
)
from drivers.openflow.messages import Garbled
from drivers.resources.flow_text import FIELDS

_REMEMBERED: Final = 2048  # pieces

_ICMPV6: Final = bytes([58])
_PROTOCOLS: Final[Mapping[str, tuple[bytes, bytes]]] = {
    "arp": (b"\x08\x06", b""),
    "ip": (b"\x08\x00", b""),
    "ipv6": (b"\x86\xdd", b""),
    "icmp6": (b"\x86\xdd", _ICMPV6),
}
_NAMES: Final = {told: name for name, told in _PROTOCOLS.items()}
_TURNS: Final = {name: turn for turn, name in enumerate(FIELDS)}
_PORT: Final = FIELDS["in_port"]
_PORT_PIECE: Final = tlv(HEADERS["in_port"], bytes(4))[:4]
_PROTOCOL_TURNS: Final = {ETH_TYPE: -2, IP_PROTO: -1}


class Unreadable(ValueError):
    """A match that holds what no flow of ours has."""


def canonical(data: bytes) -> bytes:
    """Return the same match in our order: OVS keeps another one. Raises Garbled if it is cut short."""
    try:
        return _joined(pieces(data))
    except ValueError as why:
        raise Garbled(f"{why}") from None


def encode(text: str, number: Number) -> bytes:
    """Return a match in our order. Raises InvalidRequest, or what ``number`` raises."""
    parts: list[bytes] = []
    for part in filter(None, text.split(",")):
        if part.startswith("in_port="):
            parts.append(_PORT_PIECE + write(_PORT, part.partition("=")[2], number))
        else:
            parts += _encoded(part)
    return _joined(parts)


def decode(data: bytes, name: Name) -> str:
    """Return the text of a match. Raises :class:`Unreadable`."""
    eth_type = ip_proto = b""
    told: list[tuple[int, str]] = []
    try:
        for piece in pieces(data):
            if piece.startswith(_PORT_PIECE):
                told.append((_TURNS["in_port"], f"in_port={read(_PORT, piece[4:], name)}"))
                continue
            turn, text, value = _decoded(piece)
            if turn >= 0:
                told.append((turn, text))
            elif turn == _PROTOCOL_TURNS[ETH_TYPE]:
                eth_type = value
            else:
                ip_proto = value
    except (KeyError, ValueError) as why:
        raise Unreadable(f"a match that weft never writes: {why}") from None
    protocol = _NAMES.get((eth_type, ip_proto))
    if protocol is None and (eth_type or ip_proto):
        raise Unreadable("a match of a protocol that weft never names")
    told.sort()
    return ",".join((*((protocol,) if protocol else ()), *(text for _, text in told)))


def _joined(parts: list[bytes]) -> bytes:
    """Put pieces in order: what a field needs in order to be looked at must come before it."""
    parts.sort(key=lambda piece: (piece.startswith(LATE), piece))
    return b"".join(parts)


@lru_cache(_REMEMBERED)
def _encoded(part: str) -> tuple[bytes, ...]:
    if part in _PROTOCOLS:
        eth_type, ip_proto = _PROTOCOLS[part]
        return (tlv(ETH_TYPE, eth_type), *((tlv(IP_PROTO, ip_proto),) if ip_proto else ()))
    name, _, text = part.partition("=")
    if name not in FIELDS:
        raise InvalidRequest(f"no flow of ours matches {part}")
    field = FIELDS[name]
    value, _, mask = (text, "", "") if field.form == "tag" else text.partition("/")
    return (tlv(HEADERS[name], write(field, value, no_number), write(field, mask, no_number) if mask else b""),)


@lru_cache(_REMEMBERED)
def _decoded(piece: bytes) -> tuple[int, str, bytes]:
    """Return a piece's turn in the text, its text, and its value; the protocol's pieces have no text of their own."""
    header, value, mask = split(piece)
    if header in _PROTOCOL_TURNS:
        if mask:
            raise ValueError("a mask on the protocol")
        return _PROTOCOL_TURNS[header], "", value
    field = BY_HEADER[header]
    if mask and field.form != "mac":
        raise ValueError(f"a mask on {field.name}")
    told = "/".join(read(field, one, no_name) for one in (value, mask) if one)
    return _TURNS[field.name], f"{field.name}={told}", value
