"""Whatever is asked, given back, asked again and restarted: no address is handed out twice, and none is lost.

The real store on disk, a fake host, and models that are dictionaries of who holds what.
"""

from __future__ import annotations

import shutil
import tempfile
from ipaddress import ip_address, ip_interface, ip_network
from itertools import pairwise
from pathlib import Path
from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from drivers.errors import Conflict, InvalidRequest
from drivers.model import Address, Endpoint, IPNetwork
from plugin.engine.addresses import STARTING_SECONDS, Addresses
from plugin.pools import DEFAULT, LOCAL, SWARM, PoolId, address, parse_bases, unpacked
from plugin.requests import AddressRequest, PoolRequest
from plugin.store import Database, EndpointRow, NetworkRow, Store
from tests.plugin.samples import endpoint, network, subnet

SUBNETS: Final = tuple(
    map(
        ip_network,
        (
            *("10.0.0.0/29", "10.0.0.0/24", "10.0.1.0/28", "10.0.2.0/30", "10.0.3.0/31", "10.0.4.0/32", "10.0.0.0/8"),
            *("fd00::/64", "fd00:1::/125", "fd00:2::/127", "fd00:3::/48"),
        ),
    )
)
TEN: Final = ip_network("10.0.0.0/8")  # in which all pools lie that weft would choose
RANGES: Final = tuple(
    map(ip_network, ("10.0.0.0/30", "10.0.1.8/30", "fd00:1::4/126", "fd00::100/120", "10.0.0.248/29"))
)


class FakeHost:
    """A host without subnets. ``plugged`` are the links that a container has the other end of."""

    def __init__(self) -> None:
        self.plugged: set[str] = set()

    def connected_subnets(self) -> tuple[tuple[str, IPNetwork], ...]:
        """Return none."""
        return ()

    def is_plugged(self, link: str) -> bool:
        """Tell whether it is."""
        return link in self.plugged


