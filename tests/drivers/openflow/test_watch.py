"""What the backend hears: changes by others at once, and a switch that came back with nothing."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from drivers.contract import Step
from drivers.converge import Converger
from drivers.errors import HostFailure
from drivers.openflow import session
from drivers.openflow.backend import OpenFlowBackend
from drivers.resources import Foreign, Scope
from tests.drivers.openflow.ovs import BRIDGE, Ovs
from tests.drivers.openflow.world import ENDPOINT, MARKS, NETWORK, PORT, one
from tests.drivers.steps import applied
from tests.lab.wait import await_
from tests.netns import private_netns

pytestmark = pytest.mark.kernel

BOUND = 20  # seconds


class Heard:
    """What a watch has told."""

    def __init__(self) -> None:
        self.scopes: list[Scope | None] = []

    def __call__(self, scope: Scope | None) -> None:
        """Take it down."""
        self.scopes.append(scope)

    def await_(self, scope: Scope | None) -> None:
        """Wait until a scope was told, and forget what was told so far."""
        await_(lambda: scope in self.scopes, BOUND, f"{scope} to be told as dirty")
        self.scopes.clear()


@contextmanager
def _watching(backend: OpenFlowBackend) -> Iterator[Heard]:
    heard = Heard()
    stop = backend.watch(heard)
    try:
        yield heard
    finally:
        stop()
    assert "openflow-watch" not in {thread.name for thread in threading.enumerate()}


def test_a_flow_that_others_delete_or_change_makes_its_scope_dirty(backend: OpenFlowBackend, ovs: Ovs) -> None:
    first, second = one(30, "reg0=0x1"), one(30, "reg0=0x2", scope=NETWORK)
    with _watching(backend) as heard:
        heard.await_(None)
        applied(backend, first, second)
        ovs.ofctl("--strict", "del-flows", BRIDGE, "table=30,priority=7,reg0=0x1")
        heard.await_(ENDPOINT)
        assert backend.observe([first.key, second.key]) == {second.key: second}
        ovs.ofctl("mod-flows", BRIDGE, "table=30,reg0=0x2,actions=IN_PORT")
        heard.await_(NETWORK)
        (found,) = backend.observe([second.key]).values()
        assert found != second
        ovs.ofctl("add-flow", BRIDGE, "table=30,priority=7,reg0=0x2,actions=drop")
        heard.await_(NETWORK)
        (found,) = backend.observe([second.key]).values()
        assert isinstance(found, Foreign)


def test_our_own_changes_and_what_packets_teach_are_no_news(backend: OpenFlowBackend, ovs: Ovs) -> None:
    flows = [one(30, f"reg0={number:#x}") for number in range(100)]
    with _watching(backend) as heard:
        heard.await_(None)
        applied(backend, *flows)
        assert not backend.apply([Step(flow, None) for flow in flows[:50]])
        ovs.ofctl("add-flow", BRIDGE, "table=31,hard_timeout=300,reg0=0x5,actions=drop")
        ovs.ofctl("add-flow", BRIDGE, "table=32,cookie=0x9,actions=drop")
        ovs.ofctl("--strict", "del-flows", BRIDGE, "table=30,priority=7,reg0=0x63")
        heard.await_(ENDPOINT)  # so the monitor has told all that was before
        assert not heard.scopes
        assert len(backend.observe([flow.key for flow in flows])) == 49


def test_an_interface_with_a_new_number_makes_everything_dirty(
    backend: OpenFlowBackend, converger: Converger, ovs: Ovs
) -> None:
    """Its scope has no key that leads to the flow at the old number, also when the endpoint is deleted meanwhile."""
    entry, reach = one(0, f'in_port="{PORT}"', "resubmit(,10)"), one(30, "reg0=0x1", f'output:"{PORT}"')
    with _watching(backend) as heard:
        heard.await_(None)
        applied(backend, entry, reach)
        assert not backend.observe([entry.key]).keys() ^ {entry.key}
        ovs.remove_port(PORT)
        ovs.add_port(PORT, "type=internal", "ofport_request=77")
        assert not heard.scopes
        converger.converge(ENDPOINT, (), [entry.key, reach.key])
        heard.await_(None)
        (left,) = backend.survey().values()
        assert left.scope == ENDPOINT
        converger.converge(ENDPOINT, (), [left.key])
        assert not ovs.flows()
        assert backend.observe([entry.key]) == {}
        assert not heard.scopes


def test_a_switch_that_was_killed_comes_back_dirty(backend: OpenFlowBackend, ovs: Ovs) -> None:
    wanted = one(30, "reg0=0x1", f'output:"{PORT}"')
    with _watching(backend) as heard:
        heard.await_(None)
        applied(backend, wanted)
        ovs.stop("ovs-vswitchd", signal.SIGKILL)
        assert backend.observe([wanted.key]) == {}
        assert isinstance(backend.apply([Step(None, wanted)])[wanted.key], HostFailure)
        ovs.start_vswitchd()
        heard.await_(None)
        assert backend.observe([wanted.key]) == {}
        applied(backend, wanted)
        assert backend.survey() == {wanted.key: wanted}


def test_a_bridge_that_is_made_anew_comes_back_dirty(backend: OpenFlowBackend, ovs: Ovs) -> None:
    wanted = one(30, "reg0=0x1")
    with _watching(backend) as heard:
        heard.await_(None)
        applied(backend, wanted)
        ovs.vsctl("del-br", BRIDGE)
        ovs.add_bridge()
        heard.await_(None)
        assert backend.observe([wanted.key]) == {}


def test_a_bridge_that_is_not_there_yet_is_found() -> None:
    with private_netns(), Ovs() as ovs:
        backend = OpenFlowBackend(MARKS, list, ovs.ofport, rundir=ovs.rundir)
        with _watching(backend) as heard:
            ovs.stop("ovs-vswitchd")
            ovs.start_vswitchd()
            ovs.add_bridge()
            heard.await_(None)
        backend.close()


def test_a_switch_that_hangs_is_not_waited_for_without_end(
    backend: OpenFlowBackend, ovs: Ovs, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = one(30, "reg0=0x1")
    applied(backend, wanted)
    monkeypatch.setattr(session, "GREETING", 0.3)
    monkeypatch.setattr("drivers.openflow.switch.PATIENCE", 0.3)
    ovs.pause()
    try:
        other = one(30, "reg0=0x2")
        failure = backend.apply([Step(None, other)])[other.key]
        assert "did not answer within 0.3" in str(failure)
        failure = backend.apply([Step(None, other)])[other.key]
        assert "did not greet within 0.3 s" in str(failure)
        with pytest.raises(HostFailure, match="did not greet"):
            backend.observe([wanted.key])
    finally:
        ovs.resume()
    monkeypatch.setattr("drivers.openflow.switch.PATIENCE", session.PATIENCE)
    monkeypatch.setattr(session, "GREETING", session.PATIENCE)
    applied(backend, wanted, other)
    assert len(backend.survey()) == 2


def test_closing_ends_every_thread(ovs: Ovs) -> None:
    backend = OpenFlowBackend(MARKS, list, ovs.ofport, rundir=ovs.rundir)
    stop = backend.watch(lambda _: None)
    await_(lambda: backend.calls, BOUND, "the watch to connect")
    stop()
    stop()
    backend.close()
    backend.close()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("openflow")]
