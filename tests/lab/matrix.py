"""Which engines a test runs on."""

import pytest

both_engines = pytest.mark.parametrize(
    "engine_version", ["20", pytest.param("28", marks=pytest.mark.engine28)], ids=["20.10", "28.5"]
)
"""Run a test on 20.10.24 and on 28.5.2; the second is left to `make test-engines`."""
