"""A random walk: Docker asks, others meddle, steps fail, weft dies and comes back. It always finds its way home."""

import errno
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Interface

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from drivers.errors import WeftError
from drivers.facts import HostFacts
from drivers.fake import UNMARKED, Crash, FakeHost, Held
from drivers.marks import Marks
from drivers.resources import (
    HOST,
    Bridge,
    Chain,
    HostAddress,
    InZone,
    Jump,
    Key,
    PeerTunnel,
    Resource,
    Rule,
    Scope,
    Table,
    Veth,
    Vxlan,
    Zone,
    address_key,
    jump_key,
    link_key,
    scope_of,
)
from tests.properties.strategies import endpoints, host_facts, networks
from tests.properties.weft import Phase, Weft, expected, prepared, strangers

MOST = 3

OPERATORS = (
    Bridge(key=link_key("br0"), scope=HOST, mac="02:00:00:00:00:99", mtu=1500),
    HostAddress(key=address_key("br0", IPv4Interface("10.0.0.1/24")), scope=HOST),
)
"""A bridge that network 0 may adopt, and an address that it may find there."""

CHANGES: dict[type[Resource], dict[str, object]] = {
    Bridge: {"mtu": 600, "sound": False},
    Veth: {"bridge": ""},
    Vxlan: {"sound": False},
    PeerTunnel: {"bridge": ""},
    Table: {"text": " set same { type ifname . ifname; } "},
    Chain: {"rules": ("-j DROP",)},
    Jump: {"placed": False},
    Zone: {"loaded": False},
}


