"""`weft uninstall`, the command alone: everything with our store's mark goes, and nothing else."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.conftest import look
from tests.lab.engine import Engine
from tests.lab.node import Node
from tests.lab.process import How
from tests.lab.snapshot import Snapshot, snapshot
from tests.lab.talk import start
from tests.lab.wait import await_
from tests.lab.weft import CONTROL, SOCKET, STATE, Weft

pytestmark = pytest.mark.plugin

GROUP = "22511"
FORCE = "net/ipv6/conf/all/force_forwarding"


class Host:
    """A node with an engine and a weft that an operator started, and the command as a file."""

    def __init__(self, engine: Engine, command: Path) -> None:
        self.engine = engine
        self.node: Node = engine.node
        self.weft = Weft(engine.node)
        self._command = command

    def uninstall(self, *args: str, code: int = 0) -> str:
        """Run `weft uninstall ARGS`, which has to end with that code; return all it says."""
        how: How = {"check": False, "env": self.weft.environment}
        done = self.node.run("/usr/bin/python3", self._command, "uninstall", *args, **how)
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def left(self) -> list[str]:
        """Return the links in weft's group."""
        found = json.loads(self.node.run("ip", "-j", "link", "show", "group", GROUP).stdout)
        return [one["ifname"] for one in found if one]  # iproute2 prints {} for what it leaves out

    def switch(self, path: str) -> str:
        """Return a switch under /proc/sys."""
        return self.node.run("cat", f"/proc/sys/{path}").stdout.strip()


@pytest.fixture
def host(private_engine: Engine, command: Path) -> Iterator[Host]:
    """Yield a host with one network, IPv6 on it, and one container, with a published port."""
    host = Host(private_engine, command)
    host.weft.start()
    subnets = ("--ipv6", "--subnet", "10.77.0.0/24", "--subnet", "fd00:77::/64")
    private_engine.docker("network", "create", "-d", "weft", *subnets, "meadow")
    start(private_engine, "hare", "meadow", "-p", "8080:9000")
    yield host
    if not host.weft.is_running:
        host.weft.start()  # the engine is cleaned by it


def test_it_refuses_while_somebody_needs_it(host: Host) -> None:
    before = snapshot(host.node)
    assert "a weft is running" in host.uninstall(code=2)
    assert "a weft is running" in host.uninstall("--dry-run", code=2)
    host.weft.stop()
    said = host.uninstall(code=2)
    assert "running containers would lose their network, by 1 link of weft's (wfh" in said
    assert not before.difference(snapshot(host.node))


def test_a_dry_run_says_all_of_it_and_changes_nothing(host: Host) -> None:
    host.weft.stop()
    before = snapshot(host.node)
    said = host.uninstall("--dry-run", "--force", "--purge", code=1)
    for line in (
        "ip link del wfh",
        "ip link del wfb",
        "nft delete table inet weft",
        "iptables -F WEFT",
        f"rm {STATE}/weft.db",
        f"sysctl -w {FORCE}=0",
    ):
        assert line in said
    assert not before.difference(snapshot(host.node))


def test_what_is_weft_s_goes_and_everything_else_stays(host: Host) -> None:
    node = host.node
    strangers(node)
    before = host.switch(FORCE)
    expected = look(node)
    host.weft.stop()
    host.uninstall("--force")
    after = look(node)
    gone = expected.difference(after)
    assert all(line.startswith("  -") or line.endswith(":") for line in gone.splitlines()), gone
    assert set(host.left()) == {"unmarked0", "another0"}
    assert "user-rule" in node.run("iptables", "-S", "DOCKER-USER").stdout
    assert "WEFT" not in node.run("iptables-save").stdout + node.run("ip6tables-save").stdout
    assert "weft" not in node.run("nft", "list", "tables").stdout.replace("weftless", "")
    assert "weftless" in node.run("nft", "list", "tables").stdout
    assert (before, host.switch(FORCE)) == ("1", "0")
    assert node.path(f"{STATE}/weft.db").exists()
    assert not node.path(SOCKET).exists()
    assert not node.path(CONTROL).parent.exists()
    assert "nothing of weft is left" in host.uninstall()
    host.weft.start()  # and it could come back: its networks are still promised
    await_(lambda: len(host.left()) > 2, 20, "the bridge")


def strangers(node: Node) -> None:
    """Put things on a host that look like weft's, and are somebody else's."""
    for line in (
        "ip link add unmarked0 group 22511 type bridge",
        "ip link add another0 group 22511 alias weft:0a0b0c0d:abc: type bridge",
        "ip link add wfb0123456789ab type bridge",
        "nft add table inet weftless",
        "iptables -I DOCKER-USER -i lo -m comment --comment user-rule -j RETURN",
    ):
        node.run(*line.split())


def test_a_switch_that_somebody_set_since_is_not_given_back(host: Host) -> None:
    host.weft.stop()
    node, default = host.node, "net/ipv6/conf/default/force_forwarding"
    found = host.uninstall("--dry-run", "--force", code=1)
    assert f"sysctl -w {default}=0" in found
    node.run("sh", "-c", f"echo 0 >/proc/sys/{default}; echo 0 >/proc/sys/{FORCE}")
    assert "sysctl" not in host.uninstall("--dry-run", "--force", code=1)


def test_of_a_store_that_is_lost_the_id_tells(host: Host) -> None:
    host.weft.stop()
    for path in (host.node.disk / STATE.lstrip("/")).glob("weft.db*"):
        path.rename(path.with_name(f"lost-{path.name}"))
    said = host.uninstall("--force", code=2)
    assert "give its id with --store" in said
    shown = host.node.run("ip", "-d", "link", "show", "group", GROUP).stdout
    ident = shown.partition("alias weft:")[2].partition(":")[0]
    host.uninstall("--force", "--store", ident)
    assert host.left() == []
    for path in (host.node.disk / STATE.lstrip("/")).glob("lost-*"):
        path.rename(path.with_name(path.name.removeprefix("lost-")))


def test_an_adopted_bridge_stays_without_what_weft_added(host: Host) -> None:
    node, engine = host.node, host.engine
    for line in ("ip link add lan7 type bridge", "ip link set lan7 up", "ip address add 10.78.0.9/24 dev lan7"):
        node.run(*line.split())
    before: Snapshot = look(node)
    named = ("-o", "com.docker.network.bridge.name=lan7", "--subnet", "10.78.0.0/24", "--gateway", "10.78.0.1")
    engine.docker("network", "create", "-d", "weft", *named, "lan")
    assert "10.78.0.1/24" in node.run("ip", "-br", "address", "show", "lan7").stdout
    host.weft.stop()
    host.uninstall("--force")
    shown = node.run("ip", "-br", "address", "show", "lan7").stdout
    assert "10.78.0.9/24" in shown
    assert "10.78.0.1/24" not in shown
    assert any(line.startswith("lan7") for line in before.links)
