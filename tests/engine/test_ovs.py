"""Networks on Open vSwitch with a real dockerd: what a Linux bridge does, and what happens when Open vSwitch dies."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.lab.engine import Engine
from tests.lab.image import NAME
from tests.lab.matrix import both_engines
from tests.lab.net import HERE, Neighbour
from tests.lab.node import Node
from tests.lab.ovs import Ovs
from tests.lab.wait import await_
from tests.lab.weft import Weft
from tests.matrix.docker import party, run, serving
from tests.matrix.table import Party
from tests.matrix.traffic import OPEN, PORT, SILENT, Knock, Traffic

pytestmark = [pytest.mark.engine, pytest.mark.ovs]

SOON = 30  # seconds; the time itself is bench's
SUBNETS = ("--subnet", "10.7.1.0/24", "--ipv6", "--subnet", "fd07:1::/64")


@dataclass(frozen=True, slots=True)
class Yard:
    """A Docker host with Open vSwitch, and who knocks."""

    node: Node
    engine: Engine
    ovs: Ovs
    weft: Weft
    traffic: Traffic

    def network(self, name: str = "one", *args: str) -> None:
        """Create a network on Open vSwitch."""
        self.engine.docker("network", "create", "-d", "weft", "-o", "weft.backend=ovs", *SUBNETS, *args, name)

    def talk(self, *pairs: tuple[Party, Party]) -> bool:
        """Tell whether every pair talks, by TCP, UDP and ping, IPv4 and IPv6."""
        return not self.traffic.surprises(
            [
                Knock(source.spot, address, protocol, wanted=OPEN)
                for source, target in pairs
                for address in target.addresses.values()
                for protocol in ("tcp", "udp", "icmp")
            ]
        )


@pytest.fixture
def yard(private_node: Node) -> Iterator[Yard]:
    with Engine(private_node) as engine, Ovs(private_node) as ovs, Weft(private_node) as weft, Traffic() as traffic:
        engine.load_image()
        yield Yard(private_node, engine, ovs, weft, traffic)
        if engine.is_running and weft.is_running:
            engine.clean()


@both_engines
def test_containers_talk_reach_out_and_are_reached_and_nothing_is_left(yard: Yard) -> None:
    with Neighbour(yard.node) as neighbour:
        lan = serving(yard.traffic, neighbour, "lan")
        yard.network()
        ann = run(yard.engine, yard.traffic, "ann", "one", "-p", f"8080:{PORT}")
        bob = run(yard.engine, yard.traffic, "bob", "one")
        assert yard.talk((ann, bob), (bob, ann))
        knocks = [
            Knock(ann.spot, str(neighbour.v4), "tcp", wanted=f"{OPEN} from {HERE[4]}"),
            *(Knock(lan, address, "tcp", 8080, OPEN) for address in HERE.values()),
            *(Knock(bob.spot, address, "tcp", 8080, OPEN) for address in HERE.values()),
        ]
        assert yard.traffic.surprises(knocks) == []
        assert yard.weft.cli("status").returncode == 0
        yard.engine.docker("rm", "-f", "ann", "bob")
        yard.engine.docker("network", "rm", "one")
        await_(lambda: yard.ovs.vsctl("list-br") == "", SOON, "br-int to be gone")
        assert yard.node.run("ip", "-o", "link", "show", "group", "22511", check=False).stdout == ""


def test_links_where_containers_are_kept_apart(yard: Yard) -> None:
    yard.network("app", "-o", "com.docker.network.bridge.enable_icc=false")
    db = run(yard.engine, yard.traffic, "db", "app", "--expose", f"{PORT}/tcp")
    web = run(yard.engine, yard.traffic, "web", "app", "--link", "db")
    linked = [Knock(web.spot, address, "tcp", wanted=OPEN) for address in db.addresses.values()]
    closed = [Knock(db.spot, address, "tcp", wanted=SILENT) for address in web.addresses.values()]
    closed += [Knock(web.spot, address, "udp", wanted=SILENT) for address in db.addresses.values()]
    await_(lambda: not yard.traffic.surprises(linked), SOON, "the link")
    assert yard.traffic.surprises([*linked, *closed]) == []


@pytest.mark.parametrize("killed", ["vswitchd", "database", "both"])
def test_containers_are_reached_again_after_open_vswitch_died(yard: Yard, killed: str) -> None:
    yard.network()
    ann, bob = (run(yard.engine, yard.traffic, name, "one") for name in ("ann", "bob"))
    assert yard.talk((ann, bob))
    if killed != "database":
        yard.ovs.kill_vswitchd()
    if killed != "vswitchd":
        yard.ovs.kill_database()
    told = json.loads(yard.weft.cli("status", "--json", check=False).stdout)
    assert not told["healthy"] or told["notes"]
    if killed != "vswitchd":
        yard.ovs.start_database()
    if killed != "database":
        yard.ovs.start_vswitchd()
    await_(lambda: yard.talk((ann, bob), (bob, ann)), SOON, "the containers to talk again")
    await_(lambda: yard.weft.cli("status", check=False).returncode == 0, SOON, "the host to be as wanted")
    eve = run(yard.engine, yard.traffic, "eve", "one")
    assert yard.talk((eve, ann), (bob, eve))


def test_a_restart_of_weft_changes_nothing(yard: Yard) -> None:
    yard.network()
    ann, bob = (run(yard.engine, yard.traffic, name, "one") for name in ("ann", "bob"))
    flows = yard.ovs.ofctl("dump-flows", "br-int", "--no-stats")
    yard.weft.kill()
    assert yard.talk((ann, bob))
    yard.weft.start()
    assert yard.talk((ann, bob))
    await_(lambda: yard.weft.cli("status", check=False).returncode == 0, SOON, "the host to be as wanted")
    assert sorted(yard.ovs.ofctl("dump-flows", "br-int", "--no-stats").split("\n")) == sorted(flows.split("\n"))


def test_without_open_vswitch_the_create_says_so_and_bridges_go_on(private_engine: Engine, private_weft: Weft) -> None:
    said = private_engine.docker("network", "create", "-d", "weft", "-o", "weft.backend=ovs", "one", check=False)
    assert "ovsdb-server does not answer" in said
    assert private_weft.cli("network", "ls", "--json").stdout.strip() == "[]"
    private_engine.docker("network", "create", "-d", "weft", "two")
    private_engine.docker("run", "-d", "--network", "two", NAME)


def test_a_bridge_network_does_not_wait_for_an_open_vswitch_that_is_down(yard: Yard) -> None:
    yard.network()
    ann = run(yard.engine, yard.traffic, "ann", "one")
    yard.ovs.kill()
    yard.engine.docker("network", "create", "-d", "weft", "two")
    yard.engine.docker("run", "-d", "--name", "bob", "--network", "two", NAME)
    bob = party(yard.engine, yard.traffic, "bob")
    assert not yard.traffic.surprises([Knock(bob.spot, next(iter(bob.addresses.values())), "tcp", wanted=OPEN)])
    yard.ovs.start()
    carl = run(yard.engine, yard.traffic, "carl", "one")
    await_(lambda: yard.talk((ann, carl)), SOON, "the network on Open vSwitch")


def test_the_rest_of_the_host_is_healed_without_an_open_vswitch(yard: Yard) -> None:
    def flush_and_heal() -> None:
        yard.node.run("nft", "delete", "table", "inet", "weft")
        await_(lambda: "table inet weft" in yard.node.run("nft", "list", "tables").stdout, SOON, "the rules")

    yard.engine.docker("network", "create", "-d", "weft", "two")
    yard.network()
    yard.ovs.kill()
    flush_and_heal()
    yard.ovs.start()
    yard.engine.docker("network", "rm", "one")
    yard.ovs.kill()
    flush_and_heal()
    for command in ("reconcile", "status"):  # no network is on it any more: nothing to complain of
        done = yard.weft.cli(command)
        assert "ovs" not in done.stdout + done.stderr


def test_uninstall_leaves_of_open_vswitch_what_is_not_weft_s(yard: Yard) -> None:
    yard.ovs.vsctl("add-br", "br-theirs", "--", "set", "Bridge", "br-theirs", "datapath_type=netdev")
    yard.network()
    run(yard.engine, yard.traffic, "ann", "one")
    yard.weft.stop()
    line = "ovs-vsctl del-br br-int"
    assert line in yard.weft.cli("uninstall", "--dry-run", "--force", check=False).stdout
    assert yard.ovs.vsctl("list-br").split() == ["br-int", "br-theirs"]
    yard.weft.cli("uninstall", "--force")
    assert yard.ovs.vsctl("list-br").split() == ["br-theirs"]
    assert yard.node.run("ip", "-o", "link", "show", "group", "22511", check=False).stdout == ""
    assert "inet weft" not in yard.node.run("nft", "list", "tables").stdout
    yard.weft.start()  # or the engine would wait for it at its end
