"""ARP and neighbour discovery for endpoints of this host: answered by flows, so that nobody else need be asked.

Only what is asked of everybody is answered: a question to one MAC is whether its owner lives (RFC 4861, 7.3.1), so it
goes there. Whoever probes for a duplicate wants to hear from anybody but us, so probes are never answered.

Neighbour discovery takes two flows: OVS lets the target's option be written only in a message that is an advertisement
already (facts/network.md 14). An answer reuses the room of the option in the question; a question without one goes to
the one that it is about.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from drivers.model import Address
from drivers.ovs.source import ADVERTISEMENT, SOLICITATION, UNSPECIFIED, UNSPECIFIED_IPV4
from drivers.ovs.tables import Board, Table
from drivers.resources import Resource
from drivers.resources.flow_text import (
    BROADCAST,
    GROUP_IPV6,
    IN_PORT,
    Value,
    match,
    move,
    resubmit,
    set_field,
)

_REQUEST: Final = 1
_REPLY: Final = 2
_SOURCE_OPTION: Final = 1
_TARGET_OPTION: Final = 2
_SOLICITED_OVERRIDE: Final = 0x60000000  # the flags of an advertisement (RFC 4861, 4.4)


def otherwise(board: Board) -> Iterator[Resource]:
    """Yield the host's part: what is not answered goes on its way."""
    on_its_way = resubmit(Table.DESTINATION)
    yield board.flow(Table.ANSWER, 90, match("arp", arp_spa=UNSPECIFIED_IPV4), on_its_way)
    probe = match("icmp6", icmp_type=SOLICITATION, ipv6_src=UNSPECIFIED)
    yield board.flow(Table.ANSWER, 90, probe, on_its_way)
    yield board.flow(Table.ANSWER, 0, match(), on_its_way)


def answers(
    board: Board,
    of: dict[str, Value],
    mac: str,
    addresses: Sequence[Address],
    owner: str,
    *,
    answers_nd: bool,
) -> Iterator[Resource]:
    """Yield an endpoint's part: ``of`` its network, ``owner`` is the action that brings a packet to it."""
    for address in addresses:
        if isinstance(address, IPv4Address):
            yield _arp(board, of, mac, address)
        else:
            question = match("icmp6", **of, icmp_type=SOLICITATION, nd_target=address)
            yield board.flow(Table.ANSWER, 40, question, owner)
            if answers_nd:
                yield from _nd(board, of, mac, address)


def _arp(board: Board, of: dict[str, Value], mac: str, address: IPv4Address) -> Resource:
    question = match("arp", **of, dl_dst=BROADCAST, arp_op=_REQUEST, arp_tpa=address)
    return board.flow(
        Table.ANSWER,
        50,
        question,
        move("dl_src", "dl_dst"),
        set_field("dl_src", mac),
        set_field("arp_op", _REPLY),
        move("arp_sha", "arp_tha"),
        move("arp_spa", "arp_tpa"),
        set_field("arp_sha", mac),
        set_field("arp_spa", address),
        IN_PORT,
    )


def _nd(board: Board, of: dict[str, Value], mac: str, address: IPv6Address) -> Iterator[Resource]:
    yield board.flow(
        Table.ANSWER,
        50,
        match(
            "icmp6",
            **of,
            dl_dst=GROUP_IPV6,
            icmp_type=SOLICITATION,
            nd_target=address,
            nd_options_type=_SOURCE_OPTION,
        ),
        set_field("icmp_type", ADVERTISEMENT),
        resubmit(Table.ANSWER_ND),
    )
    yield board.flow(
        Table.ANSWER_ND,
        50,
        match("icmp6", **of, icmp_type=ADVERTISEMENT, nd_target=address),
        move("dl_src", "dl_dst"),
        set_field("dl_src", mac),
        move("ipv6_src", "ipv6_dst"),
        set_field("ipv6_src", address),
        set_field("nd_options_type", _TARGET_OPTION),
        set_field("nd_reserved", _SOLICITED_OVERRIDE),
        set_field("nd_tll", mac),
        IN_PORT,
    )
