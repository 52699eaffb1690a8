"""The two hosts, once for all tests."""

from collections.abc import Iterator

import pytest

from tests.vm.street import StockHost, stock_hosts


@pytest.fixture(scope="session")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, StockHost]]:
    """Yield the hosts a and b, set up and without networks."""
    with stock_hosts(tmp_path_factory.mktemp("vm")) as made:
        yield made
