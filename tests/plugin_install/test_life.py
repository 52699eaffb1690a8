"""What can end under the plugin, or end the plugin: networks go on, and what Docker deleted meanwhile is swept."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.engine.breakable import Talk
from tests.engine.conftest import look
from tests.lab.engine import SOCKET as DOCKER_SOCKET
from tests.lab.engine import Engine
from tests.lab.net import Neighbour
from tests.lab.plugin import DRIVER, NAME, STATE, PluginHost, Requests
from tests.lab.talk import PORT, WHO, start
from tests.lab.wait import await_

pytestmark = pytest.mark.plugin

AT_START = 90
"""Seconds, generously: what Docker forgot is looked for at the start and 20 s later."""


def network(host: PluginHost, name: str = "meadow", *flags: str) -> str:
    """Make a network of the plugin's."""
    return host.engine.docker("network", "create", "-d", DRIVER, *flags, name)


def listed(host: PluginHost, noun: str) -> list[dict[str, Any]]:
    """Return what weft knows: `network` or `endpoint`."""
    found: list[dict[str, Any]] = json.loads(host.weft(noun, "ls", "--json").stdout)
    return found


def await_healthy(host: PluginHost) -> None:
    """Wait until weft is there and nothing differs."""
    await_(lambda: host.weft("status", check=False).returncode == 0, 60, "a healthy weft")


def worker(host: PluginHost) -> int:
    """Return the pid that the plugin's worker has inside."""
    return int(json.loads(host.weft("status", "--json").stdout)["pid"])


def served(host: PluginHost, port: int) -> bool:
    """Tell whether the host itself gets an answer at a published port."""
    url = f"http://127.0.0.1:{port}{WHO}"
    return host.node.run("curl", "-fsS", "-m", "3", url, check=False).returncode == 0


@contextmanager
def talking(engine: Engine) -> Iterator[None]:
    """Have two running containers talk, and be sure that nothing was lost when the block ends."""
    talk = Talk(engine, "hare", "fox")
    yield
    talk.stop()


def test_stopping_removes_nothing(host: PluginHost) -> None:
    network(host)
    start(host.engine, "hare", "meadow", "-p", f"8080:{PORT}")
    await_healthy(host)
    before = look(host.node)
    host.docker_plugin("disable", "-f", NAME)
    assert not before.difference(look(host.node))
    assert served(host, 8080)
    host.docker_plugin("enable", NAME)
    await_healthy(host)
    assert not before.difference(look(host.node))


def test_what_docker_deleted_while_it_was_away_is_swept(host: PluginHost) -> None:
    engine = host.engine
    for name in ("meadow", "forest"):
        network(host, name)
    start(engine, "hare", "meadow", "-p", f"8080:{PORT}")
    start(engine, "fox", "meadow")
    assert len(listed(host, "endpoint")) == 2
    host.docker_plugin("disable", "-f", NAME)
    with ThreadPoolExecutor(2) as pool:  # Docker tries each call for 15 s, then forgets the thing
        gone = [
            pool.submit(engine.docker, "rm", "-f", "hare", timeout=120),
            pool.submit(engine.docker, "network", "rm", "forest", timeout=120),
        ]
        for each in gone:
            each.result()
    assert "8080" in host.node.run("nft", "list", "table", "inet", "weft").stdout
    host.docker_plugin("enable", NAME)
    later = start(engine, "later", "meadow", "-p", f"8080:{PORT}")  # the port of the dead
    assert served(host, 8080)
    assert later.answered_by("fox") == {"fox"}

    def swept() -> bool:
        names = {one["container"] for one in listed(host, "endpoint")}
        return names == {"fox", "later"} and len(listed(host, "network")) == 1

    await_(swept, AT_START, "what Docker deleted to be swept")
    await_healthy(host)
    links = json.loads(host.node.run("ip", "-j", "link").stdout)
    assert len([one for one in links if one["ifname"].startswith("wfb")]) == 1
    assert len([one for one in links if one["ifname"].startswith("wfh")]) == 2


