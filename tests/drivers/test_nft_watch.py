"""Changes of table `inet weft` and of Docker's FORWARD by others: heard, healed, and told from our own."""

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from drivers import ruleset
from drivers.contract import Step
from drivers.converge import Converger
from drivers.nft import NftBackend
from drivers.nft_monitor import read
from drivers.resources import HOST, TABLE_KEY, Foreign, Scope, element_key
from tests.drivers.nft_world import EVERY, INTERNAL, NET, SAME, TABLE, TEXT, Watcher, backend_of
from tests.drivers.steps import create, delete, observed
from tests.lab.wait import await_
from tests.netns import private_netns, sh

pytestmark = pytest.mark.kernel


@pytest.fixture
def backend() -> Iterator[NftBackend]:
    with private_netns(), backend_of("a") as backend:
        yield backend


@pytest.mark.parametrize(
    "meddling",
    [
        "flush ruleset",
        "delete table inet weft",
        "insert rule inet weft forward accept",
        "flush chain inet weft forward",
        "add chain inet weft forward { policy drop; }",
        "flush set inet weft same",
        "add element inet weft internal { wfb77 }",
        "delete element inet weft same { wfb1 . wfb1 }",
    ],
)
def test_what_is_done_behind_our_back_is_noticed_and_healed(backend: NftBackend, meddling: str) -> None:
    converger = Converger({"nft": backend})
    with Watcher(backend) as watcher:
        converger.converge(HOST, [TABLE])
        converger.converge(NET, [SAME])
        assert observed(backend, TABLE, SAME) == {TABLE_KEY: TABLE, SAME.key: SAME}
        sh("nft", meddling)
        assert watcher.heard()[0] is None
        converger.converge(HOST, [TABLE])
        converger.converge(NET, [SAME])
        assert observed(backend, TABLE, SAME) == {TABLE_KEY: TABLE, SAME.key: SAME}
        listing = sh("nft", "list", "chain", "inet", "weft", "forward")
    assert "policy accept" in listing
    assert "established" in listing


def test_own_changes_wake_nobody(backend: NftBackend) -> None:
    with Watcher(backend) as watcher:
        backend.apply(create(*EVERY))
        backend.apply([Step(TABLE, replace(TABLE, text=TEXT + "\nchain later { }\n"))])
        backend.apply(delete(SAME, INTERNAL))
        sh("iptables", "-N", "DOCKER-USER")  # the first thing that others do, and it is about the host
        assert watcher.heard() == [HOST]


def test_own_changes_are_told_from_those_of_another_weft(backend: NftBackend) -> None:
    with Watcher(backend) as watcher:
        backend.apply(create(TABLE))
        sh("nft", 'add element inet weft same { "b1" . "b1" comment "weft:b::" }')
        assert watcher.heard() == [None]
        key = element_key(ruleset.SAME, "b1", "b1")
        assert backend.observe([key]) == {key: Foreign(key, "another weft (store b)")}


@pytest.mark.parametrize("program", ["iptables", "ip6tables"])
@pytest.mark.parametrize("change", [("-P", "FORWARD", "DROP"), ("-N", "DOCKER-USER"), ("-N", "WEFT")])
def test_dockers_forward_concerns_the_host(backend: NftBackend, program: str, change: tuple[str, ...]) -> None:
    with Watcher(backend) as watcher:
        sh(program, *change)
        assert watcher.heard() == [HOST]


def test_a_flush_of_docker_user_concerns_the_host(backend: NftBackend) -> None:
    sh("iptables", "-N", "DOCKER-USER")
    sh("iptables", "-A", "DOCKER-USER", "-j", "RETURN")
    with Watcher(backend) as watcher:
        sh("iptables", "-F", "DOCKER-USER")
        assert watcher.heard() == [HOST]


def test_changes_that_do_not_concern_us_wake_nobody(backend: NftBackend) -> None:
    with Watcher(backend) as watcher:
        sh("iptables", "-A", "INPUT", "-j", "ACCEPT")
        sh("iptables", "-t", "nat", "-N", "DOCKER-USER")
        sh("nft", "add table inet other; add chain inet other FORWARD; add table ip weft; add chain ip weft WEFT")
        sh("nft", "add table inet weft")  # the first that does
        assert watcher.heard() == [None]


def test_lost_notifications_count_as_a_change(backend: NftBackend) -> None:
    backend.apply(create(TABLE))
    told: list[Scope | None] = []
    holding, held = threading.Event(), threading.Event()

    def slow(scope: Scope | None) -> None:
        told.append(scope)
        held.set()
        holding.wait(30)

    stop = backend.watch(slow)
    try:
        sh("nft", "add element inet weft internal { wfb1 }")
        assert held.wait(10)
        lines = (f"add rule inet other c ip saddr 10.{n >> 8}.{n & 255}.1 accept" for n in range(60_000))
        sh("nft", "-f", "-", text="\n".join(("add table inet other", "add chain inet other c", *lines)))
        holding.set()
        await_(lambda: len(told) > 1, 30, "the word that messages were lost")
    finally:
        holding.set()
        stop()
    assert told[1:] == [None, HOST]


def test_a_burst_that_is_cut_short_is_refused() -> None:
    with pytest.raises(ValueError, match="cut short"):
        read(b"\x40\0\0\0\x06\x0a\0\0" + bytes(12))


def test_a_watch_ends_and_the_next_one_hears(backend: NftBackend) -> None:
    with Watcher(backend) as first:
        pass
    with Watcher(backend) as second:
        sh("nft", "add table inet weft")
        assert second.heard() == [None]
    assert first.told == []
    backend.apply(create(TABLE, SAME))
    assert observed(backend, SAME) == {SAME.key: SAME}
    sh("nft", "flush", "set", "inet", "weft", "same")
    assert observed(backend, SAME) == {}, "nobody told, and nobody looked"
