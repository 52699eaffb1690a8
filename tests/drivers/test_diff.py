"""The comparison, branch by branch: what is there, whose it is, and whether we want it."""

import pytest

from drivers.contract import Step
from drivers.diff import Difference, diff
from drivers.resources import (
    HALF_MADE,
    HOST,
    Bridge,
    Fence,
    Foreign,
    HostAddress,
    Key,
    Permit,
    Resource,
    Scope,
    Setting,
    element_key,
    link_key,
    setting_key,
)

NETWORK = Scope("n1")
SIBLING = Scope("n1", "e1")
LINK = link_key("wfbone")
ADDRESS = Key("kernel", "address", ("br0", "10.0.0.1/24"))

WANTED = Bridge(key=LINK, scope=NETWORK, mac="02:00:00:00:00:01", mtu=1500)
OTHER_VALUE = Bridge(key=LINK, scope=NETWORK, mac="02:00:00:00:00:01", mtu=1400)
OTHER_SCOPE = Bridge(key=LINK, scope=SIBLING, mac="02:00:00:00:00:01", mtu=1500)
HALF = Bridge(key=LINK, scope=HALF_MADE)
STRANGER = Foreign(LINK, "something that weft did not make")
ADOPTED = Bridge(key=LINK, scope=NETWORK, adopted=True)
SHARED = HostAddress(key=ADDRESS, scope=NETWORK, shared=True)
THEIRS = Foreign(ADDRESS, "something that weft did not make")
SWITCH = Setting(key=setting_key("net/x"), scope=HOST, adopted=True, value="1")
SWITCHED_OFF = Setting(key=setting_key("net/x"), scope=HOST, adopted=True, value="0")


@pytest.mark.parametrize(
    ("wanted", "found", "expected"),
    [
        pytest.param(WANTED, None, Difference(steps=(Step(None, WANTED),)), id="absent: made"),
        pytest.param(WANTED, WANTED, Difference(), id="equal: nothing"),
        pytest.param(WANTED, OTHER_VALUE, Difference(steps=(Step(OTHER_VALUE, WANTED),)), id="other value: changed"),
        pytest.param(WANTED, HALF, Difference(steps=(Step(HALF, WANTED),)), id="half-made: whoever wants it has it"),
        pytest.param(WANTED, STRANGER, Difference(conflicts=(STRANGER,)), id="somebody's: a conflict"),
        pytest.param(
            WANTED,
            OTHER_SCOPE,
            Difference(conflicts=(Foreign(LINK, "network n1 endpoint e1"),)),
            id="another scope's: a conflict that names it",
        ),
        pytest.param(None, WANTED, Difference(steps=(Step(WANTED, None),)), id="not wanted: removed"),
        pytest.param(None, HALF, Difference(steps=(Step(HALF, None),)), id="half-made and not wanted: removed"),
        pytest.param(None, OTHER_SCOPE, Difference(), id="not wanted, another scope's: not our business"),
        pytest.param(None, STRANGER, Difference(), id="not wanted, somebody's: not our business"),
        pytest.param(ADOPTED, None, Difference(missing=(ADOPTED,)), id="adopted and absent: only reported"),
        pytest.param(ADOPTED, STRANGER, Difference(), id="adopted and there: nothing"),
        pytest.param(ADOPTED, HALF, Difference(), id="adopted and in our group by chance: nothing"),
        pytest.param(SHARED, None, Difference(steps=(Step(None, SHARED),)), id="shared and absent: made"),
        pytest.param(SHARED, THEIRS, Difference(), id="shared and somebody has it: as good"),
        pytest.param(None, THEIRS, Difference(), id="shared, not wanted any more: stays theirs"),
        pytest.param(None, SHARED, Difference(steps=(Step(SHARED, None),)), id="shared, ours, not wanted: removed"),
    ],
)
def test_one_key(wanted: Resource | None, found: Resource | Foreign | None, expected: Difference) -> None:
    observed = {} if found is None else {found.key: found}
    assert diff(NETWORK, [] if wanted is None else [wanted], observed) == expected


def test_a_setting_is_changed_and_never_taken_back() -> None:
    assert diff(HOST, [SWITCH], {SWITCH.key: SWITCHED_OFF}).steps == (Step(SWITCHED_OFF, SWITCH),)
    assert not diff(HOST, [], {SWITCH.key: SWITCH})


def test_what_a_plan_knows_besides_is_no_difference() -> None:
    bare = Bridge(key=LINK, scope=NETWORK, mac=WANTED.mac, mtu=1500)
    planned = Bridge(
        key=LINK, scope=NETWORK, mac=WANTED.mac, mtu=1500, needs=frozenset({element_key("x")}), shared=True
    )
    assert not diff(NETWORK, [planned], {LINK: bare})


def test_another_kind_at_the_same_key_is_a_difference() -> None:
    key = element_key("internal", "wfbone")
    fence, permit = Fence(key=key, scope=NETWORK), Permit(key=key, scope=NETWORK)
    assert diff(NETWORK, [fence], {key: permit}).steps == (Step(permit, fence),)


def test_keys_are_compared_independently() -> None:
    gone = Permit(key=element_key("same", "wfbone", "wfbone"), scope=NETWORK)
    found = diff(NETWORK, [WANTED, SHARED], {LINK: STRANGER, gone.key: gone})
    assert found == Difference(steps=(Step(None, SHARED), Step(gone, None)), conflicts=(STRANGER,))


@pytest.mark.parametrize(
    ("difference", "differs"),
    [
        (Difference(), False),
        (Difference(steps=(Step(None, WANTED),)), True),
        (Difference(conflicts=(STRANGER,)), True),
        (Difference(missing=(ADOPTED,)), True),
    ],
)
def test_a_difference_is_true_if_anything_differs(difference: Difference, differs: bool) -> None:
    assert bool(difference) is differs
