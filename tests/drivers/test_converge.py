"""The loop: its order, what it does about failures, and what it leaves behind."""

import errno
from collections.abc import Callable

import pytest

from drivers import ruleset
from drivers.contract import Step
from drivers.converge import Converger, order
from drivers.errors import Conflict, DeadlineExceeded, HostFailure, NotFound, WeftError
from drivers.fake import UNMARKED, Crash, FakeHost
from drivers.marks import Marks
from drivers.resources import (
    HOST,
    TABLE_KEY,
    Bridge,
    Chain,
    Fence,
    Forwarding,
    HostAddress,
    InZone,
    Jump,
    Key,
    Permit,
    Resource,
    Scope,
    Setting,
    Table,
    Veth,
    chain_key,
    element_key,
    in_zone_key,
    jump_key,
    link_key,
    setting_key,
)

NETWORK = Scope("n1")
ENDPOINT = Scope("n1", "e1")
_TABLE = frozenset({TABLE_KEY})

TABLE = Table(key=TABLE_KEY, scope=HOST, text=ruleset.TEXT)
HOST_FENCE = Fence(key=element_key(ruleset.INTERNAL, "dock0"), scope=HOST, needs=_TABLE)
CHAIN = Chain(key=chain_key(4), scope=HOST, needs=_TABLE, rules=("-j ACCEPT",))
JUMP = Jump(key=jump_key(4), scope=HOST, needs=frozenset({chain_key(4)}))
BRIDGE = Bridge(key=link_key("wfbone"), scope=NETWORK, mac="02:00:00:00:00:01")
ADDRESS = HostAddress(
    key=Key("kernel", "address", ("wfbone", "10.0.0.1/24")), scope=NETWORK, needs=frozenset({BRIDGE.key})
)
FENCE = Fence(key=element_key(ruleset.INTERNAL, "wfbone"), scope=NETWORK, needs=_TABLE)
PERMIT = Permit(key=element_key(ruleset.SAME, "wfbone", "wfbone"), scope=NETWORK, needs=_TABLE)
VETH = Veth(key=link_key("wfhone"), scope=ENDPOINT, bridge="wfbone", peer="wfcone", mac="02:00:00:00:00:02")
SWITCH = Setting(key=setting_key("net/ipv6/conf/eth0/accept_ra"), scope=HOST, adopted=True, value="2")
FORWARDING = Forwarding(
    key=setting_key("net/ipv6/conf/all/forwarding"), scope=HOST, adopted=True, value="1", needs=frozenset({SWITCH.key})
)

HOST_PLAN: tuple[Resource, ...] = (TABLE, HOST_FENCE, CHAIN, JUMP, SWITCH, FORWARDING)
NETWORK_PLAN: tuple[Resource, ...] = (BRIDGE, ADDRESS, FENCE, PERMIT)


@pytest.fixture
def host() -> FakeHost:
    return FakeHost()


@pytest.fixture
def converger(host: FakeHost) -> Converger:
    return Converger(host.backends)


@pytest.fixture
def table(host: FakeHost, converger: Converger) -> None:
    """Let the host scope be there already."""
    converger.converge(HOST, [TABLE])
    host.steps.clear()


def _keys(*resources: Resource) -> set[Key]:
    return {resource.key for resource in resources}


def _failures(caught: pytest.ExceptionInfo[ExceptionGroup[Exception]]) -> list[tuple[type[Exception], str]]:
    """Return the failures, sorted; each is one of ours and tells the operator its scope."""
    errors = caught.value.exceptions
    assert all(isinstance(error, WeftError) for error in errors)
    return sorted(((type(error), str(error)) for error in errors), key=lambda failure: failure[1])


# -- order ----------------------------------------------------------------------------------------------------------


