from __future__ import annotations

import errno
import logging

import pytest

from drivers.errors import Conflict, DeadlineExceeded, InvalidRequest
from drivers.facts import HostFacts
from drivers.naming import link_name
from drivers.obstacles import Obstacle
from drivers.resources import (
    HOST,
    TABLE_KEY,
    ZONE_KEY,
    Bridge,
    HostAddress,
    Veth,
    address_key,
    in_zone_key,
    link_key,
    scope_of,
    setting,
)
from plugin.deadline import Deadline
from plugin.store import Phase
from tests.plugin.samples import (
    endpoint_id,
    endpoint_request,
    network,
    network_id,
    network_request,
    subnet,
)
from tests.plugin.world import World, now

NETWORK = network_id(1)
BRIDGE = link_name("b", NETWORK)


def test_a_network_is_on_the_host_when_it_was_answered(world: World) -> None:
    world.networks.create(network_request(), now())
    marked = world.marked()
    assert {type(resource) for resource in marked[scope_of(NETWORK)]} >= {Bridge, HostAddress}
    assert [resource.key for resource in marked[HOST]] == [TABLE_KEY]
    row = world.store.network(NETWORK)
    assert row is not None
    assert row.phase is Phase.READY


def test_the_last_network_takes_all_of_weft_with_it(world: World) -> None:
    for number in (1, 2):
        world.networks.create(network_request(number), now())
    world.networks.delete(NETWORK, now())
    assert TABLE_KEY in world.host.fake.objects
    world.networks.delete(network_id(2), now())
    assert world.host.fake.objects == {}
    assert world.store.networks() == []


def test_making_an_equal_one_again_is_a_success(world: World) -> None:
    world.networks.create(network_request(), now())
    steps = len(world.host.fake.steps)
    world.networks.create(network_request(), now())
    assert len(world.host.fake.steps) == steps


def test_making_a_different_one_with_the_same_id_names_both(world: World) -> None:
    world.networks.create(network_request(), now())
    with pytest.raises(Conflict, match=r"differs: .*10\.1\.0\.0/24.*asked for: .*10\.9\.0\.0/24"):
        world.networks.create(network_request(subnets=(subnet("10.9.0.0/24"),)), now())
    with pytest.raises(Conflict, match=r"differs: .*announce_count=3.*asked for: .*announce_count=0"):
        world.networks.create(network_request(announce_count=0), now())


def test_deleting_what_is_unknown_is_a_success(world: World) -> None:
    world.networks.delete("f" * 64, now())


def test_a_failed_create_leaves_nothing(world: World) -> None:
    key = address_key(BRIDGE, subnet("10.1.0.0/24").gateway)  # type: ignore[arg-type]
    world.host.fake.fail(key, OSError(errno.EADDRINUSE, "Address already in use"))
    with pytest.raises(ExceptionGroup) as failed:
        world.networks.create(network_request(), now())
    assert "Address already in use" in str(failed.value.exceptions[0])
    assert world.host.fake.objects == {}
    assert world.store.networks() == []
    world.networks.create(network_request(), now())


def test_what_cannot_be_withdrawn_at_once_is_withdrawn_later(world: World) -> None:
    gateway = subnet("10.1.0.0/24").gateway
    assert gateway is not None
    world.host.fake.fail(address_key(BRIDGE, gateway), OSError(errno.EIO, "no"))
    world.host.fake.fail(link_key(BRIDGE), OSError(errno.EBUSY, "not now"), times=2)
    with pytest.raises(ExceptionGroup):
        world.networks.create(network_request(), now())
    world.host.fake.heal()
    world.runtime.dirty(None)
    world.await_as_wanted()
    assert world.host.fake.objects == {}


def test_a_subnet_that_the_host_is_in_is_a_conflict_that_names_the_link(world: World) -> None:
    world.host.connect("eth0", "10.1.0.128/25")
    with pytest.raises(Conflict, match=r"10\.1\.0\.0/24 overlaps the host's own 10\.1\.0\.128/25 on eth0"):
        world.networks.create(network_request(), now())
    assert world.store.networks() == []


def test_a_subnet_of_another_network_is_a_conflict_that_names_it(world: World) -> None:
    world.networks.create(network_request(1), now())
    world.host.connect(BRIDGE, "10.1.0.0/24")
    with pytest.raises(Conflict, match=f"overlaps network {NETWORK[:12]}"):
        world.networks.create(network_request(2, subnets=(subnet("10.1.0.0/16"),)), now())


