"""Pools and addresses: who gets one, who is refused, and why."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Interface, ip_interface, ip_network

import pytest

from drivers.errors import Conflict, InvalidRequest, NotFound
from plugin.engine.addresses import HANDED_SECONDS, STARTING_SECONDS
from plugin.pools import LOCAL, SWARM
from plugin.requests import PoolRequest
from plugin.store.pools import Kind
from tests.plugin.ipam_calls import container, held, lease, network_with_pool, release, reserve
from tests.plugin.samples import endpoint_id, endpoint_request, network_id, network_request
from tests.plugin.world import World, now

# -- pools ----------------------------------------------------------------------------------------------------------


def test_a_pool_that_nobody_named_is_clear_of_everything(world: World) -> None:
    world.host.connect("eth0", "10.208.4.0/22")
    reserve(world, "10.208.9.0/24")
    reserve(world, "10.208.12.0/22", name="blue", space=SWARM)
    world.networks.create(network_request(1, subnets=(network_request(208).subnets[0],)), now())  # 10.208.0.0/24
    assert reserve(world) == "weft-local/10.208.16.0/22"
    assert reserve(world) == "weft-local/10.208.20.0/22"
    world.addresses.release_pool("weft-local/10.208.16.0/22")
    assert reserve(world) == "weft-local/10.208.16.0/22"


def test_ipv6_pools_come_from_the_store_s_own_prefix(world: World) -> None:
    first, second = (world.addresses.request_pool(PoolRequest(space=LOCAL, version=6)) for _ in range(2))
    assert first.subnet.prefixlen == second.subnet.prefixlen == 64
    assert first.subnet.supernet(new_prefix=48) == second.subnet.supernet(new_prefix=48)
    assert first != second


def test_an_exhausted_base_says_what_to_do(world: World) -> None:
    world.host.connect("eth0", "10.0.0.0/8")
    with pytest.raises(Conflict, match=r"no pool is left in 10\.208\.0\.0/12/22 \(WEFT_POOLS\)"):
        reserve(world)


@pytest.mark.parametrize("subnet", ["10.1.0.0/24", "10.1.0.0/16", "10.1.0.128/25"])
def test_a_second_network_on_a_subnet_needs_a_name(world: World, subnet: str) -> None:
    network_with_pool(world)
    with pytest.raises(Conflict, match=rf"which is network {network_id(1)[:12]}'s; .* --ipam-opt weft.pool=NAME"):
        reserve(world, subnet)
    assert reserve(world, subnet, name="blue") == f"weft-local/{subnet}?pool=blue"
    with pytest.raises(Conflict, match="overlaps"):
        reserve(world, subnet, name="blue")


def test_pools_of_one_subnet_have_their_own_addresses(world: World) -> None:
    both = [reserve(world, "10.1.0.0/24", name=name) for name in ("", "blue")]
    assert [lease(world, pool, "10.1.0.7") for pool in both] == ["10.1.0.7/24"] * 2
    world.addresses.release_pool(both[0])
    assert (held(world, both[0]), held(world, both[1])) == ({}, {"10.1.0.7": Kind.RESERVED})


def test_releasing_what_is_not_there_succeeds(world: World) -> None:
    for pool in ("weft-local/10.9.0.0/24", "POOL-reclocal-10.77.1.0/24", ""):
        world.addresses.release_pool(pool)
        release(world, pool, "10.9.0.1")
    pool = reserve(world, "10.9.0.0/24")
    release(world, pool, "10.9.0.1")
    release(world, pool, "fd00::1")
    assert lease(world, pool) == "10.9.0.1/24"


def test_asking_of_a_pool_that_is_not_there(world: World) -> None:
    with pytest.raises(NotFound, match=r"weft has no pool weft-local/10\.9\.0\.0/24: its state was lost"):
        lease(world, "weft-local/10.9.0.0/24")
    with pytest.raises(NotFound, match="is no pool of weft's"):
        lease(world, "POOL-reclocal-10.77.1.0/24")


# -- addresses ------------------------------------------------------------------------------------------------------


def test_addresses_come_one_after_the_other_and_not_at_once_again(world: World) -> None:
    pool = reserve(world, "10.9.0.0/29")
    assert lease(world, pool, gateway=True) == "10.9.0.1/29"
    assert [lease(world, pool) for _ in range(2)] == ["10.9.0.2/29", "10.9.0.3/29"]
    release(world, pool, "10.9.0.2")
    release(world, pool, "10.9.0.3")
    assert [lease(world, pool) for _ in range(5)] == [f"10.9.0.{last}/29" for last in (4, 5, 6, 2, 3)]
    with pytest.raises(Conflict, match="exhausted"):
        lease(world, pool)
    release(world, pool, "10.9.0.5")
    assert lease(world, pool) == "10.9.0.5/29"


def test_what_is_free_below_the_last_one_chosen_is_found(world: World) -> None:
    pool = reserve(world, "10.9.0.0/29")
    lease(world, pool, "10.9.0.6")
    assert [lease(world, pool) for _ in range(5)] == [f"10.9.0.{last}/29" for last in range(1, 6)]
    release(world, pool, "10.9.0.2")
    assert lease(world, pool) == "10.9.0.2/29"


def test_behind_the_last_address_of_all_comes_the_first(world: World) -> None:
    pool = reserve(world, "255.255.255.254/31")
    assert [lease(world, pool) for _ in range(2)] == ["255.255.255.254/31", "255.255.255.255/31"]
    release(world, pool, "255.255.255.254")
    assert lease(world, pool) == "255.255.255.254/31"


@pytest.mark.parametrize("address", ["10.9.0.0", "10.9.0.255"])
def test_network_and_broadcast_addresses_are_nobody_s(world: World, address: str) -> None:
    with pytest.raises(InvalidRequest, match=f"{address} is the network or broadcast address of 10.9.0.0/24"):
        lease(world, reserve(world, "10.9.0.0/24"), address)


def test_the_subnet_router_s_address_is_nobody_s(world: World) -> None:
    pool = reserve(world, "fd09::/64")
    assert lease(world, pool, gateway=True) == "fd09::1/64"
    with pytest.raises(InvalidRequest, match="fd09:: is the subnet-router anycast address"):
        lease(world, pool, "fd09::")


def test_an_address_of_another_subnet_is_refused(world: World) -> None:
    pool = reserve(world, "10.9.0.0/24")
    for address in ("10.8.0.1", "fd09::1"):
        with pytest.raises(InvalidRequest, match="is not in pool"):
            lease(world, pool, address)


def test_a_range_limits_only_what_weft_chooses(world: World) -> None:
    pool = reserve(world, "10.9.0.0/16", within="10.9.5.252/30")
    assert lease(world, pool, "10.9.0.254", gateway=True) == "10.9.0.254/16"
    assert [lease(world, pool) for _ in range(4)] == [f"10.9.5.{last}/16" for last in (252, 253, 254, 255)]
    with pytest.raises(Conflict, match=r"pool 10\.9\.0\.0/16 \(--ip-range 10\.9\.5\.252/30\) is exhausted: all 4"):
        lease(world, pool)
    assert lease(world, pool, "10.9.77.1") == "10.9.77.1/16"


def test_an_exhausted_pool_says_what_holds_it(world: World) -> None:
    pool = reserve(world, "10.1.0.0/29")
    lease(world, pool, gateway=True)
    lease(world, pool, "10.1.0.2")
    subnet = network_request(1).subnets[0]
    small = type(subnet)(network=ip_network("10.1.0.0/29"), gateway=ip_interface("10.1.0.1/29"))
    world.networks.create(network_request(1, subnets=(small,), pools=((LOCAL, small.network),)), now())
    container(world, pool, 1)
    for _ in range(3):
        lease(world, pool)
    with pytest.raises(Conflict) as refused:
        lease(world, pool)
    assert str(refused.value).startswith(
        "pool 10.1.0.0/29 is exhausted: all 6 addresses to choose from are held (10.1.0.1 the gateway, 10.1.0.2 set "
        f"aside, 10.1.0.3 endpoint {endpoint_id(1)[:12]}, 10.1.0.4 no endpoint of weft's, 10.1.0.5 no endpoint of "
        "weft's, and 1 more); `weft pool inspect 10.1.0.0/29` shows by whom."
    )


def test_a_restart_forgets_nothing(world: World) -> None:
    pool = network_with_pool(world)
    found = container(world, pool, 1)
    world.restart()
    assert held(world, pool) == {"10.1.0.1": Kind.GATEWAY, "10.1.0.2": Kind.CONTAINER}
    with pytest.raises(Conflict, match=f"{ip_interface(found).ip} of pool 10.1.0.0/24 is held by"):
        lease(world, pool, "10.1.0.2")
    assert lease(world, pool) == "10.1.0.3/24"


def test_parallel_calls_get_different_addresses(world: World) -> None:
    pool = reserve(world, "10.9.0.0/22")
    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(lambda _: lease(world, pool), range(800)))
    assert len(set(found)) == 800
    assert len(held(world, pool)) == 800


def test_of_parallel_calls_for_one_address_one_succeeds(world: World) -> None:
    pool = network_with_pool(world)

    def ask(_: int) -> bool:
        try:
            return lease(world, pool, "10.1.0.9") == "10.1.0.9/24"
        except Conflict:
            return False

    with ThreadPoolExecutor(16) as threads:
        assert sum(threads.map(ask, range(32))) == 1


def test_of_parallel_calls_for_one_subnet_one_succeeds(world: World) -> None:
    def ask(_: int) -> bool:
        try:
            return bool(reserve(world, "10.9.0.0/24"))
        except Conflict:
            return False

    with ThreadPoolExecutor(16) as threads:
        assert sum(threads.map(ask, range(32))) == 1


# -- who lives ------------------------------------------------------------------------------------------------------


def test_a_live_holder_is_named(world: World) -> None:
    pool = network_with_pool(world)
    container(world, pool, 1)
    world.time += 3600
    with pytest.raises(
        Conflict,
        match=rf"10\.1\.0\.2 of pool 10\.1\.0\.0/24 is held by endpoint {endpoint_id(1)[:12]} of network "
        rf"{network_id(1)[:12]} .* choose another --ip",
    ):
        lease(world, pool, "10.1.0.2")


def test_a_container_that_is_being_started_lives(world: World) -> None:
    pool = network_with_pool(world)
    world.endpoints.create(endpoint_request(1, address=lease(world, pool, "10.1.0.9")), now())
    world.time += STARTING_SECONDS - 1
    with pytest.raises(Conflict, match="which is just being started"):
        lease(world, pool, "10.1.0.9")
    world.time += 1
    assert lease(world, pool, "10.1.0.9") == "10.1.0.9/24"  # and CreateEndpoint will replace the dead endpoint
    world.endpoints.create(endpoint_request(2, address="10.1.0.9/24"), now())


def test_an_address_whose_container_never_came_is_taken_over(world: World) -> None:
    """A dockerd was killed between RequestAddress and CreateEndpoint."""
    pool = network_with_pool(world)
    lease(world, pool, "10.1.0.9")
    with pytest.raises(Conflict, match="being given to another container"):
        lease(world, pool, "10.1.0.9")
    world.time += HANDED_SECONDS
    assert lease(world, pool, "10.1.0.9") == "10.1.0.9/24"


def test_a_dockerd_that_starts_waits_for_nothing_it_asked_for_before(world: World) -> None:
    pool = network_with_pool(world)
    world.endpoints.create(endpoint_request(1, address=lease(world, pool, "10.1.0.9")), now())
    lease(world, pool, "10.1.0.10")
    world.time += 0.5
    world.addresses.greet()
    world.time += 0.5
    assert lease(world, pool, "10.1.0.9") == "10.1.0.9/24"
    assert lease(world, pool, "10.1.0.10") == "10.1.0.10/24"


def test_what_was_set_aside_stays_so(world: World) -> None:
    pool = reserve(world, "10.1.0.0/24")
    lease(world, pool, "10.1.0.254", gateway=True)
    lease(world, pool, "10.1.0.1")  # --aux-address
    world.networks.create(network_request(1, pools=((LOCAL, ip_network("10.1.0.0/24")),)), now())
    world.time += 3600
    world.addresses.greet()
    with pytest.raises(Conflict, match=r"10\.1\.0\.1 of .* is set aside for something else \(--aux-address\)"):
        lease(world, pool, "10.1.0.1")
    with pytest.raises(Conflict, match=r"10\.1\.0\.254 of .* is the gateway of network"):
        lease(world, pool, "10.1.0.254")
    assert lease(world, pool) == "10.1.0.2/24"


def test_a_late_release_frees_nobody_else_s_address(world: World) -> None:
    pool = network_with_pool(world)
    container(world, pool, 1, "10.1.0.9")
    release(world, pool, "10.1.0.9")  # of a container long dead
    assert "10.1.0.9" in held(world, pool)
    world.host.plugged.clear()
    world.endpoints.delete(endpoint_id(1), now())
    release(world, pool, "10.1.0.9")
    assert "10.1.0.9" not in held(world, pool)


def test_an_endpoint_s_own_address_needs_no_pool(world: World) -> None:
    """--ipam-driver null, and --driver-opt weft.ip."""
    world.networks.create(network_request(2, subnets=()), now())
    mac = world.endpoints.create(endpoint_request(1, on=2, address="192.0.2.7/24"), now())
    row = world.store.endpoint(endpoint_id(1))
    assert row is not None
    assert (row.endpoint.ipv4, row.endpoint.mac) == (IPv4Interface("192.0.2.7/24"), mac)


# -- swarm ----------------------------------------------------------------------------------------------------------


def test_a_swarm_s_manager_and_nodes_ask_for_the_same(world: World) -> None:
    """d02: the manager asks in the global space, then every node, the manager's own too, in its local one."""
    for space in (SWARM, LOCAL):
        pool = reserve(world, "10.83.0.0/24", space=space)
        assert lease(world, pool, "" if space == SWARM else "10.83.0.1", gateway=True) == "10.83.0.1/24"
        assert lease(world, pool, "" if space == SWARM else "10.83.0.2") == "10.83.0.2/24"


