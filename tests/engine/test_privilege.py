"""What weft may do, who may speak to it, and what it tells: no more than it needs."""

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivers import privilege
from tests.drivers.test_privilege import told
from tests.engine.test_serve import CREATE_ENDPOINT, CREATE_NETWORK, OF_ENDPOINT, ask
from tests.lab.node import Node
from tests.lab.process import family
from tests.lab.weft import STATE, Weft

pytestmark = pytest.mark.engine


@pytest.fixture
def alone(private_node: Node) -> Iterator[Weft]:
    """Yield a weft on a node without dockerd."""
    with Weft(private_node) as weft:
        yield weft


def test_folders_that_are_there_keep_their_modes(private_node: Node) -> None:
    """What dockerd made, or an operator: weft does not widen it, nor narrow it."""
    modes = {"/run/docker": "711", "/run/docker/plugins": "750", "/run/weft": "705", STATE: "700"}
    for folder, mode in modes.items():
        private_node.run("install", "-d", "-m", mode, folder)
    with Weft(private_node) as weft:
        ask(weft, "NetworkDriver.CreateNetwork", CREATE_NETWORK)
        found = {folder: f"{stat.S_IMODE(private_node.path(folder).stat().st_mode):o}" for folder in modes}
        assert found == modes
        kept = {path.name: stat.S_IMODE(path.stat().st_mode) for path in private_node.path(STATE).iterdir()}
    assert kept.keys() >= {"weft.db", "weft.db-wal", "serve.lock"}
    assert set(kept.values()) == {0o600}


def test_it_gives_away_what_root_may_do_beside(alone: Weft) -> None:
    mask = sum(1 << number for number in privilege.NEEDED.values())
    for pid in family(alone.pid):
        sets = told(Path(f"/proc/{pid}/status").read_text(encoding="utf-8"))
        assert sets["NoNewPrivs"] == 1
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert sets[name] & ~mask == 0, name
    ask(alone, "NetworkDriver.CreateNetwork", CREATE_NETWORK)
    ask(alone, "NetworkDriver.CreateEndpoint", CREATE_ENDPOINT)
    assert alone.cli("status").returncode == 0


@pytest.mark.parametrize("level", ["debug", "info"])
def test_nothing_secret_is_in_the_log(private_node: Node, level: str) -> None:
    """Options that nobody knows may hold anything, and the environment, too."""
    hidden = "correct-horse-battery"
    with Weft(private_node, settings={"WEFT_LOG_LEVEL": level, "SOME_TOKEN": hidden}) as weft:
        options = {"com.example.password": hidden, "weft.wrong": hidden}
        switches: dict[str, object] = {"com.docker.network.enable_ipv6": False, "com.docker.network.generic": options}
        assert "weft.wrong" in ask(weft, "NetworkDriver.CreateNetwork", {**CREATE_NETWORK, "Options": switches})["Err"]
        del options["weft.wrong"]
        assert ask(weft, "NetworkDriver.CreateNetwork", {**CREATE_NETWORK, "Options": switches}) == {}
        ask(weft, "NetworkDriver.CreateEndpoint", {**CREATE_ENDPOINT, "Options": {"com.example.password": hidden}})
        ask(weft, "NetworkDriver.Join", {**OF_ENDPOINT, "SandboxKey": "/x", "Options": {"password": hidden}})
        assert "com.example.password" in weft.log_text()
        assert hidden not in weft.log_text()
