"""Table `inet weft` on the real kernel: what is applied is what is observed, and nobody else's element is lost."""

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from drivers import ruleset
from drivers.contract import Step
from drivers.converge import Converger
from drivers.errors import Conflict, HostFailure, InvalidRequest
from drivers.libnftables import Nft
from drivers.nft import NftBackend
from drivers.nft_monitor import generation
from drivers.nft_text import kinds_of
from drivers.resources import HOST, TABLE_KEY, Foreign, element_key
from tests.drivers.nft_world import (
    ADOPTED4,
    ADOPTED6,
    EVERY,
    INTERNAL,
    NET,
    OTHER,
    SAME,
    TABLE,
    TEXT,
    Watcher,
    backend_of,
    listed,
    set_names,
)
from tests.drivers.steps import create, delete, observed
from tests.netns import private_netns, sh

pytestmark = pytest.mark.kernel


@pytest.fixture
def backend() -> Iterator[NftBackend]:
    with private_netns(), backend_of("a") as backend:
        yield backend


def test_first_law_for_every_set_of_the_table(backend: NftBackend) -> None:
    assert set_names() == set(kinds_of(TEXT))
    assert observed(backend, *EVERY) == {}
    assert backend.apply(create(*EVERY)) == {}
    assert observed(backend, *EVERY) == {one.key: one for one in EVERY}
    assert backend.survey() == {one.key: one for one in EVERY}


def test_a_second_converge_has_no_step(backend: NftBackend) -> None:
    converger = Converger({"nft": backend})
    host = [one for one in EVERY if one.scope == HOST]
    assert set(converger.converge(HOST, host).taken) == set(create(*host))
    assert converger.converge(HOST, host).taken == ()
    assert len(converger.converge(HOST, (), [one.key for one in host]).taken) == len(host)
    assert observed(backend, *host) == {}


def test_taking_steps_again_is_no_change(backend: NftBackend) -> None:
    backend.apply(create(*EVERY))
    before = generation()
    assert backend.apply(create(*EVERY)) == {}
    assert generation() == before
    gone = delete(*EVERY)  # the table before its elements: the backend knows better
    assert backend.apply(gone) == {}
    assert backend.survey() == {}
    after = generation()
    assert backend.apply(gone) == {}
    assert generation() == after


def test_one_batch_is_one_transaction(backend: NftBackend) -> None:
    backend.apply(create(TABLE))
    before = generation()
    assert backend.apply(create(SAME, INTERNAL, ADOPTED4)) == {}
    assert generation() == before + 1
    assert backend.apply(delete(SAME, INTERNAL, ADOPTED4)) == {}
    assert generation() == before + 2


def test_a_request_is_answered_without_a_listing(backend: NftBackend) -> None:
    with Watcher(backend):
        backend.apply(create(TABLE))
        observed(backend, TABLE)
        calls = backend.calls
        for number in range(20):
            one = replace(SAME, key=element_key(ruleset.SAME, f"wfb{number}", f"wfb{number}"))
            assert observed(backend, one) == {}
            assert backend.apply(create(one)) == {}
            assert observed(backend, one) == {one.key: one}
        assert backend.calls == calls + 20


def test_without_a_watch_every_look_is_at_the_kernel(backend: NftBackend) -> None:
    backend.apply(create(TABLE, SAME))
    assert observed(backend, SAME) == {SAME.key: SAME}
    sh("nft", "flush", "set", "inet", "weft", "same")
    assert observed(backend, SAME) == {}


def test_the_step_at_fault_is_found_and_the_others_are_taken(backend: NftBackend) -> None:
    backend.apply(create(TABLE))
    sh("nft", "add element inet weft internal { wfb9 }")
    stranger = replace(INTERNAL, key=element_key(ruleset.INTERNAL, "wfb9"))
    bad_name = replace(INTERNAL, key=element_key(ruleset.INTERNAL, 'wf"; flush ruleset; "'))
    bad_set = replace(INTERNAL, key=element_key("nosuch", "wfb9"))
    failures = backend.apply(create(SAME, stranger, bad_name, bad_set, ADOPTED6))
    assert {key: type(error) for key, error in failures.items()} == {
        stranger.key: Conflict,
        bad_name.key: InvalidRequest,
        bad_set.key: InvalidRequest,
    }
    assert observed(backend, SAME, ADOPTED6) == {SAME.key: SAME, ADOPTED6.key: ADOPTED6}


def test_a_refusal_is_told_in_nfts_own_words(backend: NftBackend) -> None:
    failures = backend.apply(create(SAME))  # there is no table
    assert isinstance(failures[SAME.key], HostFailure)
    assert "No such file or directory" in str(failures[SAME.key])


def test_what_waits_for_a_table_that_is_refused_is_not_taken(backend: NftBackend) -> None:
    broken = replace(TABLE, text="chain { nonsense }")
    waiting = replace(SAME, needs=frozenset({TABLE_KEY}))
    failures = backend.apply(create(waiting, broken))
    assert failures.keys() == {TABLE_KEY, SAME.key}
    assert "waits for" in str(failures[SAME.key])


def test_a_broken_text_leaves_the_old_table_as_it_was(backend: NftBackend) -> None:
    backend.apply(create(TABLE, SAME))
    before = sh("nft", "list", "table", "inet", "weft")
    assert backend.apply([Step(TABLE, replace(TABLE, text="chain { nonsense }"))]).keys() == {TABLE_KEY}
    assert sh("nft", "list", "table", "inet", "weft") == before
    assert observed(backend, TABLE, SAME) == {TABLE_KEY: TABLE, SAME.key: SAME}


