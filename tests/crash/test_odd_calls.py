"""What Docker sends in another order, twice, at once or not at all: the host is what Docker knows all the same."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.conftest import TellFaults
from tests.crash.life import GLEN, MOOR, STAGES, Life, life
from tests.libnetwork import CallRefusedError
from tests.libnetwork.wire import DIALECTS, post

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.faults,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces are root's"),
]

Call = tuple[str, dict[str, Any] | None]
PAIRS = 4  # of calls that are made at once: the winner changes


@pytest.fixture(params=[False, True], ids=["bridge", "ovs"], scope="module")
def lived(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    """Yield a life that was lived once, so that all its stations are known; nothing is made."""
    with life(tmp_path_factory.mktemp("odd"), ovs=request.param, engine="28.5.2") as one:
        one.keep()
        for stage in STAGES:
            one.effects(stage.act)
        for stage in reversed(STAGES):
            one.effects(stage.back)
        yield one


@pytest.fixture
def one(lived: Life, tell_faults: TellFaults) -> Iterator[Life]:
    """Yield it, to be left with nothing made."""
    before = lived.station()
    with tell_faults(lived.tally):
        yield lived
    lived.tally.reset()
    assert lived.station() == before


def send(one: Life, method: str, body: dict[str, Any] | None) -> dict[str, Any]:
    """Make a call beside Docker's own; return the answer, or what it was refused with as ``refused``."""
    try:
        return post(one.docker.socket, DIALECTS["28.5.2"], method, body, 60)
    except CallRefusedError as said:
        return {"refused": said.said}


