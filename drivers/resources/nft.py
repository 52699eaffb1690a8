"""The table ``inet weft`` and the elements of its sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from drivers.resources.base import Key, Rank, Resource

TABLE_KEY: Final = Key("nft", "table", ("inet", "weft"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Table(Resource):
    """The table ``inet weft``: every verdict, in static text. Only the elements of its sets ever change.

    ``text`` is what stands between the table's braces. It is replaced as a whole, in one transaction that keeps the
    elements, so no packet meets half of it.
    """

    rank: ClassVar[Rank] = Rank.FENCE
    text: str = ""

    def __str__(self) -> str:
        return "nft -f - <<<'table inet weft { ... }'"

    def undo(self) -> str:
        """Return the line that removes it."""
        return "nft delete table inet weft"


@dataclass(frozen=True, slots=True, kw_only=True)
class Element(Resource):
    """One element of a set of ``inet weft``, with the scope in its comment."""

    @property
    def at(self) -> tuple[str, ...]:
        """The fields of the element, in the set's order, as nft writes them."""
        return self.key.at

    @property
    def set_name(self) -> str:
        """The set it is in."""
        return self.key.kind

    def __str__(self) -> str:
        return f"nft add element inet weft {self.set_name} {{ {' . '.join(self.at)} }}"

    def undo(self) -> str:
        """Return the line that removes it."""
        return f"nft delete element inet weft {self.set_name} {{ {' . '.join(self.at)} }}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence(Element):
    """An element that closes something: there before the link is, gone after it."""

    rank: ClassVar[Rank] = Rank.FENCE


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit(Element):
    """An element that opens something, or changes what leaves."""

    rank: ClassVar[Rank] = Rank.FORWARD


@dataclass(frozen=True, slots=True, kw_only=True)
class Publish(Element):
    """An element of a map by which published ports are translated: opened last, closed first.

    ``value`` is what the key is translated to, as nft writes it: an address, or an address and a port. A range is one
    element of an interval map: its last field is ``20000-29999``.
    """

    rank: ClassVar[Rank] = Rank.OPEN
    value: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"nft add element inet weft {self.set_name} {{ {' . '.join(self.at)} : {' . '.join(self.value)} }}"


def element_key(set_name: str, *at: str) -> Key:
    """Return the key of an element of a set of ``inet weft``."""
    return Key("nft", set_name, at)