def test_another_plugin_of_the_same_name_goes_on_with_its_networks(host: PluginHost, tmp_path: Path) -> None:
    """`rm -f` and `install`: another id, another socket, the same state."""
    engine = host.engine
    network(host)
    start(engine, "hare", "meadow", "-p", f"8080:{PORT}")
    start(engine, "fox", "meadow")
    old = host.inspect()["Id"]
    with Neighbour(host.node) as neighbour, talking(engine):
        requests = Requests(neighbour, tmp_path / "requests", neighbour.node_v4, 8080, WHO)
        host.docker_plugin("rm", "-f", NAME)
        host.install("old")
        assert host.inspect()["Id"] != old
        await_healthy(host)
        good, failed, words = requests.stop()
        assert (failed, good > 0) == (0, True), words
    assert {one["container"] for one in listed(host, "endpoint")} == {"hare", "fox"}
    later = start(engine, "later", "meadow")
    assert later.answered_by("hare", "fox") == {"hare", "fox"}


def test_dockerd_starts_again_with_the_plugin_before_its_containers(host: PluginHost) -> None:
    engine = host.engine
    network(host)
    start(engine, "hare", "meadow", "--restart", "always", "-p", f"8080:{PORT}")
    engine.restart()
    await_(lambda: served(host, 8080), 60, "the container to be back with its port")
    await_healthy(host)
    assert [one["container"] for one in listed(host, "endpoint")] == ["hare"]


def test_dockerd_is_killed(host: PluginHost) -> None:
    engine = host.engine
    network(host)
    start(engine, "hare", "meadow", "--restart", "always", "-p", f"8080:{PORT}")
    engine.kill()
    assert served(host, 8080)
    engine.start()
    await_(lambda: served(host, 8080), 60, "the container to be back with its port")
    await_healthy(host)
    start(engine, "fox", "meadow")
    assert {one["container"] for one in listed(host, "endpoint")} == {"hare", "fox"}


def test_with_live_restore_nothing_is_touched_and_dockers_new_socket_is_found(host: PluginHost) -> None:
    engine = host.engine
    network(host)
    start(engine, "hare", "meadow", "-p", f"8080:{PORT}")
    start(engine, "fox", "meadow")
    engine.stop()
    engine.args = ("--live-restore",)
    engine.start()
    try:
        engine.docker("start", "hare", "fox")  # the first stop was without
        before = worker(host)
        old = host.node.path(DOCKER_SOCKET).stat().st_ino
        with talking(engine):
            engine.restart()
        assert host.node.path(DOCKER_SOCKET).stat().st_ino != old
        assert worker(host) == before
        assert {one["container"] for one in listed(host, "endpoint")} == {"hare", "fox"}  # names: from the new socket
        assert served(host, 8080)
        await_healthy(host)
    finally:
        engine.clean()
        engine.stop()
        engine.args = ()
        engine.start()


def test_the_power_goes(host: PluginHost) -> None:
    engine = host.engine
    network(host)
    start(engine, "hare", "meadow", "--restart", "always", "-p", f"8080:{PORT}")
    (before,) = listed(host, "network")
    host.node.power_off()
    host.boot()
    engine.start()
    await_(lambda: served(host, 8080), 60, "the container to be back with its port")
    await_healthy(host)
    (after,) = listed(host, "network")
    assert {**after, "endpoints": 0} == {**before, "endpoints": 0}


@pytest.mark.parametrize("victim", ["master", "worker"])
def test_the_process_is_killed(host: PluginHost, victim: str) -> None:
    engine = host.engine
    network(host)
    for name in ("hare", "fox"):
        start(engine, name, "meadow")
    found = host.node.run("pgrep", "-f", "/opt/weft/bin/weft serve --managed").stdout.split()
    master, child = sorted(map(int, found))
    with talking(engine):
        host.node.run("kill", "-9", str(master if victim == "master" else child))
        await_healthy(host)
    later = start(engine, "later", "meadow")
    assert later.answered_by("hare", "fox") == {"hare", "fox"}


