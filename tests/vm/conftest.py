"""The two hosts, once for all tests; and the page that says what came of the last run, written if VM_PAGE is set."""

import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

import pytest

from tests.lab.names import REPO
from tests.vm.street import StockHost, stock_hosts

PAGE: Final = REPO / "docs" / "stock-kernel.md"
BEGIN, END = "<!-- make test-vm: begin -->", "<!-- make test-vm: end -->"
BACKENDS: Final = {"ovs": "Open vSwitch", "bridge": "Linux bridge"}

_ran_on: list[str] = []
_seen: dict[str, dict[str, list[str]]] = {}
_seconds: list[float] = []


@pytest.fixture(scope="session")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, StockHost]]:
    """Yield the hosts a and b, set up and without networks."""
    with stock_hosts(tmp_path_factory.mktemp("vm")) as made:
        _ran_on.append(made["a"].versions())
        yield made


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep what came of a test: once, or as what went wrong before it or after it."""
    found = re.fullmatch(r"tests/vm/test_vm\.py::test_(\w+)\[(ovs|bridge)\b.*\]", report.nodeid)
    if found:
        _seconds.append(report.duration)
        if report.when == "call" or report.outcome != "passed":
            _seen.setdefault(found[1], {}).setdefault(found[2], []).append(report.outcome)


def pytest_sessionfinish() -> None:
    """Write the page, if asked and if there was a run."""
    if os.environ.get("VM_PAGE") and _ran_on:
        head, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        PAGE.write_text(f"{head}{BEGIN}\n\n{_told()}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def _told() -> str:
    day = datetime.now(UTC).strftime("%Y-%m-%d")
    lines = [
        f"{day}, {_ran_on[0]}; {sum(_seconds) / 60:.0f} minutes.",
        "",
        f"| `tests/vm/test_vm.py` | {' | '.join(BACKENDS.values())} |",
        "| --- | --- | --- |",
    ]
    for name, told in _seen.items():
        cells = (_cell(told.get(backend, [])) for backend in BACKENDS)
        lines.append(f"| {name.replace('_', ' ')} | {' | '.join(cells)} |")
    return "\n".join((*lines, ""))


def _cell(outcomes: list[str]) -> str:
    """Return how many went well; those that are not for a backend are left out."""
    counted = [one for one in outcomes if one != "skipped"]
    if not counted:
        return "-"
    passed = counted.count("passed")
    return f"passed ({passed})" if passed == len(counted) else f"**failed: {len(counted) - passed} of {len(counted)}**"
