"""What the pages name is there: each test that is called a proof, each file that is linked."""

import re
from functools import cache
from pathlib import Path

import pytest

from tests.lab.names import REPO

PAGES = sorted((*REPO.glob("*.md"), *REPO.glob("docs/*.md"), *REPO.glob("spec/**/*.md")))
NAMED = re.compile(r"`((?:tests/)?[\w/]*\btest_\w+\.py)(?:::(\w+))?|`::(\w+)")
LINKED = re.compile(r"\]\((?!https?:)([^)#\s]+)")


@cache
def text_of(path: Path) -> str:
    """Return a file's text."""
    return path.read_text(encoding="utf-8")


@cache
def meant(file: str) -> tuple[Path, ...]:
    """Return the file of a name, or those of a name without its folder."""
    return ((REPO / file),) if (REPO / file).is_file() else tuple((REPO / "tests").rglob(file.rpartition("/")[2]))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
def test_every_test_that_a_page_names_is_there(page: Path) -> None:
    lost, file = [], ""
    for found in NAMED.finditer(text_of(page)):
        file = found[1] or file
        name = found[2] or found[3]
        begin = f"def {name}" + ("" if name and name.endswith("_") else "(")  # test_some_*: all that begin so
        if not any(not name or begin in text_of(path) for path in meant(file)):
            lost.append(f"{file}::{name}" if name else file)
    assert not lost


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
def test_every_file_that_a_page_links_is_there(page: Path) -> None:
    assert [link for link in LINKED.findall(text_of(page)) if not (page.parent / link).exists()] == []
