"""What a container cannot do: be somebody else, be heard by another network, or be let in by a host that is no peer."""

import os
from collections.abc import Iterator

import pytest

from drivers.naming import link_local
from drivers.ovs.model import TunnelKind
from tests.drivers.ovs_pipeline import frames
from tests.drivers.ovs_pipeline.frames import (
    ALL_NODES,
    ANSWER,
    ARP,
    EVERYBODY,
    IP,
    IPV6,
    NA,
    NS,
    OTHER,
    RA,
    REDIRECT,
    SLL,
    TLL,
    Ear,
    arp,
    frame,
    group_mac,
    nd,
    say,
    solicited,
    tagged,
    udp,
)
from tests.drivers.ovs_pipeline.street import BOUND, GATEWAY, GATEWAY_MAC, Container, Street
from tests.lab.wait import await_
from tests.matrix.traffic import OPEN, PROTOCOLS, SILENT, Knock

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces are root's"),
]

NOBODY4, NOBODY6 = "10.1.0.200", "fd01::200"
GATEWAY4, GATEWAY6 = map(str, GATEWAY)

Cases = dict[str, bytes]


@pytest.fixture(scope="module")
def street() -> Iterator[Street]:
    """Yield three hosts, with containers of one network: two on the first, one on each of the others."""
    with Street(3, "geneve") as street:
        street.network(1)
        for number, host in ((1, 0), (2, 0), (1, 1), (1, 2)):
            street.container(street.hosts[host], 1, 10 * (host + 1) + number).spot.serve()
        everybody = [
            Knock(one.spot, other.address(4), "icmp", wanted=OPEN)
            for one in street.containers
            for other in street.containers
            if one is not other
        ]
        assert not street.traffic.surprises(everybody)
        street.warm()
        yield street


def _ears(street: Street, *but: Container) -> list[Ear]:
    ears = [Ear.at(one.spot, "eth0") for one in street.containers if one not in but]
    return [*ears, *(Ear.at(host.spot, f"wfg{1:012x}") for host in street.hosts), Ear.at(street.wire_spot)]


def _multicast(source: str, group: str, packet: bytes) -> bytes:
    return frame(source, group_mac(group), IPV6, packet)


def _honest(me: Container) -> Cases:
    """Frames that everybody in the network hears."""
    mac, four, six, local = me.at.mac, me.address(4), me.address(6), str(link_local(me.at.mac))
    unknown = solicited(NOBODY6)
    return {
        "a question by ARP": frame(mac, EVERYBODY, ARP, arp(mac, four, NOBODY4)),
        "an announcement by ARP": frame(mac, EVERYBODY, ARP, arp(mac, four, four)),
        "an announcement by an answer": frame(mac, EVERYBODY, ARP, arp(mac, four, four, op=ANSWER)),
        "a probe by ARP": frame(mac, EVERYBODY, ARP, arp(mac, "0.0.0.0", four)),  # noqa: S104 - RFC 5227
        "a question": _multicast(mac, unknown, nd(NS, six, unknown, NOBODY6, (SLL, mac))),
        "a question by link-local address": _multicast(mac, unknown, nd(NS, local, unknown, NOBODY6, (SLL, mac))),
        "a question without option": _multicast(mac, unknown, nd(NS, six, unknown, NOBODY6)),
        "a probe": _multicast(mac, solicited(six), nd(NS, "::", solicited(six), six)),
        "a probe of the link-local address": _multicast(mac, solicited(local), nd(NS, "::", solicited(local), local)),
        "an announcement": _multicast(mac, ALL_NODES, nd(NA, six, ALL_NODES, six, (TLL, mac))),
        "an announcement without option": _multicast(mac, ALL_NODES, nd(NA, local, ALL_NODES, local)),
        "IPv4 for all": frame(mac, EVERYBODY, IP, udp(four, "255.255.255.255")),
        "IPv6 for all": _multicast(mac, ALL_NODES, udp(six, ALL_NODES)),
        "IPv6 for all by link-local address": _multicast(mac, ALL_NODES, udp(local, ALL_NODES)),
        "neither IP nor ARP": frame(mac, EVERYBODY, OTHER),
    }


