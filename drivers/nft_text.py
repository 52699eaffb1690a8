"""nft's language: elements of our tables as lines a person would type, and its JSON listing as elements. Pure.

One spelling for each element, whoever writes it: addresses as :mod:`ipaddress` writes them, protocols by name, a range
of ports as ``20000-29999``, a range of addresses as ``10.0.0.0/24``, a single one of either without a range.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from itertools import groupby
from typing import Any, Final

from drivers import ruleset
from drivers.errors import InvalidRequest
from drivers.model import Address, IPNetwork
from drivers.naming import is_link_name
from drivers.resources import TABLE_KEY, Fence, Key, Permit, Publish, Scope

_DECLARED: Final = re.compile(r"(?:set|map) (\w+) \{ typ(?:e|eof) ([\w .@,]+?)(?: : ([\w .]+?))?; (flags interval;)?")
_TYPES_OF: Final = {"iifname": "ifname", "udp dport": "inet_service", "ip saddr": "ipv4_addr", "ip6 saddr": "ipv6_addr"}
_UNSIGNED: Final = 1 << 64  # what JSON has no number for, nft writes in hexadecimal
_COMMENT: Final = re.compile(r"[^\"\\\n]{0,128}")
_PROTOCOL: Final = re.compile(r"[a-z0-9][a-z0-9-]*")
_NUMBERS: Final = {"6": "tcp", "17": "udp", "132": "sctp"}  # nft reads the names of /etc/protocols, where there is one
_LAST_PORT: Final = 65535
_ADDRESSES: Final[Mapping[str, type[Address]]] = {"ipv4_addr": IPv4Address, "ipv6_addr": IPv6Address}
_NETWORKS: Final[Mapping[str, type[IPNetwork]]] = {"ipv4_addr": IPv4Network, "ipv6_addr": IPv6Network}
_NUMBER: Final = re.compile(r"0x[1-9a-f][0-9a-f]*|0|[1-9][0-9]*")
_MAC: Final = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_PHASES: Final = ("add", "delete", "create")
_REMEMBERED: Final = 4096  # spellings; the same addresses come again and again


@dataclass(frozen=True, slots=True)
class Kind:
    """A set's declaration: the types of its fields, of what they lead to (a map's), and whether they may be ranges."""

    fields: tuple[str, ...]
    value: tuple[str, ...] = ()
    interval: bool = False


@dataclass(frozen=True, slots=True)
class Told:
    """What the kernel tells of an element besides its key."""

    comment: str | None = None
    value: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Order:
    """One change of one element."""

    verb: str
    set_name: str
    element: str


_ODD: Final = ("",)
"""The neighbourhood of what may overlap anything: it has a range before its last field."""


def _neighbourhood(at: tuple[str, ...]) -> tuple[str, ...]:
    return _ODD if any("-" in one or "/" in one for one in at[:-1]) else at[:-1]


@dataclass(slots=True)
class Listing:
    """A table as it was read: its structure (``None``: there is no table), its sets, and their elements.

    ``backend`` is the one of the elements' keys.
    """

    backend: str = TABLE_KEY.backend
    form: str | None = None
    kinds: dict[str, Kind] = field(default_factory=dict)
    sets: dict[str, dict[tuple[str, ...], Told]] = field(default_factory=dict)
    _near: dict[str, dict[tuple[str, ...], set[tuple[str, ...]]]] = field(default_factory=dict)

    def get(self, key: Key) -> Told | None:
        """Return an element, or ``None``."""
        return self.sets.get(key.kind, {}).get(key.at)

    def put(self, key: Key, told: Told) -> None:
        """Note that an element is there now."""
        self.sets.setdefault(key.kind, {})[key.at] = told
        if key.kind in self._near:
            self._near[key.kind].setdefault(_neighbourhood(key.at), set()).add(key.at)

    def drop(self, key: Key) -> None:
        """Note that an element is gone."""
        self.sets.get(key.kind, {}).pop(key.at, None)
        self._near.get(key.kind, {}).get(_neighbourhood(key.at), set()).discard(key.at)

    def elements(self) -> Iterator[tuple[Key, Told]]:
        """Yield all elements."""
        for name, elements in self.sets.items():
            for at, told in elements.items():
                yield Key(self.backend, name, at), told

    def overlapping(self, key: Key, kind: Kind) -> Key | None:
        """Return another element that has a part of this range.

        The kernel refuses a range that begins or ends inside another, and silently takes one that covers it
        (``nft_pipapo_insert``, Linux 6.18). Only those are looked at that are equal in all fields but the last, which
        is the one that is a range in ours, and those that somebody made with a range elsewhere.
        """
        if not kind.interval:
            return None
        if key.kind not in self._near:
            near = self._near[key.kind] = {}
            for at in self.sets.get(key.kind, ()):
                near.setdefault(_neighbourhood(at), set()).add(at)
        near = self._near[key.kind]
        for at in (*near.get(_neighbourhood(key.at), ()), *near.get(_ODD, ())):
            if at != key.at and all(map(_meet, kind.fields, at, key.at)):
                return Key(self.backend, key.kind, at)
        return None


# -- what is said ---------------------------------------------------------------------------------------------------


@lru_cache(8)
def kinds_of(text: str) -> Mapping[str, Kind]:
    """Return what a table's text declares, by name."""
    return {
        name: Kind(_types(fields), _types(value) if value else (), bool(interval))
        for name, fields, value, interval in _DECLARED.findall(" ".join(text.split()) + " ")
    }


