from __future__ import annotations

import errno
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

import pytest

from drivers.errors import Conflict, InvalidRequest, NotFound
from drivers.naming import endpoint_mac, link_name
from drivers.resources import HOST, Bridge, Veth, link_key, scope_of
from plugin.store import Phase
from tests.plugin.samples import endpoint, endpoint_id, endpoint_request, network_id, network_request, subnet
from tests.plugin.world import World, now

NETWORK = network_id(1)
ENDPOINT = endpoint_id(1)
LINK = link_name("h", ENDPOINT)
SANDBOX = "/var/run/docker/netns/0123456789ab"


@pytest.fixture
def world(world: World) -> World:
    world.networks.create(network_request(), now())
    return world


def test_an_endpoint_is_a_port_of_its_bridge_when_it_was_answered(world: World) -> None:
    mac = world.endpoints.create(endpoint_request(), now())
    assert mac == endpoint_mac(NETWORK, endpoint().ipv4, ENDPOINT)
    (veth,) = world.marked()[scope_of(NETWORK, ENDPOINT)]
    assert isinstance(veth, Veth)
    assert veth.bridge == link_name("b", NETWORK)


def test_the_operators_mac_is_kept(world: World) -> None:
    assert world.endpoints.create(endpoint_request(mac="02:11:22:33:44:55"), now()) == "02:11:22:33:44:55"


def test_the_same_address_keeps_its_mac(world: World) -> None:
    first = world.endpoints.create(endpoint_request(1), now())
    world.endpoints.delete(ENDPOINT, now())
    assert world.endpoints.create(endpoint_request(2, address="10.1.0.2/24"), now()) == first


def test_making_an_equal_one_again_is_a_success_and_a_different_one_names_both(world: World) -> None:
    first = world.endpoints.create(endpoint_request(), now())
    assert world.endpoints.create(endpoint_request(), now()) == first
    with pytest.raises(Conflict, match=r"exists and differs: .*10\.1\.0\.2.*asked for: .*10\.1\.0\.9"):
        world.endpoints.create(endpoint_request(address="10.1.0.9/24"), now())


def test_an_unknown_network_says_what_to_do(world: World) -> None:
    with pytest.raises(NotFound, match=r"no network ffffffffffff.*docker network rm"):
        world.endpoints.create(endpoint_request(network="f" * 64), now())


def test_an_address_outside_the_network_is_refused(world: World) -> None:
    with pytest.raises(InvalidRequest, match=r"10\.2\.0\.5 is not in network .*allowed: 10\.1\.0\.0/24"):
        world.endpoints.create(endpoint_request(address="10.2.0.5/24"), now())


def test_a_failed_create_leaves_nothing(world: World) -> None:
    before = dict(world.host.fake.objects)
    world.host.fake.fail(link_key(LINK), OSError(errno.ENOMEM, "Cannot allocate memory"))
    with pytest.raises(ExceptionGroup) as failed:
        world.endpoints.create(endpoint_request(), now())
    assert "Cannot allocate memory" in str(failed.value.exceptions[0])
    assert world.host.fake.objects == before
    assert world.store.endpoints() == []


def test_an_address_of_a_dead_holder_is_taken_over(world: World) -> None:
    """Kill -9 of dockerd in the middle of a start: the next one asks with another id and the same address."""
    world.endpoints.create(endpoint_request(1), now())
    world.endpoints.create(endpoint_request(2, address="10.1.0.2/24"), now())
    assert [row.id for row in world.store.endpoints()] == [endpoint_id(2)]
    assert set(world.marked()) == {HOST, scope_of(NETWORK), scope_of(NETWORK, endpoint_id(2))}


def test_an_address_of_a_live_holder_is_a_conflict_that_names_it(world: World) -> None:
    world.endpoints.create(endpoint_request(1), now())
    world.endpoints.join(ENDPOINT, SANDBOX)
    world.host.plugged.add(LINK)
    with pytest.raises(Conflict, match=rf"10\.1\.0\.2 is in use by endpoint {ENDPOINT[:12]}.*{SANDBOX}"):
        world.endpoints.create(endpoint_request(2, address="10.1.0.2/24"), now())
    assert [row.id for row in world.store.endpoints()] == [ENDPOINT]


def test_joining_answers_the_gateways_that_the_addresses_can_reach(world: World) -> None:
    world.networks.create(
        network_request(2, subnets=(subnet("10.2.0.0/24"), subnet("10.3.0.0/24"), subnet("fd00:2::/64"))), now()
    )
    world.endpoints.create(endpoint_request(1, 2, address="10.3.0.7/24", ipv6="fd00:2::7/64"), now())
    joined = world.endpoints.join(ENDPOINT, SANDBOX)
    assert (joined.gateway4, joined.gateway6) == (IPv4Address("10.3.0.1"), IPv6Address("fd00:2::1"))
    assert (joined.link, joined.prefix) == (link_name("c", ENDPOINT), "eth")
    row = world.store.endpoint(ENDPOINT)
    assert row is not None
    assert row.sandbox == SANDBOX