def _spoofed(me: Container, other: Container) -> Cases:
    """Frames that nobody may hear."""
    mac, four, six, local = me.at.mac, me.address(4), me.address(6), str(link_local(me.at.mac))
    its_mac, its4, its6, its_local = other.at.mac, other.address(4), other.address(6), str(link_local(other.at.mac))
    asked = solicited(NOBODY6)
    return {
        "another's MAC": frame(its_mac, EVERYBODY, OTHER),
        "another's MAC with its address": frame(its_mac, EVERYBODY, IP, udp(its4, "255.255.255.255")),
        "the gateway's MAC": frame(GATEWAY_MAC, EVERYBODY, OTHER),
        "another's IPv4": frame(mac, its_mac, IP, udp(its4, four)),
        "another's IPv4 for all": frame(mac, EVERYBODY, IP, udp(its4, "255.255.255.255")),
        "the gateway's IPv4": frame(mac, its_mac, IP, udp(GATEWAY4, its4)),
        "nobody's IPv4": frame(mac, EVERYBODY, IP, udp("0.0.0.0", "255.255.255.255")),  # noqa: S104 - a source
        "another's address in ARP": frame(mac, EVERYBODY, ARP, arp(mac, its4, NOBODY4)),
        "another's MAC in ARP": frame(mac, EVERYBODY, ARP, arp(its_mac, four, NOBODY4)),
        "an answer in another's name": frame(mac, its_mac, ARP, arp(mac, NOBODY4, its4, op=ANSWER, tha=its_mac)),
        "an answer in the gateway's name": frame(mac, its_mac, ARP, arp(mac, GATEWAY4, its4, op=ANSWER, tha=its_mac)),
        "the gateway's announcement": frame(mac, EVERYBODY, ARP, arp(mac, GATEWAY4, GATEWAY4)),
        "a probe of another's address by ARP": frame(mac, EVERYBODY, ARP, arp(mac, "0.0.0.0", its4)),  # noqa: S104
        "another's IPv6": frame(mac, its_mac, IPV6, udp(its6, six)),
        "another's link-local address": _multicast(mac, ALL_NODES, udp(its_local, ALL_NODES)),
        "no IPv6 address": _multicast(mac, ALL_NODES, udp("::", ALL_NODES)),
        "a question with another's MAC": _multicast(mac, asked, nd(NS, six, asked, NOBODY6, (SLL, its_mac))),
        "a question in another's name": _multicast(mac, asked, nd(NS, its6, asked, NOBODY6, (SLL, mac))),
        "a question with two options": _multicast(mac, asked, nd(NS, six, asked, NOBODY6, (SLL, mac), (SLL, its_mac))),
        "a probe of another's address": _multicast(mac, solicited(its6), nd(NS, "::", solicited(its6), its6)),
        "a probe with an option": _multicast(mac, solicited(six), nd(NS, "::", solicited(six), six, (SLL, its_mac))),
        "another's announcement": _multicast(mac, ALL_NODES, nd(NA, six, ALL_NODES, its6, (TLL, mac))),
        "an announcement with another's MAC": _multicast(mac, ALL_NODES, nd(NA, six, ALL_NODES, six, (TLL, its_mac))),
        "an announcement in another's name": _multicast(mac, ALL_NODES, nd(NA, its6, ALL_NODES, its6, (TLL, mac))),
        "an announcement with two options": _multicast(
            mac, ALL_NODES, nd(NA, six, ALL_NODES, six, (TLL, mac), (TLL, its_mac))
        ),
        "the gateway's announcement by IPv6": _multicast(mac, ALL_NODES, nd(NA, six, ALL_NODES, GATEWAY6, (TLL, mac))),
        "a router's advertisement": _multicast(mac, ALL_NODES, nd(RA, local, ALL_NODES, "::")),
        "a redirect": frame(mac, its_mac, IPV6, nd(REDIRECT, local, its6, its6, (TLL, mac))),
        "a tagged frame": tagged(frame(mac, EVERYBODY, IP, udp(four, "255.255.255.255"))),
        "a tagged frame with another's address": tagged(frame(mac, its_mac, IP, udp(its4, four))),
        "what no bridge passes on": frame(mac, "01:80:c2:00:00:0e", OTHER),
    }


def test_nobody_hears_a_container_that_is_somebody_else(street: Street) -> None:
    me, other = street.hosts[0].containers
    ears = _ears(street, me)
    spoofed, honest = _spoofed(me, other), _honest(me)
    bad = say(me.spot, "eth0", spoofed.values())
    good = say(me.spot, "eth0", honest.values())

    def deaf() -> list[str]:
        return [
            f"{ear.name}: {case}"
            for ear in ears[:-3]  # the other hosts' gateway ports hear nothing from here, the wire hears it in tunnels
            for case, token in zip(honest, good, strict=True)
            if token not in ear.listen().heard
        ]

    await_(lambda: not deaf() or None, BOUND, f"everybody to hear what is honest: {deaf()}")
    heard = [
        f"{ear.name}: {case}"
        for ear in ears
        for case, token in zip(spoofed, bad, strict=True)
        if token in ear.listen().heard
    ]
    assert not heard