def test_an_element_of_another_store_is_kept_and_is_a_stranger(backend: NftBackend) -> None:
    backend.apply(create(TABLE))
    with backend_of("b") as other:
        assert other.apply(create(SAME)) == {}
    assert observed(backend, SAME) == {SAME.key: Foreign(SAME.key, "another weft (store b)")}
    assert SAME.key not in backend.survey()
    assert isinstance(backend.apply(create(SAME))[SAME.key], Conflict)
    assert backend.apply(delete(SAME)) == {}
    assert observed(backend, SAME) == {SAME.key: Foreign(SAME.key, "another weft (store b)")}
    with pytest.raises(ExceptionGroup) as caught:
        Converger({"nft": backend}).converge(NET, [SAME])
    assert caught.group_contains(Conflict, match="another weft")


def test_an_element_that_others_made_a_moment_ago_is_not_taken_over(backend: NftBackend) -> None:
    with Watcher(backend) as watcher:
        backend.apply(create(TABLE))
        stale = backend._read()
        sh("nft", 'add element inet weft same { "wfb1" . "wfb1" comment "weft:b::" }')
        watcher.heard()
        backend._mirror = stale  # as if the monitor had not come to it yet
        assert isinstance(backend.apply(create(SAME))[SAME.key], Conflict)
        assert isinstance(observed(backend, SAME)[SAME.key], Foreign)


def test_a_late_clean_up_leaves_the_successors_element(backend: NftBackend) -> None:
    backend.apply(create(TABLE, replace(SAME, scope=OTHER)))
    assert backend.apply(delete(SAME)) == {}
    assert observed(backend, SAME) == {SAME.key: replace(SAME, scope=OTHER)}


def test_a_table_with_strangers_is_not_deleted(backend: NftBackend) -> None:
    backend.apply(create(TABLE))
    with backend_of("b") as other:
        other.apply(create(SAME))
        assert isinstance(backend.apply(delete(TABLE))[TABLE_KEY], Conflict)
        other.apply(delete(SAME))
    assert backend.apply(delete(TABLE)) == {}
    assert observed(backend, TABLE) == {}


def test_a_new_text_keeps_every_element_whoever_made_it(backend: NftBackend) -> None:
    elements = [one for one in EVERY if one is not TABLE]
    backend.apply(create(*EVERY))
    sh("nft", 'add element inet weft internal { "stranger" comment "by hand" }')
    with backend_of("b") as other:
        other.apply(create(replace(SAME, key=element_key(ruleset.SAME, "b1", "b1"))))
    kept = listed()
    later = replace(TABLE, text=TEXT + "\nchain later { accept; }\n")
    before = generation()
    assert backend.apply([Step(TABLE, later)]) == {}
    assert generation() == before + 1
    assert listed() == kept
    assert observed(backend, later, *elements) == {one.key: one for one in (later, *elements)}
    assert "chain later" in sh("nft", "list", "table", "inet", "weft")


def test_elements_of_a_set_that_the_new_text_lacks_are_dropped(backend: NftBackend) -> None:
    backend.apply(create(TABLE, SAME, INTERNAL))
    fewer = replace(TABLE, text=f"set {ruleset.SAME} {{ type ifname . ifname; }}")
    assert backend.apply([Step(TABLE, fewer)]) == {}
    assert observed(backend, fewer, SAME, INTERNAL) == {TABLE_KEY: fewer, SAME.key: SAME}


def test_after_a_start_the_table_is_replaced_once_and_keeps_its_elements(backend: NftBackend) -> None:
    backend.apply(create(TABLE, SAME))
    with backend_of("a") as started:
        assert started.observe([TABLE_KEY]) == {TABLE_KEY: replace(TABLE, text="")}
        converger = Converger({"nft": started})
        assert converger.converge(HOST, [TABLE]).taken == (Step(replace(TABLE, text=""), TABLE),)
        assert converger.converge(HOST, [TABLE]).taken == ()
        assert started.observe([SAME.key]) == {SAME.key: SAME}


def test_a_transaction_of_others_while_we_load_is_not_taken_for_our_own_form(
    backend: NftBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Nft.run
    rounds = []

    def meddled(self: Nft, commands: str, *, json: bool = False) -> str:
        output = run(self, commands, json=json)
        if "delete table" in commands:
            rounds.append(commands)
            if len(rounds) == 1:
                sh("nft", "insert rule inet weft forward accept")
        return output

    monkeypatch.setattr(Nft, "run", meddled)
    assert backend.apply(create(TABLE, SAME)) == {}
    assert len(rounds) == 2
    assert observed(backend, TABLE, SAME) == {TABLE_KEY: TABLE, SAME.key: SAME}
    sh("nft", "insert rule inet weft forward accept")
    assert observed(backend, TABLE) == {TABLE_KEY: replace(TABLE, text="")}


def test_threads_share_one_backend(backend: NftBackend) -> None:
    backend.apply(create(TABLE))
    failures: list[object] = []

    def attach(number: int) -> None:
        one = replace(SAME, key=element_key(ruleset.SAME, f"wf{number}", f"wf{number}"))
        for _ in range(20):
            failures.extend(backend.apply(create(one)).values())
            failures.extend(backend.apply(delete(one)).values())
        failures.extend(backend.apply(create(one)).values())

    with Watcher(backend):
        threads = [threading.Thread(target=attach, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert len(backend.survey()) == 1 + 8
