"""The benches run, so that they cannot rot. What they find is a figure, not a promise: nothing of it is asserted."""

from pathlib import Path

import pytest

from bench import attach, common, ovs, ports
from tests.lab.names import BIN, REPO
from tests.lab.process import run

TINY = (
    ports.Case(1, "tcp", 1),
    ports.Case(3, "udp", 1),
    ports.Case(3, "udp", 1, ports.WITHOUT_BRIDGE),
)


@pytest.mark.engine
def test_attaching_is_measured() -> None:
    with common.host("bench") as on:
        outside, inside, counted = attach.measure(on, [0, 1], 1)
    assert {driver for _, driver, _ in outside} == set(common.DRIVERS)
    assert "1 others, weft" in attach.told(outside, [0, 1])
    assert "DeleteEndpoint" in attach.told_inside(inside, [0, 1])
    assert counted[0]["netlink"] > 0


@pytest.mark.engine
def test_ports_are_measured() -> None:
    with common.host("bench") as on:
        hands = {driver: [ports.by_hand(on, driver, 20) for _ in range(3)] for driver in ports.WITHOUT_BRIDGE}
        found = ports.measure(on, TINY)
    assert "100 UDP ports, to the bridge's | <= 0.15 | - | not measured" in ports.told_targets(found, hands["weft"], 20)
    bridge = found[TINY[1], "bridge"]
    assert bridge.processes == 2 * 3, "docker-proxy runs for each port of each IP version, and is seen"
    assert found[TINY[1], "weft"].processes == 0
    assert ports.told_memory(found).count("\n") == 1 + sum(len(case.drivers) for case in TINY)
    assert "20 ports" in ports.told_hands(hands, 20)


@pytest.mark.engine
@pytest.mark.ovs
def test_the_return_of_open_vswitch_is_measured() -> None:
    _, took = ovs.measured(1)
    assert all(len(times) == 1 for times in took.values())
    assert "ovs-vswitchd: seconds | <= 3" in ovs.told("", took)


@pytest.mark.parametrize("name", ["attach", "ports", "healing", "ovs"])
def test_each_bench_says_what_it_measures(name: str) -> None:
    assert "--write" in run([str(BIN / "python"), "-m", f"bench.{name}", "--help"], cwd=REPO).stdout


def test_the_page_is_rewritten_between_its_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "performance.md"
    page.write_text("above\n<!-- a: begin -->\nold\n<!-- a: end -->\nbelow\n", encoding="utf-8")
    monkeypatch.setattr(common, "PAGE", page)
    for _ in range(2):
        common.publish("a", "new", write=True)
    assert page.read_text(encoding="utf-8") == "above\n<!-- a: begin -->\n\nnew\n\n<!-- a: end -->\nbelow\n"
    with pytest.raises(SystemExit):
        common.publish("b", "new", write=True)
