"""Each case of spec/datapath-ovs.md goes the way that the page says: asked of Open vSwitch, by `ofproto/trace`."""

import re
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address

import pytest

from drivers.contract import Step
from drivers.marks import Marks
from drivers.openflow.backend import OpenFlowBackend
from drivers.ovs import pipeline
from drivers.ovs.model import Attachment, Gateway, Peer, Segment, Switch, Tunnel
from drivers.ovs.tables import Table
from tests.drivers.openflow.ovs import BRIDGE, Ovs
from tests.drivers.ovs_pipeline.spec_table import PAGE
from tests.netns import private_netns

pytestmark = pytest.mark.kernel

SWITCH = Switch()
HOST_MAC, ANN_MAC, BOB_MAC, EVE_MAC, FAR_MAC = (f"02:00:00:00:00:{last}" for last in ("01", "0a", "0b", "0e", "0f"))
SEGMENT = Segment(
    id="n1",
    number=1,
    gateway=Gateway(port="wfg1", mac=HOST_MAC, addresses=(ip_address("10.1.0.1"), ip_address("fd01::1"))),
    tunnel=Tunnel(port="wft", vni=5, peers=(Peer(address=ip_address("192.0.2.2"), slot=0),)),
)
ANN, BOB = (
    Attachment(
        id=name,
        port=f"wfh{name}",
        mac=mac,
        slot=slot,
        addresses=(ip_address(f"10.1.0.{slot}"), ip_address(f"fd01::{slot}")),
    )
    for name, mac, slot in (("ann", ANN_MAC, 10), ("bob", BOB_MAC, 11))
)
ALL, NDP = "ff:ff:ff:ff:ff:ff", "33:33:ff:00:00:01"
FROM_ANN, FROM_HOST = f"in_port=wfhann,dl_src={ANN_MAC}", f"in_port=wfg1,dl_src={HOST_MAC}"
FROM_EVE = f"in_port=wft,tun_id=5,tun_src=192.0.2.2,dl_src={EVE_MAC}"
IP = "ip,nw_src=10.1.0.{0},nw_dst=10.1.0.{1}".format
ARP = f"arp,arp_op=1,arp_spa=10.1.0.10,arp_sha={ANN_MAC},arp_tpa=10.1.0.{{0}}".format
NS = f"icmp6,icmpv6_type=135,ipv6_src=fd01::10,nd_sll={ANN_MAC},nd_options_type=1,nd_target=fd01::{{0}}".format
EVE_ARP = f"arp,arp_op=1,arp_spa=10.1.0.14,arp_sha={EVE_MAC},arp_tpa=10.1.0.1"

PACKETS = {
    ("ann", "bob"): f"{FROM_ANN},dl_dst={BOB_MAC},{IP(10, 11)}",
    ("ann, by ARP", "who has bob's address?"): f"{FROM_ANN},dl_dst={ALL},{ARP(11)}",
    ("ann, by ND", "who has bob's address?"): f"{FROM_ANN},dl_dst={NDP},{NS(11)}",
    ("ann, by ARP", "who has far's address?"): f"{FROM_ANN},dl_dst={ALL},{ARP(15)}",
    ("ann, by ARP", "who has the gateway's address?"): f"{FROM_ANN},dl_dst={ALL},{ARP(1)}",
    ("ann, by ND", "who has the gateway's address?"): f"{FROM_ANN},dl_dst={NDP},{NS(1)}",
    ("ann, by ARP", "bob, does he live?"): f"{FROM_ANN},dl_dst={BOB_MAC},{ARP(11)}",
    ("ann, by ND", "bob, does he live?"): f"{FROM_ANN},dl_dst={BOB_MAC},{NS(11)}",
    ("ann, by ND", "has anybody my address?"): (
        f"{FROM_ANN},dl_dst={NDP},icmp6,icmpv6_type=135,ipv6_src=::,nd_target=fd01::10"
    ),
    ("ann", "far, heard before"): f"{FROM_ANN},dl_dst=02:00:00:00:00:ff,{IP(10, 15)}",
    ("ann", "far, not heard"): f"{FROM_ANN},dl_dst={FAR_MAC},{IP(10, 15)}",
    ("ann", "all"): f"{FROM_ANN},dl_dst={ALL},{IP(10, 255)}",
    ("ann", "the world"): f"{FROM_ANN},dl_dst={HOST_MAC},ip,nw_src=10.1.0.10,nw_dst=198.51.100.1",
    ("ann, with bob's MAC", "all"): f"in_port=wfhann,dl_src={BOB_MAC},dl_dst={ALL},{IP(10, 255)}",
    ("ann, with bob's address", "eve"): f"{FROM_ANN},dl_dst={EVE_MAC},{IP(11, 14)}",
    ("ann, by ND", "I have bob's address"): (
        f"{FROM_ANN},dl_dst={NDP},icmp6,icmpv6_type=136,ipv6_src=fd01::10,nd_target=fd01::11,nd_tll={ANN_MAC}"
    ),
    ("ann, as a router", "all"): f"{FROM_ANN},dl_dst={NDP},icmp6,icmpv6_type=134,ipv6_src=fe80::ff:fe00:a",
    ("ann, with a VLAN tag", "bob"): f"{FROM_ANN},dl_dst={BOB_MAC},dl_vlan=5,{IP(10, 11)}",
    ("eve", "ann"): f"{FROM_EVE},dl_dst={ANN_MAC},{IP(14, 10)}",
    ("eve", "all"): f"{FROM_EVE},dl_dst={ALL},{IP(14, 255)}",
    ("eve", "far"): f"{FROM_EVE},dl_dst={FAR_MAC},{IP(14, 15)}",
    ("eve, by ARP", "who has the gateway's address?"): f"{FROM_EVE},dl_dst={ALL},{EVE_ARP}",
    ("eve, by ARP", "I have ann's address"): (
        f"{FROM_EVE},dl_dst={ALL},arp,arp_op=1,arp_spa=10.1.0.10,arp_sha={EVE_MAC},arp_tpa=10.1.0.10"
    ),
    ("eve, by ND", "I have ann's address"): (
        f"{FROM_EVE},dl_dst={ALL},icmp6,icmpv6_type=136,ipv6_src=fd01::10,nd_target=fd01::10,nd_tll={EVE_MAC}"
    ),
    ("eve, with ann's address", "bob"): f"{FROM_EVE},dl_dst={BOB_MAC},{IP(10, 11)}",
    ("no peer of ours", "ann"): f"{FROM_EVE.replace('192.0.2.2', '192.0.2.9')},dl_dst={ANN_MAC},{IP(14, 10)}",
    ("the host", "ann"): f"{FROM_HOST},dl_dst={ANN_MAC},{IP(1, 10)}",
    ("the host", "all"): f"{FROM_HOST},dl_dst={ALL},{IP(1, 255)}",
    ("the host", "eve"): f"{FROM_HOST},dl_dst={EVE_MAC},{IP(1, 14)}",
    ("the host, for ann", "bob"): f"{FROM_HOST},dl_dst={BOB_MAC},{IP(10, 11)}",
    ("ann, neither IP nor ARP", "bob"): f"{FROM_ANN},dl_dst={BOB_MAC},dl_type=0x88b5",
}

