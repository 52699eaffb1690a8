"""A list that flows can walk: the ports of a network, or its peers. Each member is a flow of its own.

OpenFlow cannot iterate, and an action list with all members would change with each of them. So a member has a slot: a
page, and a place on it. A packet for all of them asks for every page, and on a page that exists for every place. A page
exists as long as somebody is on it: each member brings a flow of its own for the page, told from its neighbours'
by the priority, and all of them say the same. So a member comes and goes with two flows, whatever others there are
(spec/decisions/0013-how-to-speak-openflow.md has the figures).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from drivers.ovs.model import SLOTS
from drivers.ovs.tables import AT_PAGE, AT_PLACE, NETWORK, OF_PEERS, Board, Table
from drivers.resources import Resource
from drivers.resources.flow_text import match, resubmit, set_field

_PLACES: Final = 32
_PAGES: Final = SLOTS // _PLACES
_LEAST: Final = 100  # priority


def walk(board: Board) -> Iterator[Resource]:
    """Yield the host's part: the steps through all pages, and through all places of one."""
    for table, register, number, then in (
        (Table.WALK, AT_PAGE, _PAGES, Table.PAGE),
        (Table.PLACES, AT_PLACE, _PLACES, Table.MEMBER),
    ):
        steps = (part for one in range(number) for part in (set_field(register, one), resubmit(then)))
        yield board.flow(table, 0, match(), *steps)


def member(board: Board, network: int, slot: int, *reach: str, peers: bool = False) -> Iterator[Resource]:
    """Yield a member's part; ``reach`` are the actions that bring a packet to it."""
    page, place = divmod(slot, _PLACES)
    on_page = {NETWORK: network, AT_PAGE: page, OF_PEERS: int(peers)}
    yield board.flow(Table.PAGE, _LEAST + place, match(**on_page), resubmit(Table.PLACES))
    yield board.flow(Table.MEMBER, _LEAST, match(**on_page, **{AT_PLACE: place}), *reach)
