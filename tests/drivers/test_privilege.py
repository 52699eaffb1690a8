"""What is given away is gone, for the process and for all that it starts; what weft needs is there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from drivers.privilege import NEEDED
from plugin.service import SERVICE_UNIT

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="who has no capabilities can give none away")

MASK = sum(1 << number for number in NEEDED.values())
CHILD = "grep -E '^(Cap|NoNew)' /proc/self/status"
PROGRAM = f"""
import subprocess, sys
from drivers.privilege import drop
drop()
drop()
print(open("/proc/self/status").read())
print("--")
print(subprocess.run(["sh", "-c", {CHILD!r}], capture_output=True, text=True).stdout)
"""


def told(text: str) -> dict[str, int]:
    """Return the sets by their names in /proc/PID/status."""
    return {name: int(value, 16) for name, value in re.findall(r"^(Cap\w+|NoNewPrivs):\s+(\w+)$", text, re.MULTILINE)}


def test_only_what_is_needed_is_left_and_nothing_comes_back() -> None:
    said = subprocess.run((sys.executable, "-c", PROGRAM), capture_output=True, text=True, check=True).stdout
    for text in said.split("--"):
        sets = told(text)
        mine = told(Path("/proc/self/status").read_text(encoding="utf-8"))["CapBnd"]
        assert sets["NoNewPrivs"] == 1
        assert sets["CapInh"] == sets["CapAmb"] == 0
        for name in ("CapBnd", "CapPrm", "CapEff"):
            assert sets[name] == MASK & mine, name


def test_the_unit_says_the_same() -> None:
    (line,) = re.findall(r"^CapabilityBoundingSet=(.*)$", SERVICE_UNIT, re.MULTILINE)
    assert set(line.split()) == set(NEEDED)
