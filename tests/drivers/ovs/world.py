"""What the tests of Open vSwitch's database share: bridges and ports as they are wanted, and frames that pass."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

from drivers.marks import Marks
from drivers.ovsdb import OvsdbBackend, Remote, parse
from drivers.resources import (
    HOST,
    OvsBridge,
    OvsDevicePort,
    OvsPort,
    Resource,
    Scope,
    ovs_bridge_key,
    ovs_port_key,
    scope_of,
)
from tests.lab.net import RUN_NETNS, NetNs
from tests.lab.ovs import Ovs
from tests.lab.wait import WaitedInVainError, await_
from tests.netns import inside, sh

MARKS = Marks("0123456789abcdef")
NETWORK = scope_of("n1")
ENDPOINT = scope_of("n1", "e1")
OTHER = scope_of("n2")

MAC = "02:00:00:00:00:01"
BRIDGE = OvsBridge(key=ovs_bridge_key("br-int"), scope=HOST, mac=MAC)
FLOW = (("key", "flow"), ("remote_ip", "flow"))

SOON = 30
"""Seconds within which OVS has done what it does in some 10 ms, on a machine that has much else to do."""

_ETHERTYPE = 0x88B5  # for local experiments, IEEE 802


def device(name: str = "wfh1", **wanted: Any) -> OvsDevicePort:  # noqa: ANN401 - any field of a port
    return OvsDevicePort(**{"key": ovs_port_key(name), "scope": ENDPOINT, **wanted})


def port(name: str, **wanted: Any) -> OvsPort:  # noqa: ANN401 - any field of a port
    return OvsPort(**{"key": ovs_port_key(name), "scope": NETWORK, **wanted})


def tunnel(kind: str = "vxlan", **wanted: Any) -> OvsPort:  # noqa: ANN401 - any field of a port
    return port(
        f"wft{kind}", **{"scope": HOST, "needs": frozenset({BRIDGE.key}), "type": kind, "options": FLOW, **wanted}
    )


def noticed(backend: OvsdbBackend, *resources: Resource) -> None:
    """Wait until the backend has heard that resources are not as they are wanted any more."""
    await_(lambda: any(backend.observe([one.key]).get(one.key) != one for one in resources), SOON, "the word of it")


def remote_of(ovs: Ovs) -> Remote:
    return parse(ovs.remote, ovs.outside)


@contextmanager
def backend_of(ovs: Ovs, store: str = MARKS.store, patience: float = SOON) -> Iterator[OvsdbBackend]:
    """Yield a backend that writes the marks of a store."""
    backend = OvsdbBackend(Marks(store), remote_of(ovs), patience=patience)
    try:
        yield backend
    finally:
        backend.close()


def veth(name: str = "wfh1", peer: str = "", netns: str = "") -> None:
    """Make a veth pair in this thread's namespace, up at both ends; the other end is in `netns` if there is one."""
    peer = peer or name.replace("wfh", "wfc")
    ip("link", "add", name, "type", "veth", "peer", "name", peer, *(["netns", netns] if netns else []))
    ip("link", "set", name, "up")
    ip(*(["-n", netns] if netns else []), "link", "set", peer, "up")


class Watcher:
    """What a watch told, in order."""

    def __init__(self, backend: OvsdbBackend) -> None:
        self.told: list[Scope | None] = []
        self._stop = backend.watch(self.told.append)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def heard(self, *scopes: Scope | None) -> list[Scope | None]:
        """Wait until all of `scopes` were told, and return all that was, and forget it."""
        await_(lambda: set(scopes) <= set(self.told), SOON, f"a word about {scopes}, of {self.told}")
        told, self.told[:] = list(self.told), []
        return told


class Wire:
    """Two containers with one link each, that send each other frames of no protocol: nothing to resolve or offload."""

    def __init__(self, one: tuple[NetNs, str], other: tuple[NetNs, str]) -> None:
        self._ends = one, other

    def passes(self) -> bool:
        """Tell whether a broadcast frame gets from each end to the other, within a second or so."""
        return all(_arrives(*ends) for ends in (self._ends, self._ends[::-1]))


def _arrives(source: tuple[NetNs, str], target: tuple[NetNs, str]) -> bool:
    with _listening(*target) as receiver, _listening(*source) as sender:
        frame = b"\xff" * 6 + bytes.fromhex("020000000099") + _ETHERTYPE.to_bytes(2, "big") + b"weft" * 16

        def heard() -> bool:
            sender.send(frame)
            return receiver.recv(2048)[:64] == frame[:64]

        try:
            return await_(heard, 1, "a frame")
        except WaitedInVainError:
            return False


@contextmanager
def _listening(netns: NetNs, link: str) -> Iterator[socket.socket]:
    with inside(RUN_NETNS / netns.netns):
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    with sock:
        sock.bind((link, _ETHERTYPE))
        sock.settimeout(0.2)
        yield sock


def ip(*args: str) -> str:
    """Run `ip` in this thread's namespace."""
    return sh("ip", *args)
