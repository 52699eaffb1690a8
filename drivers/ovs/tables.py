"""The tables of the pipeline, and what the registers mean. ``spec/datapath-ovs.md`` shows the flows in them.

A packet starts in ENTRY and is passed on by ``resubmit``, never back. What no flow takes is dropped.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from enum import IntEnum
from typing import Final

from drivers.resources import FlowFence, Resource, Scope, flow, flow_key
from drivers.resources.flow_text import actions


class Table(IntEnum):
    """The tables, in the order in which a packet meets them."""

    ENTRY = 0
    FROM_TUNNEL = 5
    SAME_MAC = 6
    SAME_ADDRESS = 7
    SOURCE = 10
    NEIGHBOUR = 11
    ANSWER = 20
    ANSWER_ND = 21
    DESTINATION = 30
    LEARNT = 31
    JUDGE = 35
    DELIVER = 36
    FLOOD = 40
    WALK = 45
    PAGE = 46
    PLACES = 47
    MEMBER = 48
    TO_TUNNEL = 50
    SEND = 51


NETWORK: Final = "reg0"
"""The number of the packet's network."""
ORIGIN: Final = "reg1"
"""Where it came from."""
FROM_CONTAINER, FROM_PEER, FROM_HOST = 0, 1, 2
DIRECTED: Final = "reg2"
"""1: the peer to send it to is set (``tun_dst``)."""
AT_PAGE: Final = "reg3"
"""Of a walk: the page."""
AT_PLACE: Final = "reg4"
"""Of a walk: the place on the page."""
OF_PEERS: Final = "reg5"
"""Of a walk: 0 for the ports of a network, 1 for its peers."""


def behind_fences(parts: Iterable[Resource]) -> tuple[Resource, ...]:
    """Let everything need the fences among the parts: where closing fails, nothing is opened."""
    parts = tuple(parts)
    fences = frozenset(part.key for part in parts if isinstance(part, FlowFence))
    return tuple(part if part.key in fences else replace(part, needs=part.needs | fences) for part in parts)


class Board:
    """Writes the flows of one scope."""

    def __init__(self, bridge: str, scope: Scope) -> None:
        self._bridge = bridge
        self._scope = scope

    def flow(self, table: Table, priority: int, match: str, *parts: str) -> Resource:
        """Return a flow; without actions it drops."""
        return flow(flow_key(self._bridge, table, priority, match), self._scope, actions(*parts))
