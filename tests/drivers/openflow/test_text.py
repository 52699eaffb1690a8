"""Flows as text: built from checked values, encoded, decoded, and refused where they say something else. No switch."""

import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.errors import InvalidRequest
from drivers.openflow import actions as wire
from drivers.openflow import matches
from drivers.openflow.fields import BY_HEADER, HEADERS, pieces, size
from drivers.resources import HOST, Flow, FlowEntry, FlowFence, flow, flow_key
from drivers.resources import flow_text as text
from drivers.resources.flow_text import FIELDS, PROTOCOLS, Field, Masked, Value

NUMBERS = {"wfh1": 1, "br-int": 0xFFFFFFFE, "wft-vxlan": 7}
NAMES = {number: name for name, number in NUMBERS.items()}
MACS = st.binary(min_size=6, max_size=6).map(lambda data: data.hex(":"))

VALUES: dict[str, Callable[[Field], st.SearchStrategy[Value | Masked]]] = {
    "port": lambda _: st.sampled_from(sorted(NUMBERS)),
    "mac": lambda _: MACS | st.tuples(MACS, MACS),
    "ipv4": lambda _: st.ip_addresses(v=4),
    "ipv6": lambda _: st.ip_addresses(v=6).map(lambda ip: IPv6Address(ip.packed)),
    "hex": lambda field: st.integers(0, (1 << field.bits) - 1),
    "decimal": lambda field: st.integers(0, (1 << field.bits) - 1),
    "tag": lambda _: st.just(text.UNTAGGED),
}


@st.composite
def _wanted(draw: st.DrawFn) -> str:
    protocol = draw(st.sampled_from(["", *PROTOCOLS]))
    fields = [field for field in FIELDS.values() if not field.of or protocol in field.of]
    chosen = draw(st.lists(st.sampled_from(fields), unique_by=lambda field: field.name))
    return text.match(protocol, **{field.name: draw(VALUES[field.form](field)) for field in chosen})


@given(_wanted())
def test_a_match_comes_back_as_it_was(wanted: str) -> None:
    data = matches.encode(wanted, NUMBERS.__getitem__)
    assert matches.decode(data, NAMES.get) == wanted
    assert matches.canonical(data) == data


@given(_wanted(), st.randoms(use_true_random=False))
def test_the_order_of_the_switch_does_not_matter(wanted: str, random: Random) -> None:
    data = matches.encode(wanted, NUMBERS.__getitem__)
    shuffled = pieces(data)
    random.shuffle(shuffled)
    assert matches.canonical(b"".join(shuffled)) == data


def test_every_field_has_a_place_on_the_wire() -> None:
    assert HEADERS.keys() == FIELDS.keys()
    assert len(BY_HEADER) == len(FIELDS)
    assert all(size(field) in (1, 2, 4, 6, 8, 16) for field in FIELDS.values())


def _parts() -> st.SearchStrategy[str]:
    def assigned(field: Field) -> st.SearchStrategy[str]:
        plain = VALUES[field.form](field).filter(lambda value: not isinstance(value, tuple))
        return plain.map(lambda value: text.set_field(field.name, value if not isinstance(value, tuple) else 0))

    fields = [field for field in FIELDS.values() if field.assigned]
    moved = [
        text.move(one.name, other.name)
        for one in FIELDS.values()
        for other in FIELDS.values()
        if one.wide and other.wide and one.bits == other.bits
    ]
    learnt = st.builds(
        text.learn,
        table=st.integers(0, 253),
        priority=st.integers(0, 65535),
        seconds=st.integers(1, 65535),
        cookie=st.integers(1, (1 << 64) - 1),
        limit=st.integers(1, (1 << 32) - 1),
        match=st.just([("reg0", "reg0"), ("dl_dst", "dl_src")]),
        load=st.just([("tun_ipv6_dst", "tun_ipv6_src"), ("reg2", 1), ("tun_id", 1 << 63), ("arp_op", 7)]),
    )
    return (
        st.sampled_from(fields).flatmap(assigned)
        | st.sampled_from(moved)
        | st.sampled_from(sorted(NUMBERS)).map(text.output)
        | st.integers(0, 253).map(text.resubmit)
        | st.just(text.IN_PORT)
        | learnt
    )


