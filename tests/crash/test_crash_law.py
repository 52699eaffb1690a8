"""SIGKILL after every single effect of a request, and of a recovery: after a start the host is what the store says."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

import pytest

from tests.crash.host import Body, CrashHost, Died, crash_host
from tests.lab.wait import await_

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.faults,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces are root's"),
]

NETWORK, ENDPOINT, SECOND = "4e" * 32, "e1" * 32, "e2" * 32
ADOPTED = "br-ops"


@dataclass(frozen=True, slots=True)
class Call:
    """One call of Docker's."""

    method: str
    body: Body


def create_network(**options: str) -> Call:
    """Return a CreateNetwork of a dual-stack network, as 28.5.2 words it."""
    switches = {
        "com.docker.network.enable_ipv4": True,
        "com.docker.network.enable_ipv6": True,
        "com.docker.network.generic": options,
    }
    v4 = {"AddressSpace": "LocalDefault", "Pool": "10.9.0.0/24", "Gateway": "10.9.0.1/24"}
    v6 = {"AddressSpace": "LocalDefault", "Pool": "fd00:9::/64", "Gateway": "fd00:9::1/64"}
    return Call("CreateNetwork", {"NetworkID": NETWORK, "Options": switches, "IPv4Data": [v4], "IPv6Data": [v6]})


def create_endpoint(ident: str, host: int) -> Call:
    """Return a CreateEndpoint."""
    interface = {"Address": f"10.9.0.{host}/24", "AddressIPv6": f"fd00:9::{host}/64", "MacAddress": ""}
    return Call("CreateEndpoint", {"NetworkID": NETWORK, "EndpointID": ident, "Interface": interface, "Options": {}})


ADOPT = create_network(**{"com.docker.network.bridge.name": ADOPTED})
DELETE_NETWORK = Call("DeleteNetwork", {"NetworkID": NETWORK})
DELETE_ENDPOINT = Call("DeleteEndpoint", {"NetworkID": NETWORK, "EndpointID": ENDPOINT})
ENDPOINTS = (create_endpoint(ENDPOINT, 2), create_endpoint(SECOND, 3))

SWITCH_OFF = "echo 0 >/proc/sys/net/ipv6/conf/all/force_forwarding; echo 0 >/proc/sys/net/ipv6/conf/all/forwarding"


@dataclass(frozen=True, slots=True)
class Case:
    """A call to die in, what is there before, and how to get back there. ``least``: effects it must have."""

    before: tuple[Call, ...]
    call: Call
    back: tuple[Call, ...]
    least: int


CASES = {
    "create-network": Case((), create_network(), (DELETE_NETWORK,), 12),
    "create-endpoint": Case((create_network(),), ENDPOINTS[0], (DELETE_ENDPOINT,), 4),
    "delete-endpoint": Case((create_network(), *ENDPOINTS), DELETE_ENDPOINT, ENDPOINTS[:1], 3),
    "delete-network": Case((create_network(), ENDPOINTS[0]), DELETE_NETWORK, (create_network(), ENDPOINTS[0]), 8),
    "adopt-bridge": Case((), ADOPT, (DELETE_NETWORK,), 8),
    "create-endpoint-on-adopted": Case((ADOPT,), ENDPOINTS[0], (DELETE_ENDPOINT,), 7),
    "delete-endpoint-on-adopted": Case((ADOPT, *ENDPOINTS), DELETE_ENDPOINT, ENDPOINTS[:1], 5),
}


@pytest.fixture
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrashHost]:
    """Yield a host with a bridge of its operator's, and no weft running."""
    with crash_host(tmp_path_factory.mktemp("crash"), "crash") as host:
        host.sh(f"ip link add {ADOPTED} address 02:00:00:00:00:0a type bridge; ip link set {ADOPTED} up")
        yield host


def make(host: CrashHost, *calls: Call) -> None:
    """Make calls, and wait until all that they put off is done."""
    for one in calls:
        host.ask(one.method, one.body)
    host.await_healthy()


def survives(host: CrashHost, effects: int, act: Callable[[], None]) -> bool:
    """Tell whether weft lives through something with so many effects allowed."""
    host.arm(effects)
    try:
        act()
    except Died:
        return False
    finally:
        host.disarm()
    return True


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_after_a_kill_at_any_effect_the_host_is_what_the_store_says(host: CrashHost, case: Case) -> None:
    host.start()
    make(host, *case.before)
    without = host.seen()
    make(host, case.call)
    done = host.seen()
    assert done != without
    make(host, *case.back)
    assert host.seen() == without, without.difference(host.seen())

    kept: list[bool] = []
    for effects in count():
        if not case.before:
            host.sh(SWITCH_OFF)
        if survives(host, effects, lambda: make(host, case.call)):
            assert host.seen() == done, done.difference(host.seen())
            break
        host.start()
        assert host.read("/v1/status")["differs"] == [], f"after {effects} effects"
        now = host.seen()
        assert now in (without, done), (
            f"after {effects} effects; to the state before:\n{without.difference(now)}\n"
            f"to the state after:\n{done.difference(now)}"
        )
        kept.append(now == done)
        if kept[-1]:
            make(host, *case.back)
    assert "the host is as wanted" in host.cli("status")
    assert len(kept) >= case.least
    assert kept == sorted(kept), "what was promised once was taken back by a later crash"
    assert not kept[0]
    assert kept[-1]


def test_a_recovery_that_is_killed_at_any_effect_is_taken_up_by_the_next(host: CrashHost) -> None:
    host.start()
    empty = host.seen()
    for recovery in count():
        make(host, create_network(), ENDPOINTS[0])
        assert not survives(host, 1, lambda: make(host, DELETE_NETWORK))  # the commit that withdraws it, no more
        if survives(host, recovery, lambda: start_and_settle(host)):
            break
        host.start()
        assert host.read("/v1/status")["differs"] == [], f"after {recovery} effects of a recovery"
        assert host.seen() == empty, empty.difference(host.seen())
    assert recovery >= 6
    assert host.seen() == empty


def start_and_settle(host: CrashHost) -> None:
    """Start a weft that may die in the middle of it."""
    host.start()
    host.await_healthy()


def test_what_a_power_off_left_half_recovered_is_finished(host: CrashHost) -> None:
    """After a power-off everything is built anew from the store, and that may be cut off as well."""
    host.start()
    make(host, create_network())
    whole = host.seen()
    for effects in count(1):
        host.kill()
        host.sh("ip link del group 22511; nft delete table inet weft")
        if survives(host, effects, lambda: start_and_settle(host)):
            break
        host.start()
        assert host.read("/v1/status")["differs"] == [], f"after {effects} effects"
        assert host.seen() == whole, whole.difference(host.seen())
    assert effects >= 4
    await_(lambda: host.seen() == whole, 10, "the network to be whole")
