"""Pools and addresses: who gets one, who is refused and why, and what becomes of what nobody has any longer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Interface, ip_address, ip_interface, ip_network

import pytest

from drivers.errors import Conflict, InvalidRequest, NotFound
from drivers.naming import link_name
from plugin.docker import DockerNetwork
from plugin.engine.addresses import HANDED_SECONDS, STARTING_SECONDS
from plugin.pools import LOCAL, SWARM
from plugin.requests import AddressRequest, PoolRequest
from plugin.store.pools import Kind
from tests.plugin.samples import endpoint_id, endpoint_request, network_id, network_request
from tests.plugin.world import World, now


def reserve(world: World, subnet: str = "", within: str = "", name: str = "", space: str = LOCAL) -> str:
    """RequestPool; return the pool's id."""
    return str(
        world.addresses.request_pool(
            PoolRequest(
                space=space,
                version=6 if ":" in subnet else 4,
                subnet=ip_network(subnet) if subnet else None,
                within=ip_network(within) if within else None,
                name=name,
            )
        )
    )


def lease(world: World, pool: str, address: str = "", *, gateway: bool = False) -> str:
    """RequestAddress; return the address with its length."""
    asked = AddressRequest(pool=pool, address=ip_address(address) if address else None, gateway=gateway)
    return str(world.addresses.request_address(asked))


def release(world: World, pool: str, address: str) -> None:
    """ReleaseAddress."""
    world.addresses.release_address(pool, ip_address(address))


def network_with_pool(world: World) -> str:
    """``docker network create -d weft --ipam-driver weft``: 10.1.0.0/24 with its gateway; return the pool's id."""
    pool = reserve(world, "10.1.0.0/24")
    assert lease(world, pool, gateway=True) == "10.1.0.1/24"
    world.networks.create(network_request(1, pools=((LOCAL, ip_network("10.1.0.0/24")),)), now())
    return pool


def container(world: World, pool: str, number: int, address: str = "") -> str:
    """Give a container an address and an endpoint, and plug it in; return the address with its length."""
    found = lease(world, pool, address)
    world.endpoints.create(endpoint_request(number, address=found), now())
    world.host.plugged.add(link_name("h", endpoint_id(number)))
    return found


def held(world: World, pool: str) -> dict[str, Kind]:
    """Return the leases of a pool."""
    row = world.store.pools.find(pool)
    return {str(one.address): one.kind for one in world.store.pools.leases(row)} if row else {}


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


# -- what Docker forgot ---------------------------------------------------------------------------------------------


def listed(subnet: str, *addresses: str, pool: str = "") -> DockerNetwork:
    """Return a network of Docker's bridge driver that has its addresses from weft."""
    return DockerNetwork(
        network_id(7),
        "n7",
        "bridge",
        ipam="weft",
        pool=pool,
        subnets=(ip_network(subnet),),
        addresses={ip_address(one): "c" for one in addresses},
    )


def look(world: World, *networks: DockerNetwork) -> set[str]:
    """Compare with Docker's list; return what it lacks."""
    return {str(one) for one in world.addresses.forgotten(world.addresses.held(), networks)}


def test_what_docker_lists_is_not_forgotten(world: World) -> None:
    pool = reserve(world, "10.7.0.0/24", name="blue")
    for address in ("10.7.0.2", "10.7.0.3"):
        lease(world, pool, address)
    lease(world, pool, gateway=True)
    assert look(world, listed("10.7.0.0/24", "10.7.0.2", "10.7.0.3", pool="blue")) == set()
    assert look(world, listed("10.7.0.0/24", "10.7.0.2", pool="blue")) == {f"10.7.0.3 of pool {pool}"}
    everything = {f"pool {pool}", f"10.7.0.2 of pool {pool}", f"10.7.0.3 of pool {pool}"}
    assert look(world, listed("10.7.0.0/24", "10.7.0.2")) == everything
    assert look(world) == everything


