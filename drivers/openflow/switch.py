"""One bridge's flows: its session, the mirror of what is there, and changes in bundles.

The bridge or ovs-vswitchd may be gone, or come back without a flow (facts/ovs.md 6): nobody listening means that there
are no flows, and each new session starts from a dump. Somebody who does not answer is another matter, and an error.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

from drivers.contract import Step
from drivers.errors import Conflict, HostFailure, InvalidRequest, WeftError
from drivers.openflow import actions, matches, messages
from drivers.openflow.marks import Cookies
from drivers.openflow.messages import Bundle, Entry, Event, Message, Part, Place, Refusal, Type
from drivers.openflow.mirror import Mirror
from drivers.openflow.ports import NoPort, OfPort, Ports
from drivers.openflow.session import PATIENCE, Session
from drivers.openflow.words import explain
from drivers.resources import Flow, Foreign, Key, Resource, Scope, flow, flow_key

_PER_FLOW: Final = 0.002  # seconds of patience more for each flow of a bundle

Changed = Callable[[Scope | None], None]
"""Called, with the lock held, for a scope whose flows somebody else changed; ``None``: all may be gone."""


@dataclass(frozen=True, slots=True)
class _Change:
    """A flow to make, or to delete (``entry`` is None; ``cookie`` is the one that it has)."""

    step: Step
    place: Place
    cookie: int
    entry: Entry | None

    def message(self, xid: int) -> bytes:
        if self.entry is None:
            return messages.deletion(xid, self.place, self.cookie)
        return messages.addition(xid, self.place, self.entry)


class Switch:
    """Observes and changes the flows of one bridge. Thread-safe.

    ``heard`` is called from the session's thread when :meth:`look` has something to do; it must not wait.
    """

    def __init__(
        self,
        bridge: str,
        rundir: Path,
        cookies: Cookies,
        ofport: OfPort,
        *,
        changed: Changed,
        heard: Callable[[], None],
    ) -> None:
        self._bridge = bridge
        self._path = rundir / f"{bridge}.mgmt"
        self._cookies = cookies
        self._ports = Ports(bridge, ofport, self._list_ports)
        self._changed = changed
        self._heard = heard
        self._lock = threading.RLock()
        self._session: Session | None = None
        self._mirror = Mirror()
        self._doubtful = False
        self._bundles = count(1)
        self.calls = 0

    def close(self) -> None:
        """End the session. Nothing in the switch changes."""
        with self._lock:
            session, self._session = self._session, None
        if session is not None:
            session.close()

    # -- what is there ----------------------------------------------------------------------------------------------

    def observe(self, keys: Collection[Key]) -> dict[Key, Resource | Foreign]:
        """Return what is at ``keys``, from the mirror."""
        with self._lock:
            session = self._connected()
            if session is None:
                return {}
            self._catch_up(session)
            self._ports.look_again()
            found = [
                (key, place, entry)
                for key in keys
                if (place := self._place(key)) is not None and (entry := self._mirror.get(place)) is not None
            ]
            if self._ports.renumbered():  # no key leads to the flows at the old number: only a dump shows them
                self._changed(None)
            if any(self._cookies.known(entry.cookie) is None for _, _, entry in found):
                self._cookies.refresh()
            return {key: self._seen(key, place, entry) for key, place, entry in found}

    def survey(self) -> dict[Key, Resource]:
        """Dump all flows, and return those that are ours."""
        with self._lock:
            session = self._connected()
            if session is None:
                return {}
            self._dump(session)
            self._ports.look_again()
            self._cookies.refresh()
            found = dict(self._ours())
            self._ports.let_go()
            return found

    def _ours(self) -> Iterator[tuple[Key, Resource]]:
        for place, entry in self._mirror:
            scope = self._cookies.read(entry.cookie, place, entry.instructions)
            if scope is None:
                continue
            with suppress(matches.Unreadable):  # not of our making, whatever its cookie says
                match = matches.decode(place.match, self._ports.name)
                key = flow_key(self._bridge, place.table, place.priority, match)
                yield key, flow(key, scope, actions.decode(entry.instructions, self._ports.name))

    def taken(self, tables: Collection[int]) -> list[tuple[Scope, str]]:
        """Return the scope and the match of each flow of these tables that is ours and took a packet."""
        with self._lock:
            session = self._connected()
            if session is None:
                return []
            answers, _ = self._ask(session, [messages.flows_request(session.xid(), table) for table in tables])
            counted = [one for part in _parts(answers, Part.FLOWS) for one in messages.read_counted(part)]
            return [
                (scope, matches.decode(place.match, self._ports.name))
                for place, entry, packets in counted
                if packets and (scope := self._cookies.known(entry.cookie)) is not None
            ]

    def look(self) -> None:
        """Connect if that is possible now, and tell what others changed."""
        with self._lock:
            session = self._connected()
            if session is not None:
                self._follow(session)

    def _seen(self, key: Key, place: Place, entry: Entry) -> Resource | Foreign:
        scope = self._cookies.read(entry.cookie, place, entry.instructions)
        if scope is None:
            return Foreign(key, f"a flow with cookie {entry.cookie:#x}, which is not this weft's")
        return flow(key, scope, actions.decode(entry.instructions, self._ports.name))

    def _place(self, key: Key) -> Place | None:
        """Return where a key is, or was last; ``None`` if it names an interface that never had a number."""
        try:
            return self._at(key, self._ports.number_at_last)
        except NoPort:
            return None

    def _at(self, key: Key, number: Callable[[str], int]) -> Place:
        if key.kind != "flow":
            raise InvalidRequest(f"{key} is not a flow")
        _, table, priority, match = key.at
        return Place(int(table), int(priority), matches.encode(match, number))

    # -- what is changed --------------------------------------------------------------------------------------------

    def apply(self, steps: Sequence[Step]) -> Mapping[Key, Exception]:
        """Take the steps in one bundle; those that the switch refuses are left out, and returned."""
        with self._lock:
            failures: dict[Key, Exception] = {}
            try:
                session = self._connected()
                if session is None:
                    return {step.key: self._nobody(step) for step in steps if step.new is not None}
                self._catch_up(session)
            except WeftError as failure:
                return dict.fromkeys((step.key for step in steps), failure)
            changes: list[_Change] = []
            for step in steps:
                try:
                    changes += filter(None, [self._change(step)])
                except WeftError as failure:
                    failures[step.key] = failure
            try:
                self._commit(session, changes, failures)
            except WeftError as failure:
                failures = dict.fromkeys((change.step.key for change in changes), failure) | failures
            return failures

    def _change(self, step: Step) -> _Change | None:
        """Return what is to be done for a step, ``None`` if it is done already."""
        match step.new:
            case None:
                return self._deletion(step)
            case Flow() as new:
                return self._addition(step, new)
            case other:
                raise InvalidRequest(f"{other.key} is not a flow")

    def _deletion(self, step: Step) -> _Change | None:
        place = self._place(step.key)
        there = self._mirror.get(place) if place is not None else None
        if place is None or there is None:
            return None
        found = self._seen(step.key, place, there)
        ours = isinstance(found, Resource) and found.scope == step.resource.scope
        return _Change(step, place, there.cookie, None) if ours else None

    def _addition(self, step: Step, new: Flow) -> _Change | None:
        place = self._at(new.key, self._ports.number)
        there = self._mirror.get(place)
        match self._seen(new.key, place, there) if there is not None else None:
            case Foreign(what=holder):
                raise Conflict(f"{new.scope}: {new.key} is taken by {holder}")
            case Resource(scope=scope) if scope != new.scope:
                raise Conflict(f"{new.scope}: {new.key} is taken by {scope}")
            case found if found == new:
                return None
        instructions = actions.encode(new.actions, self._ports.number)
        cookie = self._cookies.write(new.scope, place, instructions)
        return _Change(step, place, cookie, Entry(cookie, instructions))

    def _commit(self, session: Session, changes: list[_Change], failures: dict[Key, Exception]) -> None:
        """Make the changes, all at once; what the switch refuses is noted, and the rest is tried again without it."""
        left = {session.xid(): change for change in changes}
        while left:
            bundle = next(self._bundles)
            asked = [
                messages.bundle_control(session.xid(), bundle, Bundle.OPEN),
                *(messages.bundled(bundle, change.message(xid)) for xid, change in left.items()),
                messages.bundle_control(session.xid(), bundle, Bundle.COMMIT),
            ]
            answers, before = self._ask(session, asked, PATIENCE + _PER_FLOW * len(left))
            self._follow(session, before)
            refused = {xid: why for xid, why in _refusals(answers) if xid in left}
            failures |= {left[xid].step.key: _refused(left[xid].step, why) for xid, why in refused.items()}
            left = {xid: change for xid, change in left.items() if xid not in refused}
            if _committed(answers):
                for change in left.values():
                    self._note(change)
                return
            if not refused:
                why = next((explain(why) for _, why in _refusals(answers)), "it did not say why")
                raise HostFailure(f"bridge {self._bridge} took none of {len(left)} flows: {why}")

    def _note(self, change: _Change) -> None:
        if change.entry is None:
            self._mirror.drop(change.place)
        else:
            self._mirror.put(change.place, change.entry)

    def _nobody(self, step: Step) -> HostFailure:
        return HostFailure(
            f"nobody listens on {self._path}: is ovs-vswitchd running, and is there a bridge {self._bridge}? "
            f"Without it this was not done: {step}"
        )

    # -- the session ------------------------------------------------------------------------------------------------

    def _connected(self) -> Session | None:
        """Return an open session with a mirror, ``None`` where nobody listens."""
        self._ports.ask_again()
        if self._session is not None and self._session.alive:
            return self._session
        if self._session is not None:
            self._session.close()
            self._session = None
        try:
            session = Session(self._path, self._heard)
        except (FileNotFoundError, ConnectionError):
            return None
        except OSError as why:
            raise HostFailure(f"{self._path} cannot be opened: {why.strerror or why}") from None
        self.calls += 1
        try:
            self._ports.forget()
            self._dump(session, messages.monitor_request(session.xid()))
        except BaseException:
            session.close()
            raise
        self._session = session
        self._changed(None)
        return session

    def _dump(self, session: Session, *first: bytes) -> None:
        """Read all flows into the mirror; what the monitor tells meanwhile is followed from there."""
        self._doubtful = False
        answers, before = self._ask(session, [*first, messages.flows_request(session.xid())])
        flows = (flow for part in _parts(answers, Part.FLOWS) for flow in messages.read_flows(part))
        self._mirror = Mirror(flows)
        self._follow(session, before)

    def _list_ports(self) -> Iterator[tuple[int, str]]:
        if self._session is None:
            return
        answers, _ = self._ask(self._session, [messages.ports_request(self._session.xid())])
        for part in _parts(answers, Part.PORTS):
            yield from messages.read_ports(part)

    def _ask(self, session: Session, asked: Sequence[bytes], patience: float = PATIENCE) -> tuple[list[Message], int]:
        self.calls += 1
        return session.ask(asked, patience)

    def _catch_up(self, session: Session) -> None:
        """Bring the mirror to what is in the switch."""
        self._follow(session)
        if self._doubtful:
            self._dump(session)

    def _follow(self, session: Session, at_most: int | None = None) -> None:
        """Do in the mirror as others did in the switch, and say whose flows they were."""
        for update in session.take(at_most):
            if update.event in (Event.PAUSED, Event.RESUMED):  # more than it can tell
                self._doubtful = True
                self._changed(None)
            for entry in self._mirror.follow(update):
                scope = self._cookies.known(entry.cookie)
                if scope is not None:
                    self._changed(scope)


def _parts(answers: Sequence[Message], about: Part) -> Iterator[bytes]:
    for answer in answers:
        if answer.type == Type.MULTIPART_REPLY:
            found, _, rest = messages.read_multipart(answer.body)
            if found == about:
                yield rest


def _refusals(answers: Sequence[Message]) -> Iterator[tuple[int, Refusal]]:
    for answer in answers:
        if answer.type == Type.ERROR:
            yield answer.xid, messages.read_refusal(answer.body)


def _committed(answers: Sequence[Message]) -> bool:
    return any(
        answer.type == Type.BUNDLE_CONTROL and messages.read_bundle_control(answer.body) == Bundle.COMMITTED
        for answer in answers
    )


def _refused(step: Step, why: Refusal) -> HostFailure:
    verb = "deleted" if step.new is None else "made"
    return HostFailure(f"{step.key} could not be {verb}: {explain(why)} (by hand: {step})")
