"""What a flow can look at, on the wire: a header, a value, perhaps a mask. Sizes and spelling: `flow_text`.

OVS 3.1 shows a field of a match or of ``set_field`` under the number that OpenFlow 1.4 gives it (class 0x8000), or
Nicira's where it gives none (class 1), and in ``move`` and ``learn`` always under Nicira's (classes 0 and 1, NXM).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from drivers.errors import InvalidRequest
from drivers.resources.flow_text import FIELDS, UNTAGGED, Field, Form

Number = Callable[[str], int]
"""Returns the number of an interface; raises if it has none."""
Name = Callable[[int], str | None]
"""Returns the name of the interface with a number, if it is known."""

Header = tuple[int, int]
"""Class and number of a field."""

_BASIC: Final = 0x8000
_NXM0: Final = 0
_NXM1: Final = 1
_OVS: Final = 0x1000  # class of nd_reserved and nd_options_type, OVS 2.12
LATE: Final = _OVS.to_bytes(2, "big")
"""The beginning of fields that come after all others: they need the protocol, and their class would put them first."""

ETH_TYPE: Final[Header] = (_BASIC, 5)
IP_PROTO: Final[Header] = (_BASIC, 10)

HEADERS: Final[Mapping[str, Header]] = {
    **{f"reg{number}": (_NXM1, number) for number in range(8)},
    "tun_id": (_BASIC, 38),
    "tun_src": (_NXM1, 31),
    "tun_dst": (_NXM1, 32),
    "tun_ipv6_src": (_NXM1, 109),
    "tun_ipv6_dst": (_NXM1, 110),
    "in_port": (_BASIC, 0),
    "vlan_tci": (_BASIC, 6),
    "dl_src": (_BASIC, 4),
    "dl_dst": (_BASIC, 3),
    "ipv6_src": (_BASIC, 26),
    "ipv6_dst": (_BASIC, 27),
    "nw_src": (_BASIC, 11),
    "nw_dst": (_BASIC, 12),
    "arp_spa": (_BASIC, 22),
    "arp_tpa": (_BASIC, 23),
    "arp_op": (_BASIC, 21),
    "arp_sha": (_BASIC, 24),
    "arp_tha": (_BASIC, 25),
    "icmp_type": (_BASIC, 29),
    "icmp_code": (_BASIC, 30),
    "nd_target": (_BASIC, 31),
    "nd_sll": (_BASIC, 32),
    "nd_tll": (_BASIC, 33),
    "nd_reserved": (_OVS, 1),
    "nd_options_type": (_OVS, 2),
}

WIDE: Final[Mapping[str, Header]] = {
    name: header for name, header in HEADERS.items() if header[0] == _NXM1 and FIELDS[name].wide
} | {
    "tun_id": (_NXM1, 16),
    "dl_src": (_NXM0, 2),
    "dl_dst": (_NXM0, 1),
    "ipv6_src": (_NXM1, 19),
    "ipv6_dst": (_NXM1, 20),
    "nw_src": (_NXM0, 7),
    "nw_dst": (_NXM0, 8),
    "arp_spa": (_NXM0, 16),
    "arp_tpa": (_NXM0, 17),
    "arp_op": (_NXM0, 15),
    "arp_sha": (_NXM1, 17),
    "arp_tha": (_NXM1, 18),
    "icmp_type": (_NXM1, 21),
    "nd_target": (_NXM1, 23),
    "nd_sll": (_NXM1, 24),
    "nd_tll": (_NXM1, 25),
}

BY_HEADER: Final = {header: FIELDS[name] for name, header in HEADERS.items()}
BY_WIDE_HEADER: Final = {header: FIELDS[name] for name, header in WIDE.items()}
BY_WIDE_NAME: Final = {FIELDS[name].wide: FIELDS[name] for name in WIDE}
BY_ASSIGNED: Final = {field.assigned: field for field in FIELDS.values() if field.assigned}

_HEADER: Final = struct.Struct("!HBB")

Tlv = tuple[Header, bytes, bytes]
"""A field's header, its value, and its mask; no mask: the whole of it."""


def size(field: Field) -> int:
    """Return the bytes of a field's value."""
    return (field.bits + 7) // 8


