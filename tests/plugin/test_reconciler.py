from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from drivers.resources import HOST, Scope
from plugin.reconciler import Reconciler
from tests.lab.wait import await_

NETWORK = Scope("n1")


@contextmanager
def looking(heal: object, interval: float = 3600) -> Iterator[Reconciler]:
    reconciler = Reconciler(heal, interval)  # type: ignore[arg-type]
    reconciler.start()
    try:
        yield reconciler
    finally:
        reconciler.stop()


def test_it_begins_with_a_look_at_everything() -> None:
    seen: list[Scope | None] = []
    with looking(seen.append) as reconciler:
        assert reconciler.settled(30)
    assert seen == [None]


def test_a_burst_costs_one_look() -> None:
    seen: list[Scope | None] = []
    busy, go_on = threading.Event(), threading.Event()

    def heal(scope: Scope | None) -> None:
        seen.append(scope)
        if scope == HOST:
            busy.set()
            assert go_on.wait(30)

    with looking(heal) as reconciler:
        assert reconciler.settled(30)
        reconciler.dirty(HOST)
        assert busy.wait(30)
        for _ in range(1000):
            reconciler.dirty(NETWORK)
        go_on.set()
        await_(lambda: NETWORK in seen, 30, "the look at the network")
    assert seen == [None, HOST, NETWORK]


def test_a_look_at_everything_takes_the_rest_along() -> None:
    seen: list[Scope | None] = []
    with looking(seen.append) as reconciler:
        assert reconciler.settled(30)
        reconciler.dirty(NETWORK)
        reconciler.dirty(None)
        await_(lambda: seen.count(None) == 2, 30, "the second look at everything")
    assert NETWORK not in seen or seen.index(NETWORK) < 2


def test_it_looks_by_itself_when_the_interval_has_passed() -> None:
    seen: list[Scope | None] = []
    with looking(seen.append, interval=0.01):
        await_(lambda: len(seen) >= 5, 30, "five looks")


def test_a_failed_look_is_told_and_not_the_last(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Scope | None] = []

    def heal(scope: Scope | None) -> None:
        seen.append(scope)
        if scope == NETWORK:
            raise OSError("no")

    with looking(heal) as reconciler:
        assert reconciler.settled(30)
        reconciler.dirty(NETWORK)
        await_(lambda: NETWORK in seen, 30, "the look that fails")
        reconciler.dirty(HOST)
        await_(lambda: HOST in seen, 30, "the look after it")
    assert [record.message for record in caplog.records] == ["a look failed"]
