"""Networks of two hosts on a stock Debian kernel: Open vSwitch in the kernel, kernel GRE and Geneve, SCTP, a reboot.

The scenarios of tests/hosts and tests/matrix, where a kernel has what that of those tests lacks. The last result is in
docs/stock-kernel.md.
"""

import json
import re
from collections.abc import Iterator
from functools import partial
from ipaddress import ip_network

import pytest

from tests.lab.wait import WaitedInVainError, await_
from tests.matrix.traffic import OPEN, PORT, REFUSED, SILENT
from tests.vm.street import SOON, StockHost, Street

pytestmark = pytest.mark.vm

KINDS = ("vxlan", "gre", "geneve")
OVERHEAD = {"vxlan": 50, "gre": 42, "geneve": 50}
HEADERS = {4: 28, 6: 48}
PUBLISHED = 9999


@pytest.fixture(scope="module", params=["ovs", "bridge"])
def street(request: pytest.FixtureRequest, hosts: dict[str, StockHost]) -> Iterator[Street]:
    """Build it once for each backend: a network by each kind of tunnel, with containers on both hosts."""
    street = Street(hosts, request.param)
    try:
        street.build(KINDS)
        for kind in KINDS:
            await_(partial(street.talks, kind), SOON, f"{kind} to carry what is sent")
        yield street
    finally:
        street.on_both(StockHost.clean)


def kinds_of_links(host: StockHost) -> set[str]:
    """Return what kinds of links a host has, as the kernel calls them."""
    told = json.loads(host.vm.run("ip", "-j", "-d", "link").stdout)
    return {link["linkinfo"]["info_kind"] for link in told if "info_kind" in link.get("linkinfo", {})}


def test_the_data_path_is_the_kernels(street: Street) -> None:
    """Open vSwitch's own datapath and its tunnel devices, or the kernel's links in a bridge."""
    for kind in KINDS:
        assert street.talks(kind)
    for host in street.hosts.values():
        kinds = kinds_of_links(host)
        if street.backend == "ovs":
            assert host.vm.run("ovs-vsctl", "get", "Bridge", "br-int", "datapath_type").stdout.strip() == "system"
            assert "system@ovs-system" in host.vm.run("ovs-appctl", "dpctl/show").stdout
            assert {"openvswitch", "vxlan", "gretap", "geneve"} <= kinds
            assert "set(tunnel(" in host.vm.run("ovs-appctl", "dpctl/dump-flows").stdout
        else:
            assert {"bridge", "vxlan", "gretap", "geneve"} <= kinds
            assert "openvswitch" not in kinds


