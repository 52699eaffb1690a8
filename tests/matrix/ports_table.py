"""Who reaches a published port, and as whom: what is expected, and the same as docs/ports.md shows it.

The tables of the document are made from `expected`, and `test_ports.py` tries every cell of it, so they cannot drift.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Final, NamedTuple

CLIENTS: Final = ("neighbour", "host", "loopback", "other", "sibling", "itself")
HEADS: Final = ("neighbour", "host", "loopback client", "other network", "sibling", "itself")
TRANSPORTS: Final = ("tcp", "udp", "sctp")
SHAPES: Final = ("single", "range", "shifted", "chosen")
BOUNDS: Final = ("any", "host", "loopback")

NAT: Final = "NAT"
MASQUERADED: Final = "NAT, gateway"
RELAY: Final = "relay"
CLOSED: Final = "closed"
REFUSED: Final = "no start"
NOBODY: Final = "-"


@dataclass(frozen=True, slots=True)
class House:
    """A kind of container: the IP versions it has, and whether its bridge is the operator's."""

    name: str
    versions: frozenset[int]
    adopted: bool = False


BOTH: Final = frozenset({4, 6})
HOUSES: Final = (
    House("dual", BOTH),
    House("only4", frozenset({4})),
    House("only6", frozenset({6})),
    House("adopted", BOTH, adopted=True),
)


class Row(NamedTuple):
    """What is published: by what kind of container, for clients of which version, how, and bound to what."""

    house: House
    version: int
    bound: str
    transport: str

    @property
    def name(self) -> str:
        """What the tests call it."""
        return f"{self.house.name}-v{self.version}-{self.bound}-{self.transport}"

    @property
    def starts(self) -> bool:
        """Whether weft publishes it at all: an address in the command that nothing can serve fails the start."""
        return self.version in self.house.versions or self.transport != "sctp" or self.bound == "any"


ROWS: Final = tuple(
    Row(house, version, bound, transport)
    for house in HOUSES
    for version in (4, 6)
    for bound in BOUNDS
    for transport in TRANSPORTS
)


def expected(row: Row, client: str) -> str:
    """Return what happens to a client; the shape of the range makes no difference."""
    if client in ("sibling", "itself") and row.version not in row.house.versions:
        return NOBODY
    if not row.starts:
        return REFUSED
    if (client == "loopback") != (row.bound == "loopback") and row.bound != "any":
        return CLOSED
    unroutable = client == "loopback" and (row.version == 6 or row.house.adopted)
    if row.version in row.house.versions and not unroutable:
        return NAT if client in ("neighbour", "host", "other") else MASQUERADED
    return CLOSED if row.transport == "sctp" else RELAY


def tables() -> Iterator[str]:
    """Yield the tables as Markdown, each with its house."""
    for house in HOUSES:
        yield f"**{_TITLES[house.name]}**\n"
        yield "\n".join(_table(house)) + "\n"


_TITLES: Final = {
    "dual": "A container with IPv4 and IPv6",
    "only4": "A container with IPv4 only",
    "only6": "A container with IPv6 only",
    "adopted": "A container with both, on a bridge that weft adopted",
}
_BOUND: Final = {"any": "any", "host": "host address", "loopback": "loopback"}


def _table(house: House) -> Iterator[str]:
    head = ("clients by", "bound to", "transport", *HEADS, "tests")
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    rows = [row for row in ROWS if row.house is house]
    for (version, bound, cells), some in groupby(rows, key=_alike):
        transports = [row.transport for row in some]
        ends = [""] if len(transports) == len(TRANSPORTS) else [f"-{one}" for one in transports]
        name = ", ".join(f"`{house.name}-v{version}-{bound}{end}`" for end in ends)
        yield f"| {' | '.join((f'IPv{version}', _BOUND[bound], ', '.join(transports), *cells, name))} |"


def _alike(row: Row) -> tuple[int, str, tuple[str, ...]]:
    return row.version, row.bound, tuple(expected(row, client) for client in CLIENTS)
