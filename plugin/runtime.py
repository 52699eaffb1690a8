"""When the host is brought to what the store says: locks, plans from stored rows, the healing thread, the monitors.

``converge(scope)`` under the scope's lock is the only mutator of the host. What it wants is read from the store inside
the lock, so it does not matter who calls it, how often, or what crashed before.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Final, Protocol

from drivers.clashes import Clash
from drivers.contract import Step
from drivers.converge import Converger, Incomplete, Outcome
from drivers.errors import Refusing, WeftError
from drivers.naming import link_name
from drivers.resources import HOST, Key, Scope, Setting, Zone
from plugin.deadline import Deadline
from plugin.plans import OVS_BACKENDS, HostSide, Plan, Plans
from plugin.reconciler import Reconciler
from plugin.store import EndpointRow, NetworkRow, Store

log = logging.getLogger(__name__)


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


class Runtime:
    """Everything that runs in the worker beside requests. Started once, stopped once."""

    def __init__(self, store: Store, host: LiveHost, *, interval: float) -> None:
        """Bring ``host`` to what ``store`` says; look at everything each ``interval`` seconds."""
        self._store = store
        self._host = host
        self._mutex = threading.Lock()
        self._locks: defaultdict[str, threading.RLock] = defaultdict(threading.RLock)
        self._plans = Plans(store, host)
        self._told: frozenset[Clash] = frozenset()
        self._spared: frozenset[Scope] = frozenset()
        self._owed: dict[Scope, Callable[[], None]] = {}
        self._reconciler = Reconciler(self._heal, interval)
        self._watches = ExitStack()
        self._watches_ovs = False
        self.dirty = self._reconciler.dirty

    # -- life -------------------------------------------------------------------------------------------------------

    def start(self, *, bridges_changed: Callable[[], None] = lambda: None) -> None:
        """Watch the host, then look at everything from the reconciler's thread.

        ``bridges_changed`` is called when a bridge that is not ours has come, gone, or got a port.
        """
        self._plans.refresh()

        def changed(scope: Scope | None) -> None:
            self.dirty(scope)
            if scope == HOST:
                bridges_changed()

        for name, backend in self._host.backends.items():
            if name not in OVS_BACKENDS:
                self._watches.callback(backend.watch(changed if name == "kernel" else self.dirty))
        self._watch_ovs()
        self._reconciler.start()

    def settled(self, seconds: float) -> bool:
        """Wait until the host was looked at once, ``seconds`` at most; tell whether it was."""
        return self._reconciler.settled(seconds)

    def stop(self) -> None:
        """Stop and join every thread. Nothing on the host is removed."""
        self._watches.close()
        self._reconciler.stop()

    # -- what the engine calls --------------------------------------------------------------------------------------

    def docker_calls(self, deadline: Deadline) -> None:
        """Take note of a driver call: Docker is up in this boot, so forwarding may be asked for (network.md 3)."""
        self._pay(deadline)
        if self._plans.may_forward:
            return
        self._plans.may_forward = True
        if self._store.use().networks:
            self.converge(HOST, deadline)

    def judge_bridges(self, dockers: frozenset[str] | None) -> None:
        """Take note of which bridges Docker's list says are its own; ``None``: it could not be read.

        Every other bridge that is there now is the operator's, unless its name is Docker's kind of name.
        """
        if self._plans.judge_bridges(dockers):
            self.dirty(HOST)

    def withdraw(self, scope: Scope, withdraw: Callable[[], None]) -> None:
        """Take back what was not promised after all, in the store and on the host. Never raises.

        ``withdraw`` writes that into the store. If it cannot, for the disk is full or read-only, that is owed: it is
        done before the next call, or by the next look. What cannot be removed now is removed by the reconciler.
        """
        try:
            withdraw()
        except Refusing as why:
            said = {"scope": str(scope), "why": str(why), "next": "before the next call, or by the next look"}
            log.error("what failed is not withdrawn yet", extra=said)  # noqa: TRY400 - the reason says it
            self._owed[scope] = withdraw
            return
        try:
            self.converge(scope, Deadline(None))
        except (WeftError, ExceptionGroup):
            log.exception("withdrawing", extra={"scope": str(scope)})
            self.dirty(scope)

    def _pay(self, deadline: Deadline) -> None:
        """Withdraw what could not be withdrawn when it failed."""
        for scope, withdraw in list(self._owed.items()):
            with suppress(WeftError, ExceptionGroup):  # the next call, or look, tries again
                withdraw()
                self._owed.pop(scope, None)
                self.dirty(scope)
                self.converge(scope, deadline)

    def keys(self, scope: Scope) -> frozenset[Key]:
        """Return where a scope's resources are by what is stored now: taken before a change that leaves some behind."""
        return self._plans.of(scope).keys

    def converge(
        self,
        scope: Scope,
        deadline: Deadline,
        *,
        also: frozenset[Key] = frozenset(),
        but: frozenset[str] = frozenset(),
        defer: Callable[[Step], bool] = lambda _: False,
    ) -> Outcome:
        """Bring one scope to what the store says, now. Raises ``ExceptionGroup`` of what failed, or DeadlineExceeded.

        When nothing is left of a scope that is being withdrawn, its row goes too. Steps that ``defer`` picks are left
        to the reconciler. What the scope has to do without for now is logged, and tried again at the next look. What is
        of the backends ``but`` is left alone.
        """
        outcome = self._converge(scope, deadline, also, defer, but=but)
        for problem in outcome.lacking:
            log.warning("not as wanted for now", extra={"scope": str(scope), "problem": str(problem)})
        return outcome

    def _converge(
        self,
        scope: Scope,
        deadline: Deadline,
        also: frozenset[Key],
        defer: Callable[[Step], bool] = lambda _: False,
        *,
        but: frozenset[str] = frozenset(),
    ) -> Outcome:
        with self.holding(scope, deadline):
            plan = self._plan_of_now(scope, but)
            also = frozenset(key for key in also if key.backend not in but)
            outcome = self._attempt(plan, scope, deadline, also, defer, but=but)
            _tell_of_reloads(outcome)
            if outcome.deferred:
                self.dirty(scope)
            elif plan.ending:
                self._forget(plan.ending)
            return outcome

    def _attempt(
        self,
        plan: Plan,
        scope: Scope,
        deadline: Deadline,
        also: frozenset[Key],
        defer: Callable[[Step], bool],
        *,
        but: frozenset[str],
    ) -> Outcome:
        """Converge, and the host once more if it failed, as it is by then.

        A firewall that reloads takes Docker's chains away for a moment, and may do so because it was asked to.
        """
        converger = Converger(self._host.backends, deadline.check)
        try:
            outcome = converger.converge(scope, plan.wanted, plan.keys | also, defer=defer)
            if not outcome.lacking or scope != HOST or not self._refresh():
                return outcome
            taken = outcome.taken
        except Incomplete as rest:
            if scope != HOST:
                raise
            taken = rest.taken
        plan = self._plan_of_now(scope, but)
        outcome = converger.converge(scope, plan.wanted, plan.keys | also, defer=defer)
        return replace(outcome, taken=(*taken, *outcome.taken))

    def _plan_of_now(self, scope: Scope, but: frozenset[str]) -> Plan:
        """Return what is about to be brought about, with what the host's switches were before kept in the store."""
        if scope == HOST:
            self._refresh()
        plan = self._plan_of(scope).but(but)
        if scope == HOST:
            self._keep_found_settings(plan)
        return plan

    def _plan_of(self, scope: Scope) -> Plan:
        """Return the plan of a scope; while there is somebody spared, nothing of the host's goes: they need it."""
        plan = self._plans.of(scope)
        if scope == HOST and self._spared:
            return replace(plan, keys=frozenset(resource.key for resource in plan.wanted))
        return plan

    def converge_host(self, deadline: Deadline, *, ovs: bool) -> Outcome:
        """Bring the host as a whole to what the store says; without ``ovs`` but for what is Open vSwitch's.

        A network on a Linux bridge need not wait for an Open vSwitch that is down.
        """
        return self.converge(HOST, deadline, but=frozenset() if ovs else OVS_BACKENDS)

    @contextmanager
    def holding(self, scope: Scope, deadline: Deadline) -> Iterator[None]:
        """Hold a scope's lock: the host's, or its network's, which covers the endpoints."""
        with self._mutex:
            lock = self._locks[scope.network]
        with deadline.holding(lock, f"another change to {Scope(scope.network)} to end"):
            yield

    # -- looking at everything --------------------------------------------------------------------------------------

    def reconcile(self, deadline: Deadline) -> list[Finding]:
        """Bring every scope that differs to what is wanted; return what was found and done."""
        return [self._mend(finding, deadline) for finding in self.findings()]

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
            if scope in self._spared:
                found.append(Finding(scope, (), (_UNKNOWN_BUT_IN_USE,)))
                continue
            problems = self._told_of(absence)
            plan = self._plan_of(scope).but(OVS_BACKENDS if absence else frozenset())
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
        self._spared = self._in_use(orphans)
        suspects += [(0 if scope.endpoint else 1, scope, seen) for scope, seen in orphans.items()]
        suspects.append((2, HOST, frozenset() if self._spared else frozenset(surveyed.get(HOST, ()))))
        return [(scope, keys) for _, scope, keys in sorted(suspects, key=lambda suspect: suspect[:2])]

    def _in_use(self, orphans: Collection[Scope]) -> frozenset[Scope]:
        """Return which scopes, of which the store knows nothing, a running container needs: they are left alone.

        weft forgets nothing that is still on the host, so the store is not the one that made them any longer: an older
        copy was put back, or some of it is lost. Whoever did that did not mean to cut off what runs.
        """
        plugged = {one for one in orphans if one.endpoint and self._host.is_plugged(link_name("h", one.endpoint))}
        return frozenset(orphans) & (plugged | {Scope(one.network) for one in plugged})

    def _mend(self, finding: Finding, deadline: Deadline) -> Finding:
        scope, absence = finding.scope, self._absence(finding.scope)
        if absence and scope != HOST:
            return Finding(scope, (), (absence,))
        problems = self._told_of(absence)
        try:
            also = frozenset(step.key for step in finding.steps)
            outcome = self._converge(scope, deadline, also, but=OVS_BACKENDS if absence else frozenset())
        except Incomplete as rest:
            return Finding(scope, rest.taken, (*problems, *map(str, rest.exceptions)))
        except WeftError as failure:
            return Finding(scope, (), (*problems, str(failure)))
        return Finding(scope, outcome.taken, (*problems, *map(str, outcome.lacking)))

    def _absence(self, scope: Scope) -> str:
        """Return why Open vSwitch cannot be spoken to, if a scope has something on it; "" if it can, or has not.

        A look does not wait for it: what is on it is mended when it is back, and the rest of the host before that.
        """
        on_it = any(key.backend in OVS_BACKENDS for key in self._plans.of(scope).keys)
        return self._host.ovs_absence() if on_it else ""

    def _told_of(self, absence: str) -> tuple[str, ...]:
        return (absence,) if absence and self._store.use().ovs else ()

    def _heal(self, scope: Scope | None) -> None:
        """Look at a scope, or at everything, and say what had to be mended."""
        if scope is None:
            self._store.try_again()
            self._pay(Deadline(None))
            findings = self.reconcile(Deadline(None))
            self._tell_clashes()
        else:
            findings = [self._mend(Finding(scope, (), ()), Deadline(None))]
        for finding in findings:
            for step in finding.steps:
                log.info("host changed", extra={"scope": str(finding.scope), "step": str(step)})
            for problem in finding.problems:
                log.error("not as wanted", extra={"scope": str(finding.scope), "problem": problem})

    def _tell_clashes(self) -> None:
        """Say once of each container that somebody on another host has its MAC or address, too."""
        seen = frozenset(self._host.clashes() if self._store.use().tunnels else ())
        for clash in sorted(seen - self._told):
            log.warning(
                "a container has what another one has on another host",
                extra={"scope": str(clash.scope), "what": clash.what, "fix": "stop one, or give it another --ip"},
            )
        self._told = seen

    # -- what the host is -------------------------------------------------------------------------------------------

    def _refresh(self) -> bool:
        """Read the facts anew; if they have changed, have everything looked at, and say so."""
        self._watch_ovs()
        changed = self._plans.refresh()
        if changed:
            self.dirty(None)
        return changed

    def _watch_ovs(self) -> None:
        """Watch Open vSwitch from the first network on it on."""
        if not self._watches_ovs and self._store.use().ovs:
            self._watches_ovs = True
            for name in sorted(OVS_BACKENDS & self._host.backends.keys()):
                self._watches.callback(self._host.backends[name].watch(self.dirty))

    def _keep_found_settings(self, plan: Plan) -> None:
        """Store how the host's switches were found before they are changed, so that they can be given back."""
        switches = {resource.key: resource for resource in plan.wanted if isinstance(resource, Setting)}
        if not switches:
            return
        observed = Converger(self._host.backends).observe(switches)
        changing = {
            found.path: found.value
            for key, found in observed.items()
            if isinstance(found, Setting) and found != switches[key]
        }
        if changing:
            self._store.keep_host_settings(changing)
            log.warning("host switch changed", extra={"found": changing, "why": "networks that route IPv6"})

    def _forget(self, row: NetworkRow | EndpointRow) -> None:
        match row:
            case NetworkRow():
                self._store.remove_network(row.id)
                with self._mutex:
                    self._locks.pop(row.scope.network, None)
            case EndpointRow():
                self._store.remove_endpoint(row.id)


_UNKNOWN_BUT_IN_USE: Final = (
    "the store does not know it, but it is this store's, and a running container has it: left as it is. Put back a "
    "newer copy of the store (`weft store restore FILE`), or stop the container"
)


def _tell_of_reloads(outcome: Outcome) -> None:
    """Say what we did to somebody else's program, which he may notice: a reload ends what was not permanent."""
    why = "it takes and drops a zone in no other way, and what it was told without --permanent is gone"
    for step in outcome.taken:
        match step:
            case Step(old=Zone(loaded=True), new=Zone()):  # it was on disk only that something was missing
                pass
            case Step(old=Zone()) | Step(new=Zone()):
                log.warning("firewalld was made to reload", extra={"step": str(step), "why": why})
