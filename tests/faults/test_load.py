"""Eight clients, 500 containers' lives over 10 networks, three times: nothing is lost, doubled or leaked."""

import os
import sys
from collections.abc import Iterator

import pytest

from tests.faults.load import Load
from tests.lab.node import Node
from tests.lab.weft import STATE, Weft

pytestmark = [
    pytest.mark.faults,
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces are root's"),
]

CLIENTS, NETWORKS, LIVES, ROUNDS = 8, 10, 500, 3
GROWTH_MB = 5


@pytest.fixture
def weft() -> Iterator[Weft]:
    """Yield a weft on a node without dockerd."""
    with Node("load") as node:
        node.run("mkdir", "-p", STATE)
        with Weft(node) as weft:
            yield weft


def test_many_lives_at_once_leave_nothing_behind(weft: Weft, capsys: pytest.CaptureFixture[str]) -> None:
    load = Load(weft, networks=NETWORKS, clients=CLIENTS)
    memory = []
    for _ in range(ROUNDS):
        load.round(LIVES)
        memory.append(load.memory())
    with capsys.disabled():
        said = ", ".join(f"{one:.1f}" for one in memory)
        what = f"{ROUNDS} rounds of {LIVES} lives, {CLIENTS} clients; MB of the worker after each: {said}"
        sys.stdout.write(f"\n{what}\n{load.told()}\n")
    assert memory[-1] - memory[0] < GROWTH_MB
    assert "level=error" not in weft.log_text()
    load.remove()
    assert weft.cli("status").returncode == 0
    assert not weft.node.run("nft", "list", "tables").stdout
