"""Address arithmetic of pools: which addresses of a subnet can be handed out, and which subnet is still free.

Pure. A pool is never written out address by address: a /8 costs what a /24 costs, and so does an IPv6 /64. Addresses
are ``ipaddress`` values outside and whole numbers inside.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final
from urllib.parse import parse_qsl, urlencode

from drivers.model import Address, IPNetwork
from plugin import ip_text

LOCAL: Final = "weft-local"
"""The address space of one host."""

SWARM: Final = "weft-global"
"""The address space in which a swarm's manager keeps its own books, for all hosts."""

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
"""What a pool (``weft.pool``) and an address space may be called."""

DEFAULT: Final = "10.208.0.0/12/22"
"""1,024 pools of 1,021 containers each: a Linux bridge has 1,023 ports. Clear of Docker's own defaults: 172.17.0.0/16
to 172.31.0.0/16, 192.168.0.0/16, and a swarm's 10.0.0.0/24 upwards."""

_BITS: Final = {4: 32, 6: 128}
_HAS_BROADCAST: Final = 30  # the longest IPv4 prefix with a network and a broadcast address (RFC 3021)
_HAS_ANYCAST: Final = 126  # the longest IPv6 prefix with a subnet-router anycast address (RFC 4291 2.6.1, RFC 6164)
_MOST_POOLS: Final = 24  # bits between a base and its pools: 16 million of them


@dataclass(frozen=True, slots=True)
class PoolId:
    """What a pool is, which is also what it is called: all that Docker sends back later is this text.

        weft-local/10.20.0.0/16
        weft-local/10.20.0.0/16?within=10.20.5.0/24&pool=blue

    ``space``   the address space: pools of different spaces have nothing to do with each other
    ``within``  where addresses are chosen from (``--ip-range``); one that is asked for may lie anywhere in the subnet
    ``name``    ``weft.pool``: two pools of one subnet are told apart by it
    """

    space: str
    subnet: IPNetwork
    within: IPNetwork | None = None
    name: str = ""

    def __str__(self) -> str:
        more = {"within": str(self.within)} if self.within else {}
        more |= {"pool": self.name} if self.name else {}
        return f"{self.space}/{self.subnet}" + (f"?{urlencode(more, safe='/:')}" if more else "")

    @property
    def version(self) -> int:
        """4 or 6."""
        return self.subnet.version

    @property
    def usable(self) -> Span:
        """Every address that can be held by anybody."""
        return usable(self.subnet)

    @property
    def choice(self) -> Span | None:
        """The addresses that are handed out where none is asked for; ``None``: there is no such."""
        span = self.usable
        if self.within is None:
            return span
        first, last = max(span.first, _first(self.within)), min(span.last, _last(self.within))
        return Span(first, last) if first <= last else None


@lru_cache(maxsize=4096)
def parse_id(text: str) -> PoolId:
    """Return the pool of that name; raises ``ValueError`` for a text that :class:`PoolId` does not write."""
    path, _, query = text.partition("?")
    space, _, subnet = path.partition("/")
    more = dict(parse_qsl(query, strict_parsing=True)) if query else {}
    within = ip_text.network(more["within"]) if "within" in more else None
    found = PoolId(space, ip_text.network(subnet), within, more.get("pool", ""))
    if str(found) != text:
        raise ValueError(f"{text!r} is no pool")
    return found


@dataclass(frozen=True, slots=True)
class Span:
    """A run of addresses, both ends in it, as numbers."""

    first: int
    last: int

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and self.first <= number <= self.last

    @property
    def size(self) -> int:
        """How many addresses."""
        return self.last - self.first + 1


def usable(subnet: IPNetwork) -> Span:
    """Return the addresses of a subnet that an interface can have.

    IPv4's network and broadcast address are none, nor is IPv6's subnet-router anycast address.
    """
    first, last = _first(subnet), _last(subnet)
    if subnet.version == 4:
        return Span(first + 1, last - 1) if subnet.prefixlen <= _HAS_BROADCAST else Span(first, last)
    return Span(first + 1, last) if subnet.prefixlen <= _HAS_ANYCAST else Span(first, last)


