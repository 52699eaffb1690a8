"""The backend of table ``inet weft``: its text, and the elements of its sets, each with its scope in the comment.

Three ideas:

*One batch, one transaction.* The kernel takes all of it or nothing, so no packet meets half of it. If it is refused,
the steps are taken one by one to find out which are at fault.

*A mirror.* What is asked in a request's path is answered from memory; a listing is read once, and again after somebody
else changed the table, which the monitor tells. Without a :meth:`~NftBackend.watch` nobody would tell, so every
``observe`` reads then.

*The kernel's own words.* Text and listing differ in spelling, so equality is judged by the listing that followed our
loading of a text. It is in memory only: after a start the table counts as different, and the first converge of the
host replaces it, in one transaction that keeps every element, ours and others'. That costs milliseconds, and an upgrade
takes the same path.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final

from drivers import ruleset
from drivers.contract import Dirty, Step
from drivers.errors import Conflict, HostFailure, InvalidRequest, WeftError
from drivers.libnftables import Nft, own_ports
from drivers.marks import Marks, describe
from drivers.naming import is_link_name
from drivers.nft_monitor import Monitor, generation
from drivers.resources import HOST, TABLE_KEY, Element, Fence, Foreign, Key, Permit, Resource, Scope, Table

_PERMITS: Final = frozenset(
    (ruleset.SAME, ruleset.OPERATOR_LINKS, *ruleset.MASQUERADE.values(), *ruleset.ADOPTED_MASQUERADE.values())
)
_ABSENT: Final = "No such file or directory"
_ATTEMPTS: Final = 5  # to load a text and read it back without somebody else's transaction in between
_SET: Final = re.compile(r"set (\w+) \{ type ([\w .]+);")
_COMMENT: Final = re.compile(r"[^\"\\\n]{0,128}")


@dataclass(slots=True)
class _Mirror:
    """The table as it was last read: its structure (``None``: there is no table), and each element's comment."""

    form: str | None = None
    elements: dict[Key, str | None] = field(default_factory=dict)