def test_an_internal_network_has_no_gateway(world: World) -> None:
    world.networks.create(network_request(2, internal=True), now())
    world.endpoints.create(endpoint_request(1, 2), now())
    assert world.endpoints.join(ENDPOINT, SANDBOX).gateway4 is None


def test_joining_announces_the_addresses_as_the_network_says_after_a_restart_too(world: World) -> None:
    world.networks.create(network_request(2, announce_count=2, announce_ms=250), now())
    world.endpoints.create(endpoint_request(2, 2), now())
    world.restart()
    world.endpoints.join(endpoint_id(2), SANDBOX)
    (announced,) = world.host.announced
    assert (announced.link, announced.endpoint) == (link_name("b", network_id(2)), endpoint(2, 2))
    assert (announced.count, announced.interval) == (2, 0.25)


GOES = {
    "leaves": lambda world: world.endpoints.leave(ENDPOINT),
    "is deleted": lambda world: world.endpoints.delete(ENDPOINT, now()),
    "is replaced": lambda world: world.endpoints.create(endpoint_request(2, address="10.1.0.2/24"), now()),
    "goes with its network": lambda world: world.networks.delete(NETWORK, now()),
}


@pytest.mark.parametrize("go", GOES.values(), ids=GOES.keys())
def test_who_goes_is_to_be_announced_no_more(world: World, go: Callable[[World], object]) -> None:
    world.endpoints.create(endpoint_request(), now())
    world.endpoints.join(ENDPOINT, SANDBOX)
    (announced,) = world.host.announced
    assert announced.wanted()
    go(world)
    assert not announced.wanted()


def test_joining_what_is_unknown_is_an_error_and_leaving_is_not(world: World) -> None:
    with pytest.raises(NotFound, match="start the container again"):
        world.endpoints.join("f" * 64, SANDBOX)
    world.endpoints.leave("f" * 64)
    world.ports.revoke("f" * 64, now())
    world.endpoints.delete("f" * 64, now())


def test_the_way_out_moves_between_endpoints_any_number_of_times(world: World) -> None:
    world.endpoints.create(endpoint_request(), now())
    for _ in range(3):
        world.ports.program(ENDPOINT, now())
        row = world.store.endpoint(ENDPOINT)
        assert row is not None
        assert row.external
        world.ports.revoke(ENDPOINT, now())
        world.ports.revoke(ENDPOINT, now())


def test_after_the_answer_only_the_bare_link_may_be_left_and_it_goes_by_itself(world: World) -> None:
    world.host.fake.plant(Bridge(key=link_key("br0"), scope=HOST))
    world.networks.create(network_request(2, bridge="br0"), now())
    world.endpoints.create(endpoint_request(1, 2), now())
    scope = scope_of(network_id(2), ENDPOINT)
    assert len(world.marked()[scope]) > 1  # an adopted bridge has verdicts for each endpoint
    held = world.host.fake.lock
    with held:  # the reconciler cannot take a step meanwhile
        world.endpoints.delete(ENDPOINT, now())
        assert {type(resource) for resource in world.marked().get(scope, [])} <= {Veth}
    world.await_as_wanted()
    assert scope not in world.marked()
    assert world.store.endpoints() == []


def test_an_endpoint_that_is_going_does_not_stop_its_network(world: World) -> None:
    world.endpoints.create(endpoint_request(), now())
    world.endpoints.delete(ENDPOINT, now())
    world.networks.delete(NETWORK, now())
    assert world.host.fake.objects == {}
    assert world.store.networks() == []


def test_what_docker_saw_no_success_for_is_withdrawn_at_the_start(world: World) -> None:
    world.endpoints.create(endpoint_request(), now())
    world.store._set_phase("endpoints", [ENDPOINT], Phase.PENDING, durable=True)
    world.restart()
    assert world.store.endpoints() == []
    assert scope_of(NETWORK, ENDPOINT) not in world.marked()


def test_the_work_of_an_attach_does_not_grow(world: World) -> None:
    """Backend calls and commits per CreateEndpoint and Join: the same for the first and for the hundredth."""

    def work(number: int) -> dict[str, int]:
        before, commits = dict(world.host.fake.calls), world.store.commits
        world.endpoints.create(endpoint_request(number), now())
        world.endpoints.join(endpoint_id(number), SANDBOX)
        after = world.host.fake.calls
        return {key: after[key] - before.get(key, 0) for key in after} | {"store": world.store.commits - commits}

    world.endpoints.create(endpoint_request(200), now())
    first = work(1)
    for number in range(2, 100):
        work(number)
    assert work(100) == first
    assert first["kernel apply"] == 1
    assert first.get("nft apply", 0) == first.get("nft observe", 0) == first.get("xtables observe", 0) == 0
    assert first["store"] == 3  # the claim, the promise, the sandbox