def tlv(header: Header, value: bytes, mask: bytes = b"") -> bytes:
    """Return a field of a match or of ``set_field``."""
    return _HEADER.pack(header[0], header[1] << 1 | bool(mask), len(value) + len(mask)) + value + mask


def plain_header(header: Header, length: int) -> bytes:
    """Return the header alone, as ``move`` and ``learn`` name fields."""
    return _HEADER.pack(header[0], header[1] << 1, length)


def read_plain_header(data: bytes, at: int) -> Field | None:
    """Return the field that ``move`` or ``learn`` names, ``None`` if it is none of ours."""
    kind, number, _ = _HEADER.unpack_from(data, at)
    return BY_WIDE_HEADER.get((kind, number >> 1))


def pieces(data: bytes) -> list[bytes]:
    """Cut a match into its fields. Raises ``ValueError`` if it is cut short."""
    found = []
    at = 0
    while at < len(data):
        end = at + _HEADER.size + data[at + 3] if at + 3 < len(data) else len(data) + 1
        if end > len(data):
            raise ValueError("a match was cut short")
        found.append(data[at:end])
        at = end
    return found


def split(piece: bytes) -> Tlv:
    """Return header, value and mask of one field."""
    kind, number, length = _HEADER.unpack_from(piece)
    half = length // 2 if number & 1 else length
    value = piece[_HEADER.size :]
    return (kind, number >> 1), value[:half], value[half:]


def write(field: Field, text: str, number: Number) -> bytes:
    """Return the bytes of a value as it stands in a match. Raises InvalidRequest."""
    try:
        value = _WRITE[field.form](text, number)
        return value.to_bytes(size(field), "big") if isinstance(value, int) else value
    except (ValueError, OSError, OverflowError):
        raise InvalidRequest(f"{field.name}={text} is no value that a flow takes") from None


def read(field: Field, data: bytes, name: Name) -> str:
    """Return a value as it stands in a match, a port by its number where it has no known name."""
    if len(data) != size(field):
        raise ValueError(f"{field.name} is {len(data)} bytes long")
    return _READ[field.form](data, name)


def no_number(name: str) -> int:
    """Say that no interface has a number, for a value that is none."""
    raise ValueError(name)


def no_name(_: int) -> None:
    """Say that no number has a name, for a value that is no interface."""


def port_text(number: int, name: Name) -> str:
    """Return an interface's name in quotes, else its number."""
    known = name(number)
    return f"{number}" if known is None else f'"{known}"'


def port_number(text: str, number: Number) -> int:
    """Return the number of an interface: by its name in quotes, or written out."""
    if text.startswith('"') and text.endswith('"') and len(text) > 2:
        return number(text[1:-1])
    return int(text)


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _untagged(text: str) -> bytes:
    if text != UNTAGGED:
        raise ValueError(text)
    return bytes(2)


def _read_untagged(data: bytes) -> str:
    if data != bytes(2):
        raise ValueError("a flow of ours matches no tag")
    return UNTAGGED


def _hex(data: bytes) -> str:
    value = int.from_bytes(data, "big")
    return f"{value:#x}" if value else "0"


_WRITE: Final[Mapping[Form, Callable[[str, Number], int | bytes]]] = {
    "port": port_number,
    "mac": lambda text, _: _mac(text),
    "ipv4": lambda text, _: socket.inet_pton(socket.AF_INET, text),
    "ipv6": lambda text, _: socket.inet_pton(socket.AF_INET6, text),
    "hex": lambda text, _: int(text, 0),
    "decimal": lambda text, _: int(text, 0),
    "tag": lambda text, _: _untagged(text),
}

_READ: Final[Mapping[Form, Callable[[bytes, Name], str]]] = {
    "port": lambda data, name: port_text(int.from_bytes(data, "big"), name),
    "mac": lambda data, _: data.hex(":"),
    "ipv4": lambda data, _: str(IPv4Address(data)),
    "ipv6": lambda data, _: str(IPv6Address(data)),
    "hex": lambda data, _: _hex(data),
    "decimal": lambda data, _: str(int.from_bytes(data, "big")),
    "tag": lambda data, _: _read_untagged(data),
}
