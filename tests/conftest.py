"""What holds for every test: the machine it runs on does not notice."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.lab.machine import Machine, machine, sweep
from tests.lab.wait import WaitedInVainError, await_


@pytest.fixture(scope="session", autouse=True)
def machine_unnoticing() -> Iterator[Machine | None]:
    """Compare the machine before and after the session: its links, its rules, and every trace of the lab.

    Without root nothing of the lab can run, and nothing is looked at.
    """
    if os.geteuid() != 0:
        yield None
        return
    sweep()
    before = machine()
    yield before
    try:
        await_(lambda: not before.difference(machine()), 10, "the machine to look as before")
    except WaitedInVainError:
        pytest.fail(f"the session left something behind on the machine:\n{before.difference(machine())}")


OVS = [Path(__file__).parent / "drivers" / name for name in ("ovs", "openflow", "ovs_pipeline")]
"""Suites that run a real Open vSwitch, for `make test-ovs`."""


MATRIX = Path(__file__).parent / "matrix"
"""Who reaches whom, cell by cell, for `make test-matrix`."""


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Mark the suites that have a target of their own."""
    for item in items:
        if any(item.path.is_relative_to(folder) for folder in OVS):
            item.add_marker(pytest.mark.ovs)
        if item.path.is_relative_to(MATRIX):
            item.add_marker(pytest.mark.matrix)