Case = tuple[str, str]


def _cases(after: str) -> dict[Case, str]:
    """Return the ways that a table of the page shows, by who and to whom."""
    rows = PAGE.read_text().partition(after)[2].partition("\n\n")[0].splitlines()
    return {(who, whom): way for who, whom, way, _ in (row.strip("| ").split(" | ") for row in rows if "| 0" in row)}


OPEN, CLOSED = _cases("| who | to whom |"), _cases("| who, without icc | to whom |")


@pytest.fixture(scope="module", params=[True, False], ids=["icc", "no icc"])
def switch(request: pytest.FixtureRequest) -> Iterator[tuple[Ovs, dict[Case, str]]]:
    segment = replace(SEGMENT, icc=request.param)
    plans = (
        pipeline.host(SWITCH),
        pipeline.network(SWITCH, segment),
        *(pipeline.endpoint(SWITCH, segment, one) for one in (ANN, BOB)),
    )
    with private_netns(), Ovs() as ovs:
        ovs.add_bridge()
        ovs.add_port("wft", "type=vxlan", "options:key=flow", "options:remote_ip=flow")
        for name in ("wfg1", ANN.port, BOB.port):
            ovs.add_port(name)
        backend = OpenFlowBackend(Marks("walks"), list, ovs.ofport, rundir=ovs.rundir)
        assert not backend.apply([Step(None, one) for plan in plans for one in plan])
        backend.close()
        learnt = "hard_timeout=300,reg0=1,dl_dst=02:00:00:00:00:ff"
        ovs.ofctl("add-flow", BRIDGE, f"table=31,{learnt},actions=set_field:192.0.2.2->tun_dst,set_field:1->reg2")
        yield ovs, OPEN if request.param else CLOSED


def test_the_page_has_every_case() -> None:
    assert PACKETS.keys() == OPEN.keys() | CLOSED.keys()
    assert len(OPEN) > 25


def test_each_case_goes_the_way_that_the_page_says(switch: tuple[Ovs, dict[Case, str]]) -> None:
    ovs, cases = switch
    wrong = []
    for case, way in cases.items():
        gone = _way(ovs.appctl("--", "ofproto/trace", BRIDGE, PACKETS[case]))
        if gone != way:
            wrong.append(f"{' -> '.join(case)}: {gone}, and not {way}")
    assert not wrong


def _way(trace: str) -> str:
    """Return the tables that a packet went through, a walk in short."""
    walk = range(Table.WALK, Table.MEMBER + 1)
    told: list[str] = []
    for table in (int(number) for number in re.findall(r"^ *(\d+)\. ", trace, re.MULTILINE)):
        name = f"{walk.start} to {walk.stop - 1}" if table in walk else f"{table}"
        if told[-1:] != [name] or table not in walk:
            told.append(name)
    return ", ".join(told)
