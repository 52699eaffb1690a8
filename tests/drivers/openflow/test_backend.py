"""The backend of flows on the real Open vSwitch: what it changes, and what it leaves alone."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from ipaddress import ip_address

import pytest

from drivers.contract import Step
from drivers.converge import Converger
from drivers.errors import Conflict, HostFailure, InvalidRequest, Unsupported
from drivers.openflow import messages
from drivers.openflow.backend import OpenFlowBackend
from drivers.openflow.marks import ORPHANS, Cookies
from drivers.openflow.session import Session
from drivers.ovs import pipeline
from drivers.resources import HOST, Bridge, Foreign, Resource, Scope, flow, flow_key, link_key, scope_of
from tests.drivers.openflow.ovs import BRIDGE, Ovs
from tests.drivers.openflow.world import (
    ENDPOINT,
    GATEWAY_PORT,
    HERE,
    MARKS,
    NETWORK,
    OTHER_PORT,
    PORT,
    SEGMENT,
    SWITCH,
    one,
)
from tests.drivers.steps import applied
from tests.netns import private_netns

pytestmark = pytest.mark.kernel


def _another(ovs: Ovs, scopes: set[Scope], store: str = MARKS.store) -> OpenFlowBackend:
    return OpenFlowBackend(replace(MARKS, store=store), lambda: scopes, ovs.ofport, rundir=ovs.rundir)


@pytest.fixture
def reborn(ovs: Ovs, scopes: set[Scope]) -> Iterator[OpenFlowBackend]:
    """Another process of the same weft, which remembers nothing."""
    backend = _another(ovs, scopes)
    yield backend
    backend.close()


# -- what is there --------------------------------------------------------------------------------------------------


def test_a_second_apply_sends_nothing(backend: OpenFlowBackend, ovs: Ovs) -> None:
    wanted = [one(30, f"reg0={number:#x}", f'output:"{PORT}"') for number in range(1, 20)]
    applied(backend, *wanted)
    calls, flows = backend.calls, ovs.flows()
    applied(backend, *wanted)
    assert backend.calls == calls
    assert ovs.flows() == flows
    assert len(flows) == len(wanted)


def test_what_is_observed_is_not_asked_for(backend: OpenFlowBackend) -> None:
    wanted = one(30, "reg0=0x1", f'output:"{PORT}"')
    applied(backend, wanted)
    calls = backend.calls
    assert backend.observe([wanted.key]) == {wanted.key: wanted}
    assert backend.observe([one(30, "reg0=0x2").key]) == {}
    assert backend.calls == calls


def test_a_batch_is_one_message_to_the_switch(backend: OpenFlowBackend) -> None:
    applied(backend, one(30, "reg0=0x1"))
    for number in (1, 50):
        calls = backend.calls
        applied(backend, *(one(31, f"reg0={each:#x}", priority=number) for each in range(number)))
        assert backend.calls == calls + 1


def test_a_container_costs_the_same_among_many(
    backend: OpenFlowBackend, converger: Converger, ovs: Ovs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two questions to the switch, of the same length, and not one look at what others have."""
    asked: list[int] = []
    numbers: dict[str, int] = {}
    backend._switches[BRIDGE]._ports._ofport = lambda name: numbers.setdefault(name, 1000 + len(numbers))
    original = Session.ask

    def ask(session: Session, what: Sequence[bytes], patience: float = 1) -> tuple[list[messages.Message], int]:
        asked.append(len(b"".join(what)))
        return original(session, what, patience)

    monkeypatch.setattr(Session, "ask", ask)
    told = []
    for number in range(2, 303):
        at = replace(
            HERE,
            id=f"e{number}",
            port=f"wfh{number}",
            slot=number,
            mac=f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}",
            addresses=(ip_address("10.1.4.0") + number, ip_address("fd01::1:0") + number),
        )
        plan = pipeline.endpoint(SWITCH, SEGMENT, at)
        asked.clear()
        converger.converge(plan[0].scope, plan)
        told.append(list(asked))
    assert told[10] == told[300]
    assert len(told[10]) == 2


