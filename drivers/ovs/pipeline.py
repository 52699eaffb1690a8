"""The planner of the pipeline: the flows of one br-int, for the host, a network, an endpoint.

Pure: no I/O, clock or randomness; equal arguments give equal answers. An endpoint's flows are the same whatever other
endpoints there are, and whether or not containers may talk (``icc``): that is the network's to judge.
"""

from __future__ import annotations

from collections.abc import Iterator

from drivers.ovs import answers, gateway, source, tunnel, twins
from drivers.ovs.members import member, walk
from drivers.ovs.model import Attachment, Gateway, Segment, Switch
from drivers.ovs.source import ADVERTISEMENT, SOLICITATION
from drivers.ovs.tables import FROM_CONTAINER, FROM_HOST, NETWORK, ORIGIN, Board, Table, behind_fences
from drivers.resources import HOST, Resource, scope_of
from drivers.resources.flow_text import (
    GROUP,
    LINK_LOCAL_GROUP,
    UNTAGGED,
    Value,
    match,
    output,
    resubmit,
    set_field,
)


def host(switch: Switch) -> tuple[Resource, ...]:
    """Return what all networks share: the ways between the tables, and what is dropped whosever it is."""
    board = Board(switch.bridge, HOST)
    plan = (
        *source.suspicion(board),
        *twins.otherwise(board),
        *answers.otherwise(board),
        board.flow(Table.DESTINATION, 110, match(dl_dst=LINK_LOCAL_GROUP)),
        board.flow(Table.DESTINATION, 100, match(dl_dst=GROUP), resubmit(Table.FLOOD)),
        board.flow(
            Table.DESTINATION, 0, match(**{ORIGIN: FROM_CONTAINER}), resubmit(Table.LEARNT), resubmit(Table.TO_TUNNEL)
        ),
        board.flow(Table.JUDGE, 0, match(), resubmit(Table.DELIVER)),
        *walk(board),
        *tunnel.send(board),
    )
    return behind_fences(plan)


def network(switch: Switch, segment: Segment) -> tuple[Resource, ...]:
    """Return a network's flows: its gateway and its tunnels, what it sends to all, and what it lets pass."""
    board = Board(switch.bridge, scope_of(segment.id))
    plan = [*_flood(board, segment)]
    if segment.gateway is not None:
        plan += gateway.place(board, segment, segment.gateway)
    if segment.tunnel is not None:
        plan += tunnel.way(board, segment, segment.tunnel)
        if segment.gateway is not None:
            plan += gateway.hidden(board, segment, segment.gateway)
    if not segment.icc:
        plan += _judge(board, segment.number, segment.gateway)
    return behind_fences(plan)


def endpoint(switch: Switch, segment: Segment, at: Attachment) -> tuple[Resource, ...]:
    """Return the flows of an endpoint on this host: what its container may send, and how it is reached."""
    board = Board(switch.bridge, scope_of(segment.id, at.id))
    of: dict[str, Value] = {NETWORK: segment.number}
    entry = {"in_port": at.port, "dl_src": at.mac} | ({"vlan_tci": UNTAGGED} if at.addresses else {})
    there, reach = {**of, "dl_dst": at.mac}, output(at.port)
    plan = (
        board.flow(
            Table.ENTRY,
            100,
            match(**entry),
            set_field(NETWORK, segment.number),
            resubmit(Table.SOURCE if at.addresses else Table.DESTINATION),
        ),
        *source.own(board, at),
        *answers.answers(board, of, at.mac, at.addresses, reach, answers_nd=switch.answers_nd),
        board.flow(Table.DESTINATION, 50, match(**there), resubmit(Table.JUDGE)),
        board.flow(Table.DELIVER, 50, match(**there), reach),
        *member(board, segment.number, at.slot, reach),
        *(twins.counted(board, segment.number, at) if segment.tunnel else ()),
    )
    return behind_fences(plan)


def _flood(board: Board, segment: Segment) -> Iterator[Resource]:
    """Yield what becomes of a packet for all: a container's also goes to the host and to the peers, others stay here.

    Without ``icc`` that holds for ARP and neighbour discovery only; what else a container sends is for the host.
    """
    of = {NETWORK: segment.number}
    from_container, from_host = {**of, ORIGIN: FROM_CONTAINER}, {**of, ORIGIN: FROM_HOST}
    to_host = (output(segment.gateway.port),) if segment.gateway else ()
    to_peers = (resubmit(Table.TO_TUNNEL),) if segment.tunnel else ()
    here = resubmit(Table.WALK)
    for protocol, told in _questions() if not segment.icc else [("", {})]:
        yield board.flow(Table.FLOOD, 50, match(protocol, **from_container, **told), *to_host, here, *to_peers)
        yield board.flow(Table.FLOOD, 40, match(protocol, **of, **told), here)
    if not segment.icc:
        yield board.flow(Table.FLOOD, 20, match(**from_container), *to_host)
        yield board.flow(Table.FLOOD, 20, match(**from_host), here)


def _judge(board: Board, number: int, judge: Gateway | None) -> Iterator[Resource]:
    """Yield what stands between containers that may not talk: the host routes their IP packets, or drops them.

    The host sees the packet as it would see any other that it routes, with conntrack in table ``inet weft``
    (facts/network.md 7), and what it lets pass comes back from it. Of the rest only ARP and neighbour discovery pass.
    """
    of = {NETWORK: number}
    deliver = resubmit(Table.DELIVER)
    yield board.flow(Table.JUDGE, 60, match(**of, **{ORIGIN: FROM_HOST}), deliver)
    for protocol, told in _questions():
        yield board.flow(Table.JUDGE, 50, match(protocol, **of, **told), deliver)
    if judge is not None:
        for protocol in ("ip", "ipv6"):
            yield board.flow(Table.JUDGE, 40, match(protocol, **of), set_field("dl_dst", judge.mac), output(judge.port))
    yield board.flow(Table.JUDGE, 20, match(**of))


def _questions() -> list[tuple[str, dict[str, Value]]]:
    """Return what containers must exchange to find each other: ARP and neighbour discovery."""
    return [("arp", {}), ("icmp6", {"icmp_type": SOLICITATION}), ("icmp6", {"icmp_type": ADVERTISEMENT})]
