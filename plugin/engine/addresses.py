"""Pools and addresses for Docker: who asks, who holds, who is dead.

Docker sends nothing but the pool's name later, replays nothing (RequiresRequestReplay is false), ignores a failing
release, and after a crash forgets what it asked for (facts/docker-wire.md 5 and 6). So whether the holder of an address
lives is found out here. An address has one of these holders:

    an endpoint of weft's      lives while a container has the other end of its link, and while it is being started
    none, on weft's network    dead: Docker asks and makes the endpoint under one lock, so nobody is in between
    another driver's network   only Docker's own list tells; see :meth:`Addresses.forgotten`
    the gateway, an auxiliary  lives as long as the pool

A live holder is a conflict that names it; a dead one is taken over by whoever asks for its address, and swept when two
looks at Docker's list agree. In the swarm's address space Docker's manager keeps the books, and asks again for all that
it knows when it restarts or changes: there, asking for what is held is a replay, and so it is where a node asks for the
pool of a swarm's network that it has (spec/decisions/0006).
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_interface
from typing import Final, Protocol

from drivers.errors import Conflict, InvalidRequest, NotFound
from drivers.model import Address, Interface, IPNetwork
from plugin.docker import DockerNetwork
from plugin.pools import SWARM, Bases, PoolId, next_subnet, parse_id
from plugin.requests import AddressRequest, PoolRequest
from plugin.store import LeaseRow, PoolRow, Store
from plugin.store.pools import Full, Kind, Unknown

log = logging.getLogger(__name__)

STARTING_SECONDS: Final = 30.0
"""How long from asking for an address until the container has the link: weft's own part of it may take 20."""

HANDED_SECONDS: Final = 2.0
"""How long from asking for an address to CreateEndpoint: milliseconds, and under one lock of Docker's."""

_SWARM_ID: Final = re.compile("[0-9a-z]{25}")  # of a network; those of one host have 64 digits
_NAMED: Final = 5  # holders that the message about a full pool names
_SHORT: Final = 12
_OTHER: Final = "stop that container, or choose another --ip"


class HostAddresses(Protocol):
    """What is looked up on the host."""

    def connected_subnets(self) -> tuple[tuple[str, IPNetwork], ...]:
        """Return the subnets that the host is in, each with its link."""
        ...

    def is_plugged(self, link: str) -> bool:
        """Tell whether the other end of a veth pair is in another network namespace: a container has it."""
        ...


@dataclass(frozen=True, slots=True)
class Forgotten:
    """A pool, or a lease of it, that Docker's own list does not show."""

    pool: PoolRow
    lease: LeaseRow | None = None

    @property
    def id(self) -> str:
        """What it is, and which one of several in a row: a later one of the same address is another."""
        return f"{self} {self.made}"

    @property
    def made(self) -> float:
        """When it was made, in seconds since 1970."""
        return self.lease.made if self.lease else self.pool.made

    def __str__(self) -> str:
        return f"{self.lease.address} of pool {self.pool.id}" if self.lease else f"pool {self.pool.id}"