class NftBackend:
    """Observes and changes table ``inet weft`` of the network namespace it is made in. Thread-safe."""

    def __init__(self, marks: Marks) -> None:
        self._marks = marks
        self._nft = Nft()
        self._lock = threading.RLock()
        self._mirror: _Mirror | None = None
        self._loaded: tuple[str, str] | None = None  # the text that we loaded, and the kernel's form of it
        self._watchers = 0
        self._ports: frozenset[int] = frozenset()

    @property
    def calls(self) -> int:
        """How many times nft was run."""
        return self._nft.calls

    def close(self) -> None:
        """Give back the socket. Nothing on the host changes."""
        self._nft.close()

    # -- what is there ----------------------------------------------------------------------------------------------

    def observe(self, keys: Collection[Key]) -> Mapping[Key, Resource | Foreign]:
        """Return what is at ``keys``, from the mirror."""
        with self._lock:
            mirror = self._read()
            found = ((key, self._found(mirror, key)) for key in keys)
            return {key: resource for key, resource in found if resource is not None}

    def survey(self) -> Mapping[Key, Resource]:
        """Read all of the table, and return what carries our mark. The table itself is the host's, unmarked."""
        with self._lock:
            mirror = self._read(again=True)
            found = ((key, self._found(mirror, key)) for key in (TABLE_KEY, *mirror.elements))
            return {key: resource for key, resource in found if isinstance(resource, Resource)}

    def _found(self, mirror: _Mirror, key: Key) -> Resource | Foreign | None:
        if key == TABLE_KEY:
            if mirror.form is None:
                return None
            known = self._loaded is not None and mirror.form == self._loaded[1]
            return Table(key=key, scope=HOST, text=self._loaded[0] if self._loaded and known else "")
        if key not in mirror.elements:
            return None
        comment = mirror.elements[key]
        scope = self._marks.read(comment)
        return Foreign(key, describe(comment)) if scope is None else _element(key, scope)

    def _read(self, *, again: bool = False) -> _Mirror:
        if self._mirror is None or again or not self._watchers:
            self._mirror = self._listing()
        return self._mirror

    def _listing(self) -> _Mirror:
        try:
            return _parse(self._nft.run("list table inet weft", json=True))
        except HostFailure as failure:
            if _ABSENT in str(failure):
                return _Mirror()
            raise

    # -- what is changed --------------------------------------------------------------------------------------------

    def apply(self, steps: Sequence[Step]) -> Mapping[Key, Exception]:
        """Take all steps in one transaction, else one by one. The table comes first and goes last."""
        steps = sorted(steps, key=lambda step: (step.key == TABLE_KEY) == (step.new is None))
        with self._lock:
            try:
                self._take(steps)
            except WeftError:
                self._mirror = None  # it may be what was wrong
                return self._one_by_one(steps)
        return {}

    def _one_by_one(self, steps: Sequence[Step]) -> dict[Key, Exception]:
        failures: dict[Key, Exception] = {}
        for step in steps:
            waits = step.new.needs & failures.keys() if step.new else ()
            try:
                if waits:
                    raise HostFailure(f"{step.key} waits for {', '.join(map(str, waits))}")
                self._take([step])
            except WeftError as failure:
                failures[step.key] = failure
        if failures:
            self._mirror = None
        return failures

    def _take(self, steps: Sequence[Step]) -> None:
        """Take the steps in one transaction: all or nothing."""
        mirror = self._read()
        wanted = next((step.new for step in steps if isinstance(step.new, Table)), None)
        if wanted is not None and self._found(mirror, TABLE_KEY) != wanted:
            self._replace(wanted, [line for step in steps for line in self._lines(mirror, step)])
        elif lines := [line for step in steps for line in self._lines(mirror, step)]:
            self._nft.run("\n".join(lines))
        else:
            return
        if any(step.key == TABLE_KEY for step in steps):
            self._mirror = None
            return
        for step in steps:
            if step.new is None:
                self._forget(mirror, step)
            else:
                mirror.elements[step.key] = self._marks.write(step.new.scope)

    def _replace(self, table: Table, lines: Sequence[str]) -> None:
        """Load the text with every element that is there, then read back how the kernel spells it."""
        kinds = _kinds(table.text)
        for _ in range(_ATTEMPTS):
            before = generation()
            kept = self._listing().elements
            self._nft.run(
                "\n".join(
                    (
                        "table inet weft {}",
                        "delete table inet weft",
                        f"table inet weft {{\n{table.text}\n}}",
                        *(_add("add", key, kinds, comment) for key, comment in kept.items() if _fits(key, kinds)),
                        *lines,
                    )
                )
            )
            form = self._listing().form
            if generation() == before + 1 and form is not None:
                self._loaded = (table.text, form)
                return
            lines = ()  # they are in; the next round finds them in the listing
        self._loaded = None  # too busy to tell our table from one that was changed at once: the next converge will

    def _lines(self, mirror: _Mirror, step: Step) -> Iterator[str]:
        """Return the commands of a step, none if there is nothing left to do."""
        key, kinds = step.key, _KINDS
        match step.new:
            case Table():
                return
            case None if key == TABLE_KEY:
                if mirror.form is not None:
                    self._refuse_to_take_along(mirror)
                    yield "delete table inet weft"
            case None:
                if self._marks.read(mirror.elements.get(key)) == step.resource.scope:
                    # A missing element fails the batch, so it is made sure of first; adding what exists is a no-op.
                    yield _add("add", key, kinds)
                    yield _add("delete", key, kinds)
            case Element() as element if key not in mirror.elements:
                yield _add("create", key, kinds, self._marks.write(element.scope))
            case Element() as element:
                found = self._found(mirror, key)
                if found != element:
                    holder = found.what if isinstance(found, Foreign) else found.scope if found else "nobody"
                    raise Conflict(f"{element.scope}: {key} is taken by {holder}")
            case other:
                raise InvalidRequest(f"{other.key} is not for nft")

    def _forget(self, mirror: _Mirror, step: Step) -> None:
        if self._marks.read(mirror.elements.get(step.key)) == step.resource.scope:
            del mirror.elements[step.key]

    def _refuse_to_take_along(self, mirror: _Mirror) -> None:
        """Raise if the table holds what is not ours: deleting it would open another weft's networks."""
        strangers = {describe(text) for text in mirror.elements.values() if self._marks.read(text) is None}
        if strangers:
            raise Conflict(
                f"table inet weft still holds elements of {', '.join(sorted(strangers))}; "
                "if nothing on this host needs them, remove it with: nft delete table inet weft"
            )

    # -- what others change -----------------------------------------------------------------------------------------

    def watch(self, dirty: Dirty) -> Callable[[], None]:
        """Tell of changes by others: to our table (anything may differ), and to Docker's FORWARD (the host's may)."""

        def changed() -> None:
            with self._lock:
                self._mirror = None
            dirty(None)

        def ended() -> None:
            with self._lock:
                self._watchers -= 1

        with self._lock:
            monitor = Monitor(ours=self._ours, table=changed, filter=lambda: dirty(HOST), ended=ended)
            self._watchers += 1
            self._mirror = None  # what changed before the monitor listened is told by nobody
        return monitor.stop

    def _ours(self, ports: frozenset[int]) -> bool:
        if not ports <= self._ports:
            self._ports = own_ports()
        return ports <= self._ports


