"""When the host is brought to what the store says: locks, plans from stored rows, the healing thread, the monitors.

``converge(scope)`` under the scope's lock is the only mutator of the host. What it wants is read from the store inside
the lock, so it does not matter who calls it, how often, or what crashed before.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Final, Protocol

from drivers.clashes import Clash
from drivers.contract import Backend, Step
from drivers.converge import Converger, Outcome
from drivers.errors import WeftError
from drivers.facts import HostFacts
from drivers.model import Address, Network, Use
from drivers.registry import PLANNERS
from drivers.resources import HOST, Key, Resource, Scope, Setting, Zone
from plugin.deadline import Deadline
from plugin.reconciler import Reconciler
from plugin.store import Bridges, EndpointRow, NetworkRow, Phase, Store

log = logging.getLogger(__name__)

_ALL_HOST: Final = HostFacts(docker_user=frozenset({4, 6}), may_forward=False, firewalld=True)


class HostSide(Protocol):
    """What the runtime needs of ``drivers.host.Host``; the fakes have it too."""

    @property
    def backends(self) -> Mapping[str, Backend]:
        """The backends by their name in the keys."""
        ...

    def facts(self, *, may_forward: bool, ovs: bool = False) -> HostFacts:
        """Read what the host is now."""
        ...

    def is_own(self, address: Address) -> bool:
        """Tell whether an address is this host's."""
        ...

    def clashes(self) -> tuple[Clash, ...]:
        """Return what of containers' MACs and addresses came out of a tunnel."""
        ...


@dataclass(frozen=True, slots=True)
class Plan:
    """What one scope should have, where to look for what it may have, and whether its row goes when nothing is left."""

    wanted: tuple[Resource, ...] = ()
    keys: frozenset[Key] = frozenset()
    ending: NetworkRow | EndpointRow | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """A scope that is not as wanted: what would be done about it, and what cannot be."""

    scope: Scope
    steps: tuple[Step, ...]
    problems: tuple[str, ...]


OVS_BACKENDS: Final = frozenset({"ovsdb", "openflow"})
"""What is asked of Open vSwitch, which most hosts do not have: left alone until a network is on it."""


