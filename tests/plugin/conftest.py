"""weft on a fake host, for most of the tests; a test module that wants more of it makes its own of it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.names import REPO
from tests.lab.process import Process
from tests.lab.wait import await_
from tests.plugin.raw_http import exchange, request
from tests.plugin.world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Yield a weft that has started and has no networks."""
    world = World(tmp_path)
    world.start()
    yield world
    world.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Yield the socket of the application on a real gunicorn, with a driver that is not there."""
    folder = tmp_path_factory.mktemp("gunicorn")
    path = folder / "weft.sock"
    argv = (sys.executable, "-m", "tests.plugin.gunicorn_server", str(path))
    with Process(argv, folder / "log", {"PYTHONPATH": str(REPO)}, forks=False) as process:
        await_(lambda: exchange(path, request("/Plugin.Activate")), 20, "the server")
        yield path
        assert process.stop() == 0, process.text()
