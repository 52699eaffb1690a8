"""Published ports, cell by cell as docs/ports.md shows them: who reaches them, by which way, and as whom."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.matrix.docker import set_br_netfilter
from tests.matrix.ports_street import BACKENDS, Publishers, Street
from tests.matrix.ports_table import ROWS, SHAPES, Row, tables

pytestmark = pytest.mark.kernel

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "ports.md"
BEGIN: Final = "<!-- made by tests/matrix/test_ports.py: WEFT_UPDATE=1 writes it anew -->\n"
END: Final = "<!-- end -->\n"

CELLS: Final = [pytest.param(row, shape, id=f"{row.name}-{shape}") for row in ROWS if row.starts for shape in SHAPES]


@pytest.fixture(scope="module", params=BACKENDS)
def publishers(request: pytest.FixtureRequest) -> Iterator[Publishers]:
    """Build it once for each backend; the operator's own bridge is a Linux bridge beside either."""
    with Street.built("ports", request.param) as street:
        yield Publishers(street)


@pytest.fixture(scope="module", params=[0, 1], ids=["br_netfilter-0", "br_netfilter-1"])
def surprises(publishers: Publishers, request: pytest.FixtureRequest) -> dict[tuple[Row, str], list[str]]:
    """Return what went otherwise than expected, by cell."""
    set_br_netfilter(publishers.street.node, request.param)
    return publishers.look()


@pytest.mark.parametrize(("row", "shape"), CELLS)
def test_a_published_port(surprises: dict[tuple[Row, str], list[str]], row: Row, shape: str) -> None:
    assert surprises[row, shape] == []


def test_the_document_shows_what_is_expected() -> None:
    before, begin, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin, f"{DOCUMENT} has no place for the tables"
    assert end, f"{DOCUMENT}: the tables have no end"
    made = "\n".join(tables())
    text = f"{before}{BEGIN}\n{made}\n{END}{after}"
    if os.environ.get("WEFT_UPDATE"):
        DOCUMENT.write_text(text, encoding="utf-8")
    assert DOCUMENT.read_text(encoding="utf-8") == text, "run it again with WEFT_UPDATE=1, and read the difference"
