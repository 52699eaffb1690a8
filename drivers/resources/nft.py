"""The tables of ours in nftables, ``inet weft`` and ``bridge weft``, and the elements of their sets and maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from drivers.resources.base import Key, Rank, Resource

TABLE_KEY: Final = Key("nft", "table", ("inet", "weft"))
BRIDGE_TABLE_KEY: Final = Key("nft-bridge", "table", ("bridge", "weft"))

FAMILIES: Final = {key.backend: key.at[0] for key in (TABLE_KEY, BRIDGE_TABLE_KEY)}
"""The family of the table that a backend holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table(Resource):
    """A table, as static text: ``inet weft`` has every verdict. Only the elements of its sets ever change.

    ``text`` is what stands between the table's braces. It is replaced as a whole, in one transaction that keeps the
    elements, so no packet meets half of it.
    """

    rank: ClassVar[Rank] = Rank.FENCE
    text: str = ""

    @property
    def name(self) -> str:
        """Family and name, as nft wants them."""
        return " ".join(self.key.at)

    def __str__(self) -> str:
        return f"nft -f - <<<'table {self.name} {{ ... }}'"

    def undo(self) -> str:
        """Return the line that removes it."""
        return f"nft delete table {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Element(Resource):
    """One element of a set or map of ours, with the scope in its comment.

    ``value`` is what a map's key leads to, as nft writes it; empty in a set.
    """

    value: tuple[str, ...] = ()

    @property
    def at(self) -> tuple[str, ...]:
        """The fields of the element, in the set's order, as nft writes them."""
        return self.key.at

    @property
    def set_name(self) -> str:
        """The set or map it is in."""
        return self.key.kind

    def __str__(self) -> str:
        leads = f" : {' . '.join(self.value)}" if self.value else ""
        return f"nft add element {self._where} {{ {' . '.join(self.at)}{leads} }}"

    def undo(self) -> str:
        """Return the line that removes it."""
        return f"nft delete element {self._where} {{ {' . '.join(self.at)} }}"

    @property
    def _where(self) -> str:
        return f"{FAMILIES[self.key.backend]} weft {self.set_name}"


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

    It leads to an address, or an address and a port. A range is one element of an interval map: its last field is
    ``20000-29999``.
    """

    rank: ClassVar[Rank] = Rank.OPEN


def element_key(set_name: str, *at: str) -> Key:
    """Return the key of an element of a set of ``inet weft``."""
    return Key("nft", set_name, at)


def bridge_element_key(set_name: str, *at: str) -> Key:
    """Return the key of an element of a set of ``bridge weft``."""
    return Key(BRIDGE_TABLE_KEY.backend, set_name, at)
