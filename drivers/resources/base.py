"""What all resources have in common: a key, a scope, a rank, needs, and the line a person would type."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import ClassVar, Final


class Rank(enum.IntEnum):
    """When a step is taken: creates go up, deletes go down, so a network is closed first and opened last."""

    FENCE = 1
    DEVICE = 2
    LINK = 3
    ADDRESS = 4
    FORWARD = 5
    OPEN = 6


@dataclass(frozen=True, slots=True, order=True)
class Scope:
    """Who owns a resource: the host, one network, or one endpoint. Made by :func:`scope_of`."""

    network: str = ""
    endpoint: str = ""

    def __str__(self) -> str:
        if not self.network:
            return "host"
        return f"network {self.network[:12]}" + (f" endpoint {self.endpoint[:12]}" if self.endpoint else "")


HOST: Final = Scope()
HALF_MADE: Final = Scope("half-made")
"""The scope of a link that a crash left between its making and its marking: in our group, without a mark. It belongs to
whoever asks for its name: the kernel takes no alias at the making of a link (Linux 6.18, ``rtnl_create_link``)."""

SCOPE_ID: Final = 32
"""Characters of an id in a scope: two of them fit into an nft comment (128 bytes), and they tell all ids apart."""


def scope_of(network: str, endpoint: str = "") -> Scope:
    """Return the scope of a network or an endpoint: the first 32 characters of their ids."""
    return Scope(network[:SCOPE_ID], endpoint[:SCOPE_ID])


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Identity as the host itself sees it, never a handle (ifindex, rule number): those change under our feet."""

    backend: str  # kernel | nft | nft-bridge | xtables | sockets | firewalld | ovsdb | openflow
    kind: str
    at: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.kind} {' '.join(self.at)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """Something that should exist. ``==`` compares value and scope.

    ``adopted``   the operator's own: it must exist, and is never created or deleted
    ``shared``    if somebody without our mark has it there already, that is as good, and it stays theirs
    ``optional``  of a kind that its scope can do without for now: if it fails, that is told, and the rest stands
    """

    rank: ClassVar[Rank]
    optional: ClassVar[bool] = False
    key: Key
    scope: Scope
    needs: frozenset[Key] = field(default=frozenset(), compare=False)
    adopted: bool = field(default=False, compare=False)
    shared: bool = field(default=False, compare=False)

    def undo(self) -> str:
        """Return the line a person would type to remove it."""
        return f"# {self.key} is not ours to remove"


@dataclass(frozen=True, slots=True)
class Foreign:
    """A key we asked for is taken by something without our mark: a conflict, never a step."""

    key: Key
    what: str
