"""weft beside firewalld, on real engines: what goes on, what stays closed, and what is left behind: nothing."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from ipaddress import ip_address

import pytest

from tests.engine.conftest import engine_root
from tests.engine.scene import SOON, Scene, scene
from tests.lab.engine import Engine
from tests.lab.firewalld import Bus, Firewalld
from tests.lab.matrix import both_engines
from tests.lab.net import HERE
from tests.lab.node import Node
from tests.lab.ovs import Ovs
from tests.lab.wait import WaitedInVainError, await_
from tests.lab.weft import Weft
from tests.libnetwork import Libnetwork
from tests.matrix.docker import run, set_br_netfilter
from tests.matrix.traffic import OPEN, PORT, REFUSED, SILENT, Knock
from tests.netns import sh

pytestmark = [pytest.mark.engine, pytest.mark.firewalls]


@dataclass(frozen=True, slots=True)
class Ruled:
    """A Docker host where firewalld rules; ``before`` is what it had when weft came."""

    before: tuple[str, ...]
    bus: Bus
    firewalld: Firewalld
    engine: Engine
    weft: Weft

    @property
    def node(self) -> Node:
        """Its node."""
        return self.engine.node

    def await_before(self) -> None:
        """Wait until firewalld has what it had."""
        try:
            await_(lambda: operators(self.firewalld) == self.before, SOON, "firewalld to be as before")
        except WaitedInVainError:
            assert operators(self.firewalld) == self.before
            raise

    def in_zone(self, link: str) -> bool:
        """Tell whether a link is in zone weft, as nft has it: firewall-cmd takes half a second to say so."""
        table = self.node.beside.run("nft", "list", "table", "inet", "firewalld", check=False).stdout
        return f'iifname "{link}" goto filter_FWD_weft' in table


def operators(firewalld: Firewalld) -> tuple[str, ...]:
    """Return all that firewalld has, on disk and now, but for Docker's zone.

    After a reload, Docker 20.10 also puts bridges into it whose networks are gone.
    """
    return tuple(line for line in firewalld.everything().splitlines() if not line.startswith("zone docker "))


class RuledHosts:
    """The module's hosts, one per engine, made when first asked for."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._hosts: dict[str, Ruled] = {}

    def get(self, version: str) -> Ruled:
        """Return the host with that engine."""
        if version not in self._hosts:
            enter = self._stack.enter_context
            node = enter(Node(f"ruled{version}", engine_root(version)))
            bus = enter(Bus(node))
            firewalld, engine = enter(Firewalld(bus)), enter(Engine(node))
            engine.load_image()
            await_(lambda: "docker0" in firewalld.everything(), SOON, "Docker's zone")
            weft = enter(Weft(node, settings=bus.environment))
            self._hosts[version] = Ruled(operators(firewalld), bus, firewalld, engine, weft)
        return self._hosts[version]


@pytest.fixture(scope="module")
def ruled_hosts() -> Iterator[RuledHosts]:
    with ExitStack() as stack:
        yield RuledHosts(stack)


@pytest.fixture
def ruled(ruled_hosts: RuledHosts, engine_version: str) -> Iterator[Ruled]:
    """Yield a host with firewalld, and see to it that its operator's zones stay as they are."""
    host = ruled_hosts.get(engine_version)
    yield host
    host.engine.clean()
    host.await_before()


@pytest.fixture
def stage(ruled: Ruled) -> Iterator[Scene]:
    with scene(ruled.engine, ruled.weft) as stage:
        yield stage


@both_engines
def test_a_network_goes_on_whatever_is_done_to_firewalld(ruled: Ruled, stage: Scene) -> None:
    stage.check()
    for how in ("--reload", "--complete-reload"):
        ruled.firewalld.cmd(how)
        stage.await_whole()
    ruled.firewalld.restart()
    stage.await_whole()
    ruled.engine.restart()
    stage.start_again()
    stage.await_whole()
    ruled.weft.stop()
    ruled.firewalld.cmd("--reload")  # and nobody is told
    ruled.weft.start()
    stage.await_whole()
    assert stage.warnings() == []
    assert stage.notes() == []


