"""What holds for every test: the machine it runs on does not notice."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.crash.tally import Tally
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


TellFaults = Callable[[Tally], AbstractContextManager[None]]


@pytest.fixture
def tell_faults(record_property: Callable[[str, object], None]) -> TellFaults:
    """Return what has a tally printed at the end of the session, also that of a test that fails."""

    @contextmanager
    def telling(tally: Tally) -> Iterator[None]:
        try:
            yield
        finally:
            record_property("faults", tally.numbers())

    return telling


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Return what has a line printed at the end of the session."""
    return lambda line: record_property("told", line)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests had to tell, and the sum of the faults that were injected."""
    told = [
        (report.nodeid, key, value)
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        if report.when == "call"
        for key, value in report.user_properties
    ]
    for nodeid, key, value in told:
        if key == "told":
            terminalreporter.write_line(f"{nodeid}: {value}")
    faults, tally = [value for _, key, value in told if key == "faults"], Tally()
    for one in faults:
        tally.add(*one)
    if faults:
        terminalreporter.write_line(f"faults: {tally}")