@given(st.lists(_parts(), max_size=6))
def test_actions_come_back_as_they_were(parts: list[str]) -> None:
    wanted = text.actions(*parts)
    data = wire.encode(wanted, NUMBERS.__getitem__)
    assert len(data) % 8 == 0
    assert wire.decode(data, NAMES.get) == wanted


@given(st.binary(max_size=80))
def test_bytes_of_others_are_told_as_unknown_or_as_what_they_are(data: bytes) -> None:
    for guess in (data, struct.pack("!HH4x", 4, 8 + len(data)) + data):
        told = wire.decode(guess, NAMES.get)
        assert told
        if "unknown" not in told:
            assert wire.decode(wire.encode(told, NUMBERS.__getitem__), NAMES.get) == told
    try:
        told = matches.decode(data, NAMES.get)
    except matches.Unreadable:
        return
    assert matches.decode(matches.encode(told, NUMBERS.__getitem__), NAMES.get) == told


@pytest.mark.parametrize(
    "data",
    [
        "0001000600000000",  # another instruction: goto_table
        "0004001800000000" + "0019001080000a02080000000000",  # eth_type is not ours to write
        "0004001800000000" + "0019001000010108000000010000ffff",  # with a mask
        "0004002800000000" + "ffff0020" + "00002320" + "0010" + "00" * 22,  # the older learn
        "0004001800000000" + "ffff0010" + "00002320" + "000e" + "0007" + "1e000000",  # resubmit to another port
        "0004001800000000" + "ffff0010" + "00abcdef" + "000e" + "fff8" + "1e000000",  # another vendor
    ],
)
def test_what_weft_never_writes_differs_from_all_it_wants(data: str) -> None:
    assert wire.decode(bytes.fromhex(data), NAMES.get).startswith("unknown(")


@pytest.mark.parametrize(
    "data",
    [
        "80000c021000",  # with a VLAN tag
        "80000d0400001000",  # with or without one, of any number
        "800016080405060700000000",  # an IPv4 address of twice the length
        "800017080405060700ffffff",  # an IPv4 address with a mask
        "80000a0208",  # cut short
        "80000a0288cc",  # LLDP
        "80000a02080080001401" + "06",  # TCP
        "800000040000000180",  # a header cut short
        "80004e0400000001",  # a field that we do not know
    ],
)
def test_a_match_that_weft_never_writes_is_unreadable(data: str) -> None:
    with pytest.raises(matches.Unreadable):
        matches.decode(bytes.fromhex(data), NAMES.get)


