"""`weft serve` as a process, and the first commands: what an operator meets before any container does."""

import json
import re
import shutil
import socket
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.breakable import breakable_host
from tests.engine.conftest import Host
from tests.lab.engine import Engine
from tests.lab.image import NAME
from tests.lab.matrix import both_engines
from tests.lab.names import BIN
from tests.lab.node import Node
from tests.lab.unixhttp import call
from tests.lab.wait import await_
from tests.lab.weft import CONTROL, SOCKET, STATE, Weft

pytestmark = pytest.mark.engine

NETWORK, ENDPOINT = "4e" * 32, "e1" * 32
BRIDGE = f"wfb{NETWORK[:12]}"
OF_NETWORK = {"NetworkID": NETWORK}
OF_ENDPOINT = {**OF_NETWORK, "EndpointID": ENDPOINT}
CREATE_NETWORK = {
    **OF_NETWORK,
    "Options": {"com.docker.network.enable_ipv6": False, "com.docker.network.generic": {}},
    "IPv4Data": [{"AddressSpace": "LocalDefault", "Pool": "10.9.0.0/24", "Gateway": "10.9.0.1/24"}],
    "IPv6Data": [],
}
CREATE_ENDPOINT = {
    **OF_ENDPOINT,
    "Interface": {"Address": "10.9.0.2/24", "AddressIPv6": "", "MacAddress": ""},
    "Options": {},
}


@pytest.fixture
def alone(private_node: Node) -> Iterator[Weft]:
    """Yield a weft on a node without dockerd, which looks at the host by itself once an hour."""
    with Weft(private_node, settings={"WEFT_RECONCILE_INTERVAL": "3600"}) as weft:
        yield weft


@pytest.fixture
def breakable(private_node: Node) -> Iterator[Host]:
    """Yield a whole host, to be broken."""
    with breakable_host(private_node) as host:
        yield host


def ask(weft: Weft, method: str, body: object = None) -> dict[str, Any]:
    """Make a call as Docker does, and return the answer, which may be an error."""
    reply = weft.call(method, body)
    assert reply.status == 200, reply
    answer: dict[str, Any] = reply.json
    return answer


def inner_pid(pid: int) -> int:
    """Return the pid that a process has in its own node (proc(5), NSpid)."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(re.findall(r"^NSpid:.*\s(\d+)$", text, re.MULTILINE)[0])


def links(node: Node) -> dict[str, Any]:
    """Return what was decided about the node's links, by name."""
    keys = ("ifindex", "master", "group", "mtu", "address", "ifalias")
    found = json.loads(node.run("ip", "-j", "-d", "address").stdout)
    return {
        link["ifname"]: {
            **{key: link.get(key) for key in keys},
            "addresses": [f"{one['local']}/{one['prefixlen']}" for one in link["addr_info"]],
        }
        for link in found
    }


# -- one weft, two sockets ------------------------------------------------------------------------------------------


def test_a_second_weft_says_who_is_there_and_binds_nothing(alone: Weft) -> None:
    bound = [alone.node.path(path).stat().st_ino for path in (SOCKET, CONTROL)]
    elsewhere = {"WEFT_SOCKET": "/run/second/weft.sock", "WEFT_CONTROL": "/run/second/control.sock"}
    for settings in ({}, elsewhere):
        second = alone.place.run(alone.program, "serve", check=False, env=alone.environment | settings)
        assert second.returncode == 2
        assert f"already running, pid {inner_pid(alone.pid)} " in second.stderr
    assert [alone.node.path(path).stat().st_ino for path in (SOCKET, CONTROL)] == bound
    assert not alone.node.path("/run/second/weft.sock").exists()
    assert ask(alone, "NetworkDriver.GetCapabilities")["Scope"] == "local"
    assert alone.cli("status").returncode == 0


def test_both_sockets_are_roots_alone(alone: Weft) -> None:
    for path in (SOCKET, CONTROL):
        found = alone.node.path(path).stat()
        assert stat.S_ISSOCK(found.st_mode)
        assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o600, 0)