class Walk(RuleBasedStateMachine):
    """The host, a weft on it, and everybody else. ``settled``: nothing has happened that weft has not answered."""

    host: FakeHost
    weft: Weft
    found: dict[Key, Held]
    dirty: set[Scope | None]
    reported: list[Exception]
    settled: bool

    @initialize(facts=host_facts())
    def boot(self, facts: HostFacts) -> None:
        """Find a host with an operator's things on it."""
        self.host = prepared(facts)
        self.found = strangers(self.host)
        self.weft = Weft(self.host, facts)
        self.dirty = set()
        self.reported = []
        self.settled = True
        for backend in self.host.backends.values():
            backend.watch(self.dirty.add)

    def _ask(self, call: Callable[[], None]) -> None:
        """Let weft do something; if it dies of it, start it again."""
        try:
            call()
        except Crash:
            self._start()
        except ExceptionGroup as group:
            self.weft.lacking += group.exceptions
        if self.weft.lacking:
            self.reported += self.weft.lacking
            self.weft.lacking.clear()
            self.dirty.add(None)
            self.settled = False

    def _start(self) -> None:
        self.dirty.clear()
        self.settled = True
        self._ask(self.weft.start)

    # -- Docker -----------------------------------------------------------------------------------------------------

    @rule(data=st.data(), number=st.integers(0, MOST - 1))
    def create_network(self, data: st.DataObject, number: int) -> None:
        """Ask for a network that is not there."""
        network = data.draw(networks(number))
        if scope_of(network.id) not in self.weft.rows:
            self._ask(lambda: self.weft.create(network))

    @precondition(lambda self: self.weft.rows)
    @rule(data=st.data(), number=st.integers(0, MOST - 1))
    def create_endpoint(self, data: st.DataObject, number: int) -> None:
        """Ask for an endpoint that is not there."""
        network = self.weft.rows[self._scope(data)].network
        endpoint = data.draw(endpoints(network, number))
        ready = self.weft.rows[scope_of(network.id)].phase is Phase.READY
        if ready and scope_of(network.id, endpoint.id) not in self.weft.rows:
            self._ask(lambda: self.weft.create(network, endpoint))

    @precondition(lambda self: self.weft.rows)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        """Ask for a network or an endpoint to go; asking again is allowed."""
        scope = self._scope(data)
        self._ask(lambda: self.weft.delete(scope))

    def _scope(self, data: st.DataObject) -> Scope:
        return data.draw(st.sampled_from(sorted(self.weft.rows)))

    # -- fate -------------------------------------------------------------------------------------------------------

    @rule(steps=st.integers(0, 12))
    def die_soon(self, steps: int) -> None:
        """Let weft be killed before one of its next steps."""
        self.host.crash_after = steps

    @rule()
    def restart(self) -> None:
        """Stop weft and start it."""
        self._start()

    @precondition(lambda self: self.host.objects.keys() > self.found.keys())
    @rule(data=st.data(), times=st.sampled_from((1, 2, None)))
    def refuse(self, data: st.DataObject, times: int | None) -> None:
        """Let the host refuse the next steps at one of our keys."""
        self.host.fail(self._ours(data), OSError(errno.EPERM, "Operation not permitted"), times=times)

    # -- others -----------------------------------------------------------------------------------------------------

    def _ours(self, data: st.DataObject) -> Key:
        return data.draw(st.sampled_from(sorted(self.host.objects.keys() - self.found.keys())))

    @precondition(lambda self: self.host.objects.keys() > self.found.keys())
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        """Delete something of ours behind our back."""
        key = self._ours(data)
        if key.kind == "chain":  # the kernel lets nobody delete it while it is jumped to
            self.host.remove(jump_key(int(key.at[0])))
        self.host.remove(key)
        self.settled = False

    @precondition(lambda self: self.host.objects.keys() > self.found.keys())
    @rule(data=st.data())
    def change(self, data: st.DataObject) -> None:
        """Change something of ours behind our back, or take its mark away."""
        key = self._ours(data)
        held = self.host.objects[key]
        if changes := CHANGES.get(type(held.resource)):
            self.host.meddle(key, **changes)
        if isinstance(held.resource, Bridge | Veth) and data.draw(st.booleans()):
            self.host.plant(self.host.objects[key].resource, UNMARKED)
        self.settled = False

    @precondition(lambda self: self.host.objects.keys() > self.found.keys())
    @rule(data=st.data())
    def squat(self, data: st.DataObject) -> None:
        """Put something of another weft's in the place of ours: it is reported and left alone until it goes."""
        key = self._ours(data)
        resource = self.host.objects[key].resource
        if isinstance(resource, HostAddress | Table | Rule | Zone | InZone):
            return  # whose they are is a matter of their link, table or chain, or of their name
        self.host.plant(resource, Marks("other").write(Scope("theirs")))
        theirs = self.host.objects[key]
        self._ask(self.weft.reconcile)
        assert self.host.objects[key] == theirs
        if key.kind == "chain":
            self.host.remove(jump_key(int(key.at[0])))
        self.host.remove(key)
        self.settled = False

    @rule(version=st.sampled_from((4, 6)))
    def docker_comes_or_goes(self, version: int) -> None:
        """Make or delete DOCKER-USER; the facts are read again."""
        if version in self.host.docker_user:
            self.host.remove(jump_key(version))
            self.host.docker_user.remove(version)
        else:
            self.host.docker_user.add(version)
        self.weft.facts = replace(self.weft.facts, docker_user=frozenset(self.host.docker_user))
        self.dirty.add(None)
        self.settled = False

    @rule()
    def firewalld_comes_or_goes(self) -> None:
        """Start or stop firewalld; the facts are read again."""
        if self.host.firewalld:
            self.host.stop_firewalld()
        else:
            self.host.start_firewalld()
        self.weft.facts = replace(self.weft.facts, firewalld=self.host.firewalld)
        self.dirty.add(None)
        self.settled = False

    @rule(resource=st.sampled_from(OPERATORS))
    def operator_makes_or_removes(self, resource: Resource) -> None:
        """Make or remove what is the operator's own; an address of ours in its place stays ours."""
        if resource.key in self.found:
            self.host.remove(resource.key)
        elif resource.key not in self.host.objects and OPERATORS[0].key in self.host.objects | {resource.key: None}:
            self.host.plant(resource)
        self.found = strangers(self.host)
        self.settled = False

    # -- home -------------------------------------------------------------------------------------------------------

    @rule()
    def answer(self) -> None:
        """Let the reconciler converge the scopes that the watches named, or all if they do not know."""
        dirty = set(self.dirty)
        self.dirty.clear()
        self.host.faults.clear()
        self.settled = True
        if None in dirty or any(row.phase is not Phase.READY for row in self.weft.rows.values()):
            self._ask(self.weft.reconcile)
        else:
            for scope in sorted(one for one in dirty if one is not None):
                self._ask(partial(self.weft.converge, scope))

    @invariant()
    def all_is_well(self) -> None:
        """Strangers are as they were found; and when nothing is open, the host is what the plans say."""
        assert strangers(self.host) == self.found
        assert all(isinstance(error, WeftError) for error in self.reported)
        if self.settled:
            assert self.weft.converger.survey() == expected(self.weft)

    def teardown(self) -> None:
        """Come home: whatever happened, one start brings the host to the plans, and withdrawing all empties it."""
        self.host.faults.clear()
        self.host.crash_after = None
        if OPERATORS[0].key not in self.host.objects:
            self.host.plant(OPERATORS[0])
            self.found = strangers(self.host)
        if not self.host.firewalld:
            self.firewalld_comes_or_goes()
        self.weft.start()
        assert self.weft.converger.survey() == expected(self.weft)
        for scope in sorted(self.weft.rows):
            if scope in self.weft.rows:
                self.weft.delete(scope)
        assert self.host.objects == self.found


Walk.TestCase.settings = settings(max_examples=300)
test_a_random_walk_comes_home = Walk.TestCase
