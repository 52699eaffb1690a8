"""What is said to and told by the kernel's conntrack over netlink, as values. Pure: bytes in, flows out, and back.

Numbers are those of <linux/netfilter/nfnetlink_conntrack.h> and <linux/netfilter/nf_conntrack_common.h>; the bits of a
filter are those of net/netfilter/nf_internals.h.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from socket import AF_INET, AF_INET6
from typing import Final, NamedTuple

from drivers.kernel.wire import Message, attributes

DST_NAT: Final = 1 << 5  # IPS_DST_NAT: translated to another destination
ASSURED: Final = 1 << 2  # IPS_ASSURED: established, as far as its protocol has that

_GET: Final = 1 << 8 | 1  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET
_DELETE: Final = 1 << 8 | 2
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300  # NLM_F_*
_HEADER: Final = struct.Struct("=IHHII")
_FAMILY: Final = struct.Struct("=BBH")  # nfgenmsg: family, version, resource id
_ATTRIBUTE: Final = struct.Struct("=HH")
_NESTED: Final = 0x8000

_TUPLE_ORIG, _TUPLE_REPLY, _STATUS, _ID, _ZONE, _FILTER, _STATUS_MASK = 1, 2, 3, 12, 18, 25, 26  # CTA_*
_IP, _PROTO = 1, 2  # CTA_TUPLE_*
_SRC, _DST = {4: 1, 6: 3}, {4: 2, 6: 4}  # CTA_IP_*
_NUMBER, _SRC_PORT, _DST_PORT = 1, 2, 3  # CTA_PROTO_*
_F_SRC, _F_DST, _F_NUMBER, _F_SRC_PORT, _F_DST_PORT = 1 << 0, 1 << 1, 1 << 3, 1 << 4, 1 << 5  # CTA_FILTER_F_*
_FILTER_ORIG, _FILTER_REPLY = 1, 2

_FAMILIES: Final = {4: AF_INET, 6: AF_INET6}
_TRANSPORTS: Final = {"tcp": 6, "udp": 17, "sctp": 132}
_NAMES: Final = {number: name for name, number in _TRANSPORTS.items()}


class Way(NamedTuple):
    """One direction of a flow, addresses packed. In a pattern ``None`` stands for anything; a port needs a transport.

    A tuple, and not a dataclass, for there may be some ten thousand of them: it is made in a third of the time.
    """

    source: bytes | None = None
    target: bytes | None = None
    transport: str | None = None
    source_port: int | None = None
    target_port: int | None = None

    def covers(self, other: Way) -> bool:
        """Tell whether another one is as this pattern says."""
        return all(mine is None or mine == theirs for mine, theirs in zip(self, other, strict=True))


ANY: Final = Way()


class Flow(NamedTuple):
    """A conversation that is tracked.

    ``sent``    as the first packet came: from the client to the address and port that it used
    ``answer``  as an answer comes back: from where the flow was translated to
    ``status``  IPS_*
    ``told``    the attributes that the kernel told of it
    """

    sent: Way
    answer: Way
    status: int
    told: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """Which flows are meant. ``status`` must be set, ``no_status`` must not be."""

    version: int
    sent: Way = ANY
    answer: Way = ANY
    status: int = 0
    no_status: int = 0

    def covers(self, flow: Flow) -> bool:
        """Tell whether a flow is meant."""
        judged = self.status | self.no_status
        return (
            flow.status & judged == self.status
            and (self.sent == ANY or self.sent.covers(flow.sent))
            and (self.answer == ANY or self.answer.covers(flow.answer))
        )


def dump(pattern: Pattern) -> bytes:
    """Ask for all flows of a pattern. Kernels before 5.8 tell of every one, before 5.19 of every status."""
    return _message(_GET, _REQUEST | _DUMP, pattern.version, _spelled(pattern))


def delete_all(pattern: Pattern) -> bytes:
    """Delete all flows of a pattern at once. Kernels before 6.11 know no patterns here, and answer EINVAL.

    They would take one without addresses and ports for "all there are", so such a one is refused.
    """
    if pattern.sent == pattern.answer == ANY:
        raise ValueError("a pattern of every flow")
    return _message(_DELETE, _REQUEST | _ACK, pattern.version, _spelled(pattern))


def delete(version: int, flow: Flow) -> bytes:
    """Delete one flow: by how it began, its zone, and its id, so that a successor on the same ports is spared."""
    told = attributes(flow.told)
    said = ((kind, told[kind]) for kind in (_TUPLE_ORIG, _ZONE, _ID) if kind in told)
    names = (_attribute(kind | _NESTED if kind == _TUPLE_ORIG else kind, value) for kind, value in said)
    return _message(_DELETE, _REQUEST | _ACK, version, b"".join(names))


def flow(message: Message) -> Flow:
    """Return the flow that a message is about."""
    told = message.body[_FAMILY.size :]
    said = attributes(told)
    status = int.from_bytes(said.get(_STATUS, b""), "big")
    return Flow(_way(said.get(_TUPLE_ORIG, b"")), _way(said.get(_TUPLE_REPLY, b"")), status, told)


def _way(data: bytes) -> Way:
    """Read a direction: in one go where it has ports and is spelled as the kernel does, else by parts (four times)."""
    layout = _LAYOUTS.get(len(data))
    found = layout.fullmatch(data) if layout else None
    if found is None:
        return _way_by_parts(data)
    source, target, number, source_port, target_port = found.groups()
    return Way(source, target, _NAMES.get(number[0]) or f"{number[0]}", _port(source_port), _port(target_port))


def _way_by_parts(data: bytes) -> Way:
    told = attributes(data)
    ip, proto = attributes(told.get(_IP, b"")), attributes(told.get(_PROTO, b""))
    version = 4 if _SRC[4] in ip else 6
    number = next(iter(proto.get(_NUMBER, b"")), 0)
    return Way(
        source=ip.get(_SRC[version]),
        target=ip.get(_DST[version]),
        transport=_NAMES.get(number, f"{number}"),
        source_port=_port(proto.get(_SRC_PORT)),
        target_port=_port(proto.get(_DST_PORT)),
    )


def _port(data: bytes | None) -> int | None:
    return int.from_bytes(data, "big") if data else None


def _layout(version: int) -> re.Pattern[bytes]:
    """Return how the kernel spells a direction that has ports (``ctnetlink_dump_tuples``, Linux 6.18)."""
    size = {4: 4, 6: 16}[version]

    def head(kind: int, length: int) -> bytes:
        return re.escape(_ATTRIBUTE.pack(_ATTRIBUTE.size + length, kind))

    address, port = b"(.{%d})" % size, b"(..).."
    ip = head(_SRC[version], size) + address + head(_DST[version], size) + address
    proto = head(_NUMBER, 1) + b"(.)..." + head(_SRC_PORT, 2) + port + head(_DST_PORT, 2) + port
    return re.compile(head(_IP | _NESTED, 2 * (4 + size)) + ip + head(_PROTO | _NESTED, 24) + proto, re.DOTALL)


_LAYOUTS: Final = {4 + 2 * (4 + size) + 4 + 24: _layout(version) for version, size in ((4, 4), (6, 16))}


def _spelled(pattern: Pattern) -> bytes:
    attributes, flags = [], []
    for way, kind, flag in ((pattern.sent, _TUPLE_ORIG, _FILTER_ORIG), (pattern.answer, _TUPLE_REPLY, _FILTER_REPLY)):
        bits, fields = _spelled_way(way, pattern.version)
        if bits:
            attributes.append(_attribute(kind | _NESTED, fields))
            flags.append(_attribute(flag, struct.pack("=I", bits)))
    if flags:
        attributes.append(_attribute(_FILTER | _NESTED, b"".join(flags)))
    if judged := pattern.status | pattern.no_status:
        attributes.append(_attribute(_STATUS, pattern.status.to_bytes(4, "big")))
        attributes.append(_attribute(_STATUS_MASK, judged.to_bytes(4, "big")))
    return b"".join(attributes)


def _spelled_way(way: Way, version: int) -> tuple[int, bytes]:
    """Return which fields count, and the fields."""
    ip = [
        (bit, _attribute(kind[version], address))
        for bit, kind, address in ((_F_SRC, _SRC, way.source), (_F_DST, _DST, way.target))
        if address is not None
    ]
    number = None if way.transport is None else _TRANSPORTS[way.transport]
    proto = [
        (bit, _attribute(kind, value.to_bytes(size, "big")))
        for bit, kind, size, value in (
            (_F_NUMBER, _NUMBER, 1, number),
            (_F_SRC_PORT, _SRC_PORT, 2, way.source_port),
            (_F_DST_PORT, _DST_PORT, 2, way.target_port),
        )
        if value is not None
    ]
    parts = ((_IP, ip), (_PROTO, proto))
    nests = (_attribute(kind | _NESTED, b"".join(data for _, data in part)) for kind, part in parts if part)
    return sum(bit for _, part in parts for bit, _ in part), b"".join(nests)


def _attribute(kind: int, data: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(data), kind) + data + bytes(-len(data) % 4)


def _message(kind: int, flags: int, version: int, attributes: bytes) -> bytes:
    body = _FAMILY.pack(_FAMILIES[version], 0, 0) + attributes
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, 0, 0) + body
