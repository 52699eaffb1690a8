"""The monitor on the real kernel: what others do wakes it, what weft makes does not."""

import errno
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_interface
from pathlib import Path

import pytest

from drivers.contract import Step
from drivers.kernel.backend import KernelBackend
from drivers.kernel.wire import Message
from drivers.marks import Marks
from drivers.naming import LINK_GROUP
from drivers.resources import HOST, Bridge, HostAddress, Resource, Scope, Veth, address_key, link_key, scope_of
from tests.lab.wait import await_
from tests.netns import private_netns

pytestmark = pytest.mark.kernel

NETWORK = scope_of("n1")
ENDPOINT = scope_of("n1", "e1")
ADOPTER = scope_of("n2")
BRIDGE = Bridge(key=link_key("wfb1"), scope=NETWORK, mac="02:00:00:00:00:01", ipv6=True, mtu=1400)
VETH = Veth(key=link_key("wfh1"), scope=ENDPOINT, bridge="wfb1", peer="wfc1", mac="02:00:00:00:00:02", mtu=1400)
ADDRESSES = [
    HostAddress(key=address_key("wfb1", ip_interface(text)), scope=NETWORK) for text in ("10.0.0.1/24", "fd00::1/64")
]
END = scope_of("end")


class Heard:
    """What a watch told, in order."""

    def __init__(self, backend: KernelBackend) -> None:
        self.scopes: list[Scope | None] = []
        self._stop = backend.watch(self.scopes.append)

    def stop(self) -> None:
        """Stop the watch."""
        self._stop()

    def so_far(self) -> list[Scope | None]:
        """Return what was told of all that has happened by now: events come in order, so a last one shows the end."""
        ip("link", "add", "wfend", "type", "veth", "peer", "name", "wfendp")
        ip("link", "set", "wfend", "alias", MARKS.write(END))
        ip("link", "del", "wfend")
        await_(lambda: END in self.scopes, 10, "the last event")
        told = self.scopes[: self.scopes.index(END)]
        self.scopes.clear()
        return told


MARKS = Marks("0123456789abcdef")


def ip(*args: str) -> None:
    subprocess.run(["ip", *args], check=True)


@pytest.fixture
def backend() -> Iterator[KernelBackend]:
    with private_netns():
        ip("link", "add", "br7", "type", "bridge")
        ip("link", "set", "br7", "up")
        ip("address", "add", "10.7.0.1/24", "dev", "br7")
        one = KernelBackend(MARKS, {"br7": ADOPTER}.get)
        yield one
        one.close()


@pytest.fixture
def heard(backend: KernelBackend) -> Iterator[Heard]:
    one = Heard(backend)
    yield one
    one.stop()


def applied(backend: KernelBackend, *wanted: Resource) -> None:
    assert not backend.apply([Step(None, one) for one in wanted])


def test_what_weft_makes_does_not_wake_it(backend: KernelBackend, heard: Heard) -> None:
    applied(backend, BRIDGE, *ADDRESSES, VETH)
    ip("link", "set", "wfc1", "up")
    applied(backend, BRIDGE, *ADDRESSES, VETH)
    assert heard.so_far() == []


def test_what_weft_puts_right_does_not_wake_it(backend: KernelBackend) -> None:
    applied(backend, BRIDGE, VETH)
    ip("link", "set", "wfh1", "nomaster")
    ip("link", "set", "wfb1", "mtu", "1300")
    heard = Heard(backend)
    observed = backend.observe([BRIDGE.key, VETH.key])
    steps = [Step(old, new) for new in (BRIDGE, VETH) if isinstance(old := observed[new.key], Resource)]
    assert not backend.apply(steps)
    assert heard.so_far() == []
    heard.stop()


def test_what_weft_switches_for_published_ports_does_not_wake_it(backend: KernelBackend, heard: Heard) -> None:
    applied(backend, BRIDGE, VETH)
    published = (replace(BRIDGE, route_localnet=True), replace(VETH, hairpin=True))
    assert not backend.apply([Step(old, new) for old, new in zip((BRIDGE, VETH), published, strict=True)])
    assert not backend.apply([Step(old, new) for old, new in zip(published, (BRIDGE, VETH), strict=True)])
    assert heard.so_far() == []