class Addresses:
    """The use cases of pools and addresses."""

    def __init__(
        self, store: Store, host: HostAddresses, *, bases: Bases, clock: Callable[[], float] = time.time
    ) -> None:
        """Keep leases in ``store``; ``bases`` are where pools that nobody named are cut from."""
        self._store = store
        self._pools = store.pools
        self._host = host
        self._bases = bases
        self._clock = clock
        self._met = float("-inf")
        self._forgotten: frozenset[str] = frozenset()

    # -- what Docker asks -------------------------------------------------------------------------------------------

    def greet(self) -> None:
        """Take note that a dockerd has just started: what it asked for in its last life it waits for no more."""
        self._met = self._clock()

    def request_pool(self, request: PoolRequest) -> PoolId:
        """Reserve a pool: the one that is named, or a free one. Raises :class:`Conflict` naming who has it."""
        if request.subnet is None:
            return self._free_pool(request)
        wanted = PoolId(request.space, request.subnet, request.within, request.name)
        held = self._pools.overlapping(wanted)
        if [row.id for row in held] == [wanted] and (wanted.space == SWARM or self._was_forgotten(held[0])):
            return wanted
        for row in held:
            if not self._is_dead_pool(row):
                raise Conflict(_overlap(wanted, row))
        self._pools.add(wanted, self._clock(), instead_of=held)
        for row in held:
            self._no_longer_forgotten(Forgotten(row))
            log.warning("dead pool replaced", extra={"pool": row.id, "by": wanted})
        log.info("pool reserved", extra={"pool": wanted})
        return wanted

    def release_pool(self, pool: str) -> None:
        """Give a pool back with all its leases; of the unknown, succeed.

        In a swarm's space only once its leases are given back, as the manager does: it may be a second network's failed
        beginning that gives back what is the first one's.
        """
        if self._pools.remove(pool, if_empty=pool.startswith(f"{SWARM}/")):
            log.info("pool released", extra={"pool": pool})

    def request_address(self, request: AddressRequest) -> Interface:
        """Lease an address, the one that is named or the next free one. Raises :class:`Conflict` naming the holder."""
        pool = self._pool(request.pool)
        number = None if request.address is None else _number(pool, request.address)
        taken = self._pools.take(request.pool, number, gateway=request.gateway, now=self._clock())
        match taken:
            case Unknown():
                raise NotFound(_unknown(pool))
            case Full():
                raise Conflict(self._full(pool))
            case LeaseRow():
                self._take_held(pool, taken, request)
                found = taken.address
            case _:
                found = taken
        log.debug("address leased", extra={"pool": pool, "address": found, "gateway": request.gateway})
        return ip_interface((found, pool.subnet.prefixlen))

    def release_address(self, pool: str, address: Address) -> None:
        """Give an address back; of the unknown, succeed."""
        self._pools.give_back(pool, address)

    # -- pools ------------------------------------------------------------------------------------------------------

    def _free_pool(self, request: PoolRequest) -> PoolId:
        bases = self._bases.of(request.version, self._store.id)
        on_host = [subnet for _, subnet in self._host.connected_subnets()]

        def choose(held: Sequence[IPNetwork]) -> IPNetwork:
            found = next_subnet(bases, [*on_host, *held])
            if found is None:
                raise Conflict(
                    f"no pool is left in {', '.join(map(str, bases))} (WEFT_POOLS): all are held by networks, or the"
                    " host is in them; name a --subnet, remove networks (`weft pool ls`), or add a base to WEFT_POOLS"
                )
            return found

        row = self._pools.add_free(request.space, request.name, self._clock(), choose)
        log.info("pool reserved", extra={"pool": row.id})
        return row.id

    def _was_forgotten(self, row: PoolRow) -> bool:
        """Tell whether a pool is of a swarm's network that this node's dockerd has forgotten, for it was killed.

        It was reserved in dockerd's last life, and no container has a link of the network. That it is asked for again
        is the same network's doing: the manager's weft keeps books, too, and gives no two of its networks one pool.
        """
        if not _SWARM_ID.fullmatch(row.network or "") or row.made > self._met:
            return False
        return not any(self._host.is_plugged(one.endpoint.link) for one in self._store.endpoints(row.network))

    def _is_dead_pool(self, row: PoolRow) -> bool:
        """Tell whether no network is on a pool: Docker's list was looked at, and it is older than any beginning."""
        return row.network is None and not self._is_young(row.made) and Forgotten(row).id in self._forgotten

    def _pool(self, text: str) -> PoolId:
        try:
            return parse_id(text)
        except ValueError:
            raise NotFound(f"{text[:200]!r} is no pool of weft's: it was made by another IPAM driver") from None

    # -- addresses that are held ------------------------------------------------------------------------------------

    def _take_held(self, pool: PoolId, lease: LeaseRow, request: AddressRequest) -> None:
        """Take a held address over if it is the same request again, or its holder is dead; refuse it otherwise."""
        again = pool.space == SWARM or (request.gateway and lease.kind is Kind.GATEWAY)
        if again and request.address is not None:
            return
        if live := self._live_holder(pool, lease):
            raise Conflict(f"{lease.address} of pool {pool.subnet} is {live}")
        if not self._pools.take_over(lease, now=self._clock()):
            raise Conflict(f"{lease.address} of pool {pool.subnet} was taken by somebody else just now; try again")
        if row := self._pools.find(str(pool)):
            self._no_longer_forgotten(Forgotten(row, lease))
        log.warning(
            "address of a dead holder taken over",
            extra={"address": lease.address, "pool": pool, "endpoint": (lease.endpoint or "none")[:_SHORT]},
        )

    def _live_holder(self, pool: PoolId, lease: LeaseRow) -> str | None:
        """Return who holds a lease, in words, and what to do; ``None`` if nobody does."""
        row = self._pools.find(str(pool))
        if row is None:
            return None
        if lease.kind is Kind.GATEWAY:
            return (
                f"the gateway of {_network(row)}; choose another address, or, if this is a second network on the same"
                " subnet, give its pool a name: --ipam-opt weft.pool=NAME"
            )
        if lease.endpoint and lease.link:
            return self._live_endpoint(row, lease, lease.endpoint[:_SHORT], lease.link)
        return self._elsewhere(row, lease) if row.network is None else self._in_between(row, lease)

    def _live_endpoint(self, row: PoolRow, lease: LeaseRow, endpoint: str, link: str) -> str | None:
        """Say which container has a lease, or is about to."""
        holder = f"held by endpoint {endpoint} of {_network(row)}"
        if self._host.is_plugged(link):
            return f"{holder} (`weft endpoint inspect {endpoint}` shows its container); {_OTHER}"
        return f"{holder}, which is just being started; {_OTHER}" if self._is_young(lease.made) else None

    def _in_between(self, row: PoolRow, lease: LeaseRow) -> str | None:
        """Say what a lease of weft's own network is that no endpoint has."""
        if lease.kind is Kind.RESERVED:
            return f"set aside for something else (--aux-address) on {_network(row)}; choose another --ip"
        if self._is_young(lease.made, HANDED_SECONDS):
            return f"being given to another container of {_network(row)} at this moment; {_OTHER}"
        return None

    def _elsewhere(self, row: PoolRow, lease: LeaseRow) -> str | None:
        """Say what a lease is of a network that is another driver's: Docker's list knows."""
        if Forgotten(row, lease).id in self._forgotten and not self._is_young(lease.made):
            return None
        return (
            f"in use since {_time(lease.made)} on a network of another driver; {_OTHER}. If no container has it"
            " (`docker network inspect`), ask again in a minute: weft is looking at Docker's own list"
        )

    def _is_young(self, made: float, seconds: float = STARTING_SECONDS) -> bool:
        """Tell whether the Docker that asked may still be at it."""
        return made > self._met and 0 <= self._clock() - made < seconds

    def _full(self, pool: PoolId) -> str:
        """Say that a pool is exhausted, of how many addresses, held by what, and what to do."""
        row = self._pools.find(str(pool))
        leases = self._pools.leases(row, limit=_NAMED) if row else []
        named = [f"{lease.address} {_holder(lease)}" for lease in leases]
        named += [f"and {row.used - _NAMED} more"] if row and row.used > _NAMED else []
        size = pool.choice.size if pool.choice else 0
        within = f" (--ip-range {pool.within})" if pool.within else ""
        return (
            f"pool {pool.subnet}{within} is exhausted: all {size} addresses to choose from are held"
            f" ({', '.join(named)}); `weft pool inspect {pool.subnet}` shows by whom. Stop containers, or make the"
            " network again with a larger --subnet or --ip-range; what Docker forgot is given back within some minutes"
        )

    # -- what Docker forgot -----------------------------------------------------------------------------------------

    def held(self) -> list[Forgotten]:
        """Return what may turn out to be forgotten: pools that no network of weft's has, leases that no endpoint has.

        Leases of a swarm's space are the manager's business: containers of other hosts hold them.
        """
        found: list[Forgotten] = []
        for row in self._pools.all():
            found += [Forgotten(row)] if row.network is None else []
            if row.id.space != SWARM:
                found += [Forgotten(row, lease) for lease in self._pools.leases(row, unheld=True)]
        return found

    def forgotten(self, held: Iterable[Forgotten], listed: Collection[DockerNetwork]) -> list[Forgotten]:
        """Return what of ``held`` is not in Docker's list, which was read after it, and remember it.

        Whoever asks for one of these gets it: that Docker asks is the second witness.
        """
        missing = list(_missing(held, listed))
        self._forgotten = frozenset(one.id for one in missing)
        return missing

    def sweep(self, one: Forgotten) -> bool:
        """Give back what Docker forgot, unless somebody has it by now; tell whether it was given back."""
        self._no_longer_forgotten(one)
        return self._pools.sweep_lease(one.lease) if one.lease else self._pools.sweep(one.pool)

    def _no_longer_forgotten(self, one: Forgotten) -> None:
        self._forgotten -= {one.id}


