"""Announcements on the real kernel: the host with its bridge, and three containers in namespaces of their own.

ann, bob, cid  10.9.0.2, .3, .4, fd09::2, ::3, ::4  ----  br0 of the host  10.9.0.1, fd09::1
"""

import errno
import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

import pytest

from drivers.announce import THREAD, Announcer
from tests.drivers.announced import Ear
from tests.lab.wait import await_
from tests.netns import Netns, private_netns, sh

pytestmark = pytest.mark.kernel

BRIDGE: Final = "br0"
OLD, NEW = "02:00:00:00:00:0d", "02:00:00:00:00:0e"
IPS: Final = (ip_address("10.9.0.2"), ip_address("fd09::2"))
OTHER: Final = (ip_address("10.9.0.99"),)
LATER: Final = (ip_address("10.9.0.98"),)
FOR_LONG: Final = 60.0  # seconds; no test waits for it


class World:
    """The host in this thread's namespace, and its containers."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        stack.enter_context(private_netns())
        lines = [f"link add {BRIDGE} type bridge", f"link set {BRIDGE} up"]
        lines += [f"address add {one} dev {BRIDGE}" for one in ("10.9.0.1/24", "fd09::1/64 nodad")]
        sh("ip", "-batch", "-", text="\n".join(lines) + "\n")
        self.ann, self.bob, self.cid = (self._container(number) for number in (2, 3, 4))
        self.announcer = Announcer()
        stack.callback(self.announcer.stop)

    def _container(self, number: int) -> Netns:
        place = self._stack.enter_context(Netns())
        sh(*f"ip link add p{number} type veth peer name eth0 netns {place.path}".split())
        sh(*f"ip link set p{number} master {BRIDGE} up".split())
        lines = [f"address add {one} dev eth0" for one in (f"10.9.0.{number}/24", f"fd09::{number}/64 nodad")]
        with place.entered():
            sh("ip", "-batch", "-", text="\n".join([*lines, "link set eth0 up"]) + "\n")
        await_(lambda: "state forwarding" in sh("bridge", "link", "show", "dev", f"p{number}"), 10, "the port")
        return place

    def ear(self, place: Netns) -> Ear:
        """Hear what comes to a container from now on."""
        with place.entered():
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        return self._stack.enter_context(closing(Ear(sock, "eth0")))

    def announce(
        self,
        addresses: tuple[IPv4Address | IPv6Address, ...] = IPS,
        *,
        count: int = 1,
        interval: float = 0.1,
        wanted: Callable[[], bool] = lambda: True,
        link: str = BRIDGE,
    ) -> None:
        """Say that addresses are at the new MAC."""
        self.announcer.announce(link, NEW, addresses, count=count, interval=interval, wanted=wanted)

    def await_told(self, ear: Ear, address: IPv4Address | IPv6Address, times: int = 1) -> None:
        """Wait until an address was announced so many times."""
        await_(lambda: ear.times()[str(address)] >= times, 20, f"{address} to be announced {times} times")


@pytest.fixture
def world() -> Iterator[World]:
    with ExitStack() as stack:
        yield World(stack)


def plant(address: object, *words: str, mac: str = OLD, dev: str = BRIDGE) -> None:
    """Put an entry into the neighbour table of this thread's namespace."""
    sh("ip", "neigh", "replace", str(address), "lladdr", mac, "dev", dev, *words)


def entries(dev: str = BRIDGE) -> dict[str, str]:
    """Return the MACs in the neighbour table of this thread's namespace."""
    told = json.loads(sh("ip", "-j", "neigh", "show", "dev", dev))
    return {one["dst"]: one["lladdr"] for one in told if "lladdr" in one}


@pytest.mark.parametrize("state", ["reachable", "stale", "delay", "probe"])
def test_stale_entries_of_the_host_and_of_other_containers_are_put_right(world: World, state: str) -> None:
    for address in IPS:
        plant(address, "nud", state)
        with world.bob.entered():
            plant(address, "nud", state, dev="eth0")
    world.announce()

    def here() -> bool:
        return [entries().get(str(address)) for address in IPS] == [NEW, NEW]

    def there() -> bool:
        with world.bob.entered():
            return [entries("eth0").get(str(address)) for address in IPS] == [NEW, NEW]

    await_(there, 20, "bob to know better")
    await_(here, 20, "the host to know better")


def test_what_is_told_leads_to_where_the_container_is(world: World) -> None:
    """The container has the MAC by then; the bridge does not take its own frames for the container's."""
    port = "p2"
    with world.ann.entered():
        sh(*f"ip link set eth0 address {NEW}".split())
    plant(IPS[0], "nud", "stale")
    world.announce(IPS[:1], count=2)
    await_(lambda: entries().get(str(IPS[0])) == NEW, 20, "the host to know better")
    with socket.socket() as knock:
        knock.settimeout(20)
        assert knock.connect_ex((str(IPS[0]), 7)) == errno.ECONNREFUSED
    learnt = [line.split() for line in sh("bridge", "fdb", "show", "br", BRIDGE).splitlines() if NEW in line]
    assert {words[words.index("dev") + 1] for words in learnt} == {port}


