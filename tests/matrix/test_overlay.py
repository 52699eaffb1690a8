"""One network on several hosts: three nodes with weft on a LAN, the engine played on each, and hosts without weft.

lan0  192.0.2.1  2001:db8:2::1   host a: weft, in both lists
lan0  192.0.2.2  2001:db8:2::2   host b: weft, in both lists
lan0  192.0.2.3  2001:db8:2::3   host c: weft, lists a and b, and is in no list at first
lan0  192.0.2.9                  a host with plain `ip link add vxlan`
"""

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from functools import partial

import pytest

from drivers.kernel.offload import compute_checksums
from drivers.naming import bridge_mac, link_name, vni_of
from tests.lab.net import RUN_NETNS, NetNs
from tests.lab.ovs import Ovs
from tests.lab.wait import await_
from tests.libnetwork import CallRefusedError
from tests.matrix.docker import set_br_netfilter
from tests.matrix.overlay_street import (
    BACKENDS,
    Street,
    drain,
    ear,
    is_about,
    is_announcement,
    is_bare,
    mss,
    opened,
    talk_of,
)
from tests.matrix.sizes import largest
from tests.matrix.traffic import OPEN, PROTOCOLS, SILENT, Knock
from tests.netns import inside

pytestmark = pytest.mark.kernel

PEERS = "192.0.2.1,192.0.2.2"
SOON = 30  # seconds
SHOP, SIX, APART = "shop", "six", "apart"


@pytest.fixture(scope="module", params=BACKENDS)
def street(request: pytest.FixtureRequest) -> Iterator[Street]:
    """Build it once for each backend: three hosts, the network on each, containers on it."""
    with opened(request.param, peers=PEERS) as street:
        for host in street.hosts.values():
            host.network(SHOP, 1)
        for name, where, number in (("ann", "a", 10), ("amy", "a", 11), ("bob", "b", 20), ("cid", "c", 30)):
            street.party(name, where, SHOP, number)
        # the first packets are lost, while Open vSwitch asks for the MACs of the peers
        await_(lambda: not street.surprises(*EVERYBODY), SOON, "the tunnels to carry what is sent")
        yield street


PAIRS = (("ann", "amy"), ("amy", "ann"), ("ann", "bob"), ("bob", "ann"), ("amy", "bob"), ("bob", "amy"))
EVERYBODY = [(*pair, OPEN) for pair in PAIRS]


@pytest.mark.parametrize("br_netfilter", [0, 1])
def test_containers_of_a_network_reach_each_other_on_all_hosts(street: Street, br_netfilter: int) -> None:
    for host in street.hosts.values():
        set_br_netfilter(host.node, br_netfilter)
    assert not street.surprises(*EVERYBODY)


def test_a_host_in_no_list_gets_nothing_in_or_out(street: Street) -> None:
    """It lists the others, and sends to them; they neither take it nor send anything."""
    cells = [(one, "cid", SILENT) for one in ("ann", "bob")] + [("cid", one, SILENT) for one in ("ann", "bob")]
    assert not street.surprises(*cells, ("ann", "bob", OPEN))
    assert street.out_of("a")
    assert street.out_of("b")
    assert not street.out_of("c")
    cid = street.parties["cid"].mac
    assert cid not in {mac for mac, _ in street.hosts["a"].behind(SHOP)}


def test_a_peer_comes_and_goes_while_others_talk_and_is_forgotten(street: Street) -> None:
    with talk_of(street, "ann", "bob", 7071) as talk:
        for name in ("a", "b"):
            street.hosts[name].peer("add", "192.0.2.3")
        assert not street.surprises(("ann", "cid", OPEN), ("cid", "bob", OPEN))
        talk()
        cid = street.parties["cid"].mac
        assert (cid, "192.0.2.3") in street.hosts["a"].behind(SHOP)
        for name in ("a", "b"):
            street.hosts[name].peer("rm", "192.0.2.3")
        assert "192.0.2.3" not in {peer for _, peer in street.hosts["a"].behind(SHOP)}
        seen = len(street.out_of("c"))
        assert not street.surprises(("ann", "cid", SILENT), ("cid", "ann", SILENT), ("ann", "bob", OPEN))
        assert len(street.out_of("c")) == seen
        talk()
    assert street.hosts["a"].healthy()


