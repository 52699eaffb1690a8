"""The tables of what fits through a tunnel, in the docs, against the sum that is done."""

from pathlib import Path

import pytest

from drivers.model import Encapsulation
from drivers.tunnels import overhead

ROOT = Path(__file__).parents[2]
KINDS: tuple[Encapsulation, ...] = ("vxlan", "geneve", "gre")


def rows(page: str, head: str) -> dict[str, list[int]]:
    """Return the numbers of the table with this first cell, by the first cell of each row, in small letters."""
    lines = iter((ROOT / page).read_text(encoding="utf-8").splitlines())
    assert any(line.startswith(f"| {head}") for line in lines)
    next(lines)
    found = {}
    for line in lines:
        if not line.startswith("|"):
            break
        name, *numbers = (cell.strip() for cell in line.strip("|").split("|"))
        found[name.lower()] = [int(number) for number in numbers]
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_for_users_says_what_fits(kind: Encapsulation) -> None:
    assert rows("docs/multihost.md", "| route of 1500, IPv4")[kind] == [
        route - overhead(kind, version) for route in (1500, 9000) for version in (4, 6)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_the_specification_says_what_fits(kind: Encapsulation) -> None:
    told = rows("spec/datapath.md", "bytes for containers, of 1500")
    (sizes,) = (sizes for kinds, sizes in told.items() if kind in kinds)
    assert sizes == [1500 - overhead(kind, version) for version in (4, 6)]