def test_another_process_finds_the_same(backend: OpenFlowBackend, reborn: OpenFlowBackend) -> None:
    wanted = (
        one(0, f'in_port="{PORT}"', "resubmit(,10)"),
        one(30, "reg0=0x1", f'output:"{PORT}"', scope=NETWORK),
        one(30, "reg0=0x2", f'output:"{BRIDGE}"', scope=HOST),
    )
    ovs_local = {BRIDGE: 65534}
    backend_port = backend._switches[BRIDGE]._ports._ofport
    for each in (backend, reborn):
        each._switches[BRIDGE]._ports._ofport = lambda name: ovs_local.get(name) or backend_port(name)
    applied(backend, *wanted)
    assert reborn.survey() == {flow.key: flow for flow in wanted}
    assert reborn.observe([flow.key for flow in wanted]) == {flow.key: flow for flow in wanted}


def test_the_line_a_person_would_type_makes_the_same_flow(backend: OpenFlowBackend, ovs: Ovs) -> None:
    wanted = one(0, f'arp,in_port="{PORT}",arp_spa=10.0.0.1', f'set_field:0x5->reg0,output:"{OTHER_PORT}",IN_PORT')
    applied(backend, wanted)
    (ours,) = ovs.flows()
    ovs.run("sh", "-c", wanted.undo())
    assert not ovs.flows()
    ovs.run("sh", "-c", f"{wanted}")
    (typed,) = ovs.flows()
    assert typed.partition("priority")[2] == ours.partition("priority")[2]


# -- whose it is ----------------------------------------------------------------------------------------------------


def test_flows_of_others_stay(backend: OpenFlowBackend, converger: Converger, ovs: Ovs, scopes: set[Scope]) -> None:
    """The operator's, and another store's: never in a survey, never deleted, a conflict where we need the place."""
    other = _another(ovs, scopes, "fedcba9876543210")
    theirs = one(30, "reg0=0x9", f'output:"{PORT}"')
    applied(other, theirs)
    ovs.ofctl("add-flow", BRIDGE, f"cookie=0x77,table=30,priority=7,reg0=0x8,actions=output:{PORT}")
    before = ovs.flows()

    assert backend.survey() == {}
    seen = backend.observe([theirs.key, one(30, "reg0=0x8").key])
    assert all(isinstance(found, Foreign) for found in seen.values())
    assert len(seen) == 2
    applied_to_nothing = backend.apply([Step(theirs, None), Step(one(30, "reg0=0x8"), None)])
    assert not applied_to_nothing
    assert ovs.flows() == before

    with pytest.raises(ExceptionGroup) as caught:
        converger.converge(ENDPOINT, [theirs, one(30, "reg0=0xa")])
    (conflict,) = caught.value.exceptions
    assert isinstance(conflict, Conflict)
    assert "is taken by a flow with cookie 0x" in str(conflict)
    assert len(ovs.flows()) == 3
    assert backend.apply([Step(None, theirs)]).keys() == {theirs.key}
    assert other.survey() == {theirs.key: theirs}
    other.close()


def test_a_flow_of_another_scope_is_a_conflict(backend: OpenFlowBackend, ovs: Ovs) -> None:
    held = one(30, "reg0=0x9", scope=NETWORK)
    applied(backend, held)
    failures = backend.apply([Step(None, replace(held, scope=ENDPOINT)), Step(replace(held, scope=ENDPOINT), None)])
    assert isinstance(failures[held.key], Conflict)
    assert str(NETWORK) in str(failures[held.key])
    assert len(ovs.flows()) == 1


def test_flows_of_a_scope_that_nobody_knows_are_an_orphans(
    backend: OpenFlowBackend, reborn: OpenFlowBackend, ovs: Ovs, scopes: set[Scope]
) -> None:
    """Also where their interface is gone: a converge of the orphan, with an empty plan, deletes them."""
    lost = scope_of("lost", "e9")
    scopes.add(lost)
    kept = one(30, "reg0=0x1", scope=NETWORK)
    flows = [one(30, f"reg0={number:#x}", f'output:"{OTHER_PORT}"', scope=lost) for number in (5, 6)]
    entry = one(0, f'in_port="{OTHER_PORT}"', "resubmit(,10)", scope=lost)
    applied(backend, kept, *flows, entry)
    scopes.remove(lost)
    ovs.remove_port(OTHER_PORT)

    orphans = {key: flow for key, flow in reborn.survey().items() if flow.scope != NETWORK}
    (scope,) = {flow.scope for flow in orphans.values()}
    assert scope.network == ORPHANS
    assert len(orphans) == 3
    Converger({"openflow": reborn}).converge(scope, (), orphans.keys())
    assert [line for line in ovs.flows() if "reg0=0x1 " not in line] == []
    assert reborn.survey() == {kept.key: kept}


