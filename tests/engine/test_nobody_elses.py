"""What is not weft's is not touched: by creating, deleting, healing, restarting or uninstalling, on both backends."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.engine.breakable import await_healthy, reaches, run_container
from tests.lab.engine import Engine
from tests.lab.node import Node
from tests.lab.ovs import Ovs
from tests.lab.wait import WaitedInVainError, await_
from tests.lab.weft import Weft

pytestmark = pytest.mark.engine

NETWORKS = {"meadow": "bridge", "glade": "ovs"}
"""Weft's networks, each with its backend."""

STRANGERS = """
# bridges: one of an operator, with a port, addresses, a static neighbour and an FDB entry; some that look like weft's
ip link add ops0 type bridge mcast_snooping 0
ip link add ops1 type veth peer name ops2
ip link set ops1 master ops0
ip link set ops0 up; ip link set ops1 up; ip link set ops2 up
ip link set ops0 alias "the operator's"
ip address add 10.99.0.1/24 dev ops0
ip address add fd00:99::1/64 dev ops0 nodad
bridge fdb add 02:99:00:00:00:01 dev ops1 master static
ip neigh add 10.99.0.9 lladdr 02:99:00:00:00:09 dev ops0 nud permanent
ip route add 10.98.0.0/24 via 10.99.0.9
ip rule add from 10.98.0.0/24 lookup 99 priority 9900
ip link add wfb0123456789ab type bridge
ip link add wfh0123456789ab type veth peer name wfc0123456789ab
# weft's link group, and another group of the operator's
ip link add group0 group 22511 type bridge
ip link add group1 group 22511 alias weft:0a0b0c0d:abc: type bridge
ip link add group2 group 99 type bridge
# nft: tables of others, one called nearly like weft's
nft add table inet weftless
nft add set inet weftless same '{ type ifname . ifname; }'
nft add element inet weftless same '{ "wfb1" . "wfb1" }'
nft add table ip weft
nft add chain ip weft forward '{ type filter hook forward priority 7; }'
nft add rule ip weft forward ip saddr 10.99.0.0/24 counter accept comment mine
nft add table netdev theirs
# iptables: rules of the operator's in Docker's chain for them, and in all others
iptables -I DOCKER-USER -i ops0 -m comment --comment user-rule -j RETURN
iptables -A DOCKER-USER -s 10.99.0.9 -j DROP
iptables -I FORWARD -i ops0 -o ops2 -j ACCEPT
iptables -A INPUT -p tcp --dport 9999 -m comment --comment weft -j DROP
iptables -N WEFTY; iptables -A WEFTY -j RETURN
iptables -t nat -A POSTROUTING -s 10.99.0.0/24 -o lo -j MASQUERADE
iptables -t mangle -A PREROUTING -i ops0 -j MARK --set-mark 99
ip6tables -A INPUT -p tcp --dport 9999 -j DROP
"""

OVS_STRANGERS = (
    ("add-br", "br-theirs", "--", "set", "Bridge", "br-theirs", "datapath_type=netdev", "external_ids:weft=theirs"),
    ("add-port", "br-theirs", "theirs0", "--", "set", "Interface", "theirs0", "type=internal"),
    ("add-port", "br-theirs", "wfg0123456789ab", "--", "set", "Interface", "wfg0123456789ab", "type=internal"),
    ("set", "Port", "theirs0", "tag=99", "external_ids:weft=weft:0a0b0c0d:abc:"),
    ("set", "Open_vSwitch", ".", "external_ids:theirs=99"),
)
FLOWS = ("priority=9,in_port=theirs0,actions=drop", "cookie=0x9,table=9,priority=9,arp,actions=NORMAL")

LOOK = """
ip -d link; ip address; ip -4 route show table all; ip -6 route show table all; ip rule; ip -6 rule
ip neigh show nud permanent; bridge fdb show
nft -s list ruleset
for program in iptables-save ip6tables-save; do $program; done
"""
OVS_LOOK = """
for table in Bridge Port Interface; do
    ovs-vsctl --columns=_uuid,name,external_ids,other_config list $table
done
ovs-vsctl --columns=external_ids list Open_vSwitch
ovs-ofctl --names --no-stats dump-flows unix:$OVS_RUNDIR/br-theirs.mgmt
"""
COUNTED = re.compile(
    r"\[\d+:\d+\]|^#.*$|\w+_timer +[\d.]+| tentative|(?:valid_lft|preferred_lft|expires) \S+|^\d+: ", re.MULTILINE
)
"""Counters, clocks and numbers of links, which nobody decides."""


