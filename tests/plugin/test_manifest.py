"""plugin.json, the managed plugin's configuration: what it asks of a host, and that no setting was forgotten."""

import json
from typing import Any

import pytest

from drivers.kernel.settings import MOUNTED_NET
from plugin import config
from tests.lab.names import REPO

MANIFEST: dict[str, Any] = json.loads((REPO / "plugin.json").read_text(encoding="utf-8"))
FIXED = {"WEFT_SOCKET"}
"""Docker itself says where a plugin's socket is: `interface.socket`."""

ALWAYS_THERE = {"/run", "/var/lib", "/proc/sys/net"}
"""On every Linux host that runs Docker; a source that is missing keeps a plugin from being enabled at all."""


def test_every_setting_can_be_set_and_has_its_default_in_the_code() -> None:
    settable = {one["name"]: one for one in MANIFEST["env"]}
    assert set(settable) == {setting.name for setting in config.TABLE} - FIXED
    for one in settable.values():
        assert (one["value"], one["settable"]) == ("", ["value"])  # an upgrade keeps what was, and adds none
        assert one["description"]


def test_the_socket_is_where_docker_puts_it() -> None:
    assert config.read({}).socket.name == MANIFEST["interface"]["socket"]
    assert str(config.read({}).socket.parent) == "/run/docker/plugins"


def test_mounts_exist_on_every_host_or_can_be_moved() -> None:
    mounts = {one["destination"]: one for one in MANIFEST["mounts"]}
    assert {one["source"] for one in mounts.values()} == ALWAYS_THERE
    assert set(mounts) == {"/run", "/var/lib", str(MOUNTED_NET)}
    for one in mounts.values():
        assert one["options"] == ["bind", "rw"]  # rbind would bring every container's mounts along
    for setting in ("control", "state_dir"):
        where = getattr(config.read({}), setting)
        assert any(str(where).startswith(f"{place}/") for place in mounts)


@pytest.mark.parametrize("key", ["devices", "allowAllDevices"])
def test_it_asks_for_no_device(key: str) -> None:
    assert not MANIFEST["linux"][key]


def test_it_asks_for_no_more_than_the_hosts_network() -> None:
    assert MANIFEST["linux"]["capabilities"] == ["CAP_NET_ADMIN"]
    assert MANIFEST["network"] == {"type": "host"}
    assert not MANIFEST.keys() & {"pidhost", "ipchost", "propagatedMount"}
