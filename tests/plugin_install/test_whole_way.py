"""A user's whole way: install from a registry, use, upgrade under load, uninstall; and the host looks as before."""

import json
from pathlib import Path

import pytest

from tests.engine.conftest import look
from tests.lab.matrix import both_engines
from tests.lab.net import Neighbour
from tests.lab.plugin import DRIVER, NAME, NEWER_SET, PluginHost, Requests
from tests.lab.talk import PORT, WHO, start
from tests.lab.wait import await_
from tests.plugin_install.conftest import NEW, OLD, Made

pytestmark = pytest.mark.plugin

PYTHON = "/opt/weft/bin/python"
LIMIT = 180 * 10**6
"""Bytes of the root filesystem, at most."""


def test_the_image_is_small(made: Made) -> None:
    assert made.image_bytes < LIMIT


@both_engines
def test_install_use_upgrade_under_load_uninstall(bare: PluginHost, tmp_path: Path) -> None:
    engine, node = bare.engine, bare.node
    with Neighbour(node) as neighbour:
        before = look(node)
        assert "Installed plugin" in bare.install("old", "WEFT_RECONCILE_INTERVAL=7")
        engine.docker("network", "create", "-d", DRIVER, "--ipam-driver", DRIVER, "--subnet", "10.77.0.0/24", "meadow")
        web = start(engine, "web", "meadow", "-p", f"8080:{PORT}")
        said = json.loads(bare.weft("version", "--json").stdout)
        assert said["running"] == OLD
        assert bare.weft("status").returncode == 0
        assert "is in use" in bare.docker_plugin("disable", NAME, check=False)

        requests = Requests(neighbour, tmp_path / "requests", neighbour.node_v4, 8080, WHO)
        bare.docker_plugin("disable", "-f", NAME)
        bare.upgrade("new")
        bare.docker_plugin("enable", NAME)
        assert json.loads(bare.weft("version", "--json").stdout)["running"] == NEW
        await_(lambda: _has_newer_rules(bare), 30, "the newer rules, under traffic")
        later = start(engine, "later", "meadow", "-p", f"8081:{PORT}")
        good, failed, words = requests.stop()
        assert (failed, good > 50) == (0, True), words

        assert "WEFT_RECONCILE_INTERVAL=7" in bare.inspect()["Settings"]["Env"]
        assert later.answered_by("web") == {"web"}
        assert web.answered_by("later") == {"later"}
        (network,) = json.loads(bare.weft("network", "ls", "--json").stdout)
        assert (network["name"], network["endpoints"]) == ("meadow", 2)
        assert bare.weft("status").returncode == 0

        for container in (web, later):
            container.remove()
        engine.docker("network", "rm", "meadow")
        bare.docker_plugin("disable", NAME)
        bare.docker_plugin("rm", NAME)
        told = bare.weft("uninstall", "--dry-run", "--purge", check=False)
        assert (told.returncode, f"rm {bare.state}/weft.db" in told.stdout) == (1, True), told.stderr
        bare.weft("uninstall", "--purge")
        assert "nothing of weft is left" in bare.weft("uninstall", "--store", "0a1b2c3d").stdout
        assert not before.difference(look(node))
        for path in (node.path(str(bare.state)) if node.root is None else bare.state, node.path("/run/weft")):
            assert not path.exists()


def _has_newer_rules(host: PluginHost) -> bool:
    return host.node.run("nft", "list", "set", "inet", "weft", NEWER_SET, check=False).returncode == 0


@both_engines
def test_everything_of_a_network_works_from_inside_the_plugin(bare: PluginHost) -> None:
    _use_everything(bare)


def test_the_next_debian_is_a_base_as_well(bare_for_next_base: PluginHost) -> None:
    _use_everything(bare_for_next_base)
    plugin = bare_for_next_base.inspect("mesh")["Id"]
    told = bare_for_next_base.node.run("chroot", f"/var/lib/docker/plugins/{plugin}/rootfs", PYTHON, "--version")
    assert told.stdout.startswith("Python 3.13.")


def _use_everything(bare: PluginHost) -> None:
    """Use what needs a privilege, a mount, a library or a program of the image, each once; the plugin is `mesh`."""
    engine = bare.engine
    driver = "mesh:latest"  # by an alias: Docker's list is asked for networks of that driver
    bare.install("old", "WEFT_LOG_LEVEL=debug", alias="mesh")
    with Neighbour(bare.node) as neighbour:
        subnets = ("--ipv6", "--subnet", "10.77.0.0/24", "--subnet", "fd00:77::/64")
        options = ("-o", "com.docker.network.bridge.enable_icc=false")
        engine.docker("network", "create", "-d", driver, *subnets, *options, "meadow")
        engine.docker("network", "create", "-d", driver, "--ipam-driver", driver, "--subnet", "10.78.0.0/24", "forest")
        hare = start(engine, "hare", "meadow", "-p", f"127.0.0.1:8080:{PORT}", "-p", "53:53/udp", "-p", f"8081:{PORT}")
        linked = start(engine, "fox", "meadow", "--link", "hare:prey", "--expose", str(PORT))
        page = f"http://{{}}:{{}}{WHO}"
        for place, address, port in (
            (bare.node, "127.0.0.1", 8080),
            (bare.node, "[::1]", 8081),  # by the relay
            (neighbour, str(neighbour.node_v4), 8081),
            (neighbour, f"[{neighbour.node_v6}]", 8081),
        ):
            reply = (place if place is neighbour else bare.node.beside).run(
                "curl", "-fsS", "-m", "5", "-g", page.format(address, port), check=False
            )
            assert reply.returncode == 0, (address, port, reply.stderr)
        assert hare.answered_by(neighbour.v4) == {str(neighbour.v4)}
        assert linked.answered_by(hare.v4("meadow")) == set()  # kept apart
        status = json.loads(bare.weft("status", "--json", check=False).stdout)
        assert (status["healthy"], status["differs"]) == (True, [])
        assert not [line for line in bare.log_lines(bare.inspect("mesh")["Id"]) if "level=error" in line]
        assert {one["name"] for one in json.loads(bare.weft("network", "ls", "--json").stdout)} == {"meadow", "forest"}
        assert {one["container"] for one in json.loads(bare.weft("endpoint", "ls", "--json").stdout)} == {"hare", "fox"}
        assert [one["network_name"] for one in json.loads(bare.weft("pool", "ls", "--json").stdout)] == ["forest"]