def test_a_state_directory_that_weft_makes_is_roots_alone(private_node: Node) -> None:
    with Weft(private_node, settings={"WEFT_STATE_DIR": f"{STATE}/own"}):
        assert stat.S_IMODE(private_node.path(f"{STATE}/own").stat().st_mode) == 0o700


ANSWERS = (
    (SOCKET, "POST /Plugin.Activate", 200),
    (SOCKET, "POST /NetworkDriver.CreateNetwork", 200),  # without its body: an error
    (SOCKET, "POST /IpamDriver.RequestPool", 200),
    (SOCKET, "POST /NetworkDriver.NoSuchMethod", 404),
    (CONTROL, "GET /v1/status", 200),
    (CONTROL, "GET /v1/networks/4e4e4e4e", 404),
    (CONTROL, "POST /Plugin.Activate", 404),
)


def test_every_answer_closes_its_connection(alone: Weft) -> None:
    """Else dockerd writes a call into a connection that is being closed, and repeats it without its body."""
    for path, request_line, status in ANSWERS:
        for host in ("", "plugin.moby.localhost"):
            with socket.socket(socket.AF_UNIX) as line:
                line.settimeout(10)
                line.connect(str(alone.node.path(path)))
                line.sendall(f"{request_line} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n".encode())
                said = b""
                while part := line.recv(65536):  # until weft has closed it
                    said += part
            head = said.partition(b"\r\n\r\n")[0].decode().split("\r\n")
            assert head[0].split()[1] == str(status), request_line
            assert "connection: close" in map(str.lower, head), request_line


def test_each_socket_serves_its_own_and_nothing_else(alone: Weft) -> None:
    for path in ("/v1/status", "/v1/networks", "/v1/version"):
        assert call(alone.socket, "GET", path).status == 404
        assert call(alone.node.path(CONTROL), "GET", path).status == 200
    assert call(alone.socket, "POST", "/v1/reconcile").status == 404
    for method in ("Plugin.Activate", "NetworkDriver.GetCapabilities", "NetworkDriver.DeleteNetwork"):
        reply = call(alone.node.path(CONTROL), "POST", f"/{method}", OF_NETWORK)
        assert reply.status == 404
        assert "is not served on" in reply.json["Err"]


# -- settings -------------------------------------------------------------------------------------------------------


def test_check_shows_the_settings_and_starts_nothing(private_node: Node) -> None:
    weft = Weft(private_node, settings={"WEFT_LOG_LEVEL": "debug"})
    shown = weft.cli("serve", "--check", "--reconcile-interval", "7").stdout.splitlines()
    assert f"WEFT_SOCKET={weft.environment['WEFT_SOCKET']}" in shown
    assert "WEFT_LOG_LEVEL=debug" in shown
    assert "WEFT_RECONCILE_INTERVAL=7" in shown
    assert not private_node.path(SOCKET).exists()
    assert not private_node.path(f"{STATE}/weft.db").exists()


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("WEFT_LOG_LEVEL", "loud", "debug or info or warning or error"),
        ("WEFT_RECONCILE_INTERVAL", "0", "5 to 3600"),
        ("WEFT_SOCKET", "weft.sock", "an absolute path"),
        ("WEFT_BACKEND", "carrier-pigeon", "bridge"),
        ("WEFT_SOKCET", "/run/weft.sock", "WEFT_SOCKET"),
    ],
)
def test_a_bad_setting_is_named_before_anything_is_bound(
    private_node: Node, name: str, value: str, allowed: str
) -> None:
    weft = Weft(private_node, settings={name: value})
    for arguments in (["serve"], ["serve", "--check"]):
        done = weft.cli(*arguments, check=False)
        assert done.returncode == 2
        assert name in done.stderr
        assert allowed in done.stderr
        assert "Traceback" not in done.stderr
    assert not private_node.path(SOCKET).exists()


# -- health ---------------------------------------------------------------------------------------------------------


