"""Who reaches whom over weft's networks, cell by cell, the engine played: FORWARD DROP, br_netfilter 0 and 1."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.lab.net import HERE, RUN_NETNS, THERE, Neighbour
from tests.lab.node import Node
from tests.lab.ovs import Ovs
from tests.lab.weft import Weft
from tests.libnetwork import Container, Libnetwork, Network
from tests.matrix.docker import set_br_netfilter
from tests.matrix.table import Party, Row, rows
from tests.matrix.traffic import PORT, PROTOCOLS, Knock, Traffic

pytestmark = pytest.mark.kernel

TABLE = rows(
    """
    # from     to         verdict
    ann        bob        open    as ann      # one network; nobody's address is changed
    bob        ann        open    as bob
    ann        cid        closed              # two networks
    cid        ann        closed
    neighbour  ann        closed              # it has a route
    neighbour  cid        closed
    ann        neighbour  open    as host     # the way out, masqueraded
    cid        neighbour  open    as host
    host       ann        open
    ann        host       open    as ann      # the host's own addresses, as on Docker's bridge
    ann        gateway    open    as ann
    ann        gateway2   open    as ann      # another network's gateway is the host, too

    eve        fay        open    as eve      # an internal network
    fay        eve        open    as fay
    eve        neighbour  closed
    neighbour  eve        closed
    eve        ann        closed
    ann        eve        closed
    host       eve        open
    eve        gateway3   open    as eve      # as on Docker's internal bridge

    neighbour  ann-dnat   open                # what somebody translates on purpose may go in,
    neighbour  eve-dnat   closed              # but never into an internal network

    gus        neighbour  open    as gus      # enable_ip_masquerade=false
    neighbour  gus        closed
    gus        ann        closed
    """
)

DOCKERS = """\
*filter
:FORWARD DROP
:DOCKER-USER -
-A FORWARD -j DOCKER-USER
-A DOCKER-USER -j RETURN
COMMIT
"""
"""What dockerd has in iptables as far as it concerns weft; in IPv6 too, as from engine 27 on."""

CELLS = [
    pytest.param(row, version, protocol, id=f"{row.source}-{row.target}-{protocol}{version}-{row.verdict}")
    for row in TABLE
    for version in (4, 6)
    for protocol in (("tcp", "udp") if row.target.endswith("dnat") else PROTOCOLS)
]


@dataclass(frozen=True, slots=True)
class Street:
    """Everybody in the table, on one node."""

    node: Node
    traffic: Traffic
    parties: dict[str, Party]

    def look(self, br_netfilter: bool) -> dict[tuple[Row, int, str], tuple[Knock, str]]:
        """Make every attempt of the table, all at once."""
        set_br_netfilter(self.node, int(br_netfilter))
        knocks = [(row, knock) for row in TABLE for knock in row.knocks(self.parties)]
        seen = self.traffic.seen([knock for _, knock in knocks])
        return {
            (row, 6 if ":" in knock.address else 4, knock.protocol): (knock, found)
            for (row, knock), found in zip(knocks, seen, strict=True)
        }


@pytest.fixture(scope="module", params=["bridge", pytest.param("ovs", marks=pytest.mark.ovs)])
def street(request: pytest.FixtureRequest) -> Iterator[Street]:
    """Build it once for each backend: a node without dockerd, weft in it, the neighbour with routes to all networks."""
    with ExitStack() as stack:
        node = stack.enter_context(Node("reach"))
        neighbour = stack.enter_context(Neighbour(node))
        if request.param == "ovs":
            stack.enter_context(Ovs(node))
        weft = stack.enter_context(Weft(node, settings={"WEFT_BACKEND": request.param}))
        traffic = stack.enter_context(Traffic())
        for program in ("iptables", "ip6tables"):
            node.run(f"{program}-restore", stdin=DOCKERS)
            assert "-P FORWARD DROP" in node.run(program, "-S", "FORWARD").stdout
        node.run("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
        with Libnetwork(weft.socket, netns=node.netns) as docker:
            yield Street(node, traffic, _settle(docker, node, neighbour, traffic))


def _settle(docker: Libnetwork, node: Node, neighbour: Neighbour, traffic: Traffic) -> dict[str, Party]:
    def network(number: int, *, internal: bool = False, options: dict[str, str] | None = None) -> Network:
        v4, v6 = f"10.7.{number}.0/24", f"fd07:{number}::/64"
        made = docker.create_network(subnet=v4, subnet6=v6, internal=internal, options=options)
        neighbour.ip("route", "add", v4, "via", str(neighbour.node_v4))
        neighbour.ip("route", "add", v6, "via", str(neighbour.node_v6))
        parties[f"gateway{number}"] = Party(host, {4: f"10.7.{number}.1", 6: f"fd07:{number}::1"})
        return made

    def container(name: str, on: Network) -> Container:
        made = docker.start_container(on)
        if on.internal:  # the verdict is asked for, not the missing route
            made.route([str(next(pool.hosts())) for pool in on.pools])
        spot = traffic.spot(RUN_NETNS / made.netns, name)
        spot.serve()
        parties[name] = Party(spot, {version: str(made.address(on, version)) for version in (4, 6)})
        return made

    host = traffic.spot(RUN_NETNS / node.netns, "host")
    host.serve()
    lan = traffic.spot(RUN_NETNS / neighbour.netns, "neighbour")
    lan.serve()
    parties = {
        "host": Party(host, HERE),
        "neighbour": Party(lan, THERE),
    }
    one, two, internal = network(1), network(2), network(3, internal=True)
    plain = network(4, options={"com.docker.network.bridge.enable_ip_masquerade": "false"})
    parties["gateway"] = parties["gateway1"]
    for name, on in {"ann": one, "bob": one, "cid": two, "eve": internal, "fay": internal, "gus": plain}.items():
        container(name, on)
    for port, name in enumerate(("ann", "eve"), 7070):
        parties[f"{name}-dnat"] = Party(host, parties["host"].addresses, port, ("tcp", "udp"))
        for version, program in ((4, "iptables"), (6, "ip6tables")):
            address = parties[name].addresses[version]
            to = f"{address}:{PORT}" if version == 4 else f"[{address}]:{PORT}"
            for protocol in ("tcp", "udp"):
                which = ("-i", "lan0", "-p", protocol, "--dport", str(port))
                node.run(program, "-t", "nat", "-A", "PREROUTING", *which, "-j", "DNAT", "--to-destination", to)
    return parties


@pytest.fixture(scope="module", params=[False, True], ids=["br_netfilter-0", "br_netfilter-1"])
def seen(street: Street, request: pytest.FixtureRequest) -> dict[tuple[Row, int, str], tuple[Knock, str]]:
    """Return what every cell of the table showed."""
    return street.look(request.param)


@pytest.mark.parametrize(("row", "version", "protocol"), CELLS)
def test_who_reaches_whom(
    seen: dict[tuple[Row, int, str], tuple[Knock, str]], row: Row, version: int, protocol: str
) -> None:
    knock, found = seen[row, version, protocol]
    assert knock.agrees(found), f"{knock}: {found}, wanted {knock.wanted}"
