"""What Docker asks of weft's IPAM, and what is held then."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from drivers.naming import link_name
from plugin.pools import LOCAL
from plugin.requests import AddressRequest, PoolRequest
from plugin.store.pools import Kind
from tests.plugin.samples import endpoint_id, endpoint_request, network_request
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
