"""Looking at the whole host: what of it is not what the store says, what is done about that, and what cannot be.

One dump of each backend shows which scopes to look at closer. Nothing is inferred from what could not be read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final, Protocol

from drivers.clashes import Clash
from drivers.contract import Step
from drivers.converge import Converger, Incomplete, Outcome
from drivers.errors import WeftError
from drivers.naming import link_name
from drivers.resources import HOST, Key, Scope
from plugin.deadline import Deadline
from plugin.plans import OVS_BACKENDS, HostSide, Plans
from plugin.store import Store

log = logging.getLogger(__name__)

_UNKNOWN_BUT_IN_USE: Final = (
    "the store does not know it, but it is this store's, and a running container has it: left as it is. Put back a "
    "newer copy of the store (`weft store restore FILE`), or stop the container"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """A scope that is not as wanted: what would be done about it, and what cannot be."""

    scope: Scope
    steps: tuple[Step, ...]
    problems: tuple[str, ...]


class LiveHost(HostSide, Protocol):
    """What is asked of the host beside what plans need."""

    def is_plugged(self, link: str) -> bool:
        """Tell whether the other end of a veth pair is in another network namespace: a container has it."""
        ...


class Bring(Protocol):
    """Brings a scope to what is stored, under its lock (:class:`plugin.runtime.Runtime`)."""

    def __call__(
        self, scope: Scope, deadline: Deadline, also: frozenset[Key], *, but: frozenset[str] = frozenset()
    ) -> Outcome:
        """Bring it; ``also`` is where something was seen that the store does not know, ``but`` what is left alone."""
        ...


class Looks:
    """Finds what differs, and mends it."""

    def __init__(
        self, store: Store, host: LiveHost, plans: Plans, *, bring: Bring, refresh: Callable[[], bool]
    ) -> None:
        """Compare ``host`` with ``store``; ``refresh`` reads the facts of the host anew."""
        self._store = store
        self._host = host
        self._plans = plans
        self._bring = bring
        self._refresh = refresh
        self._told: frozenset[Clash] = frozenset()

    def reconcile(self, deadline: Deadline) -> list[Finding]:
        """Bring every scope that differs to what is wanted; return what was found and done."""
        return [self.mend(finding, deadline) for finding in self.findings()]

    def findings(self) -> list[Finding]:
        """Return what differs from what is wanted, changing nothing, in the order in which it would be mended."""
        found = []
        for scope, also in self._suspects():
            if scope == HOST:
                self._refresh()
            absence = self._absence(scope)
            if absence and scope != HOST:
                found.append(Finding(scope, (), (absence,)))
                continue
            if scope in self._plans.spared:
                found.append(Finding(scope, (), (_UNKNOWN_BUT_IN_USE,)))
                continue
            problems = self._told_of(absence)
            plan = self._plans.of(scope).but(OVS_BACKENDS if absence else frozenset())
            try:
                difference = Converger(self._host.backends).difference(scope, plan.wanted, plan.keys | also)
            except WeftError as blind:  # a part of the host does not answer
                found.append(Finding(scope, (), (str(blind),)))
                continue
            problems += tuple(f"{foreign.key} is taken by {foreign.what}" for foreign in difference.conflicts)
            problems += tuple(f"{missing.key} does not exist" for missing in difference.missing)
            if difference or plan.ending or problems:
                found.append(Finding(scope, difference.steps, problems))
        return found

    def mend(self, finding: Finding, deadline: Deadline) -> Finding:
        """Bring the scope of a finding to what is wanted; return what was done, and what could not be."""
        scope, absence = finding.scope, self._absence(finding.scope)
        if absence and scope != HOST:
            return Finding(scope, (), (absence,))
        problems = self._told_of(absence)
        try:
            also = frozenset(step.key for step in finding.steps)
            outcome = self._bring(scope, deadline, also, but=OVS_BACKENDS if absence else frozenset())
        except Incomplete as rest:
            return Finding(scope, rest.taken, (*problems, *map(str, rest.exceptions)))
        except WeftError as failure:
            return Finding(scope, (), (*problems, str(failure)))
        return Finding(scope, outcome.taken, (*problems, *map(str, outcome.lacking)))

    def tell_clashes(self) -> None:
        """Say once of each container that somebody on another host has its MAC or address, too."""
        seen = frozenset(self._host.clashes() if self._store.use().tunnels else ())
        for clash in sorted(seen - self._told):
            log.warning(
                "a container has what another one has on another host",
                extra={"scope": str(clash.scope), "what": clash.what, "fix": "stop one, or give it another --ip"},
            )
        self._told = seen

    def _suspects(self) -> list[tuple[Scope, frozenset[Key]]]:
        """Return the scopes for which one dump of the host does not show what is stored, with the keys it showed.

        A scope that has something where nobody answers is looked at by itself, and says so.
        """
        surveyed = Converger(self._host.backends).survey(partial=True)
        suspects: list[tuple[int, Scope, frozenset[Key]]] = []
        stored = self._store.scopes()
        for scope in stored:
            plan = self._plans.of(scope)
            seen = surveyed.get(scope, {})
            wanted = {resource.key: resource for resource in plan.wanted if not resource.adopted}
            if plan.ending or wanted != seen:
                turn = (0 if scope.endpoint else 1) if plan.ending else (4 if scope.endpoint else 3)
                suspects.append((turn, scope, frozenset(seen)))
        known = {*stored, HOST}
        orphans = {scope: frozenset(seen) for scope, seen in surveyed.items() if scope not in known}
        self._plans.spared = self._in_use(orphans)
        suspects += [(0 if scope.endpoint else 1, scope, seen) for scope, seen in orphans.items()]
        suspects.append((2, HOST, frozenset() if self._plans.spared else frozenset(surveyed.get(HOST, ()))))
        return [(scope, keys) for _, scope, keys in sorted(suspects, key=lambda suspect: suspect[:2])]

    def _in_use(self, orphans: Collection[Scope]) -> frozenset[Scope]:
        """Return which scopes, of which the store knows nothing, a running container needs: they are left alone.

        weft forgets nothing that is still on the host, so the store is not the one that made them any longer: an older
        copy was put back, or some of it is lost. Whoever did that did not mean to cut off what runs.
        """
        plugged = {one for one in orphans if one.endpoint and self._host.is_plugged(link_name("h", one.endpoint))}
        return frozenset(orphans) & (plugged | {Scope(one.network) for one in plugged})

    def _absence(self, scope: Scope) -> str:
        """Return why Open vSwitch cannot be spoken to, if a scope has something on it; "" if it can, or has not.

        A look does not wait for it: what is on it is mended when it is back, and the rest of the host before that.
        """
        on_it = any(key.backend in OVS_BACKENDS for key in self._plans.of(scope).keys)
        return self._host.ovs_absence() if on_it else ""

    def _told_of(self, absence: str) -> tuple[str, ...]:
        return (absence,) if absence and self._store.use().ovs else ()
