"""Many at once: few transactions, and each caller gets its own answer."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Never

import pytest

from drivers.contract import Step
from drivers.ovsdb import OvsdbBackend
from drivers.resources import OvsPort, scope_of
from tests.drivers.ovs.world import BRIDGE, FLOW, port
from tests.drivers.steps import applied, create, delete
from tests.lab.ovs import Ovs

pytestmark = pytest.mark.kernel

CALLERS = 16


def tunnels(count: int, first: int = 0) -> list[OvsPort]:
    """Return ports that cost OVS next to nothing."""
    return [
        port(f"wft{number}", type="vxlan", options=(*FLOW[1:], ("key", f"{number}")), scope=scope_of(f"n{number}"))
        for number in range(first, first + count)
    ]


def at_once(calls: list[Callable[[], object]]) -> list[object]:
    """Make calls from as many threads, all starting in the same moment, and return what they return."""
    barrier = Barrier(len(calls))

    def call(what: Callable[[], object]) -> object:
        barrier.wait()
        return what()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(call, calls))


def test_concurrent_callers_share_transactions(backend: OvsdbBackend) -> None:
    applied(backend, BRIDGE)
    ports = tunnels(CALLERS * 4)
    calls = backend.calls

    def attach(caller: int) -> list[object]:
        return [backend.apply(create(one)) for one in ports[caller::CALLERS]]

    answers = at_once([lambda caller=caller: attach(caller) for caller in range(CALLERS)])  # type: ignore[misc]
    assert answers == [[{}] * 4] * CALLERS
    assert backend.observe([one.key for one in ports]) == {one.key: one for one in ports}
    assert backend.calls - calls < len(ports) / 2
    assert backend.apply(delete(*ports)) == {}
    assert backend.survey() == {BRIDGE.key: BRIDGE}


def test_a_rank_is_one_transaction(backend: OvsdbBackend) -> None:
    applied(backend, BRIDGE)
    ports = tunnels(40)
    calls = backend.calls
    assert backend.apply(create(*ports)) == {}
    assert backend.calls == calls + 1
    assert backend.apply(delete(*ports)) == {}
    assert backend.calls == calls + 2


def test_a_big_rank_is_cut_so_that_frames_pass_in_between(backend: OvsdbBackend) -> None:
    applied(backend, BRIDGE)
    ports = tunnels(150)
    calls = backend.calls
    assert backend.apply(create(*ports)) == {}
    assert backend.calls == calls + 3
    assert len(backend.survey()) == 151


def test_a_guilty_caller_fails_alone(backend: OvsdbBackend) -> None:
    applied(backend, BRIDGE)
    ports = tunnels(CALLERS)
    ports[5] = port("wfg5", mtu=-5)
    answers = at_once([lambda one=one: backend.apply(create(one)) for one in ports])  # type: ignore[misc]
    assert [bool(one) for one in answers] == [number == 5 for number in range(CALLERS)]


def test_steps_on_one_key_are_taken_one_after_the_other(backend: OvsdbBackend) -> None:
    (one,) = tunnels(1)
    applied(backend, BRIDGE)
    client = backend._client()
    works = client.submit([Step(None, one), Step(one, None), Step(None, one)], 30)
    for work in works:
        work.done.result(30)
    assert backend.observe([one.key]) == {one.key: one}
    assert backend.calls == 1 + 3


class _Unwalkable(dict[str, object]):
    """Rows that may be looked up, and nothing else."""

    def _refuse(self, *_: object) -> Never:
        raise AssertionError("a scan of all rows")

    __iter__ = keys = values = items = _refuse


def test_a_request_looks_at_the_rows_it_is_about(backend: OvsdbBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    applied(backend, BRIDGE)
    ports = tunnels(20)
    applied(backend, *ports)
    rows = backend._client().reader.rows
    for name in ("bridges", "ports", "interfaces"):
        monkeypatch.setattr(rows, name, _Unwalkable(getattr(rows, name)))
    (one,) = tunnels(1, first=77)
    assert backend.observe([one.key, ports[3].key]) == {ports[3].key: ports[3]}
    assert backend.apply(create(one)) == {}
    assert backend.ofports([one.name])
    assert backend.apply(delete(one)) == {}
    with pytest.raises(AssertionError, match="a scan"):
        backend.survey()


def test_the_database_tells_in_its_own_log_who_did_what(backend: OvsdbBackend, ovs: Ovs) -> None:
    applied(backend, BRIDGE)
    log = ovs.place.run("ovsdb-tool", "-m", "show-log", f"{ovs.rundir}/conf.db").stdout
    assert f'"weft: {BRIDGE}"' in log
