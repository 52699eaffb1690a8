"""The host's place in a network, and why it is never seen in a tunnel.

Each host is the gateway of its own containers, under one MAC and one set of addresses. A frame from, to or about it on
another host would move the gateway there, or make the kernel give up its address as a duplicate (facts/network.md 10).
So the host is asked and reached on its own bridge only, and both ends of the tunnels drop what names it.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from drivers.model import Address
from drivers.naming import link_local
from drivers.ovs.model import Gateway, Segment
from drivers.ovs.source import ADVERTISEMENT, SOLICITATION
from drivers.ovs.tables import FROM_CONTAINER, FROM_HOST, NETWORK, ORIGIN, Board, Table
from drivers.resources import Resource
from drivers.resources.flow_text import UNTAGGED, Value, match, output, resubmit, set_field

EVERYBODY: Final = "ff:ff:ff:ff:ff:ff"
ALL_NODES: Final = "33:33:00:00:00:01"  # ff02::1 (RFC 2464)


def place(board: Board, segment: Segment, gateway: Gateway) -> Iterator[Resource]:
    """Yield what lets the host take part: its frames come in, and it is asked and reached by containers of its own."""
    asked = {NETWORK: segment.number, ORIGIN: FROM_CONTAINER}
    to_host = output(gateway.port)
    yield board.flow(
        Table.ENTRY,
        100,
        match(in_port=gateway.port, vlan_tci=UNTAGGED, dl_src=gateway.mac),
        set_field(NETWORK, segment.number),
        set_field(ORIGIN, FROM_HOST),
        resubmit(Table.ANSWER),
    )
    for told in _announcements(gateway):
        yield board.flow(Table.ENTRY, 90, told, set_field(NETWORK, segment.number), resubmit(Table.DESTINATION))
    for address in _addresses(gateway):
        if isinstance(address, IPv4Address):
            question = match("arp", **asked, arp_tpa=address)
        else:
            question = match("icmp6", **asked, icmp_type=SOLICITATION, nd_target=address)
        yield board.flow(Table.ANSWER, 60, question, to_host)
    yield board.flow(Table.DESTINATION, 50, match(**asked, dl_dst=gateway.mac), to_host)


def hidden(board: Board, segment: Segment, gateway: Gateway) -> Iterator[Resource]:
    """Yield what keeps it out of the tunnels, on the way in and on the way out."""
    for table in (Table.FROM_TUNNEL, Table.TO_TUNNEL):
        yield from (board.flow(table, 100, each) for each in _about(segment.number, gateway))


def _announcements(gateway: Gateway) -> Iterator[str]:
    """Yield matches for what the host says in a container's name when it starts: where its addresses are."""
    untagged: dict[str, Value] = {"in_port": gateway.port, "vlan_tci": UNTAGGED}
    versions = {address.version for address in gateway.addresses}
    if 4 in versions:
        yield match("arp", **untagged, dl_dst=EVERYBODY)
    if 6 in versions:
        yield match("icmp6", **untagged, dl_dst=ALL_NODES, icmp_type=ADVERTISEMENT)


def _about(network: int, gateway: Gateway) -> Iterator[str]:
    """Yield matches for what is from, to or about the gateway."""
    of = {NETWORK: network}
    yield match(**of, dl_src=gateway.mac)
    yield match(**of, dl_dst=gateway.mac)
    for address in _addresses(gateway):
        match address:
            case IPv4Address():
                yield match("arp", **of, arp_spa=address)
                yield match("arp", **of, arp_tpa=address)
                yield match("ip", **of, nw_src=address)
                yield match("ip", **of, nw_dst=address)
            case IPv6Address():
                yield match("ipv6", **of, ipv6_src=address)
                yield match("ipv6", **of, ipv6_dst=address)
                yield match("icmp6", **of, icmp_type=SOLICITATION, nd_target=address)
                yield match("icmp6", **of, icmp_type=ADVERTISEMENT, nd_target=address)


def _addresses(gateway: Gateway) -> tuple[Address, ...]:
    """Return the gateway's addresses, with the link-local one where it speaks IPv6."""
    six = any(isinstance(address, IPv6Address) for address in gateway.addresses)
    return (*gateway.addresses, link_local(gateway.mac)) if six else gateway.addresses