def _types(declared: str) -> tuple[str, ...]:
    """Return the types of what is declared by name, or by the expression that it is compared with (``typeof``)."""
    return tuple(
        _TYPES_OF.get(one) or ("integer" if one.startswith("@") or one == "ct zone" else one)
        for one in declared.split(" . ")
    )


def creation(key: Key, kind: Kind | None, told: Told) -> list[Order]:
    """Return what creates an element, which must not be there."""
    return [Order("create", key.kind, _line(key, kind, told))]


def addition(key: Key, kind: Kind, told: Told) -> list[Order]:
    """Return what adds an element; an equal one is as good."""
    return [Order("add", key.kind, _line(key, kind, told))]


def deletion(key: Key, kind: Kind | None, told: Told) -> list[Order]:
    """Return what deletes an element.

    A missing one would fail the transaction, so it is added first: that is a no-op where it exists, and is refused
    where the key leads elsewhere by now.
    """
    one = _line(key, kind, Told(value=told.value))
    return [Order("add", key.kind, one), Order("delete", key.kind, one)]


def script(orders: Iterable[Order], table: str) -> list[str]:
    """Return the commands for a table, such as ``inet weft``.

    Those of one kind are in one line, which is a third faster (nft 1.0.6, 10,000 elements).

    Additions that make a deletion safe to repeat come first, then deletions, then what is created in their place.
    """
    turns = sorted(orders, key=lambda one: (_PHASES.index(one.verb), one.set_name))
    return [
        f"{verb} element {table} {name} {{ {', '.join(one.element for one in group)} }}"
        for (verb, name), group in groupby(turns, key=lambda one: (one.verb, one.set_name))
    ]


def fits(key: Key, kind: Kind, told: Told) -> bool:
    """Tell whether an element is one of a set of this kind, in our spelling."""
    if (len(kind.fields), len(kind.value)) != (len(key.at), len(told.value)):
        return False
    return all(
        _is_field(type_, one, interval=kind.interval) for type_, one in zip(kind.fields, key.at, strict=True)
    ) and (all(map(_is_field, kind.value, told.value)))


def element(key: Key, scope: Scope, told: Told) -> Fence | Permit | Publish:
    """Return the element as the resource it is."""
    kind = Publish if key.kind in ruleset.PUBLISHES else Permit if key.kind in ruleset.PERMITS else Fence
    return kind(key=key, scope=scope, value=told.value)


def _line(key: Key, kind: Kind | None, told: Told) -> str:
    """Return an element as nft reads it: link names quoted, all else bare."""
    if kind is None or not fits(key, kind, told):
        spelled = " : ".join(" . ".join(part) for part in (key.at, told.value) if part)
        wanted = " : ".join(" . ".join(part) for part in (kind.fields, kind.value) if part) if kind else "no such set"
        raise InvalidRequest(f"{key.kind} {{ {spelled} }} is no element of ours: wanted is {wanted}")
    said = f' comment "{told.comment}"' if told.comment and _COMMENT.fullmatch(told.comment) else ""
    leads = f" : {_concat(kind.value, told.value)}" if kind.value else ""
    return f"{_concat(kind.fields, key.at)}{said}{leads}"


def _concat(types: Iterable[str], values: Iterable[str]) -> str:
    return " . ".join(f'"{value}"' if type_ == "ifname" else value for type_, value in zip(types, values, strict=True))


@lru_cache(_REMEMBERED)
def _is_field(type_: str, value: str, *, interval: bool = False) -> bool:
    match type_:
        case "ifname":
            return is_link_name(value)
        case "ether_addr":
            return _MAC.fullmatch(value) is not None
        case "inet_proto":
            return _PROTOCOL.fullmatch(value) is not None and value not in _NUMBERS
        case "integer" | "inet_service" if _NUMBER.fullmatch(value):
            number = int(value, 0)
            return value == _spelled_number(number) and (type_ == "integer" or number <= _LAST_PORT)
    try:
        first, last = _span(type_, value)
    except ValueError:
        return False
    return value == _spelled_span(type_, first, last) and (interval or first == last)


@lru_cache(_REMEMBERED)
def _span(type_: str, value: str) -> tuple[int, int]:
    """Return the first and the last of a range of ports or addresses. Raises ``ValueError``."""
    if "/" in value:
        network = _NETWORKS[type_](value)
        return int(network.network_address), int(network.broadcast_address)
    first, dash, last = value.partition("-")
    low = _ordinal(type_, first)
    high = _ordinal(type_, last) if dash else low
    if low > high:
        raise ValueError(f"{value} ends before it begins")
    return low, high


