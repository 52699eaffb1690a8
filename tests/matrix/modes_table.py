"""Who reaches a container, in each gateway mode: what is expected. `test_modes.py` tries every cell.

o  open, and the container sees the client's own address
g  open, and it sees its gateway's
t  open from a link that the network trusts, else closed
r  refused: there is nobody, and the host says so
.  closed: no answer
"""

from dataclasses import dataclass
from itertools import product
from typing import Final

CLIENTS: Final = ("neighbour", "yard", "trusted", "docker", "other", "inner", "sibling", "host")

TABLE: Final = """
                              neighbour yard trusted docker other inner sibling host

nat              published    .         .    t       .      .     .     o       g
nat              unpublished  .         .    .       .      .     .     o       g
nat              bound        .         .    .       .      .     .     o       g
nat              ping         .         .    .       .      .     .     o       o
nat              by-host      o         o    o       o      o     .     g       o
nat              bound-host   r         r    r       r      r     r     r       r
nat              loopback     .         .    .       .      .     .     .       g

nat-unprotected  published    o         o    o       .      .     .     o       g
nat-unprotected  unpublished  o         o    o       .      .     .     o       g
nat-unprotected  bound        .         .    .       .      .     .     o       g
nat-unprotected  ping         o         o    o       .      .     .     o       o
nat-unprotected  by-host      o         o    o       o      o     .     g       o
nat-unprotected  bound-host   r         r    r       r      r     r     r       r
nat-unprotected  loopback     .         .    .       .      .     .     .       g

routed           published    o         o    o       o      o     .     o       g
routed           unpublished  .         .    .       .      .     .     o       g
routed           bound        .         .    .       .      .     .     o       g
routed           ping         o         o    o       o      o     .     o       o
routed           by-host      r         r    r       r      r     r     r       r
routed           bound-host   r         r    r       r      r     r     r       r
routed           loopback     .         .    .       .      .     .     .       r

internal         published    .         .    .       .      .     .     o       g
internal         unpublished  .         .    .       .      .     .     o       g
internal         bound        .         .    .       .      .     .     o       g
internal         ping         .         .    .       .      .     .     o       o
internal         by-host      r         r    r       r      r     r     r       r
internal         bound-host   r         r    r       r      r     r     r       r
internal         loopback     .         .    .       .      .     .     .       r

isolated         published    .         .    .       .      .     .     o       .
isolated         unpublished  .         .    .       .      .     .     o       .
isolated         bound        .         .    .       .      .     .     o       .
isolated         ping         .         .    .       .      .     .     o       .
isolated         by-host      r         r    r       r      r     r     .       r
isolated         bound-host   r         r    r       r      r     r     .       r
isolated         loopback     .         .    .       .      .     .     .       r
"""
"""What is asked for: a ``published`` port of the container's, one that is not, one that is ``bound`` to the host's
loopback, and ping, all at the container's own address; the two published ones on the host's address; and the bound one
at 127.0.0.1, which all clients send to the host.

Where there is a list of who may come (``weft.publish.allow``), it names the trusted link's subnets; it closes what is
published to the others, and all of an unprotected container. It holds neither for siblings nor for the host.

The clients: the host next door and a machine on a bridge of the operator's, who have routes to the container; one
behind a link that the network trusts, if it trusts any; a container on Docker's bridge; one on another weft network, on
an internal one, on the same; the host itself.
"""

OUT: Final = """
                 neighbour  trusted  docker  other

nat              h          h        .       .
nat-unprotected  h          h        .       .
routed           o          o        .       .
internal         .          .        .       .
isolated         .          .        .       .
"""
"""What the container reaches: ``h`` is open, and seen is the host's address on that link."""

MODES: Final = ("nat", "nat-unprotected", "routed")


@dataclass(frozen=True, slots=True)
class House:
    """A kind of network: a mode for each IP version."""

    mode4: str
    mode6: str
    internal: bool = False
    trusted: bool = False
    allow: bool = False
    adopted: bool = False

    @property
    def name(self) -> str:
        """What the tests call it."""
        flags = [flag for flag in ("internal", "trusted", "allow", "adopted") if getattr(self, flag)]
        return "-".join((self.mode4, self.mode6, *flags))

    def mode(self, version: int) -> str:
        """Return which rows of the tables hold."""
        mode = self.mode4 if version == 4 else self.mode6
        return "internal" if self.internal and mode != "isolated" else mode


HOUSES: Final = (
    *(House(mode, mode) for mode in MODES),
    *(House(mode4, mode6, trusted=True) for mode4, mode6 in product(MODES, MODES)),
    *(House(mode, mode, trusted=True, allow=True) for mode in MODES),
    *(House(mode, mode, trusted=True, adopted=True) for mode in MODES),
    *(House(mode, mode, internal=True) for mode in MODES),
    House("isolated", "isolated", internal=True),
    House("isolated", "nat", internal=True),
    House("nat", "isolated", internal=True),
)


def _read(text: str) -> dict[tuple[str, ...], dict[str, str]]:
    """Read a table: in its first line the columns; in each other one what the row is called, then its cells."""
    head, *lines = (line.split() for line in text.splitlines() if line.strip())
    width = len(head)
    return {tuple(words[:-width]): dict(zip(head, words[-width:], strict=True)) for words in lines}


_IN: Final = _read(TABLE)
_OUT: Final = _read(OUT)

ASKED: Final = tuple(dict.fromkeys(what for _, what in _IN))
OUTSIDE: Final = tuple(_OUT["nat",])


def expected(house: House, version: int, what: str, client: str) -> str:
    """Return the cell; what depends on the kind of network is decided: a trusted link, a list of who may come."""
    mode = house.mode(version)
    cell = _IN[mode, what][client]
    if cell == "t":
        return "o" if house.trusted else "."
    limited = what in ("published", "by-host") or (mode == "nat-unprotected" and what in ("unpublished", "ping"))
    if house.allow and limited and client in ("neighbour", "yard", "docker", "other"):
        return "." if cell == "o" else cell
    return cell


def expected_outside(house: House, version: int, target: str) -> str:
    """Return the cell of what the container reaches."""
    return _OUT[house.mode(version),][target]