def test_an_interface_without_a_name_is_told_by_its_number() -> None:
    data = matches.encode("in_port=9", NUMBERS.__getitem__)
    assert matches.decode(data, NAMES.get) == "in_port=9"
    assert wire.decode(wire.encode("output:9", NUMBERS.__getitem__), NAMES.get) == "output:9"


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ({"arp_spa": IPv4Address("10.0.0.1")}, "must match arp too"),
        ({"nd_target": IPv6Address("::1")}, "must match icmp6 too"),
        ({"reg9": 1}, "no flow of ours looks at reg9"),
        ({"reg0": -1}, "reg0=-1"),
        ({"reg0": 1 << 32}, "reg0=4294967296: a flow takes a number here, 32 bits"),
        ({"in_port": "a b"}, "the name of an interface"),
        ({"in_port": 'x"'}, "the name of an interface"),
        ({"dl_src": "02:00:00:00:00:0G"}, "a MAC in small letters"),
        ({"dl_src": "02:00:00:00:00:0A"}, "a MAC in small letters"),
        ({"tun_src": IPv6Address("::1")}, "an IPv4 address"),
        ({"tun_src": "192.0.2.1"}, "an IPv4 address"),
        ({"tun_ipv6_src": ip_address("fe80::1%eth0")}, "without a zone"),
        ({"vlan_tci": 5}, "0x0000/0x1fff and nothing else"),
        ({"tun_src": ("10.0.0.0", "255.0.0.0")}, "is matched as a whole"),
    ],
)
def test_values_that_do_not_fit_are_refused(wanted: dict[str, Value | Masked], why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        text.match(**wanted)


@pytest.mark.parametrize(
    "make",
    [
        lambda: text.match("tcp"),
        lambda: text.output("a,b"),
        lambda: text.resubmit(254),
        lambda: text.set_field("in_port", "wfh1"),
        lambda: text.set_field("dl_src", 5),
        lambda: text.move("dl_src", "reg0"),
        lambda: text.move("nd_reserved", "reg0"),
        lambda: text.learn(table=1, priority=1, seconds=0, cookie=1, limit=1, match=[], load=[]),
        lambda: text.learn(table=1, priority=1, seconds=1, cookie=0, limit=1, match=[], load=[]),
        lambda: text.learn(table=1, priority=1, seconds=1, cookie=1, limit=1, match=[], load=[("reg0", 1 << 32)]),
        lambda: flow_key("br int", 0, 1, ""),
        lambda: flow_key("br-int", 254, 1, ""),
        lambda: flow_key("br-int", 0, 65536, ""),
    ],
)
def test_what_no_flow_can_say_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(InvalidRequest):
        make()


@pytest.mark.parametrize(
    "told",
    [
        "",
        "nonsense",
        "drop,drop",
        "output:",
        "output:x",
        "output:-1",
        'output:"wfh1',
        "resubmit(,1),",
        "resubmit(1,1)",
        "resubmit(,999)",
        "set_field:5->nothing",
        "set_field:x->reg0",
        "set_field:0x100000000->reg0",
        "move:NXM_NX_REG0[]->NXM_OF_NOTHING[]",
        "move:NXM_NX_REG0[0..3]->NXM_NX_REG1[]",
        "learn(table=1)",
        "learn(table=1,hard_timeout=1,priority=1,delete_learned,cookie=0x1,limit=1,NXM_OF_NOTHING[])",
        "learn(table=1,hard_timeout=1,priority=1,delete_learned,cookie=0x1,limit=1,load:0x1->NXM_OF_NOTHING[])",
        "controller",
        "goto_table:5",
    ],
)
def test_actions_that_are_not_ours_are_refused(told: str) -> None:
    with pytest.raises(InvalidRequest):
        wire.encode(told, lambda _: 1)


def test_a_flow_is_what_it_does() -> None:
    fence = flow(flow_key("br-int", 0, 1, ""), HOST, text.actions())
    entry = flow(flow_key("br-int", 0, 1, ""), HOST, text.resubmit(1))
    other = flow(flow_key("br-int", 1, 1, ""), HOST, text.resubmit(2))
    assert [type(one) for one in (fence, entry, other)] == [FlowFence, FlowEntry, Flow]
    assert fence.rank == other.rank < entry.rank  # fences and what is behind them come in one bundle
    assert f"{entry}" == "ovs-ofctl -O OpenFlow14 add-flow br-int 'table=0,priority=1,actions=resubmit(,1)'"
    assert other.undo() == "ovs-ofctl -O OpenFlow14 --strict del-flows br-int 'table=1,priority=1'"


def test_a_match_on_neighbour_discovery_asks_for_its_code() -> None:
    """Or the kernel datapath is told to do with every target as with the first one (`make test-vm` has seen it)."""
    told = text.match("icmp6", icmp_type=135, nd_target=IPv6Address("::1"))
    assert told == "icmp6,icmp_type=135,icmp_code=0,nd_target=::1"
    assert text.match("icmp6", icmp_type=135) == "icmp6,icmp_type=135"
