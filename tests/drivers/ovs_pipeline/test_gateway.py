"""The host's place in a network: reached by its own containers, and never seen in a tunnel."""

import os
from ipaddress import ip_address

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
    TLL,
    Ear,
    arp,
    frame,
    group_mac,
    nd,
    say,
    solicited,
    udp,
)
from tests.drivers.ovs_pipeline.street import BOUND, GATEWAY, GATEWAY_MAC, Container, Host, Street
from tests.lab.wait import await_
from tests.matrix.traffic import OPEN, PROTOCOLS, SILENT, Knock
from tests.netns import sh, sysctl

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces are root's"),
]

FOUR, SIX = map(str, GATEWAY)
LOCAL = str(link_local(GATEWAY_MAC))
PORT = f"wfg{1:012x}"


def _street(kind: TunnelKind = "vxlan") -> Street:
    street = Street(2, kind)
    street.network(1)
    for host in street.hosts:
        street.container(host, 1, 10 * host.number).spot.serve()
        host.spot.serve()
    street.warm()
    return street


@pytest.mark.parametrize("kind", ["vxlan", "geneve", "gre"])
def test_no_frame_from_to_or_about_the_gateway_is_in_a_tunnel(kind: TunnelKind) -> None:
    """Whoever asks for it, talks to it, or is asked by it; on the wire there is not one byte of its addresses."""
    with _street(kind) as street:
        wire = Ear.at(street.wire_spot)
        one, other = street.containers
        knocks = [
            Knock(spot, address, protocol, wanted=OPEN)
            for host in street.hosts
            for (container,) in [host.containers]
            for spot, addresses in ((container.spot, GATEWAY), (host.spot, container.at.addresses))
            for address in map(str, addresses)
            for protocol in PROTOCOLS
        ]
        knocks.append(Knock(one.spot, other.address(4), "udp", wanted=OPEN))
        assert not street.traffic.surprises(knocks)
        for host in street.hosts:
            say(host.spot, PORT, _from_the_host())
            for container in host.containers:
                say(container.spot, "eth0", _about_the_host(container))
        last = say(one.spot, "eth0", [frame(one.at.mac, EVERYBODY, OTHER)])
        await_(lambda: last[0] in wire.listen().heard, BOUND, "the last frame to be on the wire")
        for needle in (frames.mac(GATEWAY_MAC), *(ip_address(text).packed for text in (FOUR, SIX, LOCAL))):
            assert not [one.hex() for one in wire.frames if needle in one]
        for host in street.hosts:
            with host.netns.entered():
                assert "dadfailed" not in sh("ip", "address", "show", "dev", PORT)


def _from_the_host() -> list[bytes]:
    """Frames that a host sends of its own accord."""
    return [
        frame(GATEWAY_MAC, EVERYBODY, ARP, arp(GATEWAY_MAC, FOUR, FOUR)),
        frame(GATEWAY_MAC, EVERYBODY, ARP, arp(GATEWAY_MAC, FOUR, "10.1.0.200")),
        frame(GATEWAY_MAC, EVERYBODY, IP, udp(FOUR, "255.255.255.255")),
        frame(GATEWAY_MAC, "02:00:00:00:00:99", IP, udp(FOUR, "10.1.0.200")),
        frame(GATEWAY_MAC, group_mac(ALL_NODES), IPV6, nd(NA, SIX, ALL_NODES, SIX, (TLL, GATEWAY_MAC))),
        frame(GATEWAY_MAC, group_mac(solicited(SIX)), IPV6, nd(NS, "::", solicited(SIX), SIX)),
        frame(GATEWAY_MAC, group_mac(solicited(LOCAL)), IPV6, nd(NS, "::", solicited(LOCAL), LOCAL)),
    ]


