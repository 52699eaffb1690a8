"""Each test is in a namespace with an Open vSwitch that has no bridges; a module's tests share one after the other."""

from collections.abc import Iterator

import pytest

from drivers.converge import Converger
from drivers.ovsdb import OvsdbBackend
from tests.drivers.ovs.world import backend_of, ip
from tests.lab.net import RUN_NETNS, NetNs
from tests.lab.ovs import Ovs
from tests.netns import inside


@pytest.fixture(scope="module")
def shared() -> Iterator[Ovs]:
    with NetNs("ovs") as netns, Ovs(netns) as ovs:
        yield ovs


@pytest.fixture
def ovs(shared: Ovs) -> Iterator[Ovs]:
    with inside(RUN_NETNS / shared.netns):
        yield shared
        for bridge in shared.vsctl("list-br").split():
            shared.vsctl("del-br", bridge)
        while left := ip("-br", "link", "show", "type", "veth").split():
            ip("link", "del", left[0].partition("@")[0])


@pytest.fixture
def absent() -> Iterator[Ovs]:
    """Give an Open vSwitch of the test's own that nobody has started yet."""
    with NetNs("own") as netns, inside(RUN_NETNS / netns.netns):
        ovs = Ovs(netns)
        try:
            yield ovs
        finally:
            ovs.__exit__()


@pytest.fixture
def mortal(absent: Ovs) -> Ovs:
    """Give an Open vSwitch of the test's own, to kill and to start again."""
    absent.start()
    return absent


@pytest.fixture
def backend(ovs: Ovs) -> Iterator[OvsdbBackend]:
    with backend_of(ovs) as backend:
        yield backend


@pytest.fixture
def converger(backend: OvsdbBackend) -> Converger:
    return Converger({"ovsdb": backend})
