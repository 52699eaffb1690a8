"""What joins the hosts of a network: who may send, whom to send to, and where a MAC was seen.

All networks share one port per kind of tunnel; a packet's key is its network, and its outer source must be a peer of
that network. So a host in no peer list gets nothing in, and nothing is sent to it. What came by a tunnel never leaves
by one, so no packet can run in circles.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final

from drivers.model import Address
from drivers.ovs.members import member
from drivers.ovs.model import Segment, Tunnel
from drivers.ovs.tables import DIRECTED, FROM_CONTAINER, FROM_PEER, NETWORK, OF_PEERS, ORIGIN, Board, Table
from drivers.resources import Resource
from drivers.resources.flow_text import learn, match, output, resubmit, set_field

_REMEMBERED: Final = 300  # seconds, as a Linux bridge remembers a MAC
_MACS: Final = 4096  # that are remembered of one peer and network


def send(board: Board) -> Iterator[Resource]:
    """Yield the host's part: what has no peer of its own goes to all of them."""
    yield board.flow(Table.SEND, 0, match(**{DIRECTED: 0}), set_field(OF_PEERS, 1), resubmit(Table.WALK))


def way(board: Board, segment: Segment, tunnel: Tunnel) -> Iterator[Resource]:
    """Yield a network's part: in, out, and what each peer needs."""
    of, out = {NETWORK: segment.number}, output(tunnel.port)
    source, target = ("tun_src", "tun_dst") if tunnel.version == 4 else ("tun_ipv6_src", "tun_ipv6_dst")
    yield board.flow(
        Table.ENTRY,
        100,
        match(in_port=tunnel.port, tun_id=tunnel.vni),
        set_field(NETWORK, segment.number),
        set_field(ORIGIN, FROM_PEER),
        resubmit(Table.FROM_TUNNEL),
    )
    yield board.flow(
        Table.TO_TUNNEL,
        50,
        match(**of, **{ORIGIN: FROM_CONTAINER}),
        set_field("tun_id", tunnel.vni),
        *((set_field(source, tunnel.local),) if tunnel.local else ()),
        resubmit(Table.SEND),
    )
    yield board.flow(Table.SEND, 50, match(**of, **{DIRECTED: 1}), out)
    for peer in tunnel.peers:
        yield board.flow(
            Table.FROM_TUNNEL,
            50,
            match(**of, **{source: peer.address}),
            learn(
                table=Table.LEARNT,
                priority=50,
                seconds=_REMEMBERED,
                cookie=_cookie(segment, peer.address),
                limit=_MACS,
                match=((NETWORK, NETWORK), ("dl_dst", "dl_src")),
                load=((target, source), (DIRECTED, 1)),
            ),
            resubmit(Table.SAME_MAC),
        )
        yield from member(board, segment.number, peer.slot, set_field(target, peer.address), out, peers=True)


def _cookie(segment: Segment, peer: Address) -> int:
    """Return what is learnt of one peer in one network is told by: it goes when the peer does."""
    told = hashlib.blake2s(f"learnt/{segment.id}/{peer}".encode(), digest_size=8).digest()
    return int.from_bytes(told, "big") or 1