def test_the_exit_code_of_status_is_the_health(alone: Weft) -> None:
    assert ask(alone, "NetworkDriver.CreateNetwork", CREATE_NETWORK) == {}
    assert alone.cli("status").returncode == 0
    alone.node.run("ip", "link", "set", BRIDGE, "mtu", "1400")  # of which nobody is told
    sick = alone.cli("status", check=False)
    assert sick.returncode == 1
    assert BRIDGE in sick.stdout
    told = alone.cli("status", "--json", check=False)
    assert told.returncode == 1
    assert json.loads(told.stdout)["healthy"] is False
    alone.cli("reconcile")
    assert alone.cli("status").returncode == 0
    alone.kill()
    gone = alone.cli("status", check=False)
    assert gone.returncode == 2
    assert "weft does not answer" in gone.stderr or "weft is not running" in gone.stderr


def test_a_dry_run_says_what_it_would_take_and_changes_nothing(alone: Weft) -> None:
    ask(alone, "NetworkDriver.CreateNetwork", CREATE_NETWORK)
    ask(alone, "NetworkDriver.CreateEndpoint", CREATE_ENDPOINT)
    assert "nothing to do" in alone.cli("reconcile", "--dry-run").stdout
    alone.node.run("ip", "link", "set", BRIDGE, "mtu", "1400")
    before = links(alone.node)
    for _ in range(2):
        dry = alone.cli("reconcile", "--dry-run", check=False)
        assert dry.returncode == 1
        assert f"network {NETWORK[:12]}:" in dry.stdout
        assert f" {BRIDGE} " in dry.stdout
        assert "mtu 1400" in dry.stdout
    as_json = json.loads(alone.cli("reconcile", "--dry-run", "--json", check=False).stdout)
    assert [finding["scope"] for finding in as_json] == [f"network {NETWORK[:12]}"]
    assert links(alone.node) == before
    done = alone.cli("reconcile")
    assert f" {BRIDGE} " in done.stdout
    assert links(alone.node)[BRIDGE]["mtu"] == 1500
    assert "nothing to do" in alone.cli("reconcile", "--dry-run").stdout


def test_a_bridge_that_is_deleted_is_back_by_itself_with_its_ports(alone: Weft) -> None:
    ask(alone, "NetworkDriver.CreateNetwork", CREATE_NETWORK)
    ask(alone, "NetworkDriver.CreateEndpoint", CREATE_ENDPOINT)
    before = links(alone.node)[BRIDGE]
    alone.node.run("ip", "link", "del", BRIDGE)

    def back() -> bool:
        now = links(alone.node)
        new = now.get(BRIDGE, before)["ifindex"] != before["ifindex"]
        return bool(new and now[f"wfh{ENDPOINT[:12]}"]["master"] == BRIDGE)

    await_(back, 10, "the bridge and its port")
    await_(lambda: alone.cli("status", check=False).returncode == 0, 10, "health")
    now = links(alone.node)[BRIDGE]
    assert {**now, "ifindex": 0} == {**before, "ifindex": 0}
    assert now["addresses"] == ["10.9.0.1/24"]
    assert f"ip link add {BRIDGE}" in alone.log_text()


