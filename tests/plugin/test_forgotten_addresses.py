"""Pools and addresses that Docker has forgotten: found by its list, taken over, given back."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from drivers.errors import Conflict
from plugin.docker import DockerNetwork
from plugin.engine.addresses import STARTING_SECONDS
from plugin.pools import LOCAL, SWARM
from tests.plugin.ipam_calls import container, held, lease, network_with_pool, reserve
from tests.plugin.samples import endpoint_request, network_id, network_request
from tests.plugin.world import World, now


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
