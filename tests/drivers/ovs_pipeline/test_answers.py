"""ARP and neighbour discovery: answered on the spot for endpoints of this host, and asked of nobody else."""

import os

import pytest

from tests.drivers.ovs_pipeline import frames
from tests.drivers.ovs_pipeline.frames import (
    ARP,
    EVERYBODY,
    IPV6,
    NA,
    NS,
    SLL,
    Ear,
    arp,
    frame,
    group_mac,
    nd,
    say,
    solicited,
)
from tests.drivers.ovs_pipeline.street import BOUND, GATEWAY_MAC, Container, Street
from tests.lab.wait import await_
from tests.matrix.traffic import OPEN, Knock
from tests.netns import sh, sysctl

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces are root's"),
]


def _street(*, answers_nd: bool) -> tuple[Street, Container, Container, Container]:
    """Return two hosts, with two containers on the first and one on the second."""
    street = Street(2, answers_nd=answers_nd)
    street.network(1)
    here, there = street.hosts
    one, two, three = (street.container(host, 1, last) for host, last in ((here, 11), (here, 12), (there, 21)))
    street.warm()
    return street, one, two, three


def _questions(me: Container, about: Container) -> list[bytes]:
    """ARP and neighbour discovery, as the kernel asks."""
    group = solicited(about.address(6))
    question = nd(NS, me.address(6), group, about.address(6), (SLL, me.at.mac))
    return [
        frame(me.at.mac, EVERYBODY, ARP, arp(me.at.mac, me.address(4), about.address(4))),
        frame(me.at.mac, group_mac(group), IPV6, question),
    ]


def _is_answered(ear: Ear, about: Container) -> bool:
    """Tell whether an answer by ARP and one by neighbour discovery came, with the right MAC in them."""
    mac = frames.mac(about.at.mac)
    heard = [one for one in ear.listen().frames if one[6:12] == mac]
    by_arp = [one for one in heard if one[12:14] == b"\x08\x06" and one[20:28] == b"\x00\x02" + mac]
    by_nd = [one for one in heard if one[12:14] == b"\x86\xdd" and one[54] == NA and one[78:86] == b"\x02\x01" + mac]
    return bool(by_arp and by_nd)


def _ask(one: Container, about: Container, *others: Ear) -> list[bytes]:
    """Ask about somebody, wait for the answers, and until all others have heard what was said after."""
    asking = Ear.at(one.spot, "eth0")
    asked = say(one.spot, "eth0", _questions(one, about))
    await_(lambda: _is_answered(asking, about), BOUND, "answers")
    (last,) = say(one.spot, "eth0", [frame(one.at.mac, EVERYBODY, frames.OTHER)])
    await_(lambda: all(last in ear.listen().heard for ear in others), BOUND, "the last frame")
    return asked


def test_questions_about_who_is_here_are_answered_and_reach_nobody() -> None:
    street, one, two, three = _street(answers_nd=True)
    with street:
        others = [Ear.at(two.spot, "eth0"), Ear.at(three.spot, "eth0"), Ear.at(street.wire_spot)]
        asked = _ask(one, two, *others)
        assert not [ear.name for ear in others if ear.heard.keys() & set(asked)]


def test_where_flows_do_not_answer_only_the_one_who_is_asked_hears_it() -> None:
    street, one, two, three = _street(answers_nd=False)
    with street:
        assert not street.traffic.surprises([Knock(one.spot, three.address(4), "icmp", wanted=OPEN)])
        theirs, others = Ear.at(two.spot, "eth0"), Ear.at(three.spot, "eth0")
        asked = _ask(one, two, theirs, others)
        assert not others.heard.keys() & set(asked)
        assert theirs.heard.keys() & set(asked) == {asked[1]}


def test_questions_about_who_is_elsewhere_go_to_all() -> None:
    street, one, two, three = _street(answers_nd=True)
    with street:
        ears = [Ear.at(each.spot, "eth0") for each in (two, three)]
        asked = set(_ask(one, three, *ears))
        assert [ear.heard.keys() & asked for ear in ears] == [asked, asked]


def test_a_question_to_one_mac_goes_to_its_owner() -> None:
    """It asks whether the owner lives (RFC 4861, 7.3.1)."""
    street, one, two, _ = _street(answers_nd=True)
    with street:
        ear = Ear.at(two.spot, "eth0")
        asked = say(
            one.spot,
            "eth0",
            [
                frame(one.at.mac, two.at.mac, ARP, arp(one.at.mac, one.address(4), two.address(4))),
                *(
                    frame(one.at.mac, two.at.mac, IPV6, nd(NS, one.address(6), two.address(6), two.address(6), *option))
                    for option in ([(SLL, one.at.mac)], [])
                ),
            ],
        )
        await_(lambda: set(asked) <= ear.listen().heard.keys(), BOUND, "the owner to be asked")


@pytest.mark.parametrize("answers_nd", [True, False])
def test_a_probe_for_duplicates_is_not_answered(*, answers_nd: bool) -> None:
    """A container that checks its addresses keeps them, though flows know them already."""
    street, one, *_ = _street(answers_nd=answers_nd)
    with street, one.netns.entered():
        sysctl("ipv6/conf/eth0/accept_dad", "2")
        sh("ip", "link", "set", "eth0", "down")
        sh("ip", "link", "set", "eth0", "up")
        sh("ip", "address", "replace", f"{one.address(6)}/64", "dev", "eth0")

        def settled() -> bool:
            told = sh("ip", "-6", "address", "show", "dev", "eth0")
            return told.count("inet6") == 2 and "tentative" not in told

        await_(settled, BOUND, "duplicate address detection to end")
        assert "dadfailed" not in sh("ip", "-6", "address", "show", "dev", "eth0")


def test_two_who_claim_one_address_find_out() -> None:
    """Duplicate address detection reaches whoever has it, on another host too."""
    street, one, *_ = _street(answers_nd=True)
    with street:
        there = street.hosts[1]
        same = street.container(there, 1, 11)
        with same.netns.entered():
            sysctl("ipv6/conf/eth0/accept_dad", "1")
            sh("ip", "address", "del", f"{same.address(6)}/64", "dev", "eth0")
            sh("ip", "address", "add", f"{same.address(6)}/64", "dev", "eth0")
            await_(
                lambda: "dadfailed" in sh("ip", "-6", "address", "show", "dev", "eth0"),
                BOUND,
                "the duplicate to be found",
            )
        assert one.address(6) == same.address(6)


def test_a_probe_by_the_host_is_heard_by_the_owner() -> None:
    street, one, two, _ = _street(answers_nd=True)
    with street:
        ears = [Ear.at(each.spot, "eth0") for each in (one, two)]
        group = solicited(two.address(6))
        probes = [
            frame(GATEWAY_MAC, EVERYBODY, ARP, arp(GATEWAY_MAC, "0.0.0.0", two.address(4))),  # noqa: S104 - RFC 5227
            frame(GATEWAY_MAC, group_mac(group), IPV6, nd(NS, "::", group, two.address(6))),
        ]
        asked = say(street.hosts[0].spot, f"wfg{1:012x}", probes)
        await_(lambda: all(set(asked) <= ear.listen().heard.keys() for ear in ears), BOUND, "all to be asked")