def test_an_existing_bridge_is_adopted_and_stays(world: World) -> None:
    theirs = Bridge(key=link_key("br0"), scope=HOST, mac="02:00:00:00:00:01")
    world.host.fake.plant(theirs)
    world.networks.create(network_request(bridge="br0"), now())
    row = world.store.network(NETWORK)
    assert row is not None
    assert row.network.adopted
    world.networks.delete(NETWORK, now())
    assert [held.resource for held in world.host.fake.objects.values()] == [theirs]


def test_a_name_that_is_not_taken_is_the_name_of_a_new_bridge(world: World) -> None:
    world.networks.create(network_request(bridge="lan7"), now())
    assert link_key("lan7") in world.host.fake.objects
    world.networks.create(network_request(bridge="lan7"), now())  # and the same again is the same
    world.networks.delete(NETWORK, now())
    assert world.host.fake.objects == {}


def test_a_name_of_something_else_is_a_conflict(world: World) -> None:
    world.host.fake.plant(Veth(key=link_key("eth7"), scope=HOST))
    with pytest.raises(Conflict, match="eth7: that link is a veth"):
        world.networks.create(network_request(bridge="eth7"), now())
    world.host.fake.plant(Bridge(key=link_key("wfbold"), scope=HOST), "weft:other::")
    with pytest.raises(Conflict, match="another weft made"):
        world.networks.create(network_request(bridge="wfbold"), now())


def test_a_link_in_our_place_is_a_conflict_and_stays(world: World) -> None:
    theirs = Bridge(key=link_key(BRIDGE), scope=HOST)
    world.host.fake.plant(theirs)
    with pytest.raises(ExceptionGroup, match="could not be brought") as failed:
        world.networks.create(network_request(), now())
    assert "something that weft did not make" in str(failed.value.exceptions[0])
    assert [held.resource for held in world.host.fake.objects.values()] == [theirs]


def test_a_restart_knows_what_was_known_and_changes_nothing(world: World) -> None:
    world.networks.create(network_request(), now())
    world.endpoints.create(endpoint_request(), now())
    objects, steps = dict(world.host.fake.objects), len(world.host.fake.steps)
    world.restart()
    assert (world.host.fake.objects, len(world.host.fake.steps)) == (objects, steps)
    assert [row.network for row in world.store.networks()] == [network()]


def test_after_a_power_off_everything_is_rebuilt_from_the_store(world: World) -> None:
    world.networks.create(network_request(), now())
    objects = dict(world.host.fake.objects)
    world.host.fake.objects.clear()
    world.restart()
    assert world.host.fake.objects == objects


def test_what_docker_saw_no_success_for_is_withdrawn_at_the_start(world: World) -> None:
    world.networks.create(network_request(1), now())
    world.networks.create(network_request(2), now())
    world.store._set_phase("networks", [network_id(2)], Phase.PENDING, durable=True)
    world.restart()
    assert [row.id for row in world.store.networks()] == [NETWORK]
    assert set(world.marked()) == {HOST, scope_of(NETWORK)}


def test_a_deletion_that_was_cut_off_is_finished_at_the_start(world: World) -> None:
    world.networks.create(network_request(), now())
    world.endpoints.create(endpoint_request(), now())
    world.store.withdraw_network(NETWORK)
    world.restart()
    assert world.host.fake.objects == {}
    assert (world.store.networks(), world.store.endpoints()) == ([], [])


def test_an_orphan_of_this_store_is_swept_and_one_of_another_is_not(world: World) -> None:
    orphan = Bridge(key=link_key("wfborphan"), scope=scope_of("9" * 64))
    world.host.fake.plant(orphan, world.host.fake.marks.write(orphan.scope))
    other = Bridge(key=link_key("wfbother"), scope=HOST)
    world.host.fake.plant(other, "weft:0ther:123:")
    world.restart()
    assert [held.resource for held in world.host.fake.objects.values()] == [other]


def test_what_somebody_else_removes_comes_back(world: World) -> None:
    world.networks.create(network_request(), now())
    objects = dict(world.host.fake.objects)
    for key in objects:
        if key in world.host.fake.objects:
            world.host.fake.remove(key)
            world.await_as_wanted()
            assert world.host.fake.objects == objects


def test_a_request_that_waits_too_long_says_what_for(world: World) -> None:
    world.networks.create(network_request(), now())
    with (
        world.runtime.holding(scope_of(NETWORK), now()),
        pytest.raises(DeadlineExceeded, match=rf"network {NETWORK[:12]} to end"),
    ):
        _in_another_thread(lambda: world.runtime.converge(scope_of(NETWORK), Deadline(0.01)))


def test_a_create_past_its_deadline_leaves_nothing(world: World) -> None:
    with pytest.raises(DeadlineExceeded):
        world.networks.create(network_request(), Deadline(0))
    assert world.host.fake.objects == {}
    assert world.store.networks() == []