def _ordinal(type_: str, value: str) -> int:
    if type_ in _ADDRESSES:
        return int(_ADDRESSES[type_](value))
    port = int(value)
    if not 0 <= port <= _LAST_PORT:
        raise ValueError(f"{value} is no port")
    return port


def _spelled_span(type_: str, first: int, last: int) -> str:
    if type_ not in _ADDRESSES:
        return f"{first}" if first == last else f"{first}-{last}"
    address = _ADDRESSES[type_]
    if first == last:
        return str(address(first))
    size = last - first + 1
    if size.bit_count() == 1 and first % size == 0:
        return f"{address(first)}/{address(0).max_prefixlen - size.bit_length() + 1}"
    return f"{address(first)}-{address(last)}"


def _meet(type_: str, one: str, other: str) -> bool:
    if one == other or type_ not in (*_ADDRESSES, "inet_service"):
        return one == other
    try:
        (first, last), (begin, end) = _span(type_, one), _span(type_, other)
    except ValueError:
        return False
    return first <= end and begin <= last


# -- what is told ---------------------------------------------------------------------------------------------------


def parse(listing: str, backend: str = TABLE_KEY.backend) -> Listing:
    """Read ``nft -j list table``: elements apart, and the rest without what differs from one loading to the next."""
    table = Listing(backend)
    form: list[Any] = []
    for entry in json.loads(listing)["nftables"]:
        ((what, body),) = entry.items()
        if what == "metainfo":
            continue
        if what in ("set", "map"):
            kind = _kind(what, body)
            table.kinds[body["name"]] = kind
            table.sets[body["name"]] = dict(_told(kind, one) for one in body.pop("elem", ()))
        form.append((what, _settled(body)))
    table.form = json.dumps(form, sort_keys=True)
    return table


def _kind(what: str, body: dict[str, Any]) -> Kind:
    value = _types_told(body["map"]) if what == "map" else ()
    return Kind(_types_told(body["type"]), value, "interval" in body.get("flags", ()))


def _types_told(told: Any) -> tuple[str, ...]:  # noqa: ANN401 - JSON is anything
    """Return types as nft tells them: one, several, several in one text (a map's, 1.0.6), or an expression's."""
    match told:
        case {"typeof": expression}:
            return _of_expression(expression)
        case str():
            return tuple(told.split(" . "))
        case _:
            return tuple(told)


def _of_expression(told: Any) -> tuple[str, ...]:  # noqa: ANN401 - JSON is anything
    """Return the types of what a set was declared with ``typeof``, where nft tells the expression (from 1.1.2 on)."""
    match told:
        case {"concat": [*parts]}:
            return tuple(type_ for part in parts for type_ in _of_expression(part))
        case {"payload": {"protocol": protocol, "field": field_}}:
            return _types(f"{protocol} {field_}")
        case {"payload": _} | {"ct": _}:
            return ("integer",)
        case {"meta": {"key": key}}:
            return _types(key)
        case _:
            return (str(told),)


def _told(kind: Kind, one: Any) -> tuple[tuple[str, ...], Told]:  # noqa: ANN401 - JSON is anything
    comment, leads = None, None
    if kind.value:
        one, leads = one
    value = _fields(kind.value, leads) if kind.value else ()
    if isinstance(one, dict) and "elem" in one:
        one, comment = one["elem"]["val"], one["elem"].get("comment")
    return _fields(kind.fields, one), Told(comment, value)


def _fields(types: tuple[str, ...], told: Any) -> tuple[str, ...]:  # noqa: ANN401 - JSON is anything
    values = told["concat"] if isinstance(told, dict) and "concat" in told else [told]
    return tuple(map(_spelled, types if len(types) == len(values) else ("",) * len(values), values))


def _spelled(type_: str, value: Any) -> str:  # noqa: ANN401 - JSON is anything
    """Return a field as our keys spell it; what is none of ours as nft does."""
    match value:
        case {"prefix": {"addr": str(address), "len": int(length)}}:
            text = f"{address}/{length}"
        case {"range": [first, last]}:
            text = f"{first}-{last}"
        case _:
            text = str(value)
    if type_ == "inet_proto":
        return _NUMBERS.get(text, text)
    if type_ == "integer":
        return _spelled_number(int(text, 0)) if _NUMBER.fullmatch(text) else text
    return _respelled(type_, text) if type_ in (*_ADDRESSES, "inet_service") else text


def _spelled_number(number: int) -> str:
    return f"{number}" if number < _UNSIGNED else f"{number:#x}"


@lru_cache(_REMEMBERED)
def _respelled(type_: str, text: str) -> str:
    try:
        return _spelled_span(type_, *_span(type_, text))
    except ValueError:
        return text


def _settled(value: Any) -> Any:  # noqa: ANN401 - JSON is anything
    """Return JSON without handles, and with the members of anonymous sets in order (the kernel's is its hash's)."""
    match value:
        case {"set": list(members)} if len(value) == 1:
            return {"set": sorted((_settled(member) for member in members), key=json.dumps)}
        case dict():
            return {name: _settled(inner) for name, inner in value.items() if name != "handle"}
        case list():
            return [_settled(inner) for inner in value]
        case _:
            return value