class Runtime:
    """Everything that runs in the worker beside requests. Started once, stopped once."""

    def __init__(self, store: Store, host: HostSide, *, interval: float) -> None:
        """Bring ``host`` to what ``store`` says; look at everything each ``interval`` seconds."""
        self._store = store
        self._host = host
        self._mutex = threading.Lock()
        self._locks: defaultdict[str, threading.RLock] = defaultdict(threading.RLock)
        self._may_forward = False
        self._facts = HostFacts()
        self._bridges = store.bridges()
        self._told: frozenset[Clash] = frozenset()
        self._host_keys: frozenset[Key] = _keys(_host_plan(_ALL_HOST, Use(networks=1, apart=True, tunnels=True)))
        self._reconciler = Reconciler(self._heal, interval)
        self._watches = ExitStack()
        self._watches_ovs = False
        self.dirty = self._reconciler.dirty

    # -- life -------------------------------------------------------------------------------------------------------

    def start(self, *, bridges_changed: Callable[[], None] = lambda: None) -> None:
        """Watch the host, then look at everything from the reconciler's thread.

        ``bridges_changed`` is called when a bridge that is not ours has come, gone, or got a port.
        """
        self._facts = self._host.facts(may_forward=False, ovs=self._store.use().ovs)

        def changed(scope: Scope | None) -> None:
            self.dirty(scope)
            if scope == HOST:
                bridges_changed()

        for name, backend in self._host.backends.items():
            if name not in OVS_BACKENDS:
                self._watches.callback(backend.watch(changed if name == "kernel" else self.dirty))
        if self._store.use().ovs:
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
        if self._may_forward:
            return
        self._may_forward = True
        if self._store.use().networks:
            self.converge(HOST, deadline)

    def judge_bridges(self, dockers: frozenset[str] | None) -> None:
        """Take note of which bridges Docker's list says are its own; ``None``: it could not be read.

        Every other bridge that is there now is the operator's, unless its name is Docker's kind of name.
        """
        known = self._bridges
        there = self._host.facts(may_forward=self._may_forward).operator_links
        found = Bridges(known.dockers if dockers is None else dockers, there)
        if found != known:
            self._store.keep_bridges(found)
            self._bridges = found
            self.dirty(HOST)

    def keys(self, scope: Scope) -> frozenset[Key]:
        """Return where a scope's resources are by what is stored now: taken before a change that leaves some behind."""
        return self._plan(scope).keys

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
        taken: tuple[Step, ...] = ()
        try:
            outcome = converger.converge(scope, plan.wanted, plan.keys | also, defer=defer)
            if not outcome.lacking or scope != HOST or not self._refresh():
                return outcome
            taken = outcome.taken
        except ExceptionGroup:
            if scope != HOST:
                raise
        plan = self._plan_of_now(scope, but)
        outcome = converger.converge(scope, plan.wanted, plan.keys | also, defer=defer)
        return replace(outcome, taken=(*taken, *outcome.taken))

    def _plan_of_now(self, scope: Scope, but: frozenset[str]) -> Plan:
        """Return what is about to be brought about, with what the host's switches were before kept in the store."""
        plan = _without(self._plan(scope, refresh=True), but)
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
        return [self._mend(finding, deadline) for finding in self.findings()]

    def findings(self) -> list[Finding]:
        """Return what differs from what is wanted, changing nothing, in the order in which it would be mended."""
        found = []
        for scope, also in self._suspects():
            plan = self._plan(scope, refresh=scope == HOST)
            try:
                difference = Converger(self._host.backends).difference(scope, plan.wanted, plan.keys | also)
            except WeftError as blind:  # a part of the host does not answer
                found.append(Finding(scope, (), (str(blind),)))
                continue
            problems = [f"{foreign.key} is taken by {foreign.what}" for foreign in difference.conflicts]
            problems += [f"{missing.key} does not exist" for missing in difference.missing]
            if difference or plan.ending:
                found.append(Finding(scope, difference.steps, tuple(problems)))
        return found

    def _suspects(self) -> list[tuple[Scope, frozenset[Key]]]:
        """Return the scopes for which one dump of the host does not show what is stored, with the keys it showed.

        A scope that has something where nobody answers is looked at by itself, and says so.
        """
        surveyed = Converger(self._host.backends).survey(partial=True)
        suspects: list[tuple[int, Scope, frozenset[Key]]] = []
        stored = self._store.scopes()
        for scope in stored:
            plan = self._plan(scope)
            seen = surveyed.get(scope, {})
            wanted = {resource.key: resource for resource in plan.wanted if not resource.adopted}
            if plan.ending or wanted != seen:
                turn = (0 if scope.endpoint else 1) if plan.ending else (4 if scope.endpoint else 3)
                suspects.append((turn, scope, frozenset(seen)))
        known = {*stored, HOST}
        orphans = ((scope, seen) for scope, seen in surveyed.items() if scope not in known)
        suspects += [(0 if scope.endpoint else 1, scope, frozenset(seen)) for scope, seen in orphans]
        suspects.append((2, HOST, frozenset(surveyed.get(HOST, ()))))
        return [(scope, keys) for _, scope, keys in sorted(suspects, key=lambda suspect: suspect[:2])]

    def _mend(self, finding: Finding, deadline: Deadline) -> Finding:
        try:
            also = frozenset(step.key for step in finding.steps)
            outcome = self._converge(finding.scope, deadline, also)
        except ExceptionGroup as failures:
            return replace(finding, problems=tuple(str(failure) for failure in failures.exceptions))
        except WeftError as failure:
            return replace(finding, problems=(str(failure),))
        return replace(finding, steps=outcome.taken, problems=tuple(map(str, outcome.lacking)))

    def _heal(self, scope: Scope | None) -> None:
        """Look at a scope, or at everything, and say what had to be mended."""
        if scope is None:
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

    # -- plans ------------------------------------------------------------------------------------------------------

    def _plan(self, scope: Scope, *, refresh: bool = False) -> Plan:
        """Return the plan of a scope from its stored row. Only the host's plan reads facts anew."""
        if scope == HOST:
            if refresh:
                self._refresh()
            facts = replace(self._facts, operator_links=self._facts.operator_links & self._bridges.judged)
            wanted = _host_plan(facts, replace(self._store.use(), docker_links=self._bridges.dockers))
            keys = self._host_keys | _keys(wanted)
            self._host_keys = keys
            return Plan(wanted, keys)
        row = self._store.row_of(scope)
        if row is None:
            return Plan()
        wanted = self._plan_row(row)
        if row.phase is Phase.DELETING:
            return Plan((), _keys(wanted), ending=row)
        return Plan(wanted, _keys(wanted))

    def _plan_row(self, row: NetworkRow | EndpointRow) -> tuple[Resource, ...]:
        match row:
            case NetworkRow(network=network):
                network = replace(
                    network, loopback=self._store.ports.to_loopback(network.id), peers=self._peers(network)
                )
                return PLANNERS[network.backend].network(self._facts, network)
            case EndpointRow(endpoint=endpoint):
                owner = self._store.network(endpoint.network)
                if owner is None:
                    return ()
                if row.external:
                    endpoint = replace(endpoint, published=self._store.ports.of(endpoint.id))
                if not owner.network.icc:
                    endpoint = replace(endpoint, links=(*endpoint.links, *self._store.links.of(endpoint.id)))
                return PLANNERS[owner.network.backend].endpoint(self._facts, owner.network, endpoint)

    def _peers(self, network: Network) -> tuple[Address, ...]:
        """Return a network's peers, this host left out: a list may be the same on every host."""
        if network.tunnel is None:
            return ()
        listed = self._store.peers.of(network.id, network.tunnel.version)
        return tuple(peer for peer in listed if not self._host.is_own(peer))

    def _refresh(self) -> bool:
        """Read the facts anew; if they have changed, have everything looked at, and say so."""
        ovs = self._store.use().ovs
        if ovs:
            self._watch_ovs()
        facts = self._host.facts(may_forward=self._may_forward, ovs=ovs)
        if facts == self._facts:
            return False
        self._facts = facts
        self.dirty(None)
        return True

    def _watch_ovs(self) -> None:
        if not self._watches_ovs:
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


def _host_plan(facts: HostFacts, use: Use) -> tuple[Resource, ...]:
    return tuple(resource for planner in PLANNERS.values() for resource in planner.host(facts, use))


def _without(plan: Plan, backends: frozenset[str]) -> Plan:
    """Return what is left of a plan without some backends' part of it."""
    if not backends:
        return plan
    wanted = tuple(one for one in plan.wanted if one.key.backend not in backends)
    return replace(plan, wanted=wanted, keys=frozenset(key for key in plan.keys if key.backend not in backends))


def _keys(resources: tuple[Resource, ...]) -> frozenset[Key]:
    """Return where to look for what a scope may have left: never at what is the operator's."""
    return frozenset(resource.key for resource in resources if not resource.adopted)