def test_endpoints_that_are_left_go_with_their_network(world: World) -> None:
    world.networks.create(network_request(), now())
    world.endpoints.create(endpoint_request(), now())
    world.networks.delete(NETWORK, now())
    assert world.store.endpoint(endpoint_id(1)) is None
    assert world.host.fake.objects == {}


def _in_another_thread(work: object) -> None:
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()  # type: ignore[arg-type]


def test_an_adopted_bridge_gives_its_mtu_and_is_not_lowered(world: World) -> None:
    world.host.fake.plant(Bridge(key=link_key("br0"), scope=HOST, mtu=9000))
    with pytest.raises(InvalidRequest, match=r"mtu=1400: the bridge br0 has 9000"):
        world.networks.create(network_request(bridge="br0", mtu=1400), now())
    world.networks.create(network_request(bridge="br0"), now())
    row = world.store.network(NETWORK)
    assert row is not None
    assert row.network.mtu == 9000


def warnings(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_firewall_in_the_way_is_told_with_what_to_type(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.host.in_the_way.append(Obstacle("ufw drops", "ufw route allow"))
    world.networks.create(network_request(), now())
    (record,) = warnings(caplog)
    assert record.getMessage() == "a firewall stands in the way"
    assert (record.__dict__["why"], record.__dict__["fix"]) == ("ufw drops", "ufw route allow")


def test_a_network_is_made_without_firewalld_if_that_fails(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.host.fake.start_firewalld()
    world.host.fake.fail(ZONE_KEY, OSError(errno.ETIMEDOUT, "no answer"))
    world.networks.create(network_request(), now())
    assert [record.getMessage() for record in warnings(caplog)] == ["not as wanted for now"] * 2
    bound = in_zone_key(BRIDGE)
    assert bound not in world.host.fake.objects
    world.runtime.reconcile(now())
    assert {ZONE_KEY, bound} <= world.host.fake.objects.keys()


def test_what_firewalld_had_goes_with_the_last_network(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.host.fake.start_firewalld()
    for number in (1, 2):
        world.networks.create(network_request(number), now())
    world.networks.delete(NETWORK, now())
    assert {key for key in world.host.fake.objects if key.backend == "firewalld"} == {
        ZONE_KEY,
        in_zone_key(link_name("b", network_id(2))),
    }
    world.networks.delete(network_id(2), now())
    assert world.host.fake.objects == {}
    assert [record.getMessage() for record in warnings(caplog)] == ["firewalld was made to reload"] * 2


def test_a_zone_left_behind_goes_at_the_start(world: World) -> None:
    world.host.fake.start_firewalld()
    world.networks.create(network_request(), now())
    world.host.fake.stop_firewalld()
    world.networks.delete(NETWORK, now())
    world.host.fake.start_firewalld()
    assert ZONE_KEY in world.host.fake.objects
    world.restart()
    assert world.host.fake.objects == {}


def test_a_chain_that_a_reload_took_away_meanwhile_fails_no_create(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The facts are older than the reload; they are read again, and the chain is found again when it is back."""
    facts, stale = world.host.facts, [HostFacts(docker_user=frozenset({4}))]
    world.host.fake.docker_user.clear()
    monkeypatch.setattr(world.host, "facts", lambda **how: stale.pop() if stale else facts(**how))
    world.networks.create(network_request(), now())
    row = world.store.network(NETWORK)
    assert row is not None
    assert row.phase is Phase.READY
    assert {key.kind for key in world.host.fake.objects if key.backend == "xtables"} == set()


def test_how_a_switch_was_found_is_kept_before_the_second_attempt_too(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came to be wanted between the two has to be given back as well."""
    told = [HostFacts(docker_user=frozenset({4}))]
    now_known = HostFacts(force_forwarding=False, may_forward=True, ra_links=frozenset({"eth0"}))
    monkeypatch.setattr(world.host, "facts", lambda **_: told.pop() if told else now_known)
    world.host.fake.docker_user.clear()
    world.networks.create(network_request(subnets=(subnet("fd00:1::/64"),)), now())
    path = "net/ipv6/conf/eth0/accept_ra"
    assert world.host.fake.settings[setting(path, "2").key] == "2"
    assert world.store.host_settings()[path] == "0"


def test_a_chain_that_stays_away_fails_the_create(world: World) -> None:
    world.host.docker_user.add(4)
    world.host.fake.docker_user.clear()
    with pytest.raises(ExceptionGroup, match="host could not be brought"):
        world.networks.create(network_request(), now())
    assert world.store.network(NETWORK) is None
