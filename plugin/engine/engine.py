"""The engine: what Docker may ask of weft, each call with its deadline. The one object the blueprints know."""

from __future__ import annotations

from collections.abc import Callable

from drivers.model import Address, Interface
from plugin.deadline import Deadline
from plugin.engine.addresses import Addresses
from plugin.engine.endpoints import Endpoints
from plugin.engine.networks import Networks
from plugin.engine.nodes import Nodes
from plugin.engine.peers import Peers
from plugin.engine.ports import Ports
from plugin.pools import PoolId
from plugin.requests import AddressRequest, EndpointRequest, Joined, NetworkRequest, PoolRequest
from plugin.runtime import Runtime


class Engine:
    """The driver calls, in Docker's order. Each raises one of ``drivers.errors``, or a group of them."""

    def __init__(
        self,
        networks: Networks,
        endpoints: Endpoints,
        ports: Ports,
        addresses: Addresses,
        runtime: Runtime,
        *,
        peers: Peers,
        look_soon: Callable[[], None],
        joined: Callable[[str], None],
        nodes: Nodes,
    ) -> None:
        """Answer with these use cases.

        ``look_soon`` has Docker's own list looked at; ``joined`` is told of a network that a container has joined;
        ``nodes`` looks at the swarm's.
        """
        self._networks = networks
        self._endpoints = endpoints
        self._ports = ports
        self._addresses = addresses
        self._peers = peers
        self._runtime = runtime
        self._look_soon = look_soon
        self._joined = joined
        self._nodes = nodes

    def create_network(self, request: NetworkRequest) -> None:
        """Make a network."""
        self._networks.create(request, self._called())
        self._nodes.look_soon()

    def delete_network(self, network: str) -> None:
        """Remove a network; of the unknown, succeed."""
        self._networks.delete(network, self._called())

    def create_endpoint(self, request: EndpointRequest) -> str:
        """Make an endpoint and return its MAC."""
        return self._endpoints.create(request, self._called())

    def delete_endpoint(self, network: str, endpoint: str) -> None:  # noqa: ARG002 - endpoint ids are unique
        """Remove an endpoint; of the unknown, succeed."""
        deadline = self._called()
        self._ports.revoke(endpoint, deadline)
        self._endpoints.delete(endpoint, deadline)

    def join(self, network: str, endpoint: str, sandbox: str) -> Joined:
        """Say what Docker has to move into a sandbox."""
        joined = self._endpoints.join(endpoint, sandbox)
        self._joined(network)
        self._nodes.joined()
        return joined

    def leave(self, network: str, endpoint: str) -> None:  # noqa: ARG002 - endpoint ids are unique
        """Take note that a container has left; of the unknown, succeed."""
        self._endpoints.leave(endpoint)

    def program_external(self, network: str, endpoint: str) -> None:  # noqa: ARG002 - endpoint ids are unique
        """Publish an endpoint's ports: it is its container's way out."""
        self._ports.program(endpoint, self._called())

    def revoke_external(self, network: str, endpoint: str) -> None:  # noqa: ARG002 - endpoint ids are unique
        """Publish them no longer; of the unknown, succeed."""
        self._ports.revoke(endpoint, self._called())

    def discovered(self, peer: Address, *, is_self: bool, gone: bool) -> None:
        """Take note of a host that Docker discovered, or lost."""
        self._peers.discovered(peer, is_self=is_self, gone=gone, deadline=self._called())
        self._nodes.look_soon()

    def greet(self) -> None:
        """Take note that a dockerd has just started, or uses weft for the first time."""
        self._addresses.greet()

    def request_pool(self, request: PoolRequest) -> PoolId:
        """Reserve a pool."""
        return self._addresses.request_pool(request)

    def release_pool(self, pool: str) -> None:
        """Give a pool back; of the unknown, succeed."""
        self._addresses.release_pool(pool)

    def request_address(self, request: AddressRequest) -> Interface:
        """Lease an address."""
        return self._addresses.request_address(request)

    def release_address(self, pool: str, address: Address) -> None:
        """Give an address back; of the unknown, succeed."""
        self._addresses.release_address(pool, address)

    def suspect(self) -> None:
        """Have Docker's own list looked at soon: a call lost its body, or clashed with what Docker may not know."""
        self._look_soon()

    def _called(self) -> Deadline:
        deadline = Deadline()
        self._runtime.docker_calls(deadline)
        return deadline
