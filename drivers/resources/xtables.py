"""The answer to Docker's FORWARD DROP: a chain of ours, the jump to it, and rules in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from drivers.resources.base import Key, Rank, Resource

XTABLES_CHAIN: Final = "WEFT"
XTABLES_PARENT: Final = "DOCKER-USER"


@dataclass(frozen=True, slots=True, kw_only=True)
class Xtables(Resource):
    """Something in the filter table of iptables or ip6tables."""

    @property
    def version(self) -> int:
        """IP version, 4 or 6."""
        return int(self.key.at[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain(Xtables):
    """Our chain WEFT in iptables' (or ip6tables') filter table: the answer to Docker's FORWARD DROP.

    ``rules`` are the host's own, in order, as arguments after ``-A WEFT``; endpoints on adopted bridges have theirs
    before them.
    """

    rank: ClassVar[Rank] = Rank.FORWARD
    rules: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{program(self.version)} -N {XTABLES_CHAIN}"

    def undo(self) -> str:
        """Return the line that removes it."""
        return f"{program(self.version)} -F {XTABLES_CHAIN}; {program(self.version)} -X {XTABLES_CHAIN}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Jump(Xtables):
    """The one jump from DOCKER-USER: below the operator's rules, above Docker's closing RETURN.

    ``placed`` is False where it was found elsewhere in the chain.
    """

    rank: ClassVar[Rank] = Rank.OPEN
    placed: bool = True

    def __str__(self) -> str:
        return f"{program(self.version)} -A {XTABLES_PARENT} -j {XTABLES_CHAIN}"

    def undo(self) -> str:
        """Return the line that removes it."""
        return f"{program(self.version)} -D {XTABLES_PARENT} -j {XTABLES_CHAIN}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule(Xtables):
    """One accepting rule in the chain WEFT, for an endpoint on an adopted bridge (whose links have no group)."""

    rank: ClassVar[Rank] = Rank.FORWARD

    @property
    def spec(self) -> str:
        """The rule's arguments after ``-A WEFT``, without its comment."""
        return self.key.at[1]

    def __str__(self) -> str:
        return f"{program(self.version)} -A {XTABLES_CHAIN} {self.spec}"

    def undo(self) -> str:
        """Return the line that removes it."""
        return f"{program(self.version)} -D {XTABLES_CHAIN} {self.spec}"


def program(version: int) -> str:
    """Return the name of the iptables program for an IP version."""
    return "iptables" if version == 4 else "ip6tables"


def chain_key(version: int) -> Key:
    """Return the key of our chain for an IP version."""
    return Key("xtables", "chain", (str(version),))


def jump_key(version: int) -> Key:
    """Return the key of the jump for an IP version."""
    return Key("xtables", "jump", (str(version),))


def rule_key(version: int, spec: str) -> Key:
    """Return the key of a rule in our chain."""
    return Key("xtables", "rule", (str(version), spec))