class Books(RuleBasedStateMachine):
    """Docker on one side, weft's address use cases on the other; ``model`` says who holds what."""

    pools = Bundle("pools")
    leases = Bundle("leases")

    @initialize()
    def begin(self) -> None:
        """Open an empty store."""
        self.directory = Path(tempfile.mkdtemp(prefix="weft-books-"))
        self.time = 1_000_000.0
        self.model: dict[PoolId, dict[Address, bool]] = {}  # pool -> address -> is the gateway
        self._open()

    def _open(self) -> None:
        self.database = Database(self.directory / "weft.db")
        self.store = Store(self.database)
        self.addresses = Addresses(self.store, FakeHost(), bases=parse_bases(DEFAULT), clock=lambda: self.time)

    def teardown(self) -> None:
        """Close it and throw it away."""
        if hasattr(self, "store"):
            self.store.close()
            shutil.rmtree(self.directory)

    # -- what Docker asks

    @rule(target=pools, space=st.sampled_from([LOCAL, SWARM]), name=st.sampled_from(["", "blue"]), data=st.data())
    def request_pool(self, space: str, name: str, data: st.DataObject) -> PoolId | object:
        """Name a pool, one that overlaps others or not."""
        subnet = data.draw(st.sampled_from(SUBNETS))
        fitting = [one for one in RANGES if one.version == subnet.version and one.subnet_of(subnet)]  # type: ignore[arg-type]
        within = data.draw(st.sampled_from([None, *fitting]))
        wanted = PoolId(space, subnet, within, name)
        if wanted.choice is None:
            return multiple()
        others = [
            one for one in self.model if (one.space, one.name) == (space, name) and one.subnet.version == subnet.version
        ]
        overlaps = [one for one in others if one.subnet.overlaps(subnet)]
        asked = PoolRequest(space=space, version=subnet.version, subnet=subnet, within=within, name=name)
        try:
            found = self.addresses.request_pool(asked)
        except Conflict:
            assert overlaps, f"{wanted} overlaps none of {others}"
            assert not (space == SWARM and overlaps == [wanted]), "a manager's replay was refused"
            return multiple()
        assert found == wanted
        assert not overlaps or (space == SWARM and overlaps == [wanted])
        self.model.setdefault(wanted, {})
        return wanted

    @rule(target=pools, version=st.sampled_from([4, 6]))
    def request_any_pool(self, version: int) -> PoolId | object:
        """Leave the choice to weft."""
        try:
            found = self.addresses.request_pool(PoolRequest(space=LOCAL, version=version))
        except Conflict:
            assert version == 4
            assert any(one.subnet == TEN for one in self.model), "there was a free one"
            return multiple()
        taken = [one for one in self.model if one.version == version and one.subnet.overlaps(found.subnet)]
        assert taken == []
        self.model[found] = {}
        return found

    @rule(target=leases, pool=pools, gateway=st.booleans())
    def request_any(self, pool: PoolId, gateway: bool) -> tuple[PoolId, Address] | object:
        """Ask for whatever is free."""
        if pool not in self.model:
            return multiple()
        held = self.model[pool]
        span = pool.choice
        assert span is not None
        in_span = sum(int(one) in span for one in held)
        try:
            found = self.addresses.request_address(AddressRequest(pool=str(pool), gateway=gateway))
        except Conflict:
            assert in_span == span.size or (gateway and True in held.values()), "there was a free one"
            return multiple()
        assert found.ip not in held, f"{found} was handed out twice"
        assert int(found.ip) in span
        assert found.network == pool.subnet
        held[found.ip] = gateway
        return pool, found.ip

    @rule(target=leases, pool=pools, gateway=st.booleans(), offset=st.integers(0, 20) | st.integers(-20, -1))
    def request_this(self, pool: PoolId, gateway: bool, offset: int) -> tuple[PoolId, Address] | object:
        """Ask for one by name, near one end of the subnet, held by somebody or not."""
        if pool not in self.model:
            return multiple()
        end = pool.subnet.network_address if offset >= 0 else pool.subnet.broadcast_address
        wanted = address(pool.version, max(0, int(end) + offset + (offset < 0)))
        held = self.model[pool]
        try:
            found = self.addresses.request_address(AddressRequest(pool=str(pool), address=wanted, gateway=gateway))
        except InvalidRequest:
            assert wanted not in pool.subnet or int(wanted) not in pool.usable
            return multiple()
        except Conflict:
            assert wanted in held
            assert pool.space != SWARM, "a manager's replay was refused"
            assert not (gateway and held[wanted]), "a gateway's replay was refused"
            return multiple()
        assert found.ip == wanted
        assert wanted not in held or pool.space == SWARM or (gateway and held[wanted]), f"{wanted} was handed out twice"
        held.setdefault(wanted, gateway)
        return pool, wanted

    @rule(lease=consumes(leases))
    def release_address(self, lease: tuple[PoolId, Address]) -> None:
        """Give one back, perhaps one that is long gone with its pool."""
        pool, released = lease
        self.addresses.release_address(str(pool), released)
        self.model.get(pool, {}).pop(released, None)

    @rule(pool=pools)
    def release_pool(self, pool: PoolId) -> None:
        """Give a pool back, perhaps for the second time."""
        self.addresses.release_pool(str(pool))
        if not (pool.space == SWARM and self.model.get(pool)):
            self.model.pop(pool, None)

    # -- what happens

    @rule(seconds=st.sampled_from([0.1, 5.0, 1000.0]))
    def time_passes(self, seconds: float) -> None:
        """Let what was asked for grow old: on another driver's network that makes nobody dead."""
        self.time += seconds

    @rule()
    def restart(self) -> None:
        """Stop weft without a word, and start it again."""
        self.store.close()
        self._open()

    @rule()
    def dockerd_restarts(self) -> None:
        """Start dockerd: it replays nothing."""
        self.addresses.greet()

    @rule()
    def docker_forgets(self) -> None:
        """Have two looks find that Docker has no network: whatever is held is given back."""
        for one in self.addresses.forgotten(self.addresses.held(), []):
            self.addresses.sweep(one)
        self.model.clear()

    # -- the laws

    @invariant()
    def the_store_says_what_the_model_says(self) -> None:
        """Compare pools and leases."""
        if hasattr(self, "store"):
            rows = self.store.pools.all()
            assert {row.id: {one.address for one in self.store.pools.leases(row)} for row in rows} == {
                pool: set(held) for pool, held in self.model.items()
            }

    @invariant()
    def leases_and_gaps_are_the_whole_pool(self) -> None:
        """Look at every pool."""
        if hasattr(self, "store"):
            check_gaps(self.database, self.store)


def check_gaps(database: Database, store: Store) -> None:
    """Lay leases and gaps side by side: nothing is in two of them, nothing in none, and no two gaps touch."""
    for row in store.pools.all():
        gaps = database.read("SELECT first, last FROM gaps WHERE pool = ?", row.number)
        free = [(unpacked(gap["first"]), unpacked(gap["last"])) for gap in gaps]
        taken = [(int(one.address), int(one.address)) for one in store.pools.leases(row)]
        runs = sorted(free + taken)
        assert runs[0][0] == row.id.usable.first
        assert runs[-1][1] == row.id.usable.last
        for one, other in pairwise(runs):
            assert one[1] + 1 == other[0]
            assert not (one in free and other in free)


POOL: Final = PoolId(LOCAL, ip_network("10.1.0.0/28"))
GATEWAY: Final = ip_address("10.1.0.1")
MINE: Final = [ip_address(number) for number in range(int(GATEWAY) + 1, int(GATEWAY) + 14)]