def _about_the_host(me: Container) -> list[bytes]:
    """Frames by which a container would speak of it to others."""
    mac, four, six = me.at.mac, me.address(4), me.address(6)
    nobody = "02:00:00:00:00:99"
    return [
        frame(mac, EVERYBODY, ARP, arp(mac, four, FOUR)),
        frame(mac, EVERYBODY, ARP, arp(mac, four, FOUR, op=ANSWER, tha=GATEWAY_MAC)),
        frame(mac, nobody, ARP, arp(mac, four, FOUR)),
        frame(mac, nobody, IP, udp(four, FOUR)),
        frame(mac, nobody, IPV6, udp(six, SIX)),
        frame(mac, GATEWAY_MAC, OTHER),
        *(
            frame(mac, group_mac(solicited(about)), IPV6, nd(NS, six, solicited(about), about, (1, mac)))
            for about in (SIX, LOCAL)
        ),
    ]


def _as_if_from_a_peer(about: Host) -> list[bytes]:
    """Frames about the gateway, as a peer without weft might send them in a tunnel."""
    victim = about.containers[0]
    stranger = "02:00:00:00:00:99"
    four, six = "10.1.0.99", "fd01::99"
    return [
        frame(GATEWAY_MAC, EVERYBODY, OTHER),
        frame(GATEWAY_MAC, victim.at.mac, OTHER),
        frame(stranger, GATEWAY_MAC, OTHER),
        frame(stranger, EVERYBODY, ARP, arp(stranger, FOUR, FOUR)),
        frame(stranger, EVERYBODY, ARP, arp(stranger, four, FOUR)),
        frame(stranger, victim.at.mac, ARP, arp(stranger, FOUR, victim.address(4), op=ANSWER, tha=victim.at.mac)),
        frame(stranger, victim.at.mac, IP, udp(FOUR, victim.address(4))),
        frame(stranger, victim.at.mac, IP, udp(four, FOUR)),
        frame(stranger, victim.at.mac, IPV6, udp(SIX, victim.address(6))),
        frame(stranger, victim.at.mac, IPV6, udp(six, SIX)),
        *(
            frame(stranger, group_mac(ALL_NODES), IPV6, nd(NA, six, ALL_NODES, about_, (TLL, stranger)))
            for about_ in (SIX, LOCAL)
        ),
        *(
            frame(stranger, group_mac(solicited(about_)), IPV6, nd(NS, "::", solicited(about_), about_))
            for about_ in (SIX, LOCAL)
        ),
    ]


def test_what_a_peer_says_about_the_gateway_is_not_heard() -> None:
    """The peer here is a bridge without our flows: whatever its container sends goes into the tunnel."""
    with _street() as street:
        here, there = street.hosts
        assert not street.traffic.surprises(
            [Knock(there.containers[0].spot, here.containers[0].address(4), "icmp", wanted=OPEN)]
        )
        vni = hex(0x100001)
        there.ovs.ofctl("del-flows", "br-int")
        there.ovs.ofctl(
            "add-flow",
            "br-int",
            f"in_port={there.containers[0].at.port},"
            f"actions=set_field:{vni}->tun_id,set_field:{here.underlay}->tun_dst,output:wft",
        )
        ears = [Ear.at(here.containers[0].spot, "eth0"), Ear.at(here.spot, PORT)]
        bad = say(there.containers[0].spot, "eth0", _as_if_from_a_peer(here))
        (good,) = say(there.containers[0].spot, "eth0", [frame("02:00:00:00:00:99", EVERYBODY, OTHER)])
        await_(lambda: good in ears[0].listen().heard, BOUND, "what is not about the gateway to be heard")
        assert not [at for at, token in enumerate(bad) for ear in ears if token in ear.listen().heard]


