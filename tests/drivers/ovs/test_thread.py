"""The thread and what it holds: nothing is left behind, and nothing that others do to the process is in its way."""

import contextlib
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from drivers.ovsdb import OvsdbBackend
from drivers.ovsdb.ledger import Ledger
from tests.drivers.ovs.world import BRIDGE, SOON, Watcher, backend_of, port, tunnel
from tests.drivers.steps import applied, create
from tests.lab.ovs import Ovs
from tests.lab.wait import await_

pytestmark = pytest.mark.kernel


@pytest.fixture
def ovs(mortal: Ovs) -> Ovs:
    return mortal


LIBUUID = Path("/var/lib/libuuid/clock.txt")

LATE = """
import signal, sys, threading
before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM)]
from drivers.marks import Marks
from drivers.ovsdb import OvsdbBackend, parse
backend = OvsdbBackend(Marks("a"), parse(sys.argv[1]), patience=30)
assert not {name for name in sys.modules if name.split(".")[0] == "ovs"}, "python-ovs is imported too early"
assert threading.active_count() == 1
assert backend.observe([]) == {}
assert "ovs.db.idl" in sys.modules
after = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM)]
assert after == before, "python-ovs has put itself in the way of gunicorn"
backend.close()
assert threading.active_count() == 1
"""


def descriptors() -> int:
    """Count this process's open files, but for libuuid's clock: one for each thread that made a uuid by time."""
    count = 0
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # of the look itself
            count += link.readlink() != LIBUUID
    return count


def threads() -> int:
    """Count the backends' threads."""
    return sum(thread.name == "weft-ovsdb" for thread in threading.enumerate())


def test_python_ovs_is_imported_late_and_leaves_the_process_alone(ovs: Ovs) -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", LATE, ovs.remote], check=True, timeout=60)


def test_the_thread_ends_with_the_backend_and_holds_nothing(ovs: Ovs) -> None:
    before = descriptors()
    for _ in range(3):
        with backend_of(ovs) as backend:
            with Watcher(backend):
                applied(backend, BRIDGE)
                ovs.kill()
                ovs.start()
                applied(backend, tunnel())
            assert threads() == 1
        assert threads() == 0
        assert descriptors() == before


def test_an_outage_costs_no_descriptors(absent: Ovs) -> None:
    absent.start_database()
    absent.kill_database()
    with backend_of(absent) as backend:
        assert not backend.health().connected
        before = descriptors()
        for _ in range(5):
            backend.survey()
        assert descriptors() <= before + 1, "one that is being tried"


@contextmanager
def many_files(count: int) -> Iterator[None]:
    """Hold so many files that the next one has a number which select(2) does not know."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(count)]
    try:
        yield
    finally:
        for number in held:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_process_with_a_thousand_published_ports_has_ovs_networks_too(ovs: Ovs) -> None:
    with many_files(1100), backend_of(ovs) as backend:
        applied(backend, BRIDGE)
        ovs.kill()
        ovs.start()
        applied(backend, tunnel())


def test_a_failure_that_nobody_thought_of_is_not_the_end(
    ovs: Ovs, backend: OvsdbBackend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    applied(backend, BRIDGE)
    enter, failed = Ledger.enter, threading.Event()

    def fail(*_: object) -> None:
        monkeypatch.setattr(Ledger, "enter", enter)
        failed.set()
        raise RuntimeError("a bug")

    with Watcher(backend) as watcher:
        monkeypatch.setattr(Ledger, "enter", fail)
        assert backend.apply(create(tunnel())) == {}
        assert failed.is_set()
        watcher.heard(None)
    assert "the OVSDB client begins anew" in caplog.text
    assert backend.survey() == {one.key: one for one in (BRIDGE, tunnel())}


def test_an_answer_of_a_hanging_thread_is_not_waited_for_for_ever(ovs: Ovs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drivers.ovsdb.backend._MARGIN", 0.2)
    holding, held = threading.Event(), threading.Event()
    with backend_of(ovs, patience=0.5) as backend:
        applied(backend, BRIDGE)

        def hang(_: object) -> None:
            held.set()
            holding.wait(SOON)

        stop = backend.subscribe(hang, lambda: None)
        backend.apply(create(tunnel()))
        try:
            await_(held.is_set, SOON, "the thread to hang")
            assert "hangs" in str(backend.apply(create(port("wfg1")))[port("wfg1").key])
        finally:
            holding.set()
        stop()