class Lives(RuleBasedStateMachine):
    """One network of weft's, and containers that start, stop, and are lost at every step of either."""

    @initialize()
    def begin(self) -> None:
        """Make the network."""
        self.directory = Path(tempfile.mkdtemp(prefix="weft-lives-"))
        self.host = FakeHost()
        self.time = 1_000_000.0
        self.met = 0.0
        self.number = 0
        self.running: dict[Address, Endpoint] = {}
        self.asked: dict[Address, float] = {}
        self._open()
        self.addresses.request_pool(PoolRequest(space=LOCAL, version=4, subnet=POOL.subnet))
        self._request(GATEWAY, gateway=True)
        mine = network(1, subnets=(subnet(str(POOL.subnet)),))
        self.store.add_network(NetworkRow(network=mine), pools=[(LOCAL, POOL.subnet)])
        self.store.network_ready(mine.id)

    def _open(self) -> None:
        self.database = Database(self.directory / "weft.db")
        self.store = Store(self.database)
        self.addresses = Addresses(self.store, self.host, bases=parse_bases(DEFAULT), clock=lambda: self.time)

    def teardown(self) -> None:
        """Close it and throw it away."""
        if hasattr(self, "store"):
            self.store.close()
            shutil.rmtree(self.directory)

    def _request(self, wanted: Address | None, *, gateway: bool = False) -> Address:
        asked = AddressRequest(pool=str(POOL), address=wanted, gateway=gateway)
        return self.addresses.request_address(asked).ip

    @rule(wanted=st.none() | st.sampled_from([GATEWAY, *MINE]), dies=st.sampled_from(["", "", "", "asked", "made"]))
    def start(self, wanted: Address | None, dies: str) -> None:
        """Start a container; dockerd may be killed when it has ``asked``, or when the endpoint is ``made``."""
        try:
            found = self._request(wanted)
        except Conflict:
            since = self.asked.get(wanted, 0.0) if wanted else 0.0
            young = since > self.met and self.time - since < STARTING_SECONDS
            leased = {one.address for row in self.store.pools.all() for one in self.store.pools.leases(row)}
            refusable = wanted in {GATEWAY, *self.running} or young if wanted else leased == {GATEWAY, *MINE}
            assert refusable, f"{wanted} is nobody's, and refused"
            return
        assert found in MINE
        assert found not in self.running, f"{found} was handed out twice"
        self.asked[found] = self.time
        if dies != "asked":
            self._make(found, plug=dies != "made")

    def _make(self, found: Address, *, plug: bool) -> None:
        """Do what CreateEndpoint and Join do."""
        self.number += 1
        made = endpoint(self.number, ipv4=ip_interface(f"{found}/28"))
        dead = self.store.holders(made.network, made.addresses)
        assert not any(row.endpoint.link in self.host.plugged for row in dead)
        self.store.add_endpoint(EndpointRow(endpoint=made), instead_of=dead)
        self.store.endpoint_ready(made.id)
        if plug:
            self.host.plugged.add(made.link)
            self.running[found] = made

    @rule(data=st.data(), dies=st.booleans())
    def stop(self, data: st.DataObject, dies: bool) -> None:
        """Stop a container; dockerd may be killed before it gives the address back."""
        if self.running:
            found = data.draw(st.sampled_from(sorted(self.running, key=int)))
            self._remove(self.running.pop(found))
            if not dies:
                self.addresses.release_address(str(POOL), found)

    def _remove(self, gone: Endpoint) -> None:
        self.host.plugged.discard(gone.link)
        self.store.withdraw_endpoints([gone.id])
        self.store.remove_endpoint(gone.id)

    @rule(released=st.sampled_from(MINE))
    def release_late(self, released: Address) -> None:
        """Release what a container had that is long dead: somebody may have it by now."""
        self.addresses.release_address(str(POOL), released)

    @rule(seconds=st.sampled_from([0.1, 3.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        """Let what was asked for grow old."""
        self.time += seconds

    @rule()
    def dockerd_starts(self) -> None:
        """Start dockerd."""
        self.time += 0.01
        self.addresses.greet()
        self.met = self.time

    @rule()
    def weft_restarts(self) -> None:
        """Stop weft without a word, and start it again: it knows no longer when dockerd started."""
        self.store.close()
        self._open()
        self.met = 0.0

    @rule()
    def two_looks_agree(self) -> None:
        """Sweep endpoints and leases that no container has: nothing is lost, and nothing that lives is touched."""
        for row in self.store.endpoints():
            if row.endpoint.link not in self.host.plugged:
                self._remove(row.endpoint)
        for one in self.addresses.forgotten(self.addresses.held(), []):
            self.addresses.sweep(one)
        (pool,) = self.store.pools.all()
        assert {one.address for one in self.store.pools.leases(pool)} == {GATEWAY, *self.running}

    @invariant()
    def whoever_runs_has_a_lease(self) -> None:
        """Look at the pool."""
        if hasattr(self, "store"):
            (pool,) = self.store.pools.all()
            assert {one.address for one in self.store.pools.leases(pool)} >= {GATEWAY, *self.running}
            check_gaps(self.database, self.store)


TestBooks = Books.TestCase
TestLives = Lives.TestCase