def test_a_manager_that_restarts_asks_again_for_all_it_knows(world: World) -> None:
    pool = reserve(world, "10.83.0.0/24", space=SWARM)
    lease(world, pool, gateway=True)
    lease(world, pool)
    world.restart()
    assert reserve(world, "10.83.0.0/24", space=SWARM) == pool
    assert lease(world, pool, "10.83.0.1", gateway=True) == "10.83.0.1/24"
    assert lease(world, pool, "10.83.0.2") == "10.83.0.2/24"
    assert lease(world, pool) == "10.83.0.3/24"


def test_a_swarm_s_second_network_does_not_take_the_first_one_s_pool_away(world: World) -> None:
    pool = reserve(world, "10.83.0.0/24", space=SWARM)
    lease(world, pool, gateway=True)
    assert reserve(world, "10.83.0.0/24", space=SWARM) == pool
    with pytest.raises(Conflict, match=r"is the gateway of its network; .* --ipam-opt weft.pool=NAME"):
        lease(world, pool, gateway=True)
    world.addresses.release_pool(pool)  # which is what libnetwork does after that
    assert held(world, pool) == {"10.83.0.1": Kind.GATEWAY}
    release(world, pool, "10.83.0.1")
    world.addresses.release_pool(pool)
    assert world.store.pools.find(pool) is None
