"""weft without Docker as its manager: systemd's units and sockets, and every place where dockerd looks for a plugin."""

import json
from pathlib import Path

import pytest

from plugin import service
from tests.lab import image
from tests.lab.engine import Engine
from tests.lab.matrix import both_engines
from tests.lab.names import BIN
from tests.lab.node import Node
from tests.lab.unixhttp import call
from tests.lab.wait import await_
from tests.lab.weft import CONTROL, SOCKET, Weft

pytestmark = pytest.mark.plugin

ELSEWHERE = "/run/weft/docker.sock"
SPEC = f"unix://{ELSEWHERE}\n"
PLACES = {
    "plain": f"ln -s {ELSEWHERE} /run/docker/plugins/plain.sock",
    "nested": f"mkdir /run/docker/plugins/nested && ln -s {ELSEWHERE} /run/docker/plugins/nested/nested.sock",
    "spec": f"mkdir -p /etc/docker/plugins && echo {SPEC.strip()} >/etc/docker/plugins/spec.spec",
    "json": "mkdir -p /etc/docker/plugins && cat >/etc/docker/plugins/json.json",
    "library": f"mkdir -p /usr/lib/docker/plugins && echo {SPEC.strip()} >/usr/lib/docker/plugins/library.spec",
}
"""Each as the script that puts it there; the driver is called as the file is."""


class Elsewhere(Weft):
    """A weft whose Docker socket is not at its usual place."""

    @property
    def socket(self) -> Path:
        """Docker's socket to it."""
        return self.node.path(ELSEWHERE)


@both_engines
def test_dockerd_finds_it_wherever_it_looks(private_engine: Engine) -> None:
    node = private_engine.node
    places = dict(PLACES)
    if node.root is None and not node.run("sh", "-c", "ls -d /usr/lib/docker", check=False).returncode:
        node.run("mount", "-t", "tmpfs", "tmpfs", "/usr/lib/docker")  # /usr is the machine's own
    elif node.root is None:
        del places["library"]
    where = ELSEWHERE if node.root is None else str(node.path(ELSEWHERE))
    with Elsewhere(node, settings={"WEFT_SOCKET": where}):
        for name, script in places.items():
            node.run("sh", "-c", script, stdin=json.dumps({"Name": name, "Addr": f"unix://{ELSEWHERE}"}))
            private_engine.docker("network", "create", "-d", name, f"on-{name}")
            private_engine.docker("run", "--rm", "--network", f"on-{name}", image.NAME, "true")
        assert not node.path(SOCKET).exists()
        private_engine.clean()


# -- systemd --------------------------------------------------------------------------------------------------------


def test_the_units_are_sound_and_weft_s_own_files_go_again(private_node: Node) -> None:
    weft = Weft(private_node)
    said = weft.cli("install-service").stdout
    for path in (service.UNITS / "weft.socket", service.UNITS / "weft.service", service.DISCOVERY):
        assert f"wrote {path}" in said
        assert private_node.path(str(path)).exists()
    units = [str(service.UNITS / name) for name in ("weft.socket", "weft.service")]
    verified = private_node.run("systemd-analyze", "verify", "--man=no", *units, check=False)
    assert (verified.returncode, [line for line in verified.stderr.splitlines() if "weft" in line]) == (0, [])
    text = private_node.path(str(service.UNITS / "weft.service")).read_text(encoding="utf-8")
    assert f"ExecStart={BIN / 'weft'} serve" in text
    assert "Before=docker.service" in text
    assert "Requires=docker" not in text
    assert weft.cli("install-service").stdout.splitlines()[0].startswith("next:")  # nothing is written twice

    removed = weft.cli("uninstall", "--store", "0a1b2c3d").stdout
    assert f"rm {service.UNITS / 'weft.service'}" in removed
    for unit in units:
        assert not private_node.path(unit).exists()


def test_a_unit_of_somebody_else_is_left_alone(private_node: Node) -> None:
    weft = Weft(private_node)
    theirs = private_node.path(str(service.UNITS / "weft.service"))
    private_node.run("sh", "-c", f"echo '[Unit]' >{service.UNITS / 'weft.service'}")
    said = weft.cli("install-service", check=False)
    assert (said.returncode, "was not written by weft" in said.stderr) == (2, True)
    weft.cli("uninstall", "--store", "0a1b2c3d")
    assert theirs.read_text(encoding="utf-8") == "[Unit]\n"


def test_it_takes_the_sockets_that_systemd_has_bound(private_engine: Engine) -> None:
    node = private_engine.node
    weft = Weft(node)
    environment = [f"--setenv={name}={value}" for name, value in weft.environment.items()]
    node.run("mkdir", "-p", "/run/docker/plugins", "/run/weft")
    listen = ("systemd-socket-activate", "-l", SOCKET, "-l", CONTROL, *environment)
    process = node.spawn(*listen, str(BIN / "weft"), "serve", log=node.disk / "activated.log")
    await_(lambda: node.path(SOCKET).exists() and node.path(CONTROL).exists(), 20, "the sockets")
    assert call(node.path(SOCKET), "POST", "/Plugin.Activate").status == 200
    assert weft.cli("status").returncode == 0
    private_engine.docker("network", "create", "-d", "weft", "meadow")
    private_engine.docker("run", "--rm", "--network", "meadow", image.NAME, "true")
    second = node.run(BIN / "weft", "serve", check=False, env=weft.environment)
    assert (second.returncode, "already running" in second.stderr) == (2, True)
    private_engine.clean()
    process.stop()
    assert node.path(SOCKET).exists()  # systemd's, for the next start
