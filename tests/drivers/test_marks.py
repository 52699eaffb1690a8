"""The mark on the host's objects: ours is read back, anybody else's is not."""

import pytest

from drivers.marks import Marks, describe
from drivers.resources import HOST, SCOPE_ID, Scope, scope_of

OURS = Marks("0123456789abcdef")
NETWORK, ENDPOINT = "f" * 64, "e" * 64


@pytest.mark.parametrize(
    "scope",
    [HOST, scope_of(NETWORK), scope_of(NETWORK, ENDPOINT), scope_of("2xg7zkq9w1mv5t0hs3ybnc8dr", "e1")],
    ids=str,
)
def test_what_was_written_is_read_back(scope: Scope) -> None:
    assert OURS.read(OURS.write(scope)) == scope


def test_the_longest_mark_has_87_bytes() -> None:
    assert len(OURS.write(scope_of(NETWORK, ENDPOINT)).encode()) == 87


def test_marks_do_not_change_between_versions() -> None:
    """An upgraded weft must know what the old one made."""
    assert Marks("s1").write(HOST) == "weft:s1::"
    assert Marks("s1").write(scope_of(NETWORK)) == "weft:s1:" + "f" * SCOPE_ID + ":"
    assert Marks("s1").write(scope_of("n", "e")) == "weft:s1:n:e"


def test_another_store_s_mark_is_not_ours_and_is_told_apart() -> None:
    theirs = Marks("other").write(scope_of(NETWORK))
    assert OURS.read(theirs) is None
    assert describe(theirs) == "another weft (store other)"


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "weft",
        "weft:",
        "weft:0123456789abcdef:",
        "weft:0123456789abcdef:n",
        "weft::n:",
        "weft:0123456789ABCDEF:n:",
        "weft:0123456789abcdef0:n:",
        " weft:0123456789abcdef:n:",
        "weft:0123456789abcdef:n:\n",
        "weft:0123456789abcdef:n:e:x",
        "weft:0123456789abcdef:n-1:",
        "weft:0123456789abcdef:" + "f" * 33 + ":",
        "uplink to weft:0123456789abcdef:n:",
    ],
)
def test_garbage_is_nobody_s(text: str | None) -> None:
    assert OURS.read(text) is None
    assert describe(text) == "something that weft did not make"
