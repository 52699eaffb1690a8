"""Flows of an Open vSwitch bridge. Mark: the cookie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from drivers.errors import InvalidRequest
from drivers.naming import is_link_name
from drivers.resources.base import Key, Rank, Resource, Scope
from drivers.resources.flow_text import DROP

ENTRY_TABLE: Final = 0
"""Where every packet starts: a flow here lets something in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow(Resource):
    """A flow that says what becomes of a packet that was let in. Made by :func:`flow`.

    Table, priority and match tell it apart, as OVS itself does; ``actions`` is its value. All of it is text as
    ovs-ofctl reads and prints it, with interfaces by name (see :mod:`drivers.resources.flow_text`).
    """

    rank: ClassVar[Rank] = Rank.FORWARD
    actions: str

    @property
    def bridge(self) -> str:
        """The bridge it is in."""
        return self.key.at[0]

    @property
    def table(self) -> int:
        """0 to 253."""
        return int(self.key.at[1])

    @property
    def priority(self) -> int:
        """0 to 65535; the highest one that matches wins."""
        return int(self.key.at[2])

    @property
    def match(self) -> str:
        """What it matches; empty: everything."""
        return self.key.at[3]

    @property
    def _where(self) -> str:
        return ",".join(filter(None, (f"table={self.table}", f"priority={self.priority}", self.match)))

    def __str__(self) -> str:
        return f"ovs-ofctl -O OpenFlow14 add-flow {self.bridge} '{self._where},actions={self.actions}'"

    def undo(self) -> str:
        """Return the line that removes it."""
        return f"ovs-ofctl -O OpenFlow14 --strict del-flows {self.bridge} '{self._where}'"


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowFence(Flow):
    """A flow that drops: made with the flows that it fences, in one bundle, and so before anything is let in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowEntry(Flow):
    """A flow of the first table, which lets packets in: made last, removed first."""

    rank: ClassVar[Rank] = Rank.OPEN


def flow(key: Key, scope: Scope, actions: str) -> Flow:
    """Return a flow as what it is: a fence, an entry, or one in between."""
    if actions == DROP:
        return FlowFence(key=key, scope=scope, actions=actions)
    if key.at[1] == str(ENTRY_TABLE):
        return FlowEntry(key=key, scope=scope, actions=actions)
    return Flow(key=key, scope=scope, actions=actions)


def flow_key(bridge: str, table: int, priority: int, match: str) -> Key:
    """Return the key of a flow. Raises InvalidRequest if a number is out of range; ``match`` is checked already."""
    if not is_link_name(bridge):
        raise InvalidRequest(f"{bridge!r} is no name of a bridge")
    if not 0 <= table < 254 or not 0 <= priority < 1 << 16:
        raise InvalidRequest(
            f"a flow's table is from 0 to 253 and its priority from 0 to 65535, not {table}, {priority}"
        )
    return Key("openflow", "flow", (bridge, str(table), str(priority), match))