def test_the_commands_list_the_peers(street: Street) -> None:
    host = street.hosts["a"]
    host.peer("add", "192.0.2.3", SHOP)
    lines = [line.split() for line in host.weft.cli("peer", "ls").stdout.splitlines()]
    assert [line[0] for line in lines] == ["PEER", "192.0.2.1", "192.0.2.2", "192.0.2.3"]
    assert lines[1][-2:] == ["this", "host"]
    assert lines[2][-3:] == [f"{host.nic},", "mtu", "1500"]
    assert lines[3][1] == host.networks[SHOP].id[:12]
    host.peer("rm", "192.0.2.3", SHOP)
    done = host.weft.cli("peer", "rm", "192.0.2.3", check=False)
    assert (done.returncode, "is no peer" in done.stderr) == (2, True)
    tunnel = json.loads(host.weft.cli("network", "inspect", host.networks[SHOP].id, "--json").stdout)["tunnel"]
    assert tunnel == {"kind": "vxlan", "vni": vni_of(SHOP), "port": 4789, "local": "192.0.2.1"}


def test_a_broadcast_arrives_once_at_everybody(street: Street) -> None:
    for name in ("a", "b"):
        street.hosts[name].peer("add", "192.0.2.3", SHOP)
    with ExitStack() as stack:
        ears = {name: stack.enter_context(ear(street.parties[name].spot)) for name in ("amy", "bob", "cid")}
        mouth = stack.enter_context(street.parties["ann"].spot.make(socket.AF_INET, socket.SOCK_DGRAM))
        mouth.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        heard: dict[str, list[bytes]] = {name: [] for name in ears}

        def listen() -> bool:
            for name, sock in ears.items():
                heard[name] += drain(sock)
            return all(b"last" in words for words in heard.values())

        for word in (b"one", b"two", b"last"):
            mouth.sendto(word, ("10.8.1.255", 7070))
        await_(listen, 10, "the last broadcast at everybody")
        assert heard == {name: [b"one", b"two", b"last"] for name in ears}
    for name in ("a", "b"):
        street.hosts[name].peer("rm", "192.0.2.3", SHOP)


def test_two_networks_on_one_subnet_are_apart(street: Street) -> None:
    """The second has no gateway on any host. The same tuple at the same time in both, with br_netfilter too."""
    for name in ("a", "b"):
        street.hosts[name].network(APART, 1, internal=True)
        set_br_netfilter(street.hosts[name].node, 1)
    for name, host, number in (("eve", "a", 10), ("fay", "b", 20), ("gus", "b", 21)):
        street.party(name, host, APART, number)
    cells = (("eve", "fay", OPEN), ("fay", "eve", OPEN), ("gus", "eve", OPEN))
    assert not street.surprises(*cells, *EVERYBODY)
    assert not street.surprises(("eve", "gus", OPEN), ("ann", "bob", OPEN))
    knock = Knock(street.parties["ann"].spot, "10.8.1.21", "tcp", wanted=SILENT)
    assert not [line for line in street.traffic.surprises([knock]) if "open" in line]
    first, second = (talk_of(street, *pair) for pair in (("ann", "bob"), ("eve", "fay")))
    with first as one, second as other:
        one()
        other()
    for name in ("a", "b"):
        set_br_netfilter(street.hosts[name].node, 0)


def test_a_second_network_with_a_gateway_is_refused_and_names_the_first(street: Street) -> None:
    host = street.hosts["a"]
    with pytest.raises(CallRefusedError, match=f"overlaps.*{host.networks[SHOP].id[:12]}"):
        host.docker.create_network(subnet="10.8.1.0/24", options={"weft.tunnel": "vxlan", "weft.vni": "99"})


