"""Open vSwitch is not there, or not yet: weft starts all the same, says so, and finds it when it comes."""

import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from drivers.converge import Converger
from drivers.errors import HostFailure
from drivers.marks import Marks
from drivers.ovsdb import Health, OvsdbBackend, Remote
from drivers.resources import HOST
from tests.drivers.ovs.world import BRIDGE, MARKS, SOON, Watcher, backend_of, remote_of, tunnel
from tests.drivers.steps import applied, create, delete
from tests.lab.ovs import Ovs
from tests.lab.wait import await_

pytestmark = pytest.mark.kernel


def test_a_host_without_it_is_a_host_without_it(absent: Ovs) -> None:
    with backend_of(absent) as backend, Watcher(backend) as watcher:
        assert backend.survey() == {}
        health = backend.health()
        assert health == Health(remote=absent.remote, connected=False, why="No such file or directory")
        assert Converger({"ovsdb": backend}).survey() == {}
        assert watcher.told == []
        assert backend.calls == 0
        assert backend._started is None, "it has no thread, and python-ovs is not imported for it"


def test_what_is_wanted_says_what_is_missing(absent: Ovs) -> None:
    with backend_of(absent, patience=0.5) as backend:
        words = (
            f"ovsdb-server does not answer at {absent.remote}: No such file or directory; is Open vSwitch installed "
            r"and running \(systemctl status openvswitch-switch\)\? WEFT_OVSDB or OVS_RUNDIR say where"
        )
        for ask in (
            lambda: Converger({"ovsdb": backend}).converge(HOST, [BRIDGE]),
            lambda: backend.observe([BRIDGE.key]),
            backend.datapath_types,
        ):
            with pytest.raises(HostFailure, match=words):
                ask()
        with pytest.raises(HostFailure, match=words):
            raise backend.apply(create(BRIDGE))[BRIDGE.key]


def test_what_was_asked_for_before_it_came_is_done(absent: Ovs) -> None:
    with backend_of(absent) as backend, Watcher(backend) as watcher, ThreadPoolExecutor(2) as pool:
        assert backend.survey() == {}
        changed = pool.submit(backend.apply, create(BRIDGE))
        seen = pool.submit(backend.observe, [tunnel().key])
        absent.start()
        assert changed.result(SOON) == {}
        assert seen.result(SOON) == {}
        watcher.heard(None)
        applied(backend, tunnel())
        assert backend.survey().keys() == {BRIDGE.key, tunnel().key}
        assert backend.health().connected


def test_what_has_been_away_for_long_is_not_waited_for_again(absent: Ovs) -> None:
    """A look at the whole host must not stand still for each of a hundred networks."""
    with backend_of(absent, patience=10 * SOON) as backend, ThreadPoolExecutor(1) as pool:
        backend._client().down_since -= 11 * SOON
        with pytest.raises(HostFailure, match="No such file"):
            pool.submit(backend.observe, [BRIDGE.key]).result(SOON)
        assert pool.submit(backend.apply, create(BRIDGE)).result(SOON).keys() == {BRIDGE.key}
        absent.start()
        assert pool.submit(backend.apply, create(BRIDGE)).result(SOON) == {}, "but one that answers is"


def test_a_database_that_nobody_set_up_is_told(absent: Ovs) -> None:
    absent.start_database()
    root = ["Open_vSwitch", {"op": "delete", "table": "Open_vSwitch", "where": []}]
    absent.place.run("ovsdb-client", "transact", absent.remote, json.dumps(root))
    with backend_of(absent, patience=0.5) as backend:
        with pytest.raises(HostFailure, match=r"the database at .* is empty; .* ovs-vsctl --no-wait init"):
            raise backend.apply(create(BRIDGE))[BRIDGE.key]
        absent.vsctl("--no-wait", "init")
        absent.start_vswitchd()
        await_(lambda: backend.apply(create(BRIDGE)) == {}, SOON, "the bridge")


def test_the_database_over_tcp(mortal: Ovs) -> None:
    mortal.vsctl("set-manager", "ptcp:6640:127.0.0.1")
    backend = OvsdbBackend(MARKS, Remote("tcp:127.0.0.1:6640", None), patience=SOON)
    try:
        await_(lambda: not Remote("tcp:127.0.0.1:6640", None).refusal(), SOON, "ovsdb-server to listen")
        applied(backend, BRIDGE)
        assert backend.observe([BRIDGE.key]) == {BRIDGE.key: BRIDGE}
        health = backend.health()
        assert health.connected
        assert health.vswitchd is None, "its process cannot be seen from here"
        assert backend.apply(delete(BRIDGE)) == {}
    finally:
        backend.close()


def test_whoever_waits_when_weft_stops_is_told(absent: Ovs) -> None:
    backend = OvsdbBackend(MARKS, remote_of(absent), patience=10 * SOON)
    with ThreadPoolExecutor(2) as pool:
        changed = pool.submit(backend.apply, create(BRIDGE))
        seen = pool.submit(backend.observe, [BRIDGE.key])
        await_(lambda: len(backend._client()._queue) and backend._client().changed._waiters, SOON, "both to be waiting")  # type: ignore[attr-defined]
        backend.close()
        assert "weft is being stopped" in str(changed.result(SOON)[BRIDGE.key])
        with pytest.raises(HostFailure, match="weft is being stopped"):
            seen.result(SOON)
    with pytest.raises(HostFailure, match="weft is being stopped"):
        backend.observe([BRIDGE.key])


def test_nothing_is_started_before_it_is_used(absent: Ovs) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names only
    backend = OvsdbBackend(Marks("a"), remote_of(absent))
    assert backend.calls == 0
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - names only
    backend.close()
    backend.close()