def test_fences_are_built_first_and_pulled_down_last() -> None:
    def made(resource: Resource) -> Step:
        return Step(None, resource)

    def gone(resource: Resource) -> Step:
        return Step(resource, None)

    in_order = [
        made(FENCE),
        gone(JUMP),
        gone(PERMIT),
        gone(ADDRESS),
        gone(VETH),
        gone(BRIDGE),
        made(BRIDGE),
        made(VETH),
        made(ADDRESS),
        made(PERMIT),
        made(JUMP),
        gone(FENCE),
    ]
    assert order(reversed(in_order)) == in_order
    assert order(in_order) == in_order


def test_a_change_is_taken_among_the_makings() -> None:
    changed = Step(BRIDGE, Bridge(key=BRIDGE.key, scope=NETWORK, mac=BRIDGE.mac, mtu=1400))
    assert order([Step(None, ADDRESS), changed, Step(PERMIT, None), Step(None, FENCE)]) == [
        Step(None, FENCE),
        Step(PERMIT, None),
        changed,
        Step(None, ADDRESS),
    ]


def test_within_a_rank_what_needs_nothing_comes_first() -> None:
    """The table sorts behind the sets it holds, and an element without its table is refused."""
    assert HOST_FENCE.key < TABLE.key
    assert order([Step(None, HOST_FENCE), Step(None, TABLE)]) == [Step(None, TABLE), Step(None, HOST_FENCE)]


# -- converge -------------------------------------------------------------------------------------------------------


def test_it_makes_what_is_wanted_in_order_and_then_has_nothing_to_do(host: FakeHost, converger: Converger) -> None:
    steps = converger.converge(HOST, HOST_PLAN).taken + converger.converge(NETWORK, NETWORK_PLAN).taken
    assert [step.resource for step in steps] == [
        *(TABLE, HOST_FENCE, SWITCH, FORWARDING, CHAIN, JUMP),
        *(FENCE, BRIDGE, ADDRESS, PERMIT),
    ]
    assert list(steps) == host.steps
    assert converger.survey() == {
        HOST: {one.key: one for one in HOST_PLAN if not one.adopted},
        NETWORK: {one.key: one for one in NETWORK_PLAN},
    }
    assert converger.converge(HOST, HOST_PLAN).taken == ()
    assert converger.converge(NETWORK, NETWORK_PLAN).taken == ()


def test_it_withdraws_in_the_other_order(host: FakeHost, converger: Converger) -> None:
    converger.converge(HOST, HOST_PLAN)
    converger.converge(NETWORK, NETWORK_PLAN)
    gone = converger.converge(NETWORK, (), _keys(*NETWORK_PLAN)).taken
    assert [step.old for step in gone] == [PERMIT, ADDRESS, BRIDGE, FENCE]
    gone = converger.converge(HOST, (), _keys(*HOST_PLAN)).taken
    assert [step.old for step in gone] == [JUMP, CHAIN, HOST_FENCE, TABLE]
    assert converger.survey() == {}
    assert host.settings == {SWITCH.key: "2", FORWARDING.key: "1"}, "settings stay until uninstall"


def test_difference_says_what_converge_would_do_and_does_not(host: FakeHost, converger: Converger) -> None:
    wanted = converger.difference(NETWORK, NETWORK_PLAN)
    assert {step.new for step in wanted.steps} == set(NETWORK_PLAN)
    assert host.steps == []
    assert host.objects == {}


def test_each_backend_is_observed_once_and_asked_once_per_rank(host: FakeHost, converger: Converger) -> None:
    converger.converge(HOST, [TABLE])
    host.calls.clear()
    converger.converge(NETWORK, NETWORK_PLAN)
    assert host.calls == {"kernel observe": 1, "nft observe": 1, "kernel apply": 2, "nft apply": 2}


def test_only_what_is_observed_is_asked_for(host: FakeHost, converger: Converger) -> None:
    host.plant(VETH, host.marks.write(ENDPOINT))
    converger.converge(NETWORK, [BRIDGE])
    assert link_key("wfhone") in host.objects