def test_no_frame_from_to_or_about_the_gateway_is_in_a_tunnel(street: Street) -> None:
    """Every container asks for its gateway, in IPv4 and IPv6, and the host for its containers."""
    spots = {name: street.parties[name] for name in ("ann", "bob", "cid")}
    knocks = [
        Knock(one.spot, gateway, "icmp", wanted=OPEN) for one in spots.values() for gateway in ("10.8.1.1", "fd08:1::1")
    ]
    for letter, name in (("a", "ann"), ("b", "bob"), ("c", "cid")):
        host = street.traffic.spot(RUN_NETNS / street.hosts[letter].node.netns, letter)
        knocks += [Knock(host, address, "icmp", wanted=OPEN) for address in spots[name].addresses.values()]
        if letter == "a":
            knocks += [Knock(host, address, "icmp", wanted=SILENT) for address in spots["bob"].addresses.values()]
    assert not [line for line in street.traffic.surprises(knocks) if "refused, wanted silent" not in line]
    vni = vni_of(SHOP)
    mac = bridge_mac(f"vni {vni}")
    frames = [frame for _, seen, frame in street.tap.inner() if seen == vni]
    assert len(frames) > 50
    assert not [frame.hex() for frame in frames if is_about(frame, mac)]
    ned = street.party("ned", "a", SHOP, 12)
    await_(lambda: [one for _, _, one in street.tap.inner() if is_announcement(one, ned.mac)], 10, "ned's announcement")
    for host_ in street.hosts.values():
        assert "dadfailed" not in host_.node.run("ip", "-6", "address").stdout
        bridge = json.loads(host_.node.run("ip", "-j", "link", "show", link_name("b", host_.networks[SHOP].id)).stdout)
        assert bridge[0]["address"] == mac


@pytest.mark.parametrize(("version", "headers"), [(4, 28), (6, 48)])
def test_the_largest_packet_passes_and_one_byte_more_does_not(street: Street, version: int, headers: int) -> None:
    ann, bob = street.parties["ann"], street.parties["bob"]
    assert largest(ann.spot, bob.addresses[version]) == 1450 - headers


def test_a_larger_mtu_is_refused_with_the_sum(street: Street) -> None:
    options = {"weft.tunnel": "vxlan", "weft.name": "large", "com.docker.network.driver.mtu": "1451"}
    with pytest.raises(CallRefusedError, match="carries 1500 bytes, less 50 for vxlan over IPv4 is 1450"):
        street.hosts["a"].docker.create_network(options=options)


def test_tcp_is_told_the_size_that_fits_the_way_out(street: Street) -> None:
    """The way to 198.51.100.0/24 carries 1300 bytes: a SYN that leaves the network by it says so."""
    host = street.hosts["a"]
    host.node.run(*["ip", "route", "add", "198.51.100.0/24", "via", "192.0.2.9", "mtu", "1300", "dev", host.nic])
    host.node.run(
        *["ip", "neigh", "replace", "192.0.2.9", "lladdr", "02:00:00:00:00:09", "dev", host.nic, "nud", "permanent"]
    )
    with street.parties["ann"].spot.make(socket.AF_INET, socket.SOCK_STREAM) as sock:
        with pytest.raises(BlockingIOError):
            sock.connect(("198.51.100.5", 80))
        assert await_(partial(mss, street.tap, "198.51.100.5"), 10, "the SYN on the wire") == 1300 - 40
    host.node.run(*["ip", "route", "del", "198.51.100.0/24"])
    host.node.run(*["ip", "neigh", "del", "192.0.2.9", "dev", host.nic])


def test_an_underlay_of_ipv6_carries_both_versions(street: Street) -> None:
    for name in ("a", "b"):
        street.hosts[name].network(SIX, 6, weft_peers="2001:db8:2::1,2001:db8:2::2", weft_tunnel_port="4799")
    street.party("hal", "a", SIX, 10)
    street.party("ida", "b", SIX, 20)
    assert not street.surprises(("hal", "ida", OPEN), ("ida", "hal", OPEN))
    assert {to for to, _, _ in street.tap.inner(4799)} == {"2001:db8:2::1", "2001:db8:2::2"}
    assert largest(street.parties["hal"].spot, street.parties["ida"].addresses[4]) == 1430 - 28