@pytest.mark.parametrize("fault", ["garbage", "newer", "directory"])
def test_a_store_that_cannot_be_read_is_refused_with_the_reason(alone: Weft, fault: str) -> None:
    ask(alone, "NetworkDriver.CreateNetwork", CREATE_NETWORK)
    ask(alone, "NetworkDriver.CreateEndpoint", CREATE_ENDPOINT)
    alone.stop()
    before = links(alone.node)
    state = alone.node.disk / STATE.lstrip("/")
    moved = state / "moved.db"
    store = state / "weft.db"
    shutil.copy(store, moved)
    match fault:
        case "garbage":
            store.write_bytes(b"this was a database once" * 1000)
            why = "file is not a database"
        case "newer":
            with sqlite3.connect(store) as database:
                database.execute("PRAGMA user_version = 99")
            database.close()
            why = "was written by a newer weft"
        case _:
            store.unlink()
            store.mkdir()
            why = "unable to open database file"
    for leftover in state.glob("weft.db-*"):
        leftover.unlink()
    alone.start()
    # Docker's handshake goes on: one failing GetCapabilities makes a driver unusable until dockerd restarts
    assert ask(alone, "Plugin.Activate")["Implements"]
    assert ask(alone, "NetworkDriver.GetCapabilities")["Scope"] == "local"
    assert "Error" not in ask(alone, "IpamDriver.GetCapabilities")
    assert ask(alone, "IpamDriver.GetDefaultAddressSpaces")["LocalDefaultAddressSpace"]
    assert ask(alone, "NetworkDriver.EndpointOperInfo", OF_ENDPOINT) in ({}, {"Value": {}})
    for method, body in (
        ("CreateNetwork", CREATE_NETWORK),
        ("CreateEndpoint", CREATE_ENDPOINT),
        ("Join", {**OF_ENDPOINT, "SandboxKey": "/var/run/docker/netns/0123456789ab", "Options": {}}),
        ("Leave", OF_ENDPOINT),
        ("DeleteEndpoint", OF_ENDPOINT),
        ("DeleteNetwork", OF_NETWORK),
    ):
        assert why in ask(alone, f"NetworkDriver.{method}", body)["Err"], method
    sick = alone.cli("status", check=False)
    assert (sick.returncode, why in sick.stdout) == (1, True)
    assert json.loads(alone.cli("status", "--json", check=False).stdout)["healthy"] is False
    for arguments in (["network", "ls"], ["endpoint", "ls"], ["reconcile"]):
        refused = alone.cli(*arguments, check=False)
        assert (refused.returncode, why in refused.stderr) == (2, True)
    assert links(alone.node) == before
    alone.stop()
    if store.is_dir():
        store.rmdir()
    moved.rename(store)
    alone.start()
    assert alone.cli("status").returncode == 0
    assert links(alone.node) == before
    (row,) = json.loads(alone.cli("endpoint", "ls", "--json").stdout)
    assert (row["id"], row["phase"]) == (ENDPOINT, "ready")


@both_engines
def test_traffic_goes_on_while_weft_refuses(breakable: Host) -> None:
    weft, engine = breakable.weft, breakable.engine
    engine.docker("network", "create", "-d", "weft", "meadow")
    for name in ("hare", "hedgehog"):
        engine.docker("run", "-d", "--name", name, "--network", "meadow", NAME)
    known = json.loads(weft.cli("endpoint", "ls", "--json").stdout)
    weft.kill()
    state, kept = weft.node.disk / STATE.lstrip("/"), weft.node.disk / "kept"
    kept.mkdir()
    for path in state.glob("weft.db*"):
        shutil.move(path, kept)
    (state / "weft.db").write_bytes(b"garbage" * 1000)
    weft.start()
    assert "1 packets received" in engine.docker("exec", "hare", "ping", "-c1", "-W5", "hedgehog")
    refused = engine.docker("run", "-d", "--name", "fox", "--network", "meadow", NAME, check=False)
    assert "cannot be read" in refused
    assert "docker network" not in refused  # of which removing the network is not the way out
    assert weft.cli("status", check=False).returncode == 1
    assert "1 packets received" in engine.docker("exec", "hare", "ping", "-c1", "-W5", "hedgehog")
    weft.stop()
    for path in state.glob("weft.db*"):
        path.unlink()
    for path in kept.glob("weft.db*"):
        shutil.move(path, state)
    weft.start()
    assert json.loads(weft.cli("endpoint", "ls", "--json").stdout) == known
    engine.docker("start", "fox")
    assert "1 packets received" in engine.docker("exec", "fox", "ping", "-c1", "-W5", "hare")
    assert weft.cli("status").returncode == 0


# -- readers --------------------------------------------------------------------------------------------------------


