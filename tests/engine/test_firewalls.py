"""What others do to iptables, nft and ufw, with real traffic: what was flushed is whole again, what is shut is told."""

from collections.abc import Iterator

import pytest

from tests.engine.scene import Scene, scene
from tests.lab.engine import Engine
from tests.lab.matrix import both_engines
from tests.lab.node import Node
from tests.lab.weft import Weft
from tests.matrix.traffic import OPEN, SILENT

pytestmark = [pytest.mark.engine, pytest.mark.firewalls]


@pytest.fixture
def stage(private_engine: Engine, private_weft: Weft) -> Iterator[Scene]:
    """Set the scene on a host of the test's own."""
    with scene(private_engine, private_weft) as stage:
        yield stage


def jumps(node: Node, chain: str) -> int:
    """Return how often a chain leads to WEFT."""
    return node.run("iptables", "-S", chain, check=False).stdout.count("-j WEFT")


@both_engines
def test_a_network_is_whole_again_after_every_flush(stage: Scene) -> None:
    """Docker's own networks are not, until dockerd has put its rules back."""
    node = stage.engine.node
    stage.check()
    for flush in (
        "iptables -F",
        "iptables -F FORWARD",
        "iptables -F DOCKER-USER",
        "ip6tables -F",
        "iptables -F; ip6tables -F; nft flush ruleset",
    ):
        node.run("sh", "-c", flush)
        stage.await_whole()
        if flush == "iptables -F":
            assert jumps(node, "FORWARD") == 1
        stage.engine.restart()  # which puts back what is Docker's
        stage.start_again()
        stage.await_whole()
        assert (jumps(node, "FORWARD"), jumps(node, "DOCKER-USER")) == (0, 1)
    assert stage.notes() == []


def test_in_legacy_tables_too_by_looking_once_a_second(private_node: Node) -> None:
    for name in ("iptables", "ip6tables"):
        private_node.run("update-alternatives", "--set", name, f"/usr/sbin/{name}-legacy")
    with Engine(private_node) as engine, Weft(private_node) as weft:
        engine.load_image()
        with scene(engine, weft) as stage:
            assert "DOCKER-USER" in private_node.run("iptables-legacy", "-S").stdout
            stage.check()
            for flush in ("iptables -F", "iptables -F DOCKER-USER", "iptables -F WEFT"):
                private_node.run("sh", "-c", flush)
                stage.await_whole()
            assert private_node.run("iptables-nft", "-S", "FORWARD").stdout == "-P FORWARD ACCEPT\n"


@pytest.fixture
def ufw(private_node: Node) -> Iterator[Node]:
    """Yield a node with ufw, as Debian has it: what is routed is dropped."""
    private_node.run("ufw", "--force", "enable")
    yield private_node
    private_node.run("ufw", "disable")


def test_beside_ufw_ipv4_is_open_and_ipv6_is_told_with_the_command_that_opens_it(ufw: Node, stage: Scene) -> None:
    """Docker 20.10 has a DOCKER-USER for IPv4 only."""
    closed = [stage.out(6)[0], stage.into(6)[0]]
    assert stage.traffic.seen(closed) == [SILENT, SILENT]
    stage.check(stage.all(4))
    (line,) = stage.warnings()
    (note,) = stage.notes()
    typed = note.split("`")[1]
    assert typed == f"ufw route allow in on {stage.link} && ufw route allow out on {stage.link}"
    assert typed in line
    assert "ufw drops IPv6" in line
    ufw.run("sh", "-ec", typed)
    stage.check()
    assert stage.notes() == []
    ufw.run("ufw", "reload")
    stage.await_whole()
    ufw.run("ufw", "disable")
    ufw.run("ufw", "--force", "enable")
    stage.await_whole()
    stage.engine.docker("network", "create", "-d", "weft", "--internal", "--ipv6", "--subnet", "fd07:2::/64", "inside")
    stage.engine.docker("network", "create", "-d", "weft", "four")
    assert len(stage.warnings()) == 1, "nobody has to be told of a network that ufw does not concern"


def test_ufw_that_is_switched_on_later_is_noted(stage: Scene) -> None:
    node = stage.engine.node
    stage.check()
    node.run("ufw", "--force", "enable")
    try:
        stage.await_whole(stage.all(4))
        (note,) = stage.notes()
        assert "ufw drops IPv6" in note
    finally:
        node.run("ufw", "disable")
    stage.await_whole()
    assert stage.notes() == []


def test_where_docker_leaves_iptables_alone_both_versions_are_told(ufw: Node) -> None:
    with Engine(ufw, "--iptables=false") as engine, Weft(ufw) as weft:
        engine.load_image()
        with scene(engine, weft) as stage:
            assert set(stage.traffic.seen([*stage.out(), *stage.into()])) == {SILENT}
            assert len(stage.warnings()) == 2
            for note in stage.notes():
                ufw.run("sh", "-ec", note.split("`")[1])
            stage.check()
            assert stage.notes() == []


def test_a_forward_that_somebody_closed_by_hand_is_told_with_the_rules_that_open_it(private_node: Node) -> None:
    private_node.run("ip6tables", "-P", "FORWARD", "DROP")
    with Engine(private_node) as engine, Weft(private_node) as weft:
        engine.load_image()
        with scene(engine, weft) as stage:
            (line,) = stage.warnings()
            assert "the FORWARD policy of ip6tables drops IPv6" in line
            (note,) = stage.notes()
            private_node.run("sh", "-ec", note.split("`")[1])
            stage.check()


def test_a_ruleset_of_the_operators_own_in_nft_stays_his(stage: Scene) -> None:
    """A drop is final in any base chain: his decides, and docs/firewalls.md has the line that he may add."""
    node = stage.engine.node
    node.run(
        "nft", "add table inet theirs; add chain inet theirs f { type filter hook forward priority 0; policy drop; }"
    )
    assert set(stage.traffic.seen(stage.out())) == {SILENT}
    theirs = node.run("nft", "list", "table", "inet", "theirs").stdout
    for way in ("iifgroup", "oifgroup"):
        node.run("nft", f"add rule inet theirs f {way} 0x57ef accept")
    assert [one.startswith(OPEN) for one in stage.traffic.seen([*stage.out(), *stage.into()])] == [True] * 4
    assert theirs.splitlines()[:3] == node.run("nft", "list", "table", "inet", "theirs").stdout.splitlines()[:3]
    stage.check()