def test_a_host_without_weft_joins_as_a_peer(street: Street) -> None:
    with NetNs("plain") as plain:
        street.lan.plug(plain, 9)
        if street.hosts["a"].ovs is not None:
            with inside(RUN_NETNS / plain.netns):
                compute_checksums("lan0")
        vni = vni_of(SHOP)
        plain.ip(*f"link add vx0 mtu 1450 type vxlan id {vni} dstport 4789 local 192.0.2.9".split())
        for number in (1, 2):
            plain.run("bridge", *f"fdb append 00:00:00:00:00:00 dev vx0 dst 192.0.2.{number}".split())
        plain.ip("address", "add", "10.8.1.90/24", "dev", "vx0")
        plain.ip("address", "add", "fd08:1::5a/64", "dev", "vx0", "nodad")
        plain.ip("link", "set", "vx0", "up")
        spot = street.traffic.spot(RUN_NETNS / plain.netns, "plain")
        spot.serve()

        def knocks(wanted: str) -> list[Knock]:
            from_plain = [
                Knock(spot, street.parties[name].addresses[version], protocol, wanted=wanted)
                for name in ("ann", "bob")
                for version in (4, 6)
                for protocol in PROTOCOLS
            ]
            to_plain = [
                Knock(street.parties["ann"].spot, address, protocol, wanted=wanted)
                for address in ("10.8.1.90", "fd08:1::5a")
                for protocol in PROTOCOLS
            ]
            return from_plain + to_plain

        amy = street.parties["amy"].addresses  # asked for by nobody after this
        shut = [Knock(spot, amy[version], protocol) for version in (4, 6) for protocol in PROTOCOLS]
        assert not street.traffic.surprises(shut)
        for name in ("a", "b"):
            street.hosts[name].peer("add", "192.0.2.9", SHOP)
        assert not street.traffic.surprises(knocks(OPEN))
        for name in ("a", "b"):
            street.hosts[name].peer("rm", "192.0.2.9", SHOP)


@pytest.mark.parametrize("br_netfilter", [0, 1])
def test_containers_kept_apart_are_apart_across_hosts(street: Street, br_netfilter: int) -> None:
    name = f"kept{br_netfilter}"
    for host in ("a", "b"):
        set_br_netfilter(street.hosts[host].node, br_netfilter)
        street.hosts[host].network(name, 20 + br_netfilter, icc=False)
    jim = street.party(f"jim{br_netfilter}", "a", name, 10)
    address = jim.addresses[4]
    street.party(f"kim{br_netfilter}", "a", name, 11, weft_link=f"{address}:7007/tcp")
    street.party(f"leo{br_netfilter}", "b", name, 20)
    one, two, three = (f"{who}{br_netfilter}" for who in ("jim", "kim", "leo"))
    knocks = [
        *(knock for cell in ((one, three), (three, one), (one, two)) for knock in street.knocks(*cell, SILENT)),
        Knock(street.parties[two].spot, address, "tcp", wanted=f"{OPEN} from {street.parties[two].addresses[4]}"),
    ]
    found = street.traffic.seen(knocks)
    assert not [one for one in found[:-1] if one.startswith(OPEN)]
    assert found[-1] == knocks[-1].wanted
    with pytest.raises(CallRefusedError, match="a link is between containers of one host"):
        street.party("max", "b", name, 21, weft_link=f"{address}:7007/tcp")


def test_an_address_that_is_there_twice_is_noticed_on_both_hosts(street: Street) -> None:
    def noticed(host: str) -> set[str]:
        status = json.loads(street.hosts[host].weft.cli("status", "--json", check=False).stdout)
        return {note.partition(": its ")[2].partition(" was also seen")[0] for note in status["notes"]}

    assert noticed("a") == noticed("b") == set()
    twin, ann = street.party("twin", "b", SHOP, 10), street.parties["ann"]
    assert twin.mac == ann.mac
    for one, other in ((twin, "amy"), (ann, "bob")):  # each speaks to the other host
        one.container.run("ip", "neigh", "flush", "all")
        street.traffic.seen([Knock(one.spot, to, "udp") for to in street.parties[other].addresses.values()])
    for host in ("a", "b"):
        assert noticed(host) == {*ann.addresses.values(), ann.mac}
    street.parties.pop("twin").container.stop()
    assert noticed("b") == set()