# -- nft's language -------------------------------------------------------------------------------------------------


def _kinds(text: str) -> dict[str, tuple[str, ...]]:
    """Return the field types of each set that a table's text declares."""
    return {name: tuple(kinds.split(" . ")) for name, kinds in _SET.findall(text)}


_KINDS: Final = _kinds(ruleset.TEXT)


def _element(key: Key, scope: Scope) -> Element:
    return Permit(key=key, scope=scope) if key.kind in _PERMITS else Fence(key=key, scope=scope)


def _fits(key: Key, kinds: Mapping[str, tuple[str, ...]]) -> bool:
    expected = kinds.get(key.kind, ())
    return len(expected) == len(key.at) and all(map(_is_field, expected, key.at))


def _is_field(kind: str, value: str) -> bool:
    try:
        return is_link_name(value) if kind == "ifname" else value == _address(kind, value)
    except ValueError:
        return False


def _address(kind: str, value: str) -> str:
    return str(IPv4Address(value) if kind == "ipv4_addr" else IPv6Address(value))


def _add(verb: str, key: Key, kinds: Mapping[str, tuple[str, ...]], comment: str | None = None) -> str:
    """Return the line that adds, creates or deletes an element: link names quoted, addresses bare."""
    if not _fits(key, kinds):
        raise InvalidRequest(f"{key} is no element of a set of inet weft: wanted are {kinds.get(key.kind, 'no such')}")
    fields = " . ".join(
        f'"{value}"' if kind == "ifname" else value for kind, value in zip(kinds[key.kind], key.at, strict=True)
    )
    said = f' comment "{comment}"' if comment and _COMMENT.fullmatch(comment) else ""
    return f"{verb} element inet weft {key.kind} {{ {fields}{said} }}"


def _parse(listing: str) -> _Mirror:
    """Read ``nft -j list table``: elements apart, and the rest without what differs from one loading to the next."""
    elements: dict[Key, str | None] = {}
    form: list[Any] = []
    for entry in json.loads(listing)["nftables"]:
        ((kind, body),) = entry.items()
        if kind == "metainfo":
            continue
        for one in body.pop("elem", ()):
            key, comment = _parse_element(body["name"], one)
            elements[key] = comment
        form.append((kind, _settled(body)))
    return _Mirror(json.dumps(form, sort_keys=True), elements)


def _parse_element(set_name: str, one: Any) -> tuple[Key, str | None]:  # noqa: ANN401 - JSON is anything
    comment = None
    if isinstance(one, dict) and "elem" in one:
        one, comment = one["elem"]["val"], one["elem"].get("comment")
    values = one["concat"] if isinstance(one, dict) and "concat" in one else [one]
    kinds = _KINDS.get(set_name, ())
    fields = tuple(map(_spelled, kinds if len(kinds) == len(values) else ("",) * len(values), values))
    return Key("nft", set_name, fields), comment


def _spelled(kind: str, value: Any) -> str:  # noqa: ANN401 - JSON is anything
    """Return a field as our keys spell it; what is none of ours (a prefix, a number) as nft does."""
    try:
        return _address(kind, value) if kind in ("ipv4_addr", "ipv6_addr") else str(value)
    except ValueError:
        return str(value)


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