def test_what_is_for_all_is_heard_once_by_each_member_and_by_nobody_else(street: Street) -> None:
    street.network(2)
    strangers = [street.container(host, 2, 10 * host.number + 1) for host in street.hosts]
    for me in (*street.of(1), *strangers):
        others = [one for one in street.of(me.network) if one is not me]
        ears = {one: Ear.at(one.spot, "eth0") for one in street.containers if one is not me}
        sent = say(me.spot, "eth0", _honest(me).values())

        def all_heard(
            sent: list[bytes] = sent, others: list[Container] = others, ears: dict[Container, Ear] = ears
        ) -> bool:
            return all(set(sent) <= ears[one].listen().heard.keys() for one in others)

        await_(all_heard, BOUND, "all members to hear it")
        for one, ear in ears.items():
            counted = {ear.listen().heard[token] for token in sent}
            assert counted == ({1} if one in others else {0}), (me.name, one.name)


def test_networks_on_one_subnet_stay_apart() -> None:
    """The same addresses in two networks, at the same time."""
    with Street(2, "vxlan") as street:
        for network in (1, 2):
            street.network(network)
            for host in street.hosts:
                street.container(host, network, 10 * host.number).spot.serve(7000 + network)
        knocks = [
            Knock(
                one.spot,
                other.address(version),
                protocol,
                7000 + served,
                wanted=f"{OPEN} from {one.address(version)}" if served == one.network else "refused",
            )
            for one in street.containers
            for other in street.of(one.network)
            if one is not other
            for version in (4, 6)
            for protocol in ("tcp", "udp")
            for served in (1, 2)
        ]
        assert not street.traffic.surprises(knocks)
        alone = [street.container(street.hosts[0], 1, 77), street.container(street.hosts[1], 2, 88)]
        knocks = [
            Knock(one.spot, other.address(version), protocol)
            for one, other in zip(alone, reversed(alone), strict=True)
            for version in (4, 6)
            for protocol in PROTOCOLS
        ]
        assert not [told for told in street.traffic.seen(knocks) if told.startswith(OPEN)]


@pytest.mark.parametrize("kind", ["vxlan", "gre"])
def test_a_host_that_is_no_peer_gets_nothing_in_or_out(kind: TunnelKind) -> None:
    """Hosts 1 and 2 list each other, host 3 lists both, and nobody lists host 3."""
    with Street(3, kind) as street:
        street.network(1, peers={1: [2], 2: [1], 3: [1, 2]})
        first, second, third = (street.container(host, 1, 10 * host.number) for host in street.hosts)
        assert not street.traffic.surprises([Knock(first.spot, second.address(4), "icmp", wanted=OPEN)])
        street.warm()
        ears = {one: Ear.at(one.spot, "eth0") for one in street.containers}
        wire = Ear.at(street.wire_spot)
        from_outside = say(third.spot, "eth0", [*_honest(third).values(), *_to(third, first), *_to(third, second)])
        inside = say(first.spot, "eth0", [*_honest(first).values(), *_to(first, second), *_to(first, third)])
        broadcasts = set(inside[: len(_honest(first))])
        await_(lambda: broadcasts <= ears[second].listen().heard.keys(), BOUND, "the peer to hear it")
        await_(lambda: set(from_outside) <= wire.listen().heard.keys(), BOUND, "the stranger's to be on the wire")
        for ear in ears.values():
            ear.listen()
        assert not ears[first].heard.keys() & set(from_outside)
        assert not ears[second].heard.keys() & set(from_outside)
        assert not ears[third].heard.keys() & set(inside)
        stranger = frames.mac("06:00:00:00:00:03")
        mine = [one for one in wire.frames if any(token in one for token in inside)]
        assert mine
        assert not [one for one in mine if one[:6] == stranger]


def _to(me: Container, other: Container) -> list[bytes]:
    return [
        frame(me.at.mac, other.at.mac, IP, udp(me.address(4), other.address(4))),
        frame(me.at.mac, other.at.mac, IPV6, udp(me.address(6), other.address(6))),
    ]


def test_a_peer_that_is_forgotten_is_shut_out_at_once() -> None:
    """With what was learnt of it."""
    with Street(2, "geneve") as street:
        street.network(1)
        one, other = (street.container(host, 1, 10 * host.number) for host in street.hosts)
        other.spot.serve()
        knock = Knock(one.spot, other.address(4), "udp", wanted=OPEN)
        assert not street.traffic.surprises([knock])

        def learnt() -> list[str]:
            return [line for line in street.hosts[0].ovs.flows() if "table=31" in line and other.at.mac in line]

        assert learnt()
        street.without_peer(street.hosts[0], 1, street.hosts[1])
        assert not learnt()
        ear = Ear.at(street.wire_spot)
        sent = say(one.spot, "eth0", [*_to(one, other), *_honest(one).values()])
        assert street.traffic.seen([Knock(one.spot, other.address(4), "udp")]) == [SILENT]
        assert not ear.listen().heard.keys() & set(sent)