@pytest.mark.parametrize("kind", KINDS)
def test_every_pair_of_containers_talks(street: Street, kind: str) -> None:
    assert not street.surprises(street.pairs(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_every_pair_has_sctp_associations(street: Street, kind: str) -> None:
    assert not street.surprises(street.pairs(kind), ["sctp"])


def test_networks_are_apart(street: Street) -> None:
    cells = [
        (one, other, SILENT)
        for first in KINDS
        for second in KINDS
        if first != second
        for one in street.parties[first]
        for other in street.parties[second]
    ]
    assert not street.surprises([*cells, *street.pairs("vxlan")])


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("kind", KINDS)
def test_what_arrives_is_what_was_sent(street: Street, kind: str, version: int) -> None:
    """A few hundred packets of the largest size, each way."""
    one, *_, other = street.parties[kind]
    for client, server in ((one, other), (other, one)):
        server.host.do("take", name=server.name)
        how = {"source": client.name, "address": server.addresses[version], "seed": kind, "size": 1 << 19}
        sent, taken = client.host.do("send", **how)
        assert sent == taken


@pytest.mark.parametrize("kind", KINDS)
def test_a_broadcast_arrives_once_at_everybody(street: Street, kind: str) -> None:
    speaker, *listeners = street.parties[kind]
    broadcast = ip_network(f"{speaker.addresses[4]}/24", strict=False).broadcast_address
    for one in listeners:
        one.host.do("hear", names=[one.name])
    words = {"one", "two", "three"}
    shout = partial(speaker.host.do, "shout", source=speaker.name, address=str(broadcast))
    shout(words=sorted(words))
    heard: dict[str, list[str]] = {one.name: [] for one in listeners}

    def all_heard(wanted: set[str]) -> bool:
        for one in listeners:
            heard[one.name] += one.host.do("heard", name=one.name)
        return all(wanted <= set(said) for said in heard.values())

    await_(partial(all_heard, words), SOON, "the broadcasts at everybody")  # in any order: the first one is an upcall
    shout(words=["last"])
    await_(partial(all_heard, {"last"}), SOON, "the last broadcast at everybody")
    assert {name: sorted(said) for name, said in heard.items()} == {
        one.name: sorted(words | {"last"}) for one in listeners
    }


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("kind", KINDS)
def test_the_largest_packet_passes_and_one_byte_more_does_not(street: Street, kind: str, version: int) -> None:
    one, *_, other = street.parties[kind]
    found = one.host.do("largest", source=one.name, address=other.addresses[version])
    assert found == 1500 - OVERHEAD[kind] - HEADERS[version]


@pytest.mark.parametrize("kind", KINDS)
def test_a_peer_goes_and_comes_back(street: Street, kind: str) -> None:
    peers = {"a": "192.0.2.2", "b": "192.0.2.1"}
    here, beside, _ = street.parties[kind]
    for name, peer in peers.items():
        street.hosts[name].weft("peer", "rm", peer, "--network", kind)
    assert not street.surprises([*street.pairs(kind, SILENT, apart=True), (here, beside, OPEN)])
    for name, peer in peers.items():
        street.hosts[name].weft("peer", "add", peer, "--network", kind)
    await_(partial(street.talks, kind), SOON, f"{kind} to carry what is sent")


@pytest.mark.parametrize("kind", KINDS)
def test_who_is_asked_for_by_neighbour_discovery_hears_it_and_nobody_else(street: Street, kind: str) -> None:
    """On the kernel's datapath no flow answers for a container: the question goes to its port alone."""
    if street.backend == "bridge":
        pytest.skip("a Linux bridge floods it")
    here, beside, far = street.parties[kind]
    for party in (beside, far):
        party.host.do("watch", names=[party.name])
    assert not street.surprises([(here, beside, OPEN)])
    assert beside.addresses[6] in beside.host.do("solicited", name=beside.name)
    assert beside.addresses[6] not in far.host.do("solicited", name=far.name)


def test_checksums_are_left_to_the_last_link(street: Street) -> None:
    """Only the datapath in userspace needs them computed by the container's own link."""
    for name, host in street.hosts.items():
        told = host.in_(f"gre-{name}1", "ethtool", "-k", "eth0")
        assert "tx-checksumming: on" in told
        assert "tcp-segmentation-offload: on" in told


def test_the_hosts_are_as_wanted(street: Street) -> None:
    assert all(host.healthy() for host in street.hosts.values())


def test_a_published_port_of_sctp(street: Street) -> None:
    a, b = street.hosts["a"], street.hosts["b"]
    a.start("published", "gre", "-p", f"{PUBLISHED}:{PORT}/sctp", "-p", f"{PUBLISHED}:{PORT}/tcp")
    knocks = [("b", a.address, protocol, PUBLISHED, f"{OPEN} from {b.address}") for protocol in ("sctp", "tcp")]
    assert not b.do("knock", knocks=knocks)
    a.docker("rm", "-f", "published")
    knocks = [("b", a.address, protocol, PUBLISHED, REFUSED) for protocol in ("sctp", "tcp")]
    assert not b.do("knock", knocks=knocks)


@pytest.mark.parametrize("kind", KINDS)
def test_the_other_backend_is_refused_a_kind_of_tunnel_and_port(street: Street, kind: str) -> None:
    """What is Open vSwitch's takes every VNI of the port, and is in the way of a device for one."""
    host = street.hosts["a"]
    other = "bridge" if street.backend == "ovs" else "ovs"
    options = (f"weft.tunnel={kind}", "weft.name=mix", f"weft.backend={other}")
    said = host.create("mix", 9, *options, check=False)
    assert re.search(r"is that of network \w{12} .*other weft.backend", said)
    if kind != "gre":
        host.create("mix", 9, *options, "weft.tunnel.port=4900")
        assert host.healthy()
        host.docker("network", "rm", "mix")
    assert not street.surprises(street.pairs(kind))


@pytest.mark.parametrize("kind", ["vxlan", "geneve"])
def test_who_else_holds_the_port_is_named(street: Street, kind: str) -> None:
    """A device that somebody made, and one that Open vSwitch made for somebody else's bridge."""
    host = street.hosts["a"]
    port, peers = "weft.tunnel.port=4901", "weft.peers=192.0.2.1,192.0.2.2"
    options = (f"weft.tunnel={kind}", "weft.name=mix", f"weft.backend={street.backend}", port, peers)
    host.vm.run("ip", "link", "add", "foreign", "type", kind, "external", "dstport", "4901")
    host.vm.run("ip", "link", "set", "foreign", "up")
    said = host.create("mix", 9, *options, check=False)
    assert "UDP port 4901 is held by link foreign" in said
    host.vm.run("ip", "link", "del", "foreign")
    if street.backend == "bridge":
        theirs = ("add-port", "theirs", "at-theirs", "--", "set", "Interface", "at-theirs", f"type={kind}")
        flows = (f"options:{option}" for option in ("key=flow", "remote_ip=flow", "dst_port=4901"))
        host.vm.run("ovs-vsctl", "add-br", "theirs", "--", *theirs, *flows)
        said = host.create("mix", 9, *options, check=False)
        assert re.search(r"UDP port 4901 is held by link \w+_4901", said)
        host.vm.run("ovs-vsctl", "del-br", "theirs")
    host.create("mix", 9, *options)
    host.docker("network", "rm", "mix")
    assert not street.surprises(street.pairs(kind))


def test_all_is_back_after_a_reboot_of_both_hosts(street: Street) -> None:
    """Nobody types anything: systemd starts what is enabled, and Docker what is to run always.

    One container of each network on each host: Docker starts all of them at once, and six are interpreted too slowly
    for the 20 s that a call may take.
    """
    street.thin_out()
    before = {name: running(host) for name, host in street.hosts.items()}
    street.on_both(lambda host: host.vm.reboot())
    for name, host in street.hosts.items():
        try:
            await_(partial(runs, host, before[name]), SOON, "all containers")
            await_(host.healthy, SOON, "the host to be as wanted")
        except WaitedInVainError as vain:
            raise WaitedInVainError(f"{vain}\n{host.complaints()}") from None
    street.on_both(StockHost.lend_hand)
    street.find()
    for kind in KINDS:
        await_(partial(street.talks, kind), SOON, f"{kind} to carry what is sent")


def running(host: StockHost) -> set[str]:
    """Return the names of the containers that run."""
    return set(host.docker("ps", "--format", "{{.Names}}").split())


def runs(host: StockHost, names: set[str]) -> bool:
    """Tell whether these are the containers that run."""
    return running(host) == names
