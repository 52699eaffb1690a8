"""SIGKILL at every effect of every call in a container's whole life: then the host is what Docker knows.

`make test-faults EVERY=4` tries one point in four: in CI, where there is no time for all.
"""

import os
from pathlib import Path

import pytest

from tests.conftest import TellFaults
from tests.crash.life import Choose, Point, life, walk

EVERY = int(os.environ.get("FAULTS_EVERY", "1"))

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.faults,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces are root's"),
]


def alone(effects: list[str]) -> list[Point]:
    """Return all points there are with weft's death alone.

    Before an effect is as after the one before it, but for a reply: Docker has got it by then, and makes its next call.
    """
    points = []
    for at, what in enumerate(("", *effects)):
        points.append(Point(at))
        if what.startswith("reply "):
            points.append(Point(at, before_next=True))
    return points


def together(effects: list[str]) -> list[Point]:
    """Return all points there are with dockerd's death as well."""
    return [Point(at, dies_too=True) for at in range(len(effects) + 1)]


class Sparse:
    """Chooses one in `EVERY` of the points that another choice would make, whatever command they are in."""

    def __init__(self, choose: Choose) -> None:
        self._choose = choose
        self._passed = 0

    def __call__(self, effects: list[str]) -> list[Point]:
        """Choose among the points of a command."""
        points = self._choose(effects)
        begin, self._passed = -self._passed % EVERY, self._passed + len(points)
        return points[begin::EVERY]


@pytest.mark.parametrize("choose", [alone, together], ids=["weft", "weft-and-dockerd"])
@pytest.mark.parametrize(("ovs", "engine"), [(False, "28.5.2"), (True, "20.10.24")], ids=["bridge", "ovs"])
def test_after_a_kill_at_any_effect_the_host_is_what_docker_knows(
    tmp_path: Path, tell_faults: TellFaults, choose: Choose, engine: str, *, ovs: bool
) -> None:
    with life(tmp_path, ovs=ovs, engine=engine) as one, tell_faults(one.tally):
        walk(one, Sparse(choose))
        assert one.tally.points >= 195 // EVERY
