"""NetworkDriver: each of Docker's calls -> the engine -> the answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from flask import Blueprint

from drivers.model import Address
from plugin import translate, wire
from plugin.calls import blueprint, call
from plugin.requests import DriverScope, EndpointRequest, Joined, NetworkRequest


class NetworkDriver(Protocol):
    """What the engine does for Docker. Ids are Docker's. Each may raise ``WeftError`` or a group of them."""

    def create_network(self, request: NetworkRequest) -> None:
        """Make a network; one that failed has left nothing behind, for Docker never deletes it."""
        ...

    def delete_network(self, network: str) -> None:
        """Remove a network and all that is on it; one that is not there is fine."""
        ...

    def create_endpoint(self, request: EndpointRequest) -> str:
        """Make an endpoint and return the MAC of the container's end; one that failed has left nothing behind."""
        ...

    def delete_endpoint(self, network: str, endpoint: str) -> None:
        """Remove an endpoint; one that is not there is fine."""
        ...

    def join(self, network: str, endpoint: str, sandbox: str) -> Joined:
        """Return what Docker needs to put the endpoint into ``sandbox`` (a path)."""
        ...

    def leave(self, network: str, endpoint: str) -> None:
        """Take an endpoint out of its sandbox; one that is not there is fine."""
        ...

    def program_external(self, network: str, endpoint: str) -> None:
        """Publish an endpoint's ports: it became its container's gateway, perhaps not for the first time."""
        ...

    def revoke_external(self, network: str, endpoint: str) -> None:
        """Withdraw its ports: it is no longer the gateway, or never was; one that is not there is fine."""
        ...

    def discovered(self, peer: Address, *, is_self: bool, gone: bool) -> None:
        """Take note of a host that Docker discovered, or lost (``gone``); ``is_self``: it is this one."""
        ...

    def suspect(self) -> None:
        """Compare with Docker's own list soon: a call lost its body, or clashed. Returns at once, never raises."""
        ...


def network_api(driver: NetworkDriver, scope: DriverScope) -> Blueprint:
    """Return the calls of NetworkDriver, answered by ``driver``; ``scope`` is who makes networks (WEFT_SCOPE)."""

    def create_network(request: wire.CreateNetwork) -> wire.Done:
        driver.create_network(translate.network_request(request))
        return wire.Done()

    def delete_network(request: wire.DeleteNetwork) -> wire.Done:
        driver.delete_network(request.network)
        return wire.Done()

    def create_endpoint(request: wire.CreateEndpoint) -> wire.EndpointCreated:
        wanted = translate.endpoint_request(request)
        return translate.endpoint_reply(request.interface, wanted, driver.create_endpoint(wanted))

    def join(request: wire.Join) -> wire.JoinedReply:
        return translate.join_reply(driver.join(request.network, request.endpoint, request.sandbox))

    def of_endpoint(act: Callable[[str, str], None]) -> Callable[[wire.OfEndpoint], wire.Done]:
        def handle(request: wire.OfEndpoint) -> wire.Done:
            act(request.network, request.endpoint)
            return wire.Done()

        return handle

    return blueprint(
        "network",
        (
            call(wire.GET_CAPABILITIES, lambda _: wire.NetworkCapabilities(scope=scope, connectivity=scope)),
            call(wire.GW_ALLOC_CHECK, translate.gateway_need),
            call(wire.ALLOCATE_NETWORK, translate.allocation),
            call(wire.FREE_NETWORK, lambda _: wire.Done()),
            call(wire.CREATE_NETWORK, create_network),
            call(wire.DELETE_NETWORK, delete_network),
            call(wire.CREATE_ENDPOINT, create_endpoint),
            call(wire.DELETE_ENDPOINT, of_endpoint(driver.delete_endpoint)),
            call(wire.ENDPOINT_OPER_INFO, lambda _: wire.OperInfo()),
            call(wire.JOIN, join),
            call(wire.LEAVE, of_endpoint(driver.leave)),
            call(wire.PROGRAM_EXTERNAL, of_endpoint(driver.program_external)),
            call(wire.REVOKE_EXTERNAL, of_endpoint(driver.revoke_external)),
            call(wire.DISCOVER_NEW, _discovered(driver, gone=False)),
            call(wire.DISCOVER_DELETE, _discovered(driver, gone=True)),
        ),
        driver.suspect,
    )


def _discovered(driver: NetworkDriver, *, gone: bool) -> Callable[[wire.Discover], wire.Done]:
    def handle(request: wire.Discover) -> wire.Done:
        node = translate.discovered(request)
        if node is not None:
            driver.discovered(node.address, is_self=node.is_self, gone=gone)
        return wire.Done()

    return handle
