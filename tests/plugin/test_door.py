"""The door: one weft per state directory, and sockets that are there before anything heavy is loaded."""

import os
import socket
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from drivers.errors import HostFailure
from plugin import config, door
from plugin.config import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    folder = tmp_path / "made" / "by" / "weft"
    return replace(
        config.read({}),
        socket=folder / "a" / "weft.sock",
        control=folder / "b" / "control.sock",
        state_dir=folder / "c",
    )


def _close(opened: door.Door) -> None:
    for listener in opened.listeners:
        socket.socket(fileno=listener).close()
    if opened.lock:
        opened.lock.close()


def test_both_sockets_take_connections_at_once_and_are_roots_alone(settings: Settings) -> None:
    opened = door.open_door(settings)
    for path in (settings.socket, settings.control):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(str(path))
    _close(opened)


def test_a_second_one_binds_nothing(settings: Settings) -> None:
    opened = door.open_door(settings)
    before = settings.socket.stat().st_ino
    assert door.is_held(settings.state_dir)
    with pytest.raises(door.AlreadyRunning, match=r"already running, pid \d+ "):
        door.open_door(settings)
    assert settings.socket.stat().st_ino == before
    _close(opened)
    assert not door.is_held(settings.state_dir)


def test_a_dead_socket_is_replaced_and_what_is_no_socket_stays(settings: Settings) -> None:
    _close(door.open_door(settings))
    _close(door.open_door(settings))
    settings.socket.unlink()
    settings.socket.write_text("somebody's", encoding="utf-8")
    with pytest.raises(HostFailure, match=r"cannot listen at .*weft\.sock"):
        door.open_door(settings)
    assert settings.socket.read_text(encoding="utf-8") == "somebody's"


def test_what_systemd_has_bound_is_not_bound_again(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "2")
    opened = door.open_door(settings)
    assert (opened.listeners, settings.socket.exists()) == ((), False)
    _close(opened)


def test_a_state_directory_that_is_not_there_is_held_by_nobody(tmp_path: Path) -> None:
    assert not door.is_held(tmp_path / "none")
    assert not (tmp_path / "none").exists()