def test_a_flow_that_somebody_changed_is_not_an_orphan_of_ours(ovs: Ovs) -> None:
    """Without the store's word only a flow that is exactly as we wrote it counts as ours."""
    place, instructions = messages.Place(30, 7, b"match"), b"instructions"
    cookies = Cookies("0123", lambda: [ENDPOINT])
    cookie = cookies.write(ENDPOINT, place, instructions)
    forgetful = Cookies("0123", list)
    assert forgetful.read(cookie, place, instructions) == Scope(ORPHANS, f"{cookie >> 32:08x}")
    assert forgetful.read(cookie, place, b"others") is None
    assert forgetful.read(cookie, place._replace(priority=8), instructions) is None
    assert Cookies("4567", list).read(cookie, place, instructions) is None
    forgetful.refresh()
    assert forgetful.write(Scope(ORPHANS, f"{cookie >> 32:08x}"), place, instructions) == cookie


def test_two_scopes_with_one_hash_are_told_apart_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cookies, "_upper", lambda *_: 5)
    cookies = Cookies("0123", list)
    cookies.write(ENDPOINT, messages.Place(1, 1, b""), b"")
    with pytest.raises(Conflict, match="cannot be told from"):
        cookies.write(NETWORK, messages.Place(1, 1, b""), b"")


def test_what_packets_taught_is_nobodys(backend: OpenFlowBackend, ovs: Ovs) -> None:
    ovs.ofctl("add-flow", BRIDGE, "table=31,hard_timeout=300,reg0=0x5,actions=drop")
    assert backend.survey() == {}
    assert backend.observe([one(31, "reg0=0x5", priority=32768).key]) == {}


# -- what goes wrong ------------------------------------------------------------------------------------------------


def test_an_interface_without_a_number_fails_and_installs_nothing(backend: OpenFlowBackend, ovs: Ovs) -> None:
    good = one(30, "reg0=0x1", f'output:"{PORT}"')
    no_match = one(0, 'in_port="wfh000000000000"', "resubmit(,10)")
    no_output = one(30, "reg0=0x2", 'output:"wfh000000000000"')
    failures = backend.apply([Step(None, each) for each in (no_match, good, no_output)])
    assert failures.keys() == {no_match.key, no_output.key}
    for failure in failures.values():
        assert isinstance(failure, HostFailure)
        assert "interface wfh000000000000 has no OpenFlow number on bridge br-int" in str(failure)
    (line,) = ovs.flows()
    assert "reg0=0x1" in line


def test_an_interface_that_could_not_be_opened_has_no_number(backend: OpenFlowBackend, ovs: Ovs) -> None:
    ovs._numbers["nosuch0"] = -1
    wanted = one(30, "reg0=0x1", 'output:"nosuch0"')
    assert "ovs-vsctl get interface nosuch0 ofport error" in str(backend.apply([Step(None, wanted)])[wanted.key])
    assert not ovs.flows()


def test_a_flow_is_deleted_though_its_interface_is_gone(backend: OpenFlowBackend, ovs: Ovs) -> None:
    wanted = one(0, f'in_port="{PORT}"', f'output:"{GATEWAY_PORT}"')
    applied(backend, wanted)
    ovs.remove_port(PORT)
    ovs.remove_port(GATEWAY_PORT)
    assert backend.observe([wanted.key]) == {wanted.key: wanted}
    assert not backend.apply([Step(wanted, None)])
    assert not ovs.flows()


def test_an_interface_with_a_new_number_gets_its_flows_again(
    backend: OpenFlowBackend, converger: Converger, ovs: Ovs
) -> None:
    entry = one(0, f'in_port="{PORT}"', "resubmit(,10)")
    reach = one(30, "reg0=0x1", f'output:"{PORT}"')
    applied(backend, entry, reach)
    old = ovs.ofport(PORT)
    ovs.remove_port(PORT)
    ovs.add_port("wfh222222222222")
    new = ovs.add_port(PORT, "type=internal", "ofport_request=77")
    assert new != old
    seen = backend.survey()
    assert reach not in seen.values()
    converger.converge(ENDPOINT, [entry, reach], seen.keys())
    assert backend.survey() == {entry.key: entry, reach.key: reach}
    assert len(ovs.flows()) == 2