def test_a_port_of_open_vswitch_does_not_wake_it(backend: KernelBackend, heard: Heard) -> None:
    """The kernel knows of no bridge that it is in."""
    port = replace(VETH, bridge="")
    applied(backend, port)
    for line in ("link set wfc1 up", "link set wfh1 promisc on", "link set wfc1 down"):
        ip(*line.split())
    applied(backend, port)
    assert heard.so_far() == []


CHANGES: dict[str, tuple[str, set[Scope]]] = {
    "bridge deleted": ("link del wfb1", {NETWORK, ENDPOINT}),
    "bridge down": ("link set wfb1 down", {NETWORK}),
    "veth deleted": ("link del wfh1", {ENDPOINT}),
    "the container's end deleted": ("link del wfc1", {ENDPOINT}),
    "veth down": ("link set wfh1 down", {ENDPOINT}),
    "veth out of its bridge": ("link set wfh1 nomaster", {ENDPOINT}),
    "address deleted": ("address del 10.0.0.1/24 dev wfb1", {NETWORK}),
    "IPv6 address deleted": ("address del fd00::1/64 dev wfb1", {NETWORK}),
    "address of an adopted bridge deleted": ("address del 10.7.0.1/24 dev br7", {ADOPTER}),
    "operator's bridge made": ("link add br-lan type bridge", {HOST}),
    "operator's bridge deleted": ("link del br-old", {HOST}),
    "operator's bridge renamed": ("link set br-old name br-new", {HOST}),
    "a bridge of Docker's made": ("link add br-0123456789ab type bridge", set()),
    "another's bridge made": ("link add virbr0 type bridge", {HOST}),
    "another weft's bridge made": ("link add wfnew group 22511 type bridge", set()),
    "a port of the operator's bridge": ("link add eth7 master br-old type veth", {HOST}),
    "a port of nobody's": ("link add eth7 type veth", set()),
    "operator's bridge up": ("link set br-old up", set()),
    "an address added": ("address add 10.0.0.9/24 dev wfb1", set()),
    "another's address deleted": ("address del 127.0.0.1/8 dev lo", set()),
    "another weft's bridge deleted": ("link del wfother", set()),
}


@pytest.mark.parametrize(("line", "told"), CHANGES.values(), ids=CHANGES.keys())
def test_what_others_do_marks_its_scope(backend: KernelBackend, line: str, told: set[Scope]) -> None:
    ip("link", "add", "br-old", "type", "bridge")
    ip("link", "add", "wfother", "group", str(LINK_GROUP), "type", "bridge")
    ip("link", "set", "wfother", "alias", "weft:fedcba:n1:")
    applied(backend, BRIDGE, *ADDRESSES, VETH)
    heard = Heard(backend)
    ip(*line.split())
    assert set(heard.so_far()) == told
    heard.stop()


def test_a_missed_event_means_that_anything_may_differ(backend: KernelBackend) -> None:
    applied(backend, BRIDGE)
    held, let_go = threading.Event(), threading.Event()
    told: list[Scope | None] = []

    def dirty(scope: Scope | None) -> None:
        told.append(scope)
        held.set()
        assert let_go.wait(60)

    stop = backend.watch(dirty)
    try:
        ip("link", "set", "wfb1", "down")
        assert held.wait(10)
        storm = "link set wfb1 up\nlink set wfb1 down\n" * 4000
        subprocess.run(["ip", "-batch", "-"], input=storm, check=True, text=True)
        let_go.set()
        await_(lambda: None in told, 30, "the overflow to be told")
        assert told == [NETWORK, None]
        ip("link", "add", "br-lan", "type", "bridge")
        await_(lambda: told == [NETWORK, None, HOST], 30, "the next event, and no more")
    finally:
        let_go.set()
        stop()


def test_an_address_whose_link_cannot_be_asked_for_may_be_anybodys(
    backend: KernelBackend, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: bytes) -> list[Message]:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(backend._netlink, "ask", refused)
    ip("address", "del", "10.7.0.1/24", "dev", "br7")
    await_(lambda: heard.scopes == [None], 10, "anything to be dirty")


def test_it_ends_when_told_to_and_leaves_nothing_open(backend: KernelBackend) -> None:
    applied(backend, BRIDGE)
    before = _open_files()
    stop: Callable[[], None] = backend.watch(lambda _: None)
    assert [one for one in threading.enumerate() if one.name == "weft-netlink-monitor"]
    stop()
    stop()
    assert not [one for one in threading.enumerate() if one.name == "weft-netlink-monitor"]
    assert _open_files() == before


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
