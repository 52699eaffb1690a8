"""bench/plugin.py runs, so that it cannot rot. What it finds is a figure, not a promise: nothing of it is asserted."""

import pytest

from bench import plugin
from tests.lab.names import BIN, REPO
from tests.lab.plugin import PluginHost
from tests.lab.process import run

pytestmark = pytest.mark.plugin


def test_the_plugin_is_measured(host: PluginHost) -> None:
    seconds = plugin.enabled(host)
    weft, empty = plugin.memory(host)
    assert min(weft, empty) > 10, "both are Python with flask in it, and were seen"
    said = plugin.told("here", [seconds], weft, empty, 150)
    assert "| root filesystem, MB | <= 180 | 150.00 | pass |" in said
    assert "memory, times an empty application's" in said


def test_it_says_what_it_measures() -> None:
    assert "--write" in run([str(BIN / "python"), "-m", "bench.plugin", "--help"], cwd=REPO).stdout