def test_another_advertised_address_makes_the_tunnel_anew_with_its_peers(street: Street) -> None:
    host = street.hosts["c"]
    host.node.run("ip", "address", "add", "192.0.2.33/24", "dev", host.nic)
    before = host.flooded(SHOP)
    host.weft.stop()
    host.weft.settings["WEFT_ADVERTISE"] = "192.0.2.33"
    host.weft.start()

    await_(lambda: host.local(SHOP) == "192.0.2.33", 20, "the tunnel with its new address")
    assert host.flooded(SHOP) == before == {"192.0.2.1", "192.0.2.2"}
    for name in ("a", "b"):
        street.hosts[name].peer("add", "192.0.2.33")
    assert not street.surprises(("cid", "ann", OPEN), ("bob", "cid", OPEN))


def test_one_backend_has_a_kind_of_tunnel_and_port(street: Street) -> None:
    host = street.hosts["a"]
    options = {"weft.tunnel": "vxlan", "weft.name": "x", "weft.backend": "ovs" if host.ovs is None else "bridge"}
    with Ovs(host.node) if host.ovs is None else nullcontext():
        with pytest.raises(CallRefusedError, match=r"UDP port 4789 is that of network \w{12} .*other weft.backend"):
            host.docker.create_network(options=options)
        made = host.docker.create_network(options=options | {"weft.tunnel.port": "4790"}, subnet="10.8.99.0/24")
        host.docker.remove_network(made)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"weft.tunnel": "stt", "weft.name": "x"}, "Open vSwitch has dropped STT"),
        ({"weft.tunnel": "vxlan"}, "needs weft.name or weft.vni"),
        ({"weft.tunnel": "gre", "weft.name": "x"}, "no gretap .*modprobe ip_gre"),
        ({"weft.tunnel": "geneve", "weft.name": "x"}, "no geneve .*modprobe geneve"),
        ({"weft.tunnel": "vxlan", "weft.name": SHOP}, "VNI [0-9]+ is that of network"),
        ({"weft.tunnel": "vxlan", "weft.name": "x", "weft.peers": "192.0.2.1,2001:db8:2::2"}, "cannot be mixed"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(street: Street, options: dict[str, str], said: str) -> None:
    host = street.hosts["a"]
    links = host.node.run("ip", "-br", "link").stdout
    with pytest.raises(CallRefusedError, match=said):
        host.docker.create_network(options=options)
    assert host.node.run("ip", "-br", "link").stdout == links


def test_whoever_holds_the_vni_or_the_port_is_named_and_keeps_it(street: Street) -> None:
    """Swarm's own overlay has 4789, too, and other VNIs: both work beside each other."""
    host = street.hosts["b"]
    if host.ovs is not None:
        pytest.skip("the kernel's devices are a Linux bridge's concern")
    host.node.run("ip", "link", "add", "swarm1", "type", "vxlan", "id", "4097", "dstport", "4789")
    host.node.run("ip", "link", "set", "swarm1", "up")
    for vni, port, said in (("4097", "4789", "link swarm1"), ("4098", "4798", "link external1")):
        if port == "4798":
            host.node.run("ip", "link", "add", "external1", "type", "vxlan", "external", "dstport", port)
            host.node.run("ip", "link", "set", "external1", "up")
        with pytest.raises(CallRefusedError, match=said):
            host.docker.create_network(options={"weft.tunnel": "vxlan", "weft.vni": vni, "weft.tunnel.port": port})
    host.node.run("ip", "link", "del", "swarm1")
    host.node.run("ip", "link", "del", "external1")
    assert not street.surprises(("ann", "bob", OPEN))


def test_when_all_is_gone_nothing_is_left(street: Street) -> None:
    for host in street.hosts.values():
        assert host.healthy()
        for container in list(host.docker.containers):
            container.stop()
        for network in host.networks.values():
            host.docker.remove_network(network)
        assert not host.docker.ignored
        await_(partial(is_bare, host), 10, "weft's links to be gone")
        assert host.node.run("nft", "list", "tables").stdout == ""
