"""SIGKILL in every kind of call of a container's life, for weft alone and with dockerd: the short form."""

import os
from pathlib import Path

import pytest

from tests.conftest import TellFaults
from tests.crash.life import Point, life, walk

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces are root's"),
]


class OncePerCall:
    """Chooses two points in the first call of each kind: one with weft's death alone, one with dockerd's as well.

    One is before the reply, when all is done and nobody was told; the other after the first effect.
    """

    def __init__(self, *, alone_before_reply: bool) -> None:
        self._first = alone_before_reply
        self.met: set[str] = set()

    def __call__(self, effects: list[str]) -> list[Point]:
        """Choose among the points of a command."""
        points: list[Point] = []
        begin = 0
        for at, what in enumerate(effects, 1):
            if what.startswith("reply "):
                if what not in self.met:
                    points += [
                        Point(at - 1, dies_too=not self._first),
                        Point(min(begin + 1, at - 1), dies_too=self._first),
                    ]
                self.met.add(what)
                begin = at
        return points


CALLS = {
    f"reply /{call}"
    for call in (
        *("IpamDriver.RequestPool", "IpamDriver.RequestAddress", "IpamDriver.ReleaseAddress", "IpamDriver.ReleasePool"),
        *("NetworkDriver.CreateNetwork", "NetworkDriver.CreateEndpoint", "NetworkDriver.Join"),
        *("NetworkDriver.ProgramExternalConnectivity", "NetworkDriver.EndpointOperInfo"),
        *("NetworkDriver.RevokeExternalConnectivity", "NetworkDriver.Leave"),
        *("NetworkDriver.DeleteEndpoint", "NetworkDriver.DeleteNetwork"),
    )
}
"""All that a life consists of, on every engine; 28.5.2 has GwAllocCheck besides."""


@pytest.mark.parametrize("ovs", [False, True], ids=["bridge", "ovs"])
def test_after_a_kill_in_any_call_the_host_is_what_docker_knows(
    tmp_path: Path, tell_faults: TellFaults, *, ovs: bool
) -> None:
    choose = OncePerCall(alone_before_reply=ovs)
    with life(tmp_path, ovs=ovs, engine="20.10.24" if ovs else "28.5.2") as one, tell_faults(one.tally):
        walk(one, choose)
        assert choose.met >= CALLS
        assert one.tally.points >= 2 * len(CALLS)