@both_engines
def test_what_is_closed_stays_closed_in_the_zone(ruled: Ruled, stage: Scene) -> None:
    """The zone accepts everything, and so does the policy into it: table inet weft has the verdicts."""
    engine = ruled.engine
    for name, args in (("two", ["-d", "weft"]), ("inside", ["-d", "weft", "--internal"]), ("theirs", [])):
        engine.docker("network", "create", *args, name)
    two, inside, theirs = (run(engine, stage.traffic, f"in-{name}", name) for name in ("two", "inside", "theirs"))
    with inside.spot.entered():  # an intruder's: Docker gives it none
        sh("ip", "route", "add", "default", "via", str(ip_address(inside.addresses[4]) - 1))
    set_br_netfilter(ruled.node, 1)  # what goes through a bridge meets firewalld, too
    closed = [(stage.ann, two), (two, stage.ann), (stage.ann, theirs), (theirs, stage.ann), (inside, stage.ann)]
    knocks = [Knock(one.spot, other.addresses[4], "tcp", wanted=SILENT) for one, other in closed]
    knocks += [Knock(stage.lan, inside.addresses[4], "tcp", wanted=SILENT)]
    knocks += [Knock(two.spot, "192.0.2.2", "tcp", wanted=OPEN), Knock(inside.spot, "192.0.2.2", "tcp", wanted=SILENT)]
    stage.check([*stage.all(), *knocks])


@both_engines
def test_a_routed_port_is_reached_at_the_containers_address(ruled: Ruled, stage: Scene) -> None:
    """Nothing is translated there, so that it is the policy weft-forwarding that lets it through."""
    mode = "com.docker.network.bridge.gateway_mode_ipv4=routed"
    ruled.engine.docker("network", "create", "-d", "weft", "-o", mode, "routed")
    rita = run(ruled.engine, stage.traffic, "rita", "routed", "-p", f"{PORT}:{PORT}")
    (address,) = rita.addresses.values()
    knock = Knock(stage.lan, address, "tcp", PORT, OPEN)
    stage.check([knock])
    ruled.firewalld.cmd("--policy=weft-forwarding", "--remove-ingress-zone=ANY")
    stage.check([replace(knock, wanted=REFUSED)])
    ruled.weft.cli("reconcile")
    stage.await_whole([knock])
    ruled.firewalld.cmd("--reload")
    stage.await_whole([knock])


def test_a_relayed_port_is_the_hosts_own_and_opened_like_one(ruled: Ruled, stage: Scene) -> None:
    """NAT cannot lead an IPv6 client to a container with IPv4 only: weft's own socket is what he reaches."""
    ruled.engine.docker("network", "create", "-d", "weft", "four")
    run(ruled.engine, stage.traffic, "fay", "four", "-p", f"9090:{PORT}")
    over4, over6 = (Knock(stage.lan, here, "tcp", 9090, OPEN) for here in (HERE[4], HERE[6]))
    stage.check([over4, replace(over6, wanted=REFUSED)])
    ruled.firewalld.cmd("--zone=public", "--add-port=9090/tcp")
    stage.check([over4, over6])
    ruled.firewalld.cmd("--zone=public", "--remove-port=9090/tcp")


@both_engines
def test_the_last_network_leaves_nothing_in_firewalld(ruled: Ruled) -> None:
    for name in ("one", "two"):
        ruled.engine.docker("network", "create", "-d", "weft", name)
    ruled.engine.docker("network", "rm", "one")
    assert "weft" in ruled.firewalld.cmd("--get-zones").split()
    ruled.engine.docker("network", "rm", "two")
    ruled.await_before()
    assert not list(ruled.firewalld.config.glob("*/weft*.xml"))


def test_a_network_on_open_vswitch_is_let_through_as_well(ruled: Ruled) -> None:
    with Ovs(ruled.node), scene(ruled.engine, ruled.weft, "-o", "weft.backend=ovs") as stage:
        stage.check()
        ruled.firewalld.cmd("--reload")
        stage.await_whole()


def test_uninstall_leaves_nothing_in_firewalld() -> None:
    with Node("left") as node, Bus(node) as bus, Firewalld(bus) as firewalld, Weft(node) as weft:
        before = firewalld.everything()
        with Libnetwork(weft.socket, netns=node.netns) as player:
            player.create_network()
            assert "zone weft" in firewalld.everything()
        weft.stop()
        weft.cli("uninstall")
        assert firewalld.everything() == before