def address(version: int, number: int) -> Address:
    """Return the address of a number."""
    return IPv4Address(number) if version == 4 else IPv6Address(number)


def packed(version: int, number: int) -> bytes:
    """Return a number as the bytes of an address: they sort as the numbers do."""
    return number.to_bytes(_BITS[version] // 8, "big")


def unpacked(raw: bytes) -> int:
    """Return the number of packed bytes."""
    return int.from_bytes(raw, "big")


# -- pools that nobody named ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Base:
    """Where pools are cut from, and the prefix length of each: ``10.208.0.0/12/22``."""

    network: IPNetwork
    size: int

    def __str__(self) -> str:
        return f"{self.network}/{self.size}"


@dataclass(frozen=True, slots=True)
class Bases:
    """The bases in their order (WEFT_POOLS)."""

    each: tuple[Base, ...]

    def __str__(self) -> str:
        return ",".join(map(str, self.each))

    def of(self, version: int, store: str) -> tuple[Base, ...]:
        """Return the bases of IPv4 or IPv6; a family that was not set has its default."""
        found = tuple(base for base in self.each if base.network.version == version)
        return found or ((own_ula(store),) if version == 6 else parse_bases(DEFAULT).each)


def parse_bases(text: str) -> Bases:
    """Return what ``BASE/LENGTH/SIZE,...`` means; raises ``ValueError`` with what is allowed."""
    bases = tuple(_base(one.strip()) for one in text.split(","))
    for at, base in enumerate(bases):
        for other in bases[:at]:
            if base.network.version == other.network.version and base.network.overlaps(other.network):
                raise ValueError(f"bases apart from each other: {other.network} and {base.network} overlap")
    return Bases(bases)


def own_ula(store: str) -> Base:
    """Return a /48 of unique local IPv6 addresses for a store, always the same, cut into /64 (RFC 4193).

    Its 40 bits of global id are drawn from the store's own random id, so those of two hosts hardly ever meet.
    """
    drawn = hashlib.sha256(f"weft {store}".encode()).digest()[:5]
    return Base(IPv6Network((b"\xfd" + drawn + bytes(10), 48)), 64)


def next_subnet(bases: Iterable[Base], taken: Iterable[IPNetwork]) -> IPNetwork | None:
    """Return the lowest subnet of the first base that has one which overlaps nothing that is taken."""
    held = sorted((_first(one), _last(one), one.version) for one in taken)
    for base in bases:
        version = base.network.version
        step = 1 << (_BITS[version] - base.size)
        candidate = _first(base.network)
        for first, last, of in held:
            if of != version or last < candidate:
                continue
            if first >= candidate + step:
                break
            candidate += (last - candidate + step) // step * step  # the first one above it, on a border
        if candidate + step - 1 <= _last(base.network):
            return _network(version, candidate, base.size)
    return None


def _base(text: str) -> Base:
    network_text, _, size_text = text.rpartition("/")
    try:
        network, size = ip_text.network(network_text), int(size_text)
    except ValueError as error:
        raise ValueError(_allowed(text)) from error
    longest = _HAS_BROADCAST if network.version == 4 else 64
    shift = size - network.prefixlen
    if "/" not in network_text or not 0 <= shift <= _MOST_POOLS or size > longest or not is_unicast(network):
        raise ValueError(_allowed(text))
    return Base(network, size)


def _allowed(text: str) -> str:
    return (
        "BASE/LENGTH/SIZE, several with commas between: 10.208.0.0/12/22 is pools of /22 out of 10.208.0.0/12; "
        f"SIZE at most 30 for IPv4, 64 for IPv6, and {_MOST_POOLS} more than LENGTH; not {text!r}"
    )


def is_unicast(network: IPNetwork) -> bool:
    """Tell whether interfaces can have the addresses of a subnet."""
    ip = network.network_address
    return network.prefixlen > 0 and not (network.is_multicast or network.is_loopback or int(ip) == 0)


def _network(version: int, first: int, size: int) -> IPNetwork:
    return IPv4Network((first, size)) if version == 4 else IPv6Network((first, size))


def _first(network: IPNetwork) -> int:
    return int(network.network_address)


def _last(network: IPNetwork) -> int:
    return int(network.broadcast_address)
