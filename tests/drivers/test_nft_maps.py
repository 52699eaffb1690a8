"""Published ports in table `inet weft`: maps and ranges on the real kernel."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from drivers.contract import Step
from drivers.converge import Converger
from drivers.errors import Conflict, HostFailure, InvalidRequest
from drivers.nft import NftBackend
from drivers.nft_monitor import generation
from drivers.resources import Foreign, Key, Permit, Publish, Resource, element_key
from tests.drivers.nft_world import (
    ENDPOINT,
    OTHER,
    PORTS,
    PUBLISH4,
    RANGE4,
    RANGE6,
    TABLE,
    TEXT,
    Watcher,
    backend_of,
    listed,
    publish,
)
from tests.drivers.steps import create, delete, observed
from tests.netns import private_netns, sh

pytestmark = pytest.mark.kernel

ELSEWHERE = replace(PUBLISH4, value=("10.0.0.3", "80"))
LOST = "delete element inet weft range4 { udp . 20000-29999 }"
MARK = '"weft:a:nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn:eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee"'
GROWN = replace(RANGE4, key=element_key("range4", "udp", "20000-30999"))


@pytest.fixture
def backend() -> Iterator[NftBackend]:
    with private_netns(), backend_of("a") as backend:
        backend.apply(create(TABLE))
        yield backend


def test_a_port_that_leads_elsewhere_is_changed_in_one_transaction(backend: NftBackend) -> None:
    backend.apply(create(PUBLISH4))
    converger = Converger({"nft": backend})
    before = generation()
    assert converger.converge(ENDPOINT, [ELSEWHERE]).taken == (Step(PUBLISH4, ELSEWHERE),)
    assert generation() == before + 1
    assert observed(backend, PUBLISH4) == {PUBLISH4.key: ELSEWHERE}
    assert converger.converge(ENDPOINT, [ELSEWHERE]).taken == ()


@pytest.mark.parametrize("changed", [replace(RANGE4, value=("10.0.0.3",)), GROWN], ids=["elsewhere", "grown"])
def test_a_range_is_changed_in_one_transaction(backend: NftBackend, changed: Publish) -> None:
    backend.apply(create(RANGE4))
    steps = [Step(RANGE4, changed)] if changed.key == RANGE4.key else [*create(changed), *delete(RANGE4)]
    before = generation()
    assert backend.apply(steps) == {}
    assert generation() == before + 1
    assert observed(backend, RANGE4, changed) == {changed.key: changed}


def test_creating_again_what_leads_elsewhere_names_both(backend: NftBackend) -> None:
    backend.apply(create(PUBLISH4))
    failure = backend.apply(create(ELSEWHERE))[PUBLISH4.key]
    assert isinstance(failure, Conflict)
    assert "10.0.0.2 port 80" in str(failure)


def test_a_late_clean_up_leaves_the_successors_port(backend: NftBackend) -> None:
    with Watcher(backend):
        successor = replace(ELSEWHERE, scope=OTHER)
        backend.apply(create(PUBLISH4))
        stale = backend._read()
        with backend_of("a") as other:  # such as the process that came after this one
            other.apply([*delete(PUBLISH4)])
            other.apply([*create(successor)])
        backend._mirror = stale  # as if the monitor had not come to it yet
        assert backend.apply(delete(PUBLISH4)) == {}
        assert observed(backend, PUBLISH4) == {PUBLISH4.key: successor}


def test_a_strangers_port_is_kept_and_is_a_stranger(backend: NftBackend) -> None:
    sh("nft", "add element inet weft publish4 { tcp . 8080 : 192.0.2.9 . 9 }")
    foreign = Foreign(PUBLISH4.key, "something that weft did not make")
    assert observed(backend, PUBLISH4) == {PUBLISH4.key: foreign}
    assert isinstance(backend.apply(create(PUBLISH4))[PUBLISH4.key], Conflict)
    assert backend.apply(delete(PUBLISH4)) == {}
    assert observed(backend, PUBLISH4) == {PUBLISH4.key: foreign}


@pytest.mark.parametrize("taken", ["29999", "19999-20000", "25000-25001", "1-65535", "20000-20001"])
def test_a_range_over_a_strangers_is_a_conflict_that_names_it(backend: NftBackend, taken: str) -> None:
    sh("nft", f"add element inet weft range4 {{ udp . {taken} : 192.0.2.9 }}")
    sh("nft", "add element inet weft range4 { tcp . 1-65535 : 192.0.2.9 }")
    failures = backend.apply(create(RANGE4, RANGE6))
    assert failures.keys() == {RANGE4.key}
    assert isinstance(failures[RANGE4.key], Conflict)
    assert f"udp {taken}, held by something that weft did not make" in str(failures[RANGE4.key])
    assert observed(backend, RANGE4, RANGE6) == {RANGE6.key: RANGE6}


def test_a_network_that_is_allowed_already_is_a_conflict(backend: NftBackend) -> None:
    wide, narrow = (
        Permit(key=element_key("allowed4", "10.0.0.2", one), scope=ENDPOINT) for one in ("10.0.0.0/8", "10.1.2.3")
    )
    failures = backend.apply(create(narrow, wide))
    assert failures.keys() < {narrow.key, wide.key}
    assert all(isinstance(failure, Conflict) for failure in failures.values())


def test_ports_of_each_transport_and_address_are_apart(backend: NftBackend) -> None:
    every = [
        publish(f"{stem}{at and '_at'}4", f"{at} {transport} {ports}", value)
        for stem, ports, value in (("publish", "53", "10.0.0.2 53"), ("range", "1-65535", "10.0.0.2"))
        for transport in ("tcp", "udp", "sctp")
        for at in ("", "127.0.0.1", "192.0.2.1")
    ]
    assert backend.apply(create(*every)) == {}
    assert backend.survey() == {one.key: one for one in (TABLE, *every)}


@pytest.mark.parametrize(
    "wrong",
    [
        publish("publish4", "tcp 080", "10.0.0.2 80"),
        publish("publish4", "tcp 65536", "10.0.0.2 80"),
        publish("publish4", "tcp 80-90", "10.0.0.2 80"),
        publish("publish4", "6 80", "10.0.0.2 80"),
        publish("publish4", "tcp 80", "10.0.0.2"),
        publish("publish4", "tcp 80", "fd00::2 80"),
        publish("publish4", "tcp 80", ""),
        publish("publish6", "tcp 80", "fd00:0::2 80"),
        publish("range4", "udp 90-80", "10.0.0.2"),
        publish("range4", "udp 80-80", "10.0.0.2"),
        publish("range4", "udp 80", "10.0.0.2 80"),
        publish("restricted4", "10.0.0.2", "10.0.0.2"),
        Permit(key=element_key("publish4", "tcp", "80"), scope=ENDPOINT),
        Permit(key=element_key("allowed4", "10.0.0.2", "10.0.0.3/32"), scope=ENDPOINT),
        Permit(key=element_key("allowed4", "10.0.0.2", "10.0.0.3/8"), scope=ENDPOINT),
        Permit(key=element_key("allowed4", "10.0.0.2", "0.0.0.0-255.255.255.255"), scope=ENDPOINT),
    ],
    ids=str,
)
def test_what_is_spelled_otherwise_than_it_would_be_read_back_is_refused(backend: NftBackend, wrong: Resource) -> None:
    assert isinstance(backend.apply(create(wrong))[wrong.key], InvalidRequest)


def test_a_protocol_without_a_name_on_this_host_is_known_by_its_number(
    backend: NftBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.apply(create(*PORTS))
    run = backend._nft.run
    monkeypatch.setattr(
        backend._nft,
        "run",
        lambda text, *, json=False: (
            run(text, json=json).replace('"tcp"', "6").replace('"udp"', "17").replace('"sctp"', "132")
        ),
    )
    assert observed(backend, *PORTS) == {one.key: one for one in PORTS}


def test_a_new_text_keeps_every_element_of_maps_and_ranges(backend: NftBackend) -> None:
    backend.apply(create(*PORTS))
    sh("nft", 'add element inet weft range4 { udp . 9-10 comment "by hand" : 192.0.2.9 }')
    sh("nft", "add element inet weft allowed4 { 192.0.2.9 . 192.0.2.1-192.0.2.9 }")
    sh("nft", "add element inet weft publish4 { dccp . 9 : 192.0.2.9 . 9 }")
    kept = listed()
    later = replace(TABLE, text=TEXT + "\nchain later { accept; }\n")
    before = generation()
    assert backend.apply([Step(TABLE, later)]) == {}
    assert generation() == before + 1
    assert listed() == kept
    assert observed(backend, later, *PORTS) == {one.key: one for one in (later, *PORTS)}


@pytest.mark.parametrize(
    "meddling",
    [
        "flush map inet weft publish4",
        "delete element inet weft publish4 { tcp . 8080 }",
        LOST,
        f"{LOST}; add element inet weft range4 {{ udp . 20000-29999 comment {MARK} : 10.0.0.99 }}",
    ],
)
def test_a_map_that_others_change_is_noticed_and_healed(backend: NftBackend, meddling: str) -> None:
    converger = Converger({"nft": backend})
    wanted = [PUBLISH4, RANGE4]
    with Watcher(backend) as watcher:
        converger.converge(ENDPOINT, wanted)
        sh("nft", meddling)
        assert watcher.heard()[0] is None
        assert len(converger.converge(ENDPOINT, wanted).taken) == 1
        assert observed(backend, *wanted) == {one.key: one for one in wanted}


def test_a_thousand_ports_are_one_transaction_and_one_run(backend: NftBackend) -> None:
    shifted = [publish("publish4", f"tcp {20000 + n}", f"10.0.0.2 {30000 + n}") for n in range(1000)]
    with Watcher(backend):
        assert observed(backend, *shifted) == {}
        for steps in (create(*shifted), delete(*shifted)):
            before, calls = generation(), backend.calls
            assert backend.apply(steps) == {}
            assert (generation(), backend.calls) == (before + 1, calls + 1)
    assert observed(backend, *shifted) == {}


def test_of_a_thousand_ports_only_those_that_are_taken_are_refused(backend: NftBackend) -> None:
    shifted = [publish("publish4", f"tcp {20000 + n}", f"10.0.0.2 {30000 + n}") for n in range(1000)]
    sh("nft", "add element inet weft publish4 { tcp . 20500 : 192.0.2.9 . 9 }")
    calls = backend.calls
    failures = backend.apply(create(*shifted))
    assert failures.keys() == {shifted[500].key}
    assert backend.calls < calls + 10
    assert len(backend.survey()) == 1 + 999


def test_what_the_kernel_refuses_is_found_among_a_thousand_by_halves(
    backend: NftBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    shifted = [publish("publish4", f"tcp {20000 + n}", f"10.0.0.2 {30000 + n}") for n in range(1000)]
    run = backend._nft.run

    def refusing(text: str, *, json: bool = False) -> str:
        if "tcp . 20500 " in text:
            raise HostFailure("nft: No space left on device")
        return run(text, json=json)

    monkeypatch.setattr(backend._nft, "run", refusing)
    with Watcher(backend):
        calls = backend.calls
        assert backend.apply(create(*shifted)).keys() == {shifted[500].key}
        assert backend.calls < calls + 50


class Followed:
    """An effect that notes what it is told of, and that the backend could be used meanwhile."""

    def __init__(self) -> None:
        self.told: list[Sequence[Step]] = []
        self.seen: list[dict[Key, Resource | Foreign]] = []
        self.backend: NftBackend | None = None

    def __call__(self, steps: Sequence[Step]) -> None:
        """Note it, and look."""
        self.told.append(list(steps))
        if self.backend is not None:
            self.seen.append(dict(self.backend.observe([step.key for step in steps])))


def test_an_effect_is_told_of_ports_once_they_are_there() -> None:
    followed = Followed()
    with private_netns(), backend_of("a", followed) as backend:
        followed.backend = backend
        backend.apply(create(TABLE))
        backend.apply(create(*PORTS))
        published = [step for step in create(*PORTS) if isinstance(step.new, Publish)]
        assert followed.told == [published]
        assert followed.seen == [{step.key: step.resource for step in published}]
        backend.apply([Step(PUBLISH4, ELSEWHERE)])
        backend.apply(delete(ELSEWHERE))
        assert followed.told[1:] == [[Step(PUBLISH4, ELSEWHERE)], delete(ELSEWHERE)]
        assert followed.seen[1:] == [{PUBLISH4.key: ELSEWHERE}, {}]


def test_an_effect_is_not_told_of_what_was_refused() -> None:
    followed = Followed()
    with private_netns(), backend_of("a", followed) as backend:
        backend.apply(create(TABLE))
        sh("nft", "add element inet weft publish4 { tcp . 8080 : 192.0.2.9 . 9 }")
        backend.apply(create(PUBLISH4, RANGE4))
        assert followed.told == [create(RANGE4)]
        backend.apply(create(PUBLISH4))
        assert followed.told == [create(RANGE4)]
