"""spec/datapath-ovs.md is what the planner does, flow by flow."""

import re

from drivers.ovs.model import PEERS, SLOTS
from drivers.ovs.tables import Table
from tests.drivers.ovs_pipeline.spec_table import PAGE, planned, shown


def test_the_page_shows_every_flow_and_no_other() -> None:
    page, plan = shown(), planned()
    assert not sorted(plan - page)
    assert not sorted(page - plan)
    assert len(page) > 80


def test_the_page_names_every_table() -> None:
    text = PAGE.read_text().partition("| table | what for |")[2].partition("| register |")[0]
    named: set[int] = set()
    for cell in re.findall(r"^\| ([\d, to]+) \|", text, re.MULTILINE):
        first, _, last = cell.partition(" to ")
        named |= {int(number) for number in first.split(", ")} if not last else set(range(int(first), int(last) + 1))
    assert named == {*Table}


def test_the_page_knows_the_limits() -> None:
    text = PAGE.read_text()
    assert f"{SLOTS:,} ports" in text
    assert f"{PEERS:,} peers" in text
