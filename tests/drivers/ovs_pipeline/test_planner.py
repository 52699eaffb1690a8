"""The pipeline, case by case: what is wanted, and the flows it takes. See cases.py."""

import os
from collections import Counter
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from drivers.errors import InvalidRequest
from drivers.naming import link_local
from drivers.ovs import pipeline
from drivers.ovs.model import PEERS, SLOTS, Attachment, Gateway, Peer, Segment, Switch, Tunnel
from drivers.ovs.tables import Table
from drivers.resources import Flow, FlowFence, Rank, scope_of
from drivers.resources.flow_text import DROP
from tests.drivers.ovs_pipeline.cases import CASES, RULE, Plan, every_plan, read, rendered

SWITCH = Switch()
MAC = "02:00:00:00:00:01"


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_plan(path: Path) -> None:
    case, planned = read(path)
    told = rendered(case)
    if os.environ.get("WEFT_UPDATE"):
        path.write_text(path.read_text().partition(RULE)[0] + RULE + told)
        return
    assert planned == told


def test_the_cases_show_every_table() -> None:
    """But for the one that packets fill."""
    shown = {flow.table for _, plan in every_plan() for flow in plan if isinstance(flow, Flow)}
    assert shown == {*Table} - {Table.LEARNT}
    assert len(CASES) >= 15


def _attachment(number: int) -> Attachment:
    return Attachment(
        id=f"e{number}",
        port=f"wfh{number}",
        mac=f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}",
        slot=number,
        addresses=(ip_address("10.1.0.0") + number, ip_address("fd01::") + number),
    )


def _segment(number: int = 1, peers: int = 2) -> Segment:
    return Segment(
        id=f"n{number}",
        number=number,
        gateway=Gateway(port=f"wfg{number}", mac=MAC, addresses=(ip_address("10.1.0.1"), ip_address("fd01::1"))),
        tunnel=Tunnel(
            port="wft",
            vni=number,
            peers=tuple(Peer(address=ip_address("192.0.2.0") + slot, slot=slot) for slot in range(peers)),
        ),
    )


def _street() -> list[Plan]:
    plans = [pipeline.host(SWITCH)]
    for number in (1, 2):
        segment = _segment(number)
        plans.append(pipeline.network(SWITCH, segment))
        for one in range(2, 70):
            at = _attachment(one)
            plans.append(
                pipeline.endpoint(SWITCH, segment, replace(at, port=f"wfh{number}x{one}", id=f"e{number}x{one}"))
            )
    return plans


def test_plans_of_different_scopes_have_disjoint_keys() -> None:
    plans = _street()
    keys = Counter(resource.key for plan in plans for resource in plan)
    assert keys.most_common(1)[0][1] == 1
    assert all(len({resource.scope for resource in plan}) == 1 for plan in plans)


def test_an_endpoint_s_plan_knows_no_siblings_and_no_verdict() -> None:
    at = _attachment(7)
    plan = pipeline.endpoint(SWITCH, _segment(peers=1), at)
    assert plan == pipeline.endpoint(SWITCH, replace(_segment(peers=50), icc=False), at)
    assert {resource.scope for resource in plan} == {scope_of("n1", "e7")}
    assert len(plan) == len(pipeline.endpoint(SWITCH, _segment(), _attachment(SLOTS - 1)))


def test_a_peer_more_changes_no_flow_that_is_there() -> None:
    few, more = (set(pipeline.network(SWITCH, _segment(peers=peers))) for peers in (30, 31))
    assert few < more
    assert len(more - few) == 3


def test_a_network_without_icc_differs_in_its_own_plan_only() -> None:
    segment = _segment()
    closed = replace(segment, icc=False)
    assert pipeline.network(SWITCH, segment) != pipeline.network(SWITCH, closed)
    assert pipeline.endpoint(SWITCH, segment, _attachment(9)) == pipeline.endpoint(SWITCH, closed, _attachment(9))


def test_fences_come_first_and_entries_last() -> None:
    for plan in _street():
        fences = {resource.key for resource in plan if isinstance(resource, FlowFence)}
        for resource in plan:
            assert isinstance(resource, Flow)
            assert (resource.actions == DROP) == isinstance(resource, FlowFence)
            assert (resource.rank is Rank.OPEN) == (resource.table == Table.ENTRY)
            assert resource.needs == (frozenset() if resource.key in fences else fences)


@pytest.mark.parametrize(
    ("what", "make"),
    [
        ("the number of a port is from 0 to 2047, not 2048", lambda: _attachment(SLOTS)),
        ("the number of a peer is from 0 to 1023, not 1024", lambda: Peer(address=ip_address("::1"), slot=PEERS)),
        ("a VNI is from 1 to 16777215, not 0", lambda: Tunnel(port="wft", vni=0)),
        ("a VNI is from 1 to 16777215, not 16777216", lambda: Tunnel(port="wft", vni=1 << 24)),
        ("the number of a network is from 1 to 4294967295, not 0", lambda: Segment(id="n", number=0)),
        (
            "by IPv4 or by IPv6, not by both",
            lambda: Tunnel(
                port="wft", vni=1, peers=tuple(Peer(address=ip_address(a), slot=1) for a in ("::1", "1.1.1.1"))
            ),
        ),
        (
            "in_port=wf h: a flow takes the name of an interface here",
            lambda: pipeline.endpoint(SWITCH, _segment(), replace(_attachment(3), port="wf h")),
        ),
        (
            "dl_src=02:00: a flow takes a MAC in small letters here",
            lambda: pipeline.endpoint(SWITCH, _segment(), replace(_attachment(3), mac="02:00", addresses=())),
        ),
    ],
)
def test_what_cannot_be_is_refused(what: str, make: object) -> None:
    assert callable(make)
    with pytest.raises(InvalidRequest, match=what):
        make()


def test_a_link_local_address_is_the_mac_s() -> None:
    assert str(link_local("00:25:96:12:34:56")) == "fe80::225:96ff:fe12:3456"  # RFC 4291's way, with RFC 7042's MAC
    assert str(link_local("02:00:00:00:00:01")) == "fe80::ff:fe00:1"
