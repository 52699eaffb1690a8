"""The lab itself, with Docker's own bridge: what the other engine tests rest on."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.engine import Engine
from tests.lab.image import NAME
from tests.lab.machine import Machine, machine, sweep
from tests.lab.matrix import both_engines
from tests.lab.names import DISKS
from tests.lab.net import RUN_NETNS, Neighbour, NetNs, add_netns
from tests.lab.node import Node
from tests.lab.process import CommandFailedError, Process, exists, family
from tests.lab.snapshot import snapshot
from tests.lab.wait import WaitedInVainError, await_
from tests.lab.weft import Weft

pytestmark = pytest.mark.engine

STAND_IN = '''\
#!{python}
"""Plays weft: a first process and its worker, which answers on the socket of a plugin."""
import http.server, os, pathlib, signal, socketserver, sys, time

class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        answer = " ".join(sorted(os.listdir("/sys/class/net"))).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def address_string(self):
        return "docker"

if sys.argv[1] != "serve":
    print(*sys.argv[1:], os.environ["WEFT_CONTROL"])
    sys.exit(0)
socket = pathlib.Path(os.environ["WEFT_SOCKET"])
socket.parent.mkdir(parents=True, exist_ok=True)
socket.unlink(missing_ok=True)
state = pathlib.Path(os.environ["WEFT_STATE_DIR"])
state.mkdir(parents=True, exist_ok=True)
(state / "starts").open("a").write("start\\n")
worker = os.fork()
if worker:
    signal.signal(signal.SIGTERM, lambda *_: os.kill(worker, signal.SIGTERM))
    os.wait()
else:
    socketserver.UnixStreamServer(str(socket), Handler).serve_forever()
'''


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """Return a program that plays weft."""
    program = tmp_path / "weft"
    program.write_text(STAND_IN.format(python=sys.executable), encoding="utf-8")
    program.chmod(0o755)
    return program


@pytest.fixture
def net() -> Iterator[NetNs]:
    with NetNs("net") as net:
        yield net


@both_engines
def test_the_engine_is_the_one_that_was_asked_for(engine: Engine, engine_version: str) -> None:
    assert engine.version.startswith({"20": "20.10.24", "28": "28.5."}[engine_version])
    assert engine.docker("version", "--format", "{{.Client.Version}}").startswith(engine.version)


@both_engines
def test_forward_policy_is_drop(engine: Engine) -> None:
    assert "-P FORWARD DROP" in engine.node.run("iptables", "-S", "FORWARD").stdout


@both_engines
def test_containers_meet_by_name_and_reach_the_neighbour(engine: Engine, neighbour: Neighbour, tmp_path: Path) -> None:
    engine.docker("network", "create", "meadow")
    for name in ("hare", "hedgehog"):
        engine.docker("run", "-d", "--name", name, "--network", "meadow", NAME)
    assert "1 packets received" in engine.docker("exec", "hare", "ping", "-c1", "-W5", "hedgehog")
    assert "1 packets received" in engine.docker("exec", "hare", "ping", "-c1", "-W5", str(neighbour.v4))
    # and the other way round: a published port, from next door
    engine.docker("run", "-d", "--name", "fox", "-p", "8080:80", NAME, "httpd", "-f", "-h", "/www")
    fetch = (
        f"import urllib.request as r; print(r.urlopen('http://{neighbour.node_v4}:8080', timeout=5).read().decode())"
    )
    assert neighbour.run(sys.executable, "-c", fetch).stdout.strip() == "weft-lab"


@both_engines
def test_a_container_ends_at_once_when_it_is_told_to(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "hare", NAME)
    engine.docker("stop", "--time", "60", "hare", timeout=20)
    assert engine.docker("inspect", "--format", "{{.State.ExitCode}}", "hare") == "0"


@both_engines
def test_power_comes_back_and_a_restarting_container_with_it(private_engine: Engine) -> None:
    engine, node = private_engine, private_engine.node
    engine.docker("network", "create", "meadow")
    engine.docker("run", "-d", "--restart=always", "--name", "hare", "--network", "meadow", NAME)
    engine.docker("run", "-d", "--name", "hedgehog", "--network", "meadow", NAME)
    inside = family(node.pid)
    assert len(inside) > 4
    node.power_off()
    assert not any(map(exists, inside))
    assert not engine.is_running
    node.up()
    engine.start()

    def running() -> bool:
        return engine.docker("ps", "--format", "{{.Names}}") == "hare"

    await_(running, 30, "the container with restart=always")
    assert "-P FORWARD DROP" in node.run("iptables", "-S", "FORWARD").stdout


@both_engines
def test_containers_outlive_a_killed_dockerd_with_live_restore(private_node: Node) -> None:
    with Engine(private_node, live_restore=True) as engine:
        engine.load_image()
        engine.docker("run", "-d", "--name", "hare", NAME)
        pid = engine.docker("inspect", "--format", "{{.State.Pid}}", "hare")
        engine.kill()
        assert private_node.path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"/bin/sh")
        engine.start()
        assert engine.docker("inspect", "--format", "{{.State.Pid}}", "hare") == pid


@both_engines
def test_the_neighbour_is_reached_in_both_families_and_again_after_a_power_off(private_node: Node) -> None:
    with Neighbour(private_node) as neighbour:
        for again in (False, True):
            if again:
                private_node.power_off()
                private_node.up()
                neighbour.plug()
            for far, near in ((neighbour.v4, neighbour.node_v4), (neighbour.v6, neighbour.node_v6)):
                connect = "import socket, sys; socket.create_connection((sys.argv[1], 9), 5)"
                with pytest.raises(CommandFailedError, match="refused"):  # which is an answer
                    neighbour.run(sys.executable, "-c", connect, str(near))
                with pytest.raises(CommandFailedError, match="refused"):
                    private_node.beside.run(sys.executable, "-c", connect, str(far))


@both_engines
def test_the_machine_does_not_notice(
    private_engine: Engine, machine_unnoticing: Machine, net: NetNs, tmp_path: Path
) -> None:
    private_engine.docker("run", "-d", "-p", "8080:80", NAME)
    net.spawn("sleep", "1000", log=tmp_path / "log")
    now = machine()
    assert now.links == machine_unnoticing.links
    assert now.rules == machine_unnoticing.rules
    assert any(net.netns in trace for trace in now.traces)
    await_(lambda: any("sleep 1000" in trace for trace in machine().traces), 10, "sleep to be seen as what it is")


@both_engines
def test_a_snapshot_tells_what_came_and_what_went(private_engine: Engine) -> None:
    node = private_engine.node
    before = snapshot(node)
    assert before.difference(snapshot(node)) == ""
    node.run("ip", "link", "add", "wf0", "type", "bridge")
    node.run("ip", "link", "set", "wf0", "group", "22511", "up")
    node.run("ip", "address", "add", "10.9.8.1/24", "dev", "wf0")
    node.run("nft", "add table inet weft; add chain inet weft forward")
    node.run("iptables", "-A", "DOCKER-USER", "-j", "ACCEPT")
    node.run("iptables", "-D", "FORWARD", "-j", "DOCKER-USER")
    said = before.difference(snapshot(node))
    for line in (
        "+ wf0 master None group 22511",
        "+ wf0 10.9.8.1/24",
        "+ -4 10.9.8.0/24 dev wf0 scope link src 10.9.8.1",
        "+ table inet weft {",
        "+ -A DOCKER-USER -j ACCEPT",
        "- -A FORWARD -j DOCKER-USER",
    ):
        assert line in said


@both_engines
def test_weft_lives_dies_and_lives_again(private_node: Node, stand_in: Path) -> None:
    with Weft(private_node, program=stand_in) as weft:
        with Neighbour(private_node):
            # it sees the node's links, also in /sys, and its socket lies where the node's dockerd looks for it
            assert b"lan0" in weft.call("Plugin.Activate").body
        assert private_node.run("test", "-S", "/run/docker/plugins/weft.sock").returncode == 0
        assert weft.cli("status", "--json").stdout.startswith("status --json")
        members = family(weft.pid)
        assert len(members) == 2
        weft.kill()
        assert not any(map(exists, members))
        weft.start()
        assert weft.stop() == 0
        weft.start()
        pid = weft.pid
        private_node.power_off()
        assert not exists(pid)
        assert not weft.is_running
        private_node.up()
        weft.start()
    assert (private_node.disk / "var/lib/weft/starts").read_text(encoding="utf-8").splitlines() == ["start"] * 4


def test_what_a_killed_session_left_is_swept(private_node: Node, tmp_path: Path) -> None:
    with Process(["true"], tmp_path / "log", None, forks=False) as process:
        process.wait()
    name = f"wl-orphan-{process.pid}"
    add_netns(name)
    (DISKS / name / "overlay").mkdir(parents=True)
    sweep()
    assert not (RUN_NETNS / name).exists()
    assert not (DISKS / name).exists()
    assert private_node.is_up
    assert private_node.disk.exists()


def test_waiting_says_what_did_not_come() -> None:
    with pytest.raises(WaitedInVainError, match=r"waited 0\.1 s for Godot"):
        await_(lambda: False, 0.1, "Godot")
