"""Each test has a network namespace of its own."""

from collections.abc import Iterator

import pytest

from drivers.converge import Converger
from drivers.kernel.backend import KernelBackend
from drivers.resources import (
    Scope,
)
from tests.drivers.kernel.world import MARKS
from tests.netns import private_netns


@pytest.fixture(autouse=True)
def _netns() -> Iterator[None]:
    with private_netns():
        yield


@pytest.fixture
def owners() -> dict[str, Scope]:
    """Which adopted bridge belongs to which network: what the store says."""
    return {}


@pytest.fixture
def backend(_netns: None, owners: dict[str, Scope]) -> Iterator[KernelBackend]:
    one = KernelBackend(MARKS, owners.get)
    yield one
    one.close()


@pytest.fixture
def converger(backend: KernelBackend) -> Converger:
    return Converger({"kernel": backend})
