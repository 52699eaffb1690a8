"""The tunnels that only Open vSwitch has here, and what becomes of them when it dies: test_overlay.py has the rest."""

import json
from collections.abc import Iterator
from functools import partial

import pytest

from tests.lab.net import Neighbour
from tests.lab.node import Node
from tests.lab.ovs import Ovs
from tests.lab.wait import await_
from tests.lab.weft import Weft
from tests.libnetwork import Libnetwork
from tests.matrix.overlay_street import Street, is_bare, opened, talk_of
from tests.matrix.sizes import largest
from tests.matrix.traffic import OPEN, SILENT

pytestmark = [pytest.mark.kernel, pytest.mark.ovs]

PEERS = "192.0.2.1,192.0.2.2"
KINDS = ("vxlan", "gre", "geneve")
SOON = 30  # seconds
OVERHEAD = {"vxlan": 50, "gre": 42, "geneve": 50}


@pytest.fixture(scope="module")
def street() -> Iterator[Street]:
    """Build it once: three hosts with Open vSwitch, and on each a network by each kind of tunnel."""
    with opened("ovs", peers=PEERS) as street:
        for number, kind in enumerate(KINDS, 1):
            for name, host in street.hosts.items():
                host.network(kind, number, weft_tunnel=kind)
                for which in (1, 2):
                    street.party(f"{kind}-{name}{which}", name, kind, 10 * host.number + which)
        for kind in KINDS:  # the first packets are lost, while Open vSwitch asks for the MACs of the peers
            await_(partial(reach, street, kind), SOON, f"{kind} to carry what is sent")
        yield street


def cells(kind: str, *hosts: str) -> list[tuple[str, str, str]]:
    """Return that every container of a network on these hosts reaches every other one."""
    parties = [f"{kind}-{host}{which}" for host in hosts for which in (1, 2)]
    return [(one, other, OPEN) for one in parties for other in parties if one != other]


def reach(street: Street, kind: str) -> bool:
    """Tell whether they do on the hosts that list each other."""
    return not street.surprises(*cells(kind, "a", "b"))


@pytest.mark.parametrize("kind", KINDS)
def test_containers_of_a_network_reach_each_other_on_the_hosts_that_are_peers(street: Street, kind: str) -> None:
    closed = [(f"{kind}-c1", f"{kind}-{name}1", SILENT) for name in "ab"]
    closed += [(there, here, SILENT) for here, there, _ in closed]
    assert not street.surprises(*cells(kind, "a", "b"), *closed)
    assert all(host.healthy() for host in street.hosts.values())


@pytest.mark.parametrize("kind", KINDS)
def test_a_peer_comes_and_goes_while_others_talk_and_is_forgotten(street: Street, kind: str) -> None:
    with talk_of(street, f"{kind}-a1", f"{kind}-b1") as talk:
        for name in "ab":
            street.hosts[name].peer("add", "192.0.2.3", kind)
        await_(lambda: not street.surprises(*cells(kind, "a", "b", "c")), SOON, "the tunnels to the third host")
        talk()
        assert "192.0.2.3" in {peer for _, peer in street.hosts["a"].behind(kind)}
        for name in "ab":
            street.hosts[name].peer("rm", "192.0.2.3", kind)
        assert "192.0.2.3" not in {peer for _, peer in street.hosts["a"].behind(kind)}
        one, other = f"{kind}-a1", f"{kind}-c1"
        assert not street.surprises((one, other, SILENT), (other, one, SILENT), (one, f"{kind}-b1", OPEN))
        talk()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("version", "headers"), [(4, 28), (6, 48)])
def test_the_largest_packet_passes_and_one_byte_more_does_not(
    street: Street, kind: str, version: int, headers: int
) -> None:
    one, other = street.parties[f"{kind}-a1"], street.parties[f"{kind}-b1"]
    assert largest(one.spot, other.addresses[version]) == 1500 - OVERHEAD[kind] - headers


def test_an_underlay_of_ipv6_carries_gre(street: Street) -> None:
    for name in "ab":
        street.hosts[name].network("six", 6, weft_tunnel="gre", weft_peers="2001:db8:2::1,2001:db8:2::2")
        street.party(f"six-{name}1", name, "six", 10 * street.hosts[name].number)
    pairs = (("six-a1", "six-b1", OPEN), ("six-b1", "six-a1", OPEN))
    await_(lambda: not street.surprises(*pairs), SOON, "the tunnel over IPv6")
    assert largest(street.parties["six-a1"].spot, street.parties["six-b1"].addresses[4]) == 1438 - 28


@pytest.mark.parametrize("killed", ["vswitchd", "database", "both"])
def test_tunnels_carry_again_after_open_vswitch_died(street: Street, killed: str) -> None:
    ovs = street.hosts["a"].ovs
    assert ovs is not None
    if killed != "database":
        ovs.kill_vswitchd()
    if killed != "vswitchd":
        ovs.kill_database()
        ovs.start_database()
    if killed != "database":
        ovs.start_vswitchd()
    for kind in KINDS:
        await_(partial(reach, street, kind), SOON, f"{kind} to carry again")
    await_(street.hosts["a"].healthy, SOON, "the host to be as wanted")


def test_a_restart_of_weft_changes_no_flow(street: Street) -> None:
    host = street.hosts["b"]
    assert host.ovs is not None

    def flows() -> list[str]:
        assert host.ovs is not None
        told = host.ovs.ofctl("dump-flows", "br-int", "--no-stats").splitlines()
        return sorted(line for line in told if "table=31," not in line)  # that is what packets have taught

    before = flows()
    host.weft.kill()
    assert reach(street, "gre")
    host.weft.start()
    await_(host.healthy, SOON, "the host to be as wanted")
    assert flows() == before


def test_where_open_vswitch_cannot_send_from_the_hosts_address_it_is_told() -> None:
    settings = {"WEFT_PEERS": PEERS}
    with Node("plainnic") as node, Neighbour(node), Ovs(node), Weft(node, settings=settings) as weft:
        options = {"weft.backend": "ovs", "weft.tunnel": "gre", "weft.name": "net"}
        with Libnetwork(weft.socket, netns=node.netns) as docker:
            docker.create_network(options=options)
            notes = json.loads(weft.cli("status", "--json", check=False).stdout)["notes"]
            assert [note for note in notes if "192.0.2.1 is on lan0" in note]
            assert "add-port br-phy lan0" in weft.log_text()


def test_when_all_is_gone_nothing_is_left(street: Street) -> None:
    for host in street.hosts.values():
        assert host.ovs is not None
        for container in list(host.docker.containers):
            container.stop()
        for network in host.networks.values():
            host.docker.remove_network(network)
        assert not host.docker.ignored
        await_(partial(is_bare, host), 10, "weft's links to be gone")
        assert host.ovs.vsctl("list-br") == "br-phy"
        assert host.node.run("nft", "list", "tables").stdout == ""
