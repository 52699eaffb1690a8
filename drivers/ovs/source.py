"""What a container may say that it is: its own MAC and addresses, and nobody else's.

Its MAC is checked at the entry. Here are the addresses in IP headers, in ARP, and in neighbour discovery, where a claim
can also stand in an option (RFC 4861). What lies about neither, but has no business here, is dropped too: frames with a
VLAN tag, and router advertisements and redirects, by which a container could make itself everybody's gateway.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from drivers.naming import link_local
from drivers.ovs.model import Attachment
from drivers.ovs.tables import Board, Table
from drivers.resources import Resource
from drivers.resources.flow_text import NO_MAC, Value, match, resubmit

ROUTER_ADVERTISEMENT: Final = 134
SOLICITATION: Final = 135
ADVERTISEMENT: Final = 136
REDIRECT: Final = 137

UNSPECIFIED: Final = IPv6Address("::")
UNSPECIFIED_IPV4: Final = IPv4Address("0.0.0.0")  # noqa: S104 - a source address: an ARP probe's (RFC 5227)

_DESTINATION: Final = resubmit(Table.DESTINATION)
_ANSWER: Final = resubmit(Table.ANSWER)


def suspicion(board: Board) -> Iterator[Resource]:
    """Yield the host's part: what is dropped unless a port's own flows let it pass."""
    for kind in (ROUTER_ADVERTISEMENT, REDIRECT):
        yield board.flow(Table.SOURCE, 90, match("icmp6", icmp_type=kind))
    for protocol in ("arp", "ip", "ipv6"):
        yield board.flow(Table.SOURCE, 20, match(protocol))
    yield board.flow(Table.SOURCE, 0, match(), _DESTINATION)

    # OVS shows a message with doubtful options as one without a target (3.1)
    yield board.flow(Table.NEIGHBOUR, 40, match("icmp6", icmp_type=SOLICITATION, nd_target=UNSPECIFIED))
    yield board.flow(Table.NEIGHBOUR, 30, match("icmp6", icmp_type=SOLICITATION, nd_sll=NO_MAC), _ANSWER)
    for kind in (SOLICITATION, ADVERTISEMENT):
        yield board.flow(Table.NEIGHBOUR, 20, match("icmp6", icmp_type=kind))
    yield board.flow(Table.NEIGHBOUR, 0, match(), _DESTINATION)


def own(board: Board, at: Attachment) -> Iterator[Resource]:
    """Yield a port's part: what it may send. Without addresses that is anything."""
    for address in at.addresses:
        if isinstance(address, IPv4Address):
            yield from _own4(board, at, address)
    theirs = [address for address in at.addresses if isinstance(address, IPv6Address)]
    if theirs:
        yield from _own6(board, at, (*theirs, link_local(at.mac)))


def _own4(board: Board, at: Attachment, address: IPv4Address) -> Iterator[Resource]:
    says, port = {"in_port": at.port, "arp_sha": at.mac}, at.port
    yield board.flow(Table.SOURCE, 50, match("ip", in_port=port, nw_src=address), _DESTINATION)
    yield board.flow(Table.SOURCE, 50, match("arp", **says, arp_spa=address), _ANSWER)
    # an announcement (RFC 5227) is for all, and no question
    yield board.flow(Table.SOURCE, 60, match("arp", **says, arp_spa=address, arp_tpa=address), _DESTINATION)
    # a probe asks whether somebody else has it
    yield board.flow(Table.SOURCE, 60, match("arp", **says, arp_spa=UNSPECIFIED_IPV4, arp_tpa=address), _DESTINATION)


def _own6(board: Board, at: Attachment, addresses: tuple[IPv6Address, ...]) -> Iterator[Resource]:
    port, mac = at.port, at.mac
    asks = match("icmp6", in_port=port, icmp_type=SOLICITATION, nd_sll=mac)
    yield board.flow(Table.NEIGHBOUR, 30, asks, _ANSWER)
    for address in addresses:
        yield board.flow(Table.SOURCE, 50, match("ipv6", in_port=port, ipv6_src=address), resubmit(Table.NEIGHBOUR))
        # duplicate address detection: a question about its own address, from nobody (RFC 4862)
        doubts: dict[str, Value] = {"ipv6_src": UNSPECIFIED, "nd_target": address, "nd_sll": NO_MAC}
        probe = match("icmp6", in_port=port, icmp_type=SOLICITATION, **doubts)
        yield board.flow(Table.SOURCE, 60, probe, _DESTINATION)
        for option in (mac, NO_MAC):
            claim = match("icmp6", in_port=port, icmp_type=ADVERTISEMENT, nd_target=address, nd_tll=option)
            yield board.flow(Table.NEIGHBOUR, 30, claim, _DESTINATION)
