"""A weft in forty lines: stored intent with its phases, and the rules of DESIGN.md for when to converge what.

It stands in for the engine and the store, so that the laws are tried on the order of things as it will be. What it
remembers survives a :class:`drivers.fake.Crash`, as the database does.
"""

import enum
from collections.abc import Collection
from dataclasses import dataclass, replace

from drivers.converge import Converger
from drivers.facts import HostFacts
from drivers.fake import FakeHost, Held
from drivers.model import Endpoint, Network
from drivers.resources import HOST, ZONE_KEY, Bridge, Foreign, HostAddress, Key, Resource, Scope, Setting, scope_of
from tests.properties.strategies import PLANNER, use_of


class Phase(enum.Enum):
    """How far a row has come. A row that is gone was never there."""

    PENDING = enum.auto()
    READY = enum.auto()
    DELETING = enum.auto()


@dataclass(frozen=True, slots=True)
class Row:
    """A network, or an endpoint of it."""

    phase: Phase
    network: Network
    endpoint: Endpoint | None = None


class Weft:
    """The store's rows and the calls that change them. A converge that fails raises ``ExceptionGroup``."""

    def __init__(self, host: FakeHost, facts: HostFacts) -> None:
        self.host = host
        self.facts = facts
        self.converger = Converger(host.backends)
        self.rows: dict[Scope, Row] = {}
        self.lacking: list[Exception] = []

    def intent(self, scope: Scope) -> tuple[Resource, ...]:
        """Return what the row of a scope asks for, in whatever phase it is."""
        if scope == HOST:
            networks = tuple(row.network for row in self.rows.values() if row.endpoint is None)
            return PLANNER.host(self.facts, use_of(networks))
        row = self.rows.get(scope)
        if row is None:
            return ()
        if row.endpoint is None:
            return PLANNER.network(self.facts, row.network)
        return PLANNER.endpoint(self.facts, row.network, row.endpoint)

    def wanted(self, scope: Scope) -> tuple[Resource, ...]:
        """Return what should be there now: nothing for what is being deleted."""
        withdrawn = scope in self.rows and self.rows[scope].phase is Phase.DELETING
        return () if withdrawn else self.intent(scope)

    def converge(self, scope: Scope, keys: Collection[Key] = ()) -> None:
        """Bring one scope to what is wanted; a row that is withdrawn goes when its scope is empty."""
        before = {resource.key for resource in self.intent(scope)}
        if scope == HOST:
            before.add(ZONE_KEY)  # firewalld may have it on its disk, whatever it was when that was planned
        self.lacking += self.converger.converge(scope, self.wanted(scope), before | set(keys)).lacking
        if scope in self.rows and self.rows[scope].phase is Phase.DELETING:
            keys = {resource.key for resource in self.intent(HOST)} | {ZONE_KEY}
            del self.rows[scope]
            self.lacking += self.converger.converge(HOST, self.intent(HOST), keys).lacking

    def create(self, network: Network, endpoint: Endpoint | None = None) -> None:
        """Store the intent, then bring host and scope to it; what fails is withdrawn."""
        scope = scope_of(network.id, endpoint.id if endpoint else "")
        self.rows[scope] = Row(Phase.PENDING, network, endpoint)
        try:
            if endpoint is None:
                self.converge(HOST)
            self.converge(scope)
        except ExceptionGroup:
            self.delete(scope)
            raise
        self.rows[scope] = replace(self.rows[scope], phase=Phase.READY)

    def delete(self, scope: Scope) -> None:
        """Withdraw the intent of a scope, and of its endpoints."""
        for inner in sorted((one for one in self.rows if one.network == scope.network), reverse=True):
            if scope in (inner, Scope(inner.network)):
                self.rows[inner] = replace(self.rows[inner], phase=Phase.DELETING)
                self.converge(inner)

    def start(self) -> None:
        """Come back after a crash: what Docker saw no success of is withdrawn, the rest converged."""
        self.rows = {
            scope: row if row.phase is Phase.READY else replace(row, phase=Phase.DELETING)
            for scope, row in self.rows.items()
        }
        self.converger = Converger(self.host.backends)
        self.reconcile()

    def reconcile(self) -> None:
        """Converge the whole host: what is not wanted goes first, from the inside out."""
        seen = self.converger.survey()
        scopes = sorted(seen.keys() | self.rows.keys() | {HOST})
        failures: list[Exception] = []
        for scope in [*(s for s in reversed(scopes) if not self.wanted(s)), *scopes]:
            try:
                self.converge(scope, seen.get(scope, ()))
            except ExceptionGroup as group:
                failures += group.exceptions
        if failures:
            raise ExceptionGroup("the host could not be brought to what is wanted", failures)


def prepared(facts: HostFacts, *, shared: Collection[HostAddress] = ()) -> FakeHost:
    """Return a host as weft finds it: bridges of the operator's to adopt, some with the gateway on them already."""
    host = FakeHost(docker_user=facts.docker_user, firewalld=facts.firewalld)
    for name in ("eth0", "docker0", *(f"br{number}" for number in range(8))):
        host.plant(Bridge(key=Key("kernel", "link", (name,)), scope=HOST, mac="02:00:00:00:00:99", mtu=1500))
    for address in shared:
        host.plant(address)
    return host


def strangers(host: FakeHost) -> dict[Key, Held]:
    """Return what is on the host and not ours."""
    seen = {key: host.backends[key.backend].observe([key])[key] for key in host.objects}
    return {key: host.objects[key] for key, one in seen.items() if isinstance(one, Foreign)}


def expected(weft: Weft) -> dict[Scope, dict[Key, Resource]]:
    """Return what a survey must show: the union of the plans, less what is the operator's."""
    theirs = strangers(weft.host)
    union: dict[Scope, dict[Key, Resource]] = {}
    for scope in {HOST} | weft.rows.keys():
        for one in weft.wanted(scope):
            if not (isinstance(one, Setting) or one.adopted or (one.shared and one.key in theirs)):
                union.setdefault(scope, {})[one.key] = one
    return union