# -- what is wrong is answered ----------------------------------------------------------------------------------------


def test_a_broken_setting_is_an_answer_and_not_a_plugin_that_cannot_be_enabled(host: PluginHost) -> None:
    engine = host.engine
    host.docker_plugin("disable", NAME)
    host.docker_plugin("set", NAME, "WEFT_POOLS=many")
    plugin = host.inspect()["Id"]
    try:
        host.docker_plugin("enable", NAME)
        said = engine.docker("network", "create", "-d", DRIVER, "meadow", check=False)
        assert "WEFT_POOLS='many': allowed is" in said
        assert "docker plugin set" in said
        sick = host.weft("status", check=False)
        assert (sick.returncode, "refusing: WEFT_POOLS='many'" in sick.stdout) == (1, True)
        assert any("WEFT_POOLS" in line and "level=error" in line for line in host.log_lines(plugin))
    finally:
        host.docker_plugin("disable", "-f", NAME)
        host.docker_plugin("set", NAME, "WEFT_POOLS=")
        host.docker_plugin("enable", NAME)
    network(host)
    assert host.weft("status").returncode == 0


def test_a_second_weft_on_the_host_is_an_answer_too(host: PluginHost) -> None:
    host.docker_plugin("disable", NAME)
    node = host.node
    node.run("mkdir", "-p", STATE)
    holder = node.spawn("flock", f"{STATE}/serve.lock", "sleep", "600", log=node.disk / "holder.log")
    try:
        locked = ("flock", "--nonblock", f"{STATE}/serve.lock", "true")
        await_(lambda: node.run(*locked, check=False).returncode != 0, 10, "the lock")
        host.docker_plugin("enable", NAME)
        said = host.engine.docker("network", "create", "-d", DRIVER, "meadow", check=False)
        assert "another weft is already running" in said
    finally:
        holder.kill()
        host.docker_plugin("disable", "-f", NAME)
        host.docker_plugin("enable", NAME)
    network(host)


def test_lines_have_their_level_in_dockers_log(host: PluginHost) -> None:
    network(host)
    plugin = host.inspect()["Id"]
    said = host.engine.docker("network", "create", "-d", DRIVER, "-o", "weft.nonsense=1", "wrong", check=False)
    assert "weft.nonsense" in said

    def levels(event: str) -> set[str]:
        return {line.split()[1] for line in host.log_lines(plugin) if event in line}

    await_(lambda: levels("network created"), 10, "the line of the network")
    assert levels("network created") == {"level=info"}
    assert levels("call refused") == {"level=info"}  # it is the user's, and says level=warning itself
    assert not levels("Traceback")


def test_without_dockers_socket_everything_but_names_works(host: PluginHost) -> None:
    engine, elsewhere = host.engine, "/run/for-weft"
    host.node.run("mkdir", "-p", elsewhere)
    host.docker_plugin("disable", NAME)
    host.docker_plugin("set", NAME, f"run.source={elsewhere}")
    try:
        host.docker_plugin("enable", NAME)
        network(host)
        hare = start(engine, "hare", "meadow", "-p", f"8080:{PORT}")
        start(engine, "fox", "meadow")
        assert hare.answered_by("fox") == {"fox"}
        assert served(host, 8080)
        shown = host.weft("endpoint", "ls", "--json", control=f"{elsewhere}/weft/control.sock").stdout
        assert [one["container"] for one in json.loads(shown)] == [None, None]
        assert not host.node.path("/run/weft/control.sock").exists()
        engine.clean()
    finally:
        host.docker_plugin("disable", "-f", NAME)
        host.docker_plugin("set", NAME, "run.source=/run")
        host.docker_plugin("enable", NAME)
