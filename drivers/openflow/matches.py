"""A match: the text of a flow's key to the bytes that the switch knows it by, and back."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from drivers.errors import InvalidRequest
from drivers.openflow.fields import (
    BY_HEADER,
    ETH_TYPE,
    HEADERS,
    IP_PROTO,
    Name,
    Number,
    Tlv,
    read,
    tlv,
    tlvs,
    turn,
    write,
)
from drivers.resources.flow_text import FIELDS

_REMEMBERED: Final = 4096  # the same fields come again and again

_ICMPV6: Final = bytes([58])
_PROTOCOLS: Final[Mapping[str, tuple[bytes, bytes]]] = {
    "arp": (b"\x08\x06", b""),
    "ip": (b"\x08\x00", b""),
    "ipv6": (b"\x86\xdd", b""),
    "icmp6": (b"\x86\xdd", _ICMPV6),
}
_NAMES: Final = {told: name for name, told in _PROTOCOLS.items()}
_PLACES: Final = {name: place for place, name in enumerate(FIELDS)}
_PORT: Final = HEADERS["in_port"]


class Unreadable(ValueError):
    """A match that holds what no flow of ours has."""


def canonical(data: bytes) -> bytes:
    """Return the same match in our order: OVS keeps another one."""
    return b"".join(tlv(*one) for one in sorted(tlvs(data), key=turn))


def encode(text: str, number: Number) -> bytes:
    """Return a match in canonical order. Raises InvalidRequest, or what ``number`` raises."""
    parts = [one for part in filter(None, text.split(",")) for one in _encoded(part, number)]
    return b"".join(tlv(*one) for one in sorted(parts, key=turn))


def decode(data: bytes, name: Name) -> str:
    """Return the text of a match. Raises :class:`Unreadable`."""
    eth_type = ip_proto = b""
    told: list[tuple[int, str]] = []
    try:
        for header, value, mask in tlvs(data):
            match header:
                case _ if header == ETH_TYPE:
                    eth_type = value
                case _ if header == IP_PROTO:
                    ip_proto = value
                case _ if header == _PORT:
                    told.append((_PLACES["in_port"], f"in_port={read(FIELDS['in_port'], value, name)}"))
                case _:
                    told.append(_decoded(header, value, mask))
    except (KeyError, ValueError, struct.error) as why:
        raise Unreadable(f"a match that weft never writes: {why}") from None
    protocol = _NAMES.get((eth_type, ip_proto))
    if protocol is None and (eth_type or ip_proto):
        raise Unreadable("a match of a protocol that weft never names")
    return ",".join((*((protocol,) if protocol else ()), *(text for _, text in sorted(told))))


def _encoded(part: str, number: Number) -> tuple[Tlv, ...]:
    return _encoded_port(part, number) if part.startswith("in_port=") else _encoded_field(part)


def _encoded_port(part: str, number: Number) -> tuple[Tlv, ...]:
    return ((_PORT, write(FIELDS["in_port"], part.partition("=")[2], number), b""),)


@lru_cache(_REMEMBERED)
def _encoded_field(part: str) -> tuple[Tlv, ...]:
    if part in _PROTOCOLS:
        eth_type, ip_proto = _PROTOCOLS[part]
        return ((ETH_TYPE, eth_type, b""), *(((IP_PROTO, ip_proto, b""),) if ip_proto else ()))
    name, _, text = part.partition("=")
    if name not in FIELDS:
        raise InvalidRequest(f"no flow of ours matches {part}")
    field = FIELDS[name]
    value, _, mask = (text, "", "") if field.form == "tag" else text.partition("/")
    return ((HEADERS[name], write(field, value, _nobody), write(field, mask, _nobody) if mask else b""),)


@lru_cache(_REMEMBERED)
def _decoded(header: tuple[int, int], value: bytes, mask: bytes) -> tuple[int, str]:
    field = BY_HEADER[header]
    if mask and field.form != "mac":
        raise ValueError(f"a mask on {field.name}")
    told = "/".join(read(field, one, _unknown) for one in (value, mask) if one)
    return _PLACES[field.name], f"{field.name}={told}"


def _nobody(name: str) -> int:
    raise ValueError(name)


def _unknown(_: int) -> None:
    return None