@dataclass(frozen=True, slots=True)
class Yard:
    """A host with things of others on it."""

    engine: Engine
    ovs: Ovs
    weft: Weft

    @property
    def node(self) -> Node:
        """Where all of it is."""
        return self.engine.node

    def seen(self) -> Counter[str]:
        """Return all that is on the host, a thing a line: whatever is indented belongs to the line before."""
        text = self.node.run("sh", "-ec", LOOK).stdout
        text += self.node.run("sh", "-ec", OVS_LOOK, env=self.ovs.environment).stdout.replace("\n\n", "\n")
        # a link-local address becomes a route when the kernel is sure of it
        lines = (line for line in text.splitlines() if not line.startswith("local fe80::"))
        return Counter(COUNTED.sub("", line).strip() for line in lines)


@pytest.fixture
def yard(private_engine: Engine) -> Iterator[Yard]:
    """Yield a host with weft and Open vSwitch, on which others were first."""
    node = private_engine.node
    with Ovs(node) as ovs, Weft(node) as weft:
        # what comes with the first networks and stays, forwarding and Docker's chains, is not the question here
        private_engine.docker("network", "create", "-d", "weft", "--ipv6", "--subnet", "fd00:70::/64", "first")
        private_engine.docker("network", "rm", "first")
        node.run("sh", "-ec", STRANGERS)
        for line in OVS_STRANGERS:
            ovs.vsctl(*line)
        for flow in FLOWS:
            node.run("ovs-ofctl", "add-flow", "br-theirs", flow, env=ovs.environment)
        yield Yard(private_engine, ovs, weft)
        if not weft.is_running:
            weft.start()
        private_engine.clean()


def create(yard: Yard) -> None:
    for number, (name, backend) in enumerate(NETWORKS.items()):
        subnets = ("--subnet", f"10.7{number}.0.0/24", "--ipv6", "--subnet", f"fd00:7{number}::/64")
        yard.engine.docker("network", "create", "-d", "weft", "-o", f"weft.backend={backend}", *subnets, name)
        run_container(yard.engine, f"on-{name}", "-p", f"808{number}:80", network=name)
        assert reaches(yard.engine, f"on-{name}", f"10.7{number}.0.1")


def connect(yard: Yard) -> None:
    yard.engine.docker("network", "connect", "glade", "on-meadow")
    yard.engine.docker("network", "disconnect", "glade", "on-meadow")


def reconcile(yard: Yard) -> None:
    yard.node.run("nft", "flush", "table", "inet", "weft")
    yard.weft.cli("reconcile")
    await_healthy(yard.weft)


def kill(yard: Yard) -> None:
    yard.weft.kill()
    yard.weft.start()
    await_healthy(yard.weft)


def delete(yard: Yard) -> None:
    yard.engine.clean()
    await_healthy(yard.weft)


def uninstall(yard: Yard) -> None:
    create(yard)
    yard.weft.stop()
    yard.weft.cli("uninstall", "--force", "--purge")


Act = Callable[[Yard], None]
ACTS: tuple[Act, ...] = (create, connect, reconcile, kill, delete, uninstall)


def test_nothing_of_anybody_else_is_changed(yard: Yard) -> None:
    before = yard.seen()
    for act in ACTS:
        act(yard)
        await_differences(yard, before, act, only_missing=act not in (delete, uninstall))


def await_differences(yard: Yard, before: Counter[str], act: Act, *, only_missing: bool) -> None:
    """Wait until nothing of the others' is missing, and nothing of weft's left if there is to be none."""

    def differences() -> list[str]:
        now = yard.seen()
        return [f"- {line}" for line in before - now] + [f"+ {line}" for line in now - before if not only_missing]

    try:
        await_(lambda: not differences(), 10, "the others' things to be as they were")
    except WaitedInVainError:
        found = differences()
        assert not found, "\n".join([act.__name__, *found])
