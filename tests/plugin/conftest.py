"""weft on a fake host, for most of the tests; a test module that wants more of it makes its own of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.plugin.world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Yield a weft that has started and has no networks."""
    world = World(tmp_path)
    world.start()
    yield world
    world.close()