def test_what_the_switch_refuses_is_left_out_and_explained(
    backend: OpenFlowBackend, ovs: Ovs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Table 254 is OVS' own: our checks would not let it through."""
    good, other = one(30, "reg0=0x1"), one(31, "reg0=0x1")
    bad = replace(good, key=good.key.__class__("openflow", "flow", (BRIDGE, "254", "7", "reg0=0x1")))
    failures = backend.apply([Step(None, each) for each in (good, bad, other)])
    assert failures.keys() == {bad.key}
    assert "could not be made" in str(failures[bad.key])
    assert "(by hand: ovs-ofctl -O OpenFlow14 add-flow br-int 'table=254" in str(failures[bad.key])
    assert len(ovs.flows()) == 2
    assert backend.observe([good.key, other.key]) == {good.key: good, other.key: other}


def test_a_batch_is_taken_as_a_whole(backend: OpenFlowBackend, ovs: Ovs) -> None:
    """What a bundle holds is in the switch when it is committed, and not before; so no packet meets half of it."""
    applied(backend, one(30, "reg0=0x1"))
    switch = backend._switches[BRIDGE]
    session = switch._session
    assert session is not None
    flow = messages.addition(session.xid(), messages.Place(30, 8, b""), messages.Entry(5, b""))
    opened = messages.bundle_control(session.xid(), 99, messages.Bundle.OPEN)
    session.ask([opened, messages.bundled(99, flow)])
    assert len(ovs.flows()) == 1
    session.ask([messages.bundle_control(session.xid(), 99, messages.Bundle.COMMIT)])
    assert len(ovs.flows()) == 2


@pytest.mark.parametrize("match", ["reg9=1", "in_port=x", "nw_src=10.0.0.0/8", "reg0=0x100000000", "dl_src=zz", "tcp"])
def test_text_that_is_not_ours_reaches_no_switch(backend: OpenFlowBackend, ovs: Ovs, match: str) -> None:
    wanted = one(30, match)
    with pytest.raises(InvalidRequest):
        backend.observe([wanted.key])
    assert isinstance(backend.apply([Step(None, wanted)])[wanted.key], InvalidRequest)
    assert not ovs.flows()


def test_what_is_no_flow_is_refused(backend: OpenFlowBackend) -> None:
    link = Bridge(key=link_key(BRIDGE), scope=HOST)
    assert isinstance(backend.apply([Step(None, link)])[link.key], InvalidRequest)


def test_a_bridge_that_is_not_ours_is_refused(backend: OpenFlowBackend) -> None:
    wanted = flow(flow_key("br0", 0, 1, ""), HOST, "drop")
    assert isinstance(backend.apply([Step(None, wanted)])[wanted.key], InvalidRequest)
    with pytest.raises(InvalidRequest, match="br0"):
        backend.observe([wanted.key])


def test_a_bridge_without_our_version_says_so(backend: OpenFlowBackend, ovs: Ovs) -> None:
    ovs.vsctl("set", "bridge", BRIDGE, "protocols=OpenFlow10")
    wanted: Resource = one(30, "reg0=0x1")
    failure = backend.apply([Step(None, wanted)])[wanted.key]
    assert isinstance(failure, Unsupported)
    assert "ovs-vsctl add bridge br-int protocols OpenFlow14" in str(failure)


def test_without_a_bridge_there_are_no_flows_and_nothing_waits(scopes: set[Scope]) -> None:
    with private_netns(), Ovs() as ovs:
        backend = OpenFlowBackend(MARKS, lambda: scopes, ovs.ofport, rundir=ovs.rundir)
        wanted = one(30, "reg0=0x1")
        assert backend.survey() == {}
        assert backend.observe([wanted.key]) == {}
        assert not backend.apply([Step(wanted, None)])
        failure = backend.apply([Step(None, wanted)])[wanted.key]
        assert "is there a bridge br-int?" in str(failure)
        ovs.add_bridge()
        applied(backend, wanted)
        assert len(ovs.flows()) == 1
        backend.close()
