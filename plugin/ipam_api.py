"""IpamDriver: each of Docker's calls -> the engine -> the answer."""

from __future__ import annotations

from typing import Protocol

from flask import Blueprint

from drivers.model import Address, Interface
from plugin import translate, wire
from plugin.calls import blueprint, call
from plugin.pools import PoolId
from plugin.requests import AddressRequest, PoolRequest


class IpamDriver(Protocol):
    """What the engine does for Docker. Each may raise ``WeftError``, but for :meth:`greet` and :meth:`suspect`."""

    def greet(self) -> None:
        """Take note that a dockerd has just started, or uses weft for the first time. Never raises."""
        ...

    def request_pool(self, request: PoolRequest) -> PoolId:
        """Reserve a pool: the one that is named, or any."""
        ...

    def release_pool(self, pool: str) -> None:
        """Give a pool back with all that is leased from it; one that is not there is fine."""
        ...

    def request_address(self, request: AddressRequest) -> Interface:
        """Lease an address: the one that is named, or any."""
        ...

    def release_address(self, pool: str, address: Address) -> None:
        """Give an address back; one that is not leased is fine."""
        ...

    def suspect(self) -> None:
        """Compare with Docker's own list soon: a call lost its body, or clashed. Returns at once, never raises."""
        ...


def ipam_api(driver: IpamDriver) -> Blueprint:
    """Return the calls of IpamDriver, answered by ``driver``."""

    def capabilities(_: None) -> wire.IpamCapabilities:
        driver.greet()
        return wire.IpamCapabilities()

    def request_pool(request: wire.RequestPool) -> wire.PoolGranted:
        return translate.pool_reply(driver.request_pool(translate.pool_request(request)))

    def release_pool(request: wire.ReleasePool) -> wire.Done:
        driver.release_pool(request.pool)
        return wire.Done()

    def request_address(request: wire.RequestAddress) -> wire.AddressGranted:
        return wire.AddressGranted(address=str(driver.request_address(translate.address_request(request))))

    def release_address(request: wire.ReleaseAddress) -> wire.Done:
        if request.address is not None:
            driver.release_address(request.pool, request.address)
        return wire.Done()

    return blueprint(
        "ipam",
        (
            call(wire.IPAM_CAPABILITIES, capabilities),
            call(wire.ADDRESS_SPACES, lambda _: wire.AddressSpaces()),
            call(wire.REQUEST_POOL, request_pool),
            call(wire.RELEASE_POOL, release_pool),
            call(wire.REQUEST_ADDRESS, request_address),
            call(wire.RELEASE_ADDRESS, release_address),
        ),
        driver.suspect,
    )