def _missing(held: Iterable[Forgotten], listed: Collection[DockerNetwork]) -> Iterator[Forgotten]:
    known = {(one.pool, subnet): one for one in listed for subnet in one.subnets}
    for one in held:
        network = known.get((one.pool.id.name, one.pool.id.subnet))
        if network is None or (one.lease and one.lease.address not in network.addresses):
            yield one


def _number(pool: PoolId, address: Address) -> int:
    """Return the number of an address that is asked for; raises :class:`InvalidRequest` for one nobody can have."""
    if address not in pool.subnet:
        raise InvalidRequest(f"{address} is not in pool {pool.subnet}: choose an address from it")
    if int(address) not in pool.usable:
        what = "subnet-router anycast" if pool.version == 6 else "network or broadcast"
        raise InvalidRequest(f"{address} is the {what} address of {pool.subnet}, for no interface: choose another")
    return int(address)


def _overlap(wanted: PoolId, held: PoolRow) -> str:
    whose = f", which is {_network(held)}'s" if held.network else f", reserved {_time(held.made)}"
    return (
        f"subnet {wanted.subnet} overlaps {held.id.subnet}{whose}; choose another --subnet (`weft pool ls`). Networks"
        " that are meant to have the same addresses, each by itself, name their pools: --ipam-opt weft.pool=NAME. If"
        " the other network is gone, ask again in a minute: weft is looking at Docker's own list"
    )


def _unknown(pool: PoolId) -> str:
    return (
        f"weft has no pool {pool}: its state was lost, or the network was removed; see `weft pool ls`, then remove the"
        " network with `docker network rm` and create it again"
    )


def _network(row: PoolRow) -> str:
    return f"network {row.network[:_SHORT]}" if row.network else "its network"


def _holder(lease: LeaseRow) -> str:
    match lease.kind:
        case Kind.GATEWAY:
            return "the gateway"
        case _ if lease.endpoint:
            return f"endpoint {lease.endpoint[:_SHORT]}"
        case Kind.RESERVED:
            return "set aside"
        case _:
            return "no endpoint of weft's"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
