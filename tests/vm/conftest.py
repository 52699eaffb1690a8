"""The two hosts, once for all tests; and the page that says what came of the last run, written if VM_PAGE is set."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import pytest

from tests.lab.names import REPO
from tests.vm.street import StockHost, stock_hosts

PAGE: Final = REPO / "docs" / "stock-kernel.md"

_ran_on: list[str] = []


@dataclass
class _Seen:
    """What came of the tests of one backend."""

    outcomes: dict[str, list[str]] = field(default_factory=dict)
    seconds: float = 0.0


_seen: dict[str, _Seen] = {}


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
        seen = _seen.setdefault(found[2], _Seen())
        seen.seconds += report.duration
        if (report.when == "call" or report.outcome != "passed") and report.outcome != "skipped":
            seen.outcomes.setdefault(found[1], []).append(report.outcome)


def pytest_sessionfinish() -> None:
    """Write what the page says of each backend that was tried, if asked."""
    if os.environ.get("VM_PAGE") and _ran_on:
        for backend, seen in _seen.items():
            begin, end = f"<!-- {backend}: begin -->", f"<!-- {backend}: end -->"
            head, _, rest = PAGE.read_text(encoding="utf-8").partition(begin)
            PAGE.write_text(f"{head}{begin}\n\n{_told(seen)}\n{end}{rest.partition(end)[2]}", encoding="utf-8")


def _told(seen: _Seen) -> str:
    day = datetime.now(UTC).strftime("%Y-%m-%d")
    lines = [f"{day}, {_ran_on[0]}; {seen.seconds / 60:.0f} minutes.", "", "| test | passed |", "| --- | --- |"]
    for name, outcomes in seen.outcomes.items():
        passed, of = outcomes.count("passed"), len(outcomes)
        lines.append(f"| {name.replace('_', ' ')} | {passed if passed == of else f'**{passed} of {of}**'} |")
    return "\n".join((*lines, ""))