@both_engines
def test_the_readers_show_what_docker_shows(engine: Engine, weft: Weft) -> None:
    engine.docker("network", "create", "-d", "weft", "--subnet", "10.77.0.0/24", "meadow")
    engine.docker("run", "-d", "--name", "hare", "--network", "meadow", NAME)
    network = engine.docker("network", "inspect", "-f", "{{.Id}}", "meadow")
    where = '{{(index .NetworkSettings.Networks "meadow").EndpointID}}'
    endpoint = engine.docker("inspect", "-f", where, "hare")
    mac = engine.docker("inspect", "-f", '{{(index .NetworkSettings.Networks "meadow").MacAddress}}', "hare")

    (row,) = json.loads(weft.cli("network", "ls", "--json").stdout)
    assert row["id"] == network
    assert (row["name"], row["link"], row["endpoints"]) == ("meadow", f"wfb{network[:12]}", 1)
    assert row["subnets"] == [{"subnet": "10.77.0.0/24", "gateway": "10.77.0.1"}]
    (row,) = json.loads(weft.cli("endpoint", "ls", "--json").stdout)
    assert (row["id"], row["network"], row["container"]) == (endpoint, network, "hare")
    assert (row["ipv4"], row["mac"], row["way_out"]) == ("10.77.0.2", mac, True)

    head, line = weft.cli("network", "ls").stdout.splitlines()
    assert head.split()[:2] == ["ID", "NAME"]
    assert line.split()[:3] == [network[:12], "meadow", f"wfb{network[:12]}"]
    head, line = weft.cli("endpoint", "ls").stdout.splitlines()
    assert line.split()[:4] == [endpoint[:12], "meadow", "hare", f"wfh{endpoint[:12]}"]

    for noun, ident in (("network", network), ("endpoint", endpoint)):
        shown = [json.loads(weft.cli(noun, "inspect", "--json", ident[:size]).stdout) for size in (4, 12, 64)]
        assert shown[0] == shown[1] == shown[2]
        assert shown[0]["id"] == ident
        assert ident in weft.cli(noun, "inspect", ident[:12]).stdout
        for bad, why in (("ffff0000", f"no {noun}"), (ident[:3], "at least 4"), ("no-hex", "at least 4")):
            wrong = weft.cli(noun, "inspect", bad, check=False)
            assert wrong.returncode == 2
            assert why in wrong.stderr
    assert json.loads(weft.cli("network", "inspect", "--json", network[:12]).stdout)["on"][0]["id"] == endpoint

    versions = json.loads(weft.cli("version", "--json").stdout)
    assert versions["command"] == versions["running"]
    status = json.loads(weft.cli("status", "--json").stdout)
    assert (status["healthy"], status["networks"], status["endpoints"]) == (True, 1, 1)


def test_an_id_that_begins_two_is_not_guessed(alone: Weft) -> None:
    ask(alone, "NetworkDriver.CreateNetwork", CREATE_NETWORK)
    twin = {**CREATE_NETWORK, "NetworkID": NETWORK[:8] + "77" * 28}
    twin["IPv4Data"] = [{"AddressSpace": "LocalDefault", "Pool": "10.10.0.0/24", "Gateway": "10.10.0.1/24"}]
    assert ask(alone, "NetworkDriver.CreateNetwork", twin) == {}
    wrong = alone.cli("network", "inspect", NETWORK[:8], check=False)
    assert wrong.returncode == 2
    assert "give more of it" in wrong.stderr
    assert json.loads(alone.cli("network", "inspect", "--json", NETWORK[:9]).stdout)["id"] == NETWORK


def test_the_version_needs_no_running_weft(private_node: Node) -> None:
    shown = json.loads(Weft(private_node).cli("version", "--json").stdout)
    assert shown["running"] is None
    assert shown["command"]


def test_the_commands_load_nothing_of_the_server(private_node: Node) -> None:
    probe = "import sys; from plugin.cli.main import parser; parser(); print(sorted(sys.modules))"
    loaded = private_node.beside.run(BIN / "python", "-c", probe).stdout
    for heavy in ("flask", "gunicorn", "pyroute2", "pydantic", "sqlite3"):
        assert f"'{heavy}'" not in loaded
