"""Tables of who reaches whom, as a person writes them, and the attempts that follow from them."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tests.matrix.traffic import OPEN, PORT, PROTOCOLS, SILENT, Knock, Spot


@dataclass(frozen=True, slots=True)
class Party:
    """Somebody in a table: where it is, and its addresses by IP version; ``port`` is where it is asked for."""

    spot: Spot
    addresses: Mapping[int, str]
    port: int = PORT
    protocols: tuple[str, ...] = PROTOCOLS


@dataclass(frozen=True, slots=True)
class Row:
    """``source target verdict [as somebody]``: open, closed (silence) or refused.

    ``seen_as``  the address that the target has to see, if it is said: that of another party
    """

    source: str
    target: str
    verdict: str
    seen_as: str = ""

    def knocks(self, parties: Mapping[str, Party]) -> Iterator[Knock]:
        """Yield an attempt for each protocol of the target, in each IP version that both have."""
        source, target = parties[self.source], parties[self.target]
        versions = sorted(source.addresses.keys() & target.addresses.keys())
        for version, protocol in itertools.product(versions, target.protocols):
            wanted = {"open": OPEN, "closed": SILENT}.get(self.verdict, self.verdict)
            if self.seen_as and protocol != "icmp":
                wanted = f"{OPEN} from {parties[self.seen_as].addresses[version]}"
            yield Knock(source.spot, target.addresses[version], protocol, target.port, wanted)


def rows(text: str) -> list[Row]:
    """Read a table: one row a line; what follows a ``#`` is for the reader."""
    lines = (line.partition("#")[0].split() for line in text.splitlines())
    return [Row(words[0], words[1], words[2], *words[4:]) for words in lines if words]
