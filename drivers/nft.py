"""The backend of a table of ours (``inet weft``, ``bridge weft``): its text, and the elements of its sets and maps.

Each element is marked in its comment.

Three ideas:

*One batch, one transaction.* The kernel takes all of it or nothing, so no packet meets half of it. If it is refused,
the steps at fault are looked for by halves, and the others are taken.

*A mirror.* What is asked in a request's path is answered from memory; a listing is read once, and again after somebody
else changed the table, which the monitor tells. Without a :meth:`~NftBackend.watch` nobody would tell, so every
``observe`` reads then.

*The kernel's own words.* Text and listing differ in spelling, so equality is judged by the listing that followed our
loading of a text. It is in memory only: after a start the table counts as different, and the first converge of the
host replaces it, in one transaction that keeps every element, ours and others'. That costs milliseconds, and an upgrade
takes the same path.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from drivers import ruleset, ruleset_bridge
from drivers.contract import Dirty, Effect, Step
from drivers.errors import Conflict, HostFailure, InvalidRequest, WeftError
from drivers.libnftables import Nft, own_ports
from drivers.marks import Marks, describe
from drivers.nft_monitor import Monitor, generation
from drivers.nft_text import (
    Kind,
    Listing,
    Order,
    Told,
    addition,
    creation,
    deletion,
    element,
    fits,
    kinds_of,
    parse,
    script,
)
from drivers.resources import (
    BRIDGE_TABLE_KEY,
    HOST,
    TABLE_KEY,
    Element,
    Foreign,
    Key,
    Publish,
    Resource,
    Table,
)

_TEXTS: Final = {TABLE_KEY: ruleset.TEXT, BRIDGE_TABLE_KEY: ruleset_bridge.TEXT}
_WITH_FLOWS: Final = ruleset.PUBLISHES | {*ruleset.LINKED.values()}  # the sets by which flows came to be
_ATTEMPTS: Final = 5  # to load a text and read it back without somebody else's transaction in between


class NftBackend:
    """Observes and changes one table of the network namespace it is made in. Thread-safe.

    ``table`` is the table's key. ``effect`` is called with the steps of each batch on published ports and on links,
    once they are taken, in the thread that asked for them.
    """

    def __init__(self, marks: Marks, effect: Effect = lambda _: None, *, table: Key = TABLE_KEY) -> None:
        self._table = table
        self._name = " ".join(table.at)
        self._marks = marks
        self._effect = effect
        self._nft = Nft()
        self._lock = threading.RLock()
        self._mirror: Listing | None = None
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

    def foreign(self, table: str) -> str | None:
        """Return the listing of somebody else's table of family inet, ``None`` if there is none."""
        try:
            return self._nft.run(f"list table inet {table}")
        except HostFailure:
            return None

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
            found = ((key, self._found(mirror, key)) for key in (self._table, *(key for key, _ in mirror.elements())))
            return {key: resource for key, resource in found if isinstance(resource, Resource)}

    def _found(self, mirror: Listing, key: Key) -> Resource | Foreign | None:
        if key == self._table:
            if mirror.form is None:
                return None
            known = self._loaded is not None and mirror.form == self._loaded[1]
            return Table(key=key, scope=HOST, text=self._loaded[0] if self._loaded and known else "")
        told = mirror.get(key)
        if told is None:
            return None
        scope = self._marks.read(told.comment)
        return Foreign(key, describe(told.comment)) if scope is None else element(key, scope, told)

    def _read(self, *, again: bool = False) -> Listing:
        if self._mirror is None or again or not self._watchers:
            self._mirror = self._listing()
        return self._mirror

    def _listing(self) -> Listing:
        told = self._nft.listing(self._name)
        return Listing(self._table.backend) if told is None else parse(told, self._table.backend)

    # -- what is changed --------------------------------------------------------------------------------------------

    def apply(self, steps: Sequence[Step]) -> Mapping[Key, Exception]:
        """Take all steps in one transaction, else as many as can be."""
        steps = sorted(steps, key=_turn)
        failures: dict[Key, Exception] = {}
        with self._lock:
            try:
                self._take(steps)
            except WeftError:
                self._mirror = None  # it may be what was wrong
                self._take_apart(steps, failures)
        translated = [step for step in steps if step.key.kind in _WITH_FLOWS and step.key not in failures]
        if translated:
            self._effect(translated)
        return failures

    def _take_apart(self, steps: Sequence[Step], failures: dict[Key, Exception]) -> None:
        """Take those steps that can be taken. What the mirror shows to be taken by others never gets to the kernel."""
        try:
            mirror = self._read()
        except WeftError as failure:
            failures |= dict.fromkeys((step.key for step in steps), failure)
            return
        kinds = self._kinds(mirror, steps)
        ready: list[Step] = []
        for step in steps:
            waits = step.new.needs & failures.keys() if step.new else ()
            try:
                if waits:
                    raise HostFailure(f"{step.key} waits for {', '.join(map(str, waits))}")
                self._orders(mirror, step, kinds)
            except WeftError as failure:
                failures[step.key] = failure
            else:
                ready.append(step)
        if not ready:
            return
        self._mirror = None
        try:
            self._take(ready)
        except WeftError as failure:
            self._mirror = None
            if len(ready) == 1:
                failures[ready[0].key] = failure
                return
            half = len(ready) // 2
            for part in (ready[:half], ready[half:]):
                self._take_apart(part, failures)

    def _take(self, steps: Sequence[Step]) -> None:
        """Take the steps in one transaction: all or nothing. On an error the mirror is not to be believed."""
        mirror = self._read()
        kinds = self._kinds(mirror, steps)
        wanted = next((step.new for step in steps if isinstance(step.new, Table)), None)
        lines = script((one for step in steps for one in self._orders(mirror, step, kinds)), self._name)
        if wanted is not None and self._found(mirror, self._table) != wanted:
            self._replace(wanted, lines)
            return
        unwanted = mirror.form is not None and any(step.key == self._table and step.new is None for step in steps)
        if unwanted:
            lines.append(f"delete table {self._name}")
        if lines:
            self._nft.run("\n".join(lines))
        if unwanted:
            self._mirror = None

    def _replace(self, table: Table, lines: Sequence[str]) -> None:
        """Load the text with every element that is there, then read back how the kernel spells it."""
        kinds = kinds_of(table.text)
        for _ in range(_ATTEMPTS):
            before = generation()
            kept = [
                one
                for key, told in self._listing().elements()
                if key.kind in kinds and fits(key, kinds[key.kind], told)
                for one in addition(key, kinds[key.kind], told)
            ]
            name = self._name
            text = f"table {name} {{}}\ndelete table {name}\ntable {name} {{\n{table.text}\n}}"
            self._nft.run("\n".join((text, *script(kept, name), *lines)))
            read = self._listing()
            if generation() == before + 1 and read.form is not None:
                self._mirror, self._loaded = read, (table.text, read.form)
                return
            lines = ()  # they are in; the next round finds them in the listing
        self._mirror = self._loaded = None  # too busy to tell ours from one that was changed at once: the next will

    def _orders(self, mirror: Listing, step: Step, kinds: Mapping[str, Kind]) -> list[Order]:
        """Return the changes of a step, none if there is nothing left to do, and note them in the mirror."""
        key, kind, there = step.key, kinds.get(step.key.kind), mirror.get(step.key)
        found = self._found(mirror, key)
        ours = isinstance(found, Resource) and found.scope == step.resource.scope
        match step.new:
            case Table():
                return []
            case None if key == self._table:
                self._refuse_to_take_along(mirror)
                return []
            case None:
                if there is None or not ours:
                    return []
                mirror.drop(key)
                return deletion(key, kind, there)
            case Element() as new if found == new:
                return []
            case Element() as new if found is None or (ours and step.old is not None):
                told = Told(self._marks.write(new.scope), new.value)
                orders = [*(deletion(key, kind, there) if there else ()), *creation(key, kind, told)]
                if kind is not None and (other := mirror.overlapping(key, kind)) is not None:
                    raise Conflict(
                        f"{new.scope}: {key} overlaps {other}, held by {_holder(self._found(mirror, other))}"
                    )
                mirror.put(key, told)
                return orders
            case Element() as new:
                raise Conflict(f"{new.scope}: {key} is taken by {_holder(found)}")
            case other:
                raise InvalidRequest(f"{other.key} is not for nft")

    def _refuse_to_take_along(self, mirror: Listing) -> None:
        """Raise if the table holds what is not ours: deleting it would open another weft's networks."""
        strangers = {describe(told.comment) for _, told in mirror.elements() if self._marks.read(told.comment) is None}
        if strangers:
            raise Conflict(
                f"table {self._name} still holds elements of {', '.join(sorted(strangers))}; "
                f"if nothing on this host needs them, remove it with: nft delete table {self._name}"
            )

    # -- what others change -----------------------------------------------------------------------------------------

    def watch(self, dirty: Dirty) -> Callable[[], None]:
        """Tell of changes by others to our table: anything may differ. ``inet weft`` also tells of Docker's FORWARD."""

        def changed() -> None:
            with self._lock:
                self._mirror = None
            dirty(None)

        def ended() -> None:
            with self._lock:
                self._watchers -= 1

        with self._lock:
            monitor = Monitor(
                family=self._table.at[0],
                ours=self._ours,
                table=changed,
                filter=(lambda: dirty(HOST)) if self._table == TABLE_KEY else (lambda: None),
                ended=ended,
            )
            self._watchers += 1
            self._mirror = None  # what changed before the monitor listened is told by nobody
        return monitor.stop

    def _ours(self, ports: frozenset[int]) -> bool:
        if not ports <= self._ports:
            self._ports = own_ports()
        return ports <= self._ports

    def _kinds(self, mirror: Listing, steps: Sequence[Step]) -> Mapping[str, Kind]:
        """Return the declarations that hold once the steps are taken; without a table, those of the text of ours."""
        text = next((step.new.text for step in steps if isinstance(step.new, Table)), "")
        return {**kinds_of(_TEXTS[self._table]), **mirror.kinds, **kinds_of(text)}


def _turn(step: Step) -> int:
    """Return when a step is taken: the table before its elements and after them, deletions before creations."""
    if step.key.kind == "table":
        return 3 if step.new is None else 0
    return 1 if step.new is None else 2


def _holder(found: Resource | Foreign | None) -> str:
    match found:
        case Foreign():
            return found.what
        case Publish():
            return f"{found.scope}'s and leads to {' port '.join(found.value)}"
        case _:
            return f"{found.scope}" if found else "nobody's any more"