def test_an_unrelated_change_costs_nothing(ruled: Ruled, stage: Scene) -> None:
    weft = ruled.weft

    def spent() -> tuple[dict[str, int], int]:
        operations = json.loads(weft.cli("status", "--json", check=False).stdout)["operations"]
        return {name: operations[name] for name in ("nft", "firewalld", "store")}, len(weft.log_text())

    def cost(*changes: str) -> tuple[dict[str, int], bool]:
        before, said = spent()
        for change in changes:
            ruled.firewalld.cmd(*change.split())
        after, says = spent()
        return {name: after[name] - before[name] for name in after}, says > said

    unrelated = ("--zone=public --add-service=http", "--zone=public --remove-service=http")
    # what such a change costs is what nothing costs; a look that falls due in between, once a minute, is not its doing
    assert any(cost(*unrelated) == cost() for _ in range(3)), (cost(*unrelated), cost())


def test_a_firewalld_that_comes_later_is_found(ruled: Ruled) -> None:
    ruled.firewalld.stop()
    ruled.engine.restart()  # for firewalld has taken Docker's chains along
    try:
        with scene(ruled.engine, ruled.weft) as stage:
            stage.check()
            ruled.firewalld.start()  # and takes them again
            await_(lambda: ruled.in_zone(stage.link), SOON, "the link to be put into the zone")
            ruled.engine.restart()
            stage.start_again()
            stage.await_whole()
            assert stage.notes() == []
    finally:
        if not ruled.firewalld.is_running:
            ruled.firewalld.start()


def test_a_firewalld_that_goes_takes_dockers_answer_along_which_is_told(ruled: Ruled, stage: Scene) -> None:
    """FORWARD goes on dropping, and there is no DOCKER-USER: so it is for Docker's own networks, too (20.10)."""
    ruled.firewalld.stop()
    try:
        stage.await_whole([*stage.into(6), *stage.out(6)])  # this Docker has nothing to do with IPv6
        (note,) = await_(stage.notes, SOON, "the note")
        assert "the FORWARD policy of iptables drops IPv4" in note
        ruled.node.run("sh", "-ec", note.split("`")[1])
        stage.check()
        assert stage.notes() == []
    finally:
        ruled.firewalld.start()
    stage.await_whole()


def test_a_firewalld_that_hangs_holds_up_no_network() -> None:
    """Without dockerd, which itself waits for firewalld then (20.10: 25 s for each rule)."""
    with (
        Node("hung") as node,
        Bus(node) as bus,
        Firewalld(bus) as firewalld,
        Weft(node) as weft,
        Libnetwork(weft.socket, netns=node.netns) as player,
    ):
        firewalld.hang()
        player.create_network()
        (line,) = (line for line in weft.log_text().splitlines() if "a firewall stands in the way" in line)
        assert "cannot reach it" in line
        assert weft.cli("status").returncode == 0  # the host is as can be wanted
        firewalld.wake()
        await_(lambda: "wfb" in firewalld.cmd("--zone=weft", "--list-interfaces", check=False), SOON, "the link")


def test_the_line_to_type_where_firewalld_cannot_be_reached_opens_the_way_out(ruled: Ruled) -> None:
    """As in a container without the host's /run: the rules are there, the bus is not."""
    ruled.weft.stop()
    said = len(ruled.weft.log_text())
    apart = Weft(ruled.node, settings={"DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/nonexistent"})
    try:
        apart.start()
        with scene(ruled.engine, apart) as stage:
            assert [knock.partition(":")[2] for knock in stage.traffic.surprises(stage.out())]
            (line,) = stage.warnings(said)
            (note,) = stage.notes()
            typed = note.split("`")[1]
            assert typed in line.replace("\\", "")
            ruled.firewalld.type(typed)
            stage.check()
            assert stage.notes() == []
            ruled.firewalld.cmd("--reload")
            stage.await_whole()
            ruled.engine.docker("network", "create", "-d", "weft", "two")
            assert len(stage.warnings(said)) == 1
    finally:
        apart.stop()
        (ruled.firewalld.config / "zones/trusted.xml").unlink(missing_ok=True)
        ruled.firewalld.cmd("--reload")
        ruled.weft.start()


def test_a_link_that_the_operator_put_elsewhere_is_left_and_told(ruled: Ruled, stage: Scene) -> None:
    ruled.firewalld.cmd("--zone=internal", f"--change-interface={stage.link}")
    ruled.weft.cli("reconcile")
    assert not ruled.in_zone(stage.link)
    (note,) = stage.notes()
    assert "zone internal" in note
    ruled.firewalld.type(note.split("`")[1])
    assert ruled.in_zone(stage.link)
    stage.check()
    assert stage.notes() == []