def test_every_call_may_come_twice(one: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a reply that was lost. But no pool and no address is given twice: of these the second is refused."""
    made: list[Call] = []
    call = one.docker.call

    def twice(method: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        first = call(method, body)
        second = send(one, method, body)
        made.append((method, body))
        one.tally.points += 1
        if method in ("IpamDriver.RequestAddress", "IpamDriver.RequestPool"):
            assert "refused" in second, (method, second)
        else:
            assert second == first, (method, body)
        return first

    monkeypatch.setattr(one.docker, "call", twice)
    for stage in STAGES:
        stage.act(one)
        one.compare(f"{stage.name}, each call twice")
    for stage in reversed(STAGES):
        stage.back(one)
        one.compare(f"{stage.name}, back, each call twice")
    assert len({method for method, _ in made}) >= 13


def test_a_leave_and_a_revoke_that_never_come(one: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = {"NetworkDriver.Leave", "NetworkDriver.RevokeExternalConnectivity"}
    tell, take_note = one.docker.tell, one.docker.take_note
    monkeypatch.setattr(
        one.docker, "tell", lambda method, body: (take_note if method in silent else tell)(method, body)
    )
    there_and_back(one, "without Leave and Revoke")


def test_a_revoke_for_what_was_never_programmed(one: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint whose Program never came, as of a network that is not the gateway, gets a Revoke."""
    call = one.docker.call

    def revoked_first(method: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        if method == "NetworkDriver.ProgramExternalConnectivity":
            assert call("NetworkDriver.RevokeExternalConnectivity", {key: (body or {})[key] for key in IDS}) == {}
            one.tally.points += 1
        return call(method, body)

    monkeypatch.setattr(one.docker, "call", revoked_first)
    there_and_back(one, "with a Revoke before each Program")


IDS = ("NetworkID", "EndpointID")


def there_and_back(one: Life, how: str) -> None:
    """Live the life, and compare at each station."""
    for stage in STAGES:
        stage.act(one)
        one.tally.points += 1
        one.compare(f"{stage.name}, {how}")
    for stage in reversed(STAGES):
        stage.back(one)
        one.compare(f"{stage.name}, back, {how}")


def test_a_delete_of_an_endpoint_that_never_comes(one: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker has forgotten the container; its list says so, and its network may be removed at once, too."""
    tell = one.docker.tell

    def forgetful(method: str, body: dict[str, Any]) -> None:
        if method == "NetworkDriver.DeleteEndpoint":
            one.docker.joined.pop(body["EndpointID"], None)
            one.tally.points += 1
        else:
            tell(method, body)

    for removed_at_once in (False, True):
        one.create(MOOR)
        one.create(GLEN)
        one.run()
        one.connect()
        with monkeypatch.context() as patched:
            patched.setattr(one.docker, "tell", forgetful)
            one.stop()
        if not removed_at_once:
            one.compare("two endpoints were forgotten")
        one.remove(GLEN)
        one.remove(MOOR)
        one.compare("the networks were removed")


def test_a_delete_of_a_network_that_never_comes(one: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    one.create(MOOR)
    one.create(GLEN)
    monkeypatch.setattr(one.docker, "tell", lambda _method, _body: None)
    one.remove(GLEN)
    one.remove(MOOR)
    one.tally.points += 2
    monkeypatch.undo()
    one.compare("two networks, two pools and their gateways were forgotten")


def at_once(one: Life, *calls: Call) -> list[dict[str, Any]]:
    """Make calls in the same moment; return their answers."""
    with ThreadPoolExecutor(len(calls)) as pool:
        running = [pool.submit(send, one, *call) for call in calls]
        one.tally.points += 1
        return [done.result() for done in running]


def test_two_calls_at_once_for_one_endpoint(one: Life) -> None:
    """Equal ones are both answered alike; of two that contradict each other one has the last word, and whole."""
    one.create(MOOR)
    network = one.docker.named(MOOR)
    (pool, *_) = network.reserved
    lease = ("IpamDriver.RequestAddress", {"PoolID": pool, "Address": "10.77.0.5", "Options": None})
    for turn in range(PAIRS):
        assert send(one, *lease) == {"Address": "10.77.0.5/24", "Data": {}}
        ids = {"NetworkID": network.id, "EndpointID": f"{turn:064x}"}
        interface = {"Address": "10.77.0.5/24", "AddressIPv6": "", "MacAddress": ""}
        create = ("NetworkDriver.CreateEndpoint", {**ids, "Interface": interface, "Options": PORTS})
        first, second = at_once(one, create, create)
        assert first == second
        assert "Interface" in first
        join = ("NetworkDriver.Join", {**ids, "SandboxKey": "/var/run/docker/netns/0123456789ab", "Options": PORTS})
        first, second = at_once(one, join, join)
        assert first == second
        program = ("NetworkDriver.ProgramExternalConnectivity", {**ids, "Options": PORTS})
        assert at_once(one, program, program) == [{}, {}]
        revoke, leave, delete = ((f"NetworkDriver.{name}", ids) for name in TAKEN_BACK)
        assert at_once(one, program, revoke)[1] == {}
        at_once(one, program, leave, delete)
        answers = at_once(one, create, delete, delete)
        assert answers[1:] == [{}, {}]
        for each in (revoke, leave, delete, ("IpamDriver.ReleaseAddress", {"PoolID": pool, "Address": "10.77.0.5"})):
            assert send(one, *each) == {}
        one.compare(f"calls at once, turn {turn}")
    one.remove(MOOR)
    one.compare("the network was removed")


TAKEN_BACK = ("RevokeExternalConnectivity", "Leave", "DeleteEndpoint")
PORTS = {
    "com.docker.network.endpoint.exposedports": [{"Proto": 6, "Port": 80}],
    "com.docker.network.portmap": [
        {"Proto": 6, "IP": "", "Port": 80, "HostIP": "", "HostPort": 8080, "HostPortEnd": 8080}
    ],
}


def test_a_network_that_is_made_and_deleted_at_once(one: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    one.create(MOOR)
    bodies: list[dict[str, Any]] = []
    call: Callable[..., dict[str, Any]] = one.docker.call

    def noted(method: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        if method == "NetworkDriver.CreateNetwork" and body is not None:
            bodies.append(body)
        return call(method, body)

    with monkeypatch.context() as patched:
        patched.setattr(one.docker, "call", noted)
        one.create(GLEN)
    create = ("NetworkDriver.CreateNetwork", bodies[0])
    delete = ("NetworkDriver.DeleteNetwork", {"NetworkID": bodies[0]["NetworkID"]})
    for _ in range(PAIRS):
        assert at_once(one, create, create) == [{}, {}]
        one.compare("made twice at once")
        assert at_once(one, delete, delete) == [{}, {}]
        at_once(one, create, delete)
        assert send(one, *delete) == {}
        assert send(one, *create) == {}
        one.compare("made and deleted at once, and made again")
    one.remove(GLEN)
    one.remove(MOOR)
    one.compare("the networks were removed")