# -- failures -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("table")
def test_it_goes_on_past_a_failure_and_skips_what_needs_it(host: FakeHost, converger: Converger) -> None:
    host.fail(BRIDGE.key, OSError(errno.EPERM, "Operation not permitted"))
    with pytest.raises(ExceptionGroup, match="network n1 could not be brought to what is wanted") as caught:
        converger.converge(NETWORK, NETWORK_PLAN)
    assert _failures(caught) == [
        (HostFailure, "network n1: link wfbone: [Errno 1] Operation not permitted"),
    ]
    assert [step.new for step in host.steps] == [FENCE, PERMIT], "the address needs the bridge, the elements do not"
    converger.converge(NETWORK, NETWORK_PLAN)
    assert converger.survey()[NETWORK] == {one.key: one for one in NETWORK_PLAN}


@pytest.mark.usefixtures("table")
def test_independent_failures_are_raised_together(host: FakeHost, converger: Converger) -> None:
    own = Conflict("said by the backend in words for the operator")
    host.fail(BRIDGE.key, own)
    host.fail(PERMIT.key, OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(ExceptionGroup) as caught:
        converger.converge(NETWORK, NETWORK_PLAN)
    assert own in caught.value.exceptions, "our own errors are passed on as they are"
    assert _failures(caught) == [
        (HostFailure, "network n1: same wfbone wfbone: [Errno 28] No space left on device"),
        (Conflict, "said by the backend in words for the operator"),
    ]


def test_a_conflict_names_the_holder_and_leaves_him_alone(host: FakeHost, converger: Converger) -> None:
    converger.converge(HOST, [TABLE])
    host.plant(BRIDGE, Marks("other").write(NETWORK))
    before = host.objects[BRIDGE.key]
    with pytest.raises(ExceptionGroup) as caught:
        converger.converge(NETWORK, NETWORK_PLAN)
    assert _failures(caught) == [(Conflict, "network n1: link wfbone is taken by another weft (store other)")]
    assert host.objects[BRIDGE.key] == before
    assert ADDRESS.key not in host.objects


def test_an_adopted_bridge_that_is_not_there_is_the_operator_s_to_make(host: FakeHost, converger: Converger) -> None:
    adopted = Bridge(key=link_key("br0"), scope=NETWORK, adopted=True)
    with pytest.raises(ExceptionGroup) as caught:
        converger.converge(NETWORK, [adopted])
    [(kind, message)] = _failures(caught)
    assert kind is NotFound
    assert message.startswith("network n1: link br0 does not exist")
    assert message.endswith(": ip link add br0 type bridge"), "not in our group: it would be taken for half-made"
    assert host.objects == {}


def test_nothing_opens_when_the_verdicts_cannot_be_loaded(host: FakeHost, converger: Converger) -> None:
    """What needs the table is skipped, and so is what needs what was skipped: one failure, one error."""
    host.fail(TABLE.key, OSError(errno.EINVAL, "Invalid argument"))
    with pytest.raises(ExceptionGroup) as caught:
        converger.converge(HOST, (TABLE, HOST_FENCE, CHAIN, JUMP))
    assert _failures(caught) == [(HostFailure, "host: table inet weft: [Errno 22] Invalid argument")]
    assert host.objects == {}


def test_a_step_refused_by_the_host_itself_is_reported(host: FakeHost, converger: Converger) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        converger.converge(ENDPOINT, [VETH])
    [(kind, message)] = _failures(caught)
    assert kind is HostFailure
    assert "No such device" in message


def test_a_failed_delete_is_reported_and_taken_again(host: FakeHost, converger: Converger) -> None:
    converger.converge(NETWORK, [BRIDGE])
    host.fail(BRIDGE.key, OSError(errno.EBUSY, "Device or resource busy"))
    with pytest.raises(ExceptionGroup):
        converger.converge(NETWORK, (), {BRIDGE.key})
    assert BRIDGE.key in host.objects
    converger.converge(NETWORK, (), {BRIDGE.key})
    assert host.objects == {}


# -- putting off, deadlines, crashes --------------------------------------------------------------------------------


def _is_link_delete(step: Step) -> bool:
    return step.new is None and isinstance(step.old, Veth)


def test_what_is_put_off_is_returned_and_not_taken(host: FakeHost, converger: Converger) -> None:
    converger.converge(HOST, [TABLE])
    fence = Fence(key=element_key(ruleset.ADOPTED[4], "wfbone", "10.0.0.2"), scope=ENDPOINT, needs=_TABLE)
    host.plant(BRIDGE, host.marks.write(NETWORK))
    plan = (VETH, fence)
    converger.converge(ENDPOINT, plan)
    outcome = converger.converge(ENDPOINT, (), _keys(*plan), defer=_is_link_delete)
    assert [step.old for step in outcome.deferred] == [VETH]
    assert [step.old for step in outcome.taken] == [fence]
    assert VETH.key in host.objects
    assert [step.old for step in converger.converge(ENDPOINT, (), _keys(*plan)).taken] == [VETH]
    assert VETH.key not in host.objects


class _Deadline:
    """Raises at the given call, counted from 0."""

    def __init__(self, batches: int) -> None:
        self.left = batches

    def __call__(self) -> None:
        if self.left == 0:
            raise DeadlineExceeded("it took too long")
        self.left -= 1


@pytest.mark.parametrize("batches", range(4))
def test_a_deadline_leaves_what_the_next_converge_withdraws(host: FakeHost, batches: int) -> None:
    patient = Converger(host.backends)
    patient.converge(HOST, [TABLE])
    before = dict(host.objects)
    host.steps.clear()
    with pytest.raises(DeadlineExceeded):
        Converger(host.backends, _Deadline(batches)).converge(NETWORK, NETWORK_PLAN)
    assert [step.new for step in host.steps] == [FENCE, BRIDGE, ADDRESS, PERMIT][:batches]
    patient.converge(NETWORK, (), _keys(*NETWORK_PLAN))
    assert host.objects == before


def test_no_checkpoint_without_a_step(host: FakeHost) -> None:
    Converger(host.backends).converge(NETWORK, [BRIDGE])
    assert Converger(host.backends, _Deadline(0)).converge(NETWORK, [BRIDGE]).taken == ()


def _finish(converger: Converger) -> None:
    converger.converge(NETWORK, [BRIDGE])


def _withdraw(converger: Converger) -> None:
    converger.converge(NETWORK, (), {BRIDGE.key})


@pytest.mark.parametrize(("then", "left"), [(_finish, {BRIDGE.key}), (_withdraw, set[Key]())])
def test_a_link_that_a_crash_left_half_made(
    host: FakeHost, converger: Converger, then: Callable[[Converger], None], left: set[Key]
) -> None:
    host.crash_after = 1
    with pytest.raises(Crash):
        converger.converge(NETWORK, [BRIDGE])
    assert host.objects[BRIDGE.key].mark == UNMARKED
    assert converger.survey() == {}
    then(converger)
    assert host.objects.keys() == left
    assert converger.survey().keys() == ({NETWORK} if left else set())


def test_what_is_optional_may_fail_and_is_told(host: FakeHost, converger: Converger, table: None) -> None:
    bound = InZone(key=in_zone_key("wfbone"), scope=NETWORK)  # and there is no zone
    outcome = converger.converge(NETWORK, [*NETWORK_PLAN, bound])
    assert [step.key for step in outcome.taken] == [FENCE.key, BRIDGE.key, ADDRESS.key, PERMIT.key]
    assert [type(error) for error in outcome.lacking] == [HostFailure]
    assert "link wfbone" in str(outcome.lacking[0])
    assert [step.key for step in converger.difference(NETWORK, [*NETWORK_PLAN, bound]).steps] == [bound.key]


def test_what_is_optional_is_told_with_the_rest_if_that_fails(host: FakeHost, converger: Converger) -> None:
    bound = InZone(key=in_zone_key("wfbone"), scope=NETWORK)
    host.fail(BRIDGE.key, OSError(errno.EPERM, "no"))
    with pytest.raises(ExceptionGroup) as caught:
        converger.converge(NETWORK, [BRIDGE, bound])
    assert len(caught.value.exceptions) == 2