def test_what_weft_s_endpoints_hold_needs_no_list(world: World) -> None:
    pool = network_with_pool(world)
    container(world, pool, 1)
    lease(world, pool, "10.1.0.9")
    assert look(world) == {f"10.1.0.9 of pool {pool}"}


def test_a_swarm_s_leases_are_held_by_other_hosts_too(world: World) -> None:
    pool = reserve(world, "10.83.0.0/24", space=SWARM)
    lease(world, pool)
    assert look(world, listed("10.83.0.0/24")) == set()
    assert look(world) == {f"pool {pool}"}


def test_on_another_driver_s_network_docker_s_list_decides(world: World) -> None:
    pool = reserve(world, "10.7.0.0/24")
    lease(world, pool, "10.7.0.9")
    world.time += STARTING_SECONDS
    with pytest.raises(Conflict, match=r"in use since .* on a network of another driver; .* ask again in a minute"):
        lease(world, pool, "10.7.0.9")
    look(world, listed("10.7.0.0/24"))
    assert lease(world, pool, "10.7.0.9") == "10.7.0.9/24"
    with pytest.raises(Conflict, match="in use since"):
        lease(world, pool, "10.7.0.9")  # it is another lease now


def test_a_pool_that_docker_forgot_is_taken_over_with_its_leases(world: World) -> None:
    """A dockerd was killed between RequestPool and CreateNetwork, and the operator tries again."""
    pool = reserve(world, "10.7.0.0/24")
    lease(world, pool, gateway=True)
    look(world)
    with pytest.raises(Conflict, match=r"overlaps 10\.7\.0\.0/24, reserved "):
        reserve(world, "10.7.0.0/24")  # which may be just being made
    world.time += STARTING_SECONDS
    assert reserve(world, "10.7.0.0/24") == pool
    assert held(world, pool) == {}


def test_a_sweep_gives_back_what_it_looked_at_and_nothing_younger(world: World) -> None:
    pool = network_with_pool(world)
    lease(world, pool, "10.1.0.9")
    lease(world, pool, "10.1.0.10")
    stale = {str(one.lease.address): one for one in world.addresses.held() if one.lease}
    world.time += STARTING_SECONDS
    lease(world, pool, "10.1.0.10")  # taken over meanwhile
    assert [world.addresses.sweep(stale[address]) for address in ("10.1.0.9", "10.1.0.10")] == [True, False]
    assert set(held(world, pool)) == {"10.1.0.1", "10.1.0.10"}
    world.endpoints.create(endpoint_request(1, address="10.1.0.10/24"), now())
    assert world.addresses.held() == []


def test_a_pool_that_got_its_network_meanwhile_is_not_swept(world: World) -> None:
    reserve(world, "10.1.0.0/24")
    (early,) = world.addresses.held()
    world.networks.create(network_request(1, pools=((LOCAL, ip_network("10.1.0.0/24")),)), now())
    assert not world.addresses.sweep(early)
    assert len(world.store.pools.all()) == 1


def test_a_network_that_goes_without_its_pool_leaves_it_to_be_swept(world: World) -> None:
    pool = network_with_pool(world)
    assert world.addresses.held() == []
    world.networks.delete(network_id(1), now())
    (gone,) = world.addresses.held()
    assert str(gone) == f"pool {pool}"
    assert world.addresses.sweep(gone)
    assert world.store.pools.all() == []


def test_an_endpoint_s_own_address_needs_no_pool(world: World) -> None:
    """--ipam-driver null, and --driver-opt weft.ip."""
    world.networks.create(network_request(2, subnets=()), now())
    mac = world.endpoints.create(endpoint_request(1, on=2, address="192.0.2.7/24"), now())
    row = world.store.endpoint(endpoint_id(1))
    assert row is not None
    assert (row.endpoint.ipv4, row.endpoint.mac) == (IPv4Interface("192.0.2.7/24"), mac)
