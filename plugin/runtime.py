"""When the host is brought to what the store says: locks, plans from stored rows, the healing thread, the monitors.

``converge(scope)`` under the scope's lock is the only mutator of the host. What it wants is read from the store inside
the lock, so it does not matter who calls it, how often, or what crashed before.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace

from drivers.contract import Step
from drivers.converge import Converger, Incomplete, Outcome
from drivers.errors import Refusing, WeftError
from drivers.resources import HOST, Key, Scope, Setting, Zone
from plugin.deadline import Deadline
from plugin.looks import Finding, LiveHost, Looks
from plugin.plans import OVS_BACKENDS, Plan, Plans
from plugin.reconciler import Reconciler
from plugin.store import EndpointRow, NetworkRow, Store

log = logging.getLogger(__name__)


class Runtime:
    """Everything that runs in the worker beside requests. Started once, stopped once."""

    def __init__(self, store: Store, host: LiveHost, *, interval: float) -> None:
        """Bring ``host`` to what ``store`` says; look at everything each ``interval`` seconds."""
        self._store = store
        self._host = host
        self._mutex = threading.Lock()
        self._locks: defaultdict[str, threading.RLock] = defaultdict(threading.RLock)
        self._plans = Plans(store, host)
        self._owed: dict[Scope, Callable[[], None]] = {}
        self._looks = Looks(store, host, self._plans, bring=self._converge, refresh=self._refresh)
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
        plan = self._plans.of(scope).but(but)
        if scope == HOST:
            self._keep_found_settings(plan)
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
        return self._looks.reconcile(deadline)

    def findings(self) -> list[Finding]:
        """Return what differs from what is wanted, changing nothing, in the order in which it would be mended."""
        return self._looks.findings()

    def _heal(self, scope: Scope | None) -> None:
        """Look at a scope, or at everything, and say what had to be mended."""
        if scope is None:
            self._store.try_again()
            self._pay(Deadline(None))
            findings = self._looks.reconcile(Deadline(None))
            self._looks.tell_clashes()
        else:
            findings = [self._looks.mend(Finding(scope, (), ()), Deadline(None))]
        for finding in findings:
            for step in finding.steps:
                log.info("host changed", extra={"scope": str(finding.scope), "step": str(step)})
            for problem in finding.problems:
                log.error("not as wanted", extra={"scope": str(finding.scope), "problem": problem})

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


def _tell_of_reloads(outcome: Outcome) -> None:
    """Say what we did to somebody else's program, which he may notice: a reload ends what was not permanent."""
    why = "it takes and drops a zone in no other way, and what it was told without --permanent is gone"
    for step in outcome.taken:
        match step:
            case Step(old=Zone(loaded=True), new=Zone()):  # it was on disk only that something was missing
                pass
            case Step(old=Zone()) | Step(new=Zone()):
                log.warning("firewalld was made to reload", extra={"step": str(step), "why": why})
