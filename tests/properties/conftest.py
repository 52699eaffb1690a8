"""How long the laws are tried: short enough for every run, and the same examples every time where CI=true."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.properties.hostile import NETWORK, Weft

settings.register_profile(
    "laws",
    deadline=None,
    max_examples=100,
    stateful_step_count=40,
    derandomize=os.environ.get("CI") == "true",
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("laws")


@pytest.fixture(scope="module")
def weft(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weft]:
    """Yield one weft for all examples: each leaves no trace, or what it asked for."""
    weft = Weft(tmp_path_factory.mktemp("hostile"))
    yield weft
    assert weft.world.store.network(NETWORK) is not None, "a hostile call removed what was there"
    weft.world.close()