def test_every_port_hears_exactly_as_many_as_asked_for_in_order_and_no_sooner(world: World) -> None:
    ears = [world.ear(place) for place in (world.ann, world.bob, world.cid)]
    world.announce(count=3, interval=0.2)
    world.await_told(ears[0], IPS[1], 3)
    world.announce(OTHER, count=3, interval=0.2)  # a fourth of the first would come before the third of this one
    for ear in ears:
        world.await_told(ear, OTHER[0], 3)
        assert ear.times() == {str(IPS[0]): 3, str(IPS[1]): 3, str(OTHER[0]): 3}
        assert {one.told.mac for one in ear.heard} == {NEW}
        assert [one.told.address for one in ear.heard if one.told.address in IPS] == [*IPS, *IPS, *IPS]
        for address in (*IPS, *OTHER):
            first, second, third = (one.at for one in ear.heard if one.told.address == address)
            assert second - first >= 0.2
            assert third - second >= 0.2


def test_nothing_is_told_where_nothing_is_asked_for(world: World) -> None:
    ear = world.ear(world.bob)
    plant(IPS[0], "nud", "reachable")
    world.announce(count=0)
    world.announce((), count=3)
    world.announce(OTHER)
    world.await_told(ear, OTHER[0])
    assert ear.times() == {str(OTHER[0]): 1}
    assert entries()[str(IPS[0])] == OLD


@pytest.mark.parametrize("before", [0, 1, 2])
def test_who_is_withdrawn_is_announced_no_more(world: World, before: int) -> None:
    ear = world.ear(world.bob)
    answers = iter([True] * before + [False])
    plant(IPS[0], "nud", "stale")
    world.announce(count=3, wanted=lambda: next(answers))
    world.announce(LATER, count=3)  # behind it, each time
    world.await_told(ear, LATER[0], 3)
    assert ear.times() == {str(LATER[0]): 3} | {str(address): before for address in IPS if before}
    assert next(answers, None) is None
    assert entries()[str(IPS[0])] == (NEW if before else OLD)


SET_ON_PURPOSE: Final = {
    "permanent": ("nud", "permanent"),
    "noarp": ("nud", "noarp"),
    "extern_learn": ("nud", "reachable", "extern_learn"),
    "managed": ("managed",),
}


@pytest.mark.parametrize("words", SET_ON_PURPOSE.values(), ids=SET_ON_PURPOSE.keys())
def test_entries_that_somebody_set_stay(world: World, words: tuple[str, ...]) -> None:
    for address in IPS:
        plant(address, *words)
    plant(OTHER[0], "nud", "stale")
    world.announce((*IPS, *OTHER))
    await_(lambda: entries()[str(OTHER[0])] == NEW, 20, "the last of them")
    assert NEW not in [entries().get(str(address)) for address in IPS]


def test_no_entry_is_made_where_there_is_none(world: World) -> None:
    ear = world.ear(world.bob)
    plant(OTHER[0], "nud", "stale")
    world.announce((*IPS, *OTHER))
    await_(lambda: entries()[str(OTHER[0])] == NEW, 20, "the last of them")
    world.await_told(ear, OTHER[0])
    assert entries() == {str(OTHER[0]): NEW}
    with world.bob.entered():
        assert entries("eth0") == {}


def test_a_bridge_that_is_gone_is_a_line_for_the_curious(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="drivers.announce")
    ear = world.ear(world.bob)
    world.announce(link="nosuch", count=2)
    world.announce(OTHER, count=2)
    world.await_told(ear, OTHER[0], 2)
    assert {record.levelno for record in caplog.records} == {logging.DEBUG}
    assert {(record.__dict__["link"], record.__dict__["mac"]) for record in caplog.records} == {("nosuch", NEW)}
    assert any("No such device" in record.__dict__["why"] for record in caplog.records)


def test_who_may_not_send_frames_tells_the_host_all_the_same(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> socket.socket:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Announcer, "_tell_segment", refused)
    plant(IPS[0], "nud", "stale")
    world.announce()
    await_(lambda: entries()[str(IPS[0])] == NEW, 20, "the host to know better")


def test_a_question_that_fails_is_a_no(world: World) -> None:
    def broken() -> bool:
        raise ValueError

    ear = world.ear(world.bob)
    world.announce(wanted=broken)
    world.announce(OTHER)
    world.await_told(ear, OTHER[0])
    assert ear.times() == {str(OTHER[0]): 1}


def test_whoever_announces_waits_for_nothing_and_one_thread_does_it_all(world: World) -> None:
    ear = world.ear(world.bob)
    held = threading.Event()
    world.announce(LATER, wanted=lambda: held.wait(FOR_LONG))
    for _ in range(50):
        world.announce()
    assert not ear.listen()
    assert [thread.name for thread in threading.enumerate()].count(THREAD) == 1
    held.set()
    world.await_told(ear, IPS[1], 50)
    assert ear.times() == {str(LATER[0]): 1, str(IPS[0]): 50, str(IPS[1]): 50}


def test_the_end_does_not_wait_for_what_is_still_to_be_told(world: World) -> None:
    ear = world.ear(world.bob)
    world.announce(count=3, interval=FOR_LONG)
    world.await_told(ear, IPS[1])
    world.announcer.stop()
    assert THREAD not in [thread.name for thread in threading.enumerate()]
    world.announce()
    world.announcer.stop()
    assert ear.times() == {str(address): 1 for address in IPS}


def test_the_end_of_what_never_began(world: World) -> None:
    world.announcer.stop()
    world.announcer.stop()


def test_without_a_thread_it_is_told_when_there_is_one_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoThread(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    ear = world.ear(world.bob)
    with monkeypatch.context() as patched:
        patched.setattr(threading, "Thread", NoThread)
        world.announce()
    world.announce(OTHER)
    world.await_told(ear, OTHER[0])
    assert ear.times() == {str(address): 1 for address in (*IPS, *OTHER)}