def test_each_host_is_the_gateway_of_its_own_containers_only() -> None:
    """A container reaches its own host by the gateway's address, and another host's containers from a container."""
    with _street() as street:
        one, other = street.containers
        knocks = [
            Knock(one.spot, other.address(version), protocol, wanted=OPEN)
            for version in (4, 6)
            for protocol in PROTOCOLS
        ]
        knocks += [
            Knock(street.hosts[0].spot, other.address(version), protocol, wanted=SILENT)
            for version in (4, 6)
            for protocol in PROTOCOLS
        ]
        assert not [told for told in street.traffic.surprises(knocks) if not told.endswith("refused, wanted silent")]
        for host in street.hosts:
            counter = f"table inet count {{ chain c {{ type filter hook input priority 0; iif {PORT} counter; }}; }}"
            with host.netns.entered():
                sh("nft", counter)
        assert not street.traffic.surprises([Knock(one.spot, FOUR, "icmp", wanted=OPEN)])
        packets = []
        for host in street.hosts:
            with host.netns.entered():
                told = sh("nft", "list", "table", "inet", "count")
            packets.append(int(told.partition("packets ")[2].split()[0]))
        assert packets[0] > 0
        assert packets[1] == 0


@pytest.mark.parametrize("allowed", [False, True])
def test_without_icc_the_host_judges_what_containers_say_to_each_other(*, allowed: bool) -> None:
    """On one host and across hosts: closed where the host's rules say so, open where they let it pass."""
    verdict = "accept" if allowed else "drop"
    with Street(2) as street:
        street.network(1, icc=False)
        for host in street.hosts:
            for number in (1, 2):
                street.container(host, 1, 10 * host.number + number).spot.serve()
            host.spot.serve()
            with host.netns.entered():
                sysctl("ipv4/ip_forward", "1")
                sysctl("ipv6/conf/all/forwarding", "1")
                sysctl(f"ipv4/conf/{PORT}/send_redirects", "0")
                sysctl("ipv4/conf/all/send_redirects", "0")
                rule = f"iif {PORT} oif {PORT} counter {verdict}"
                sh("nft", f"table inet judge {{ chain c {{ type filter hook forward priority 0; {rule}; }}; }}")
        street.warm()
        one, two, three, _ = street.containers
        wanted = OPEN if allowed else SILENT
        knocks = [
            Knock(one.spot, other.address(version), protocol, wanted=wanted)
            for other in (two, three)
            for version in (4, 6)
            for protocol in PROTOCOLS
        ]
        knocks += [
            Knock(one.spot, str(address), protocol, wanted=OPEN) for address in GATEWAY for protocol in PROTOCOLS
        ]
        knocks += [Knock(street.hosts[0].spot, one.address(version), "tcp", wanted=OPEN) for version in (4, 6)]
        assert not street.traffic.surprises(knocks)

        ears = [Ear.at(other.spot, "eth0") for other in (two, three)]
        at_host = Ear.at(street.hosts[0].spot, PORT)
        ended = say(
            one.spot,
            "eth0",
            [
                frame(one.at.mac, EVERYBODY, IP, udp(one.address(4), "255.255.255.255")),
                frame(one.at.mac, group_mac(ALL_NODES), IPV6, udp(one.address(6), ALL_NODES)),
                frame(one.at.mac, EVERYBODY, OTHER),
                frame(one.at.mac, two.at.mac, OTHER),
                frame(one.at.mac, three.at.mac, OTHER),
            ],
        )
        passed = say(
            one.spot,
            "eth0",
            [
                frame(one.at.mac, EVERYBODY, ARP, arp(one.at.mac, one.address(4), "10.1.0.200")),
                frame(
                    one.at.mac,
                    group_mac(ALL_NODES),
                    IPV6,
                    nd(NA, one.address(6), ALL_NODES, one.address(6), (TLL, one.at.mac)),
                ),
            ],
        )
        await_(lambda: all(set(passed) <= ear.listen().heard.keys() for ear in ears), BOUND, "ARP and ND to pass")
        assert not [ear.name for ear in ears if ear.heard.keys() & set(ended)]
        assert set(ended[:3]) <= at_host.listen().heard.keys()
