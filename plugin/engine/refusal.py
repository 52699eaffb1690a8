"""A weft whose state cannot be read: every use case answers with the reason, and nothing is changed or swept.

Docker still gets its handshake (one failing GetCapabilities makes a driver unusable until dockerd restarts), and the
traffic of running containers goes on: nothing of it passes through this process.
"""

from __future__ import annotations

import os
from typing import NoReturn

import plugin
from drivers.errors import Refusing
from drivers.model import Address
from plugin.engine.views import View
from plugin.requests import AddressRequest, EndpointRequest, NetworkRequest, PoolRequest


class RefusedDriver:
    """The driver calls, each raising the reason."""

    def __init__(self, why: Refusing) -> None:
        """Refuse with ``why``."""
        self._why = why

    def create_network(self, request: NetworkRequest) -> NoReturn:  # noqa: ARG002 - the shape of Engine
        """Refuse."""
        raise self._why

    def delete_network(self, network: str) -> NoReturn:  # noqa: ARG002 - the shape of Engine
        """Refuse."""
        raise self._why

    def create_endpoint(self, request: EndpointRequest) -> NoReturn:  # noqa: ARG002 - the shape of Engine
        """Refuse."""
        raise self._why

    def delete_endpoint(self, network: str, endpoint: str) -> NoReturn:  # noqa: ARG002 - the shape of Engine
        """Refuse."""
        raise self._why

    def join(self, network: str, endpoint: str, sandbox: str) -> NoReturn:  # noqa: ARG002 - the shape of Engine
        """Refuse."""
        raise self._why

    def leave(self, network: str, endpoint: str) -> NoReturn:  # noqa: ARG002 - the shape of Engine
        """Refuse."""
        raise self._why

    def program_external(self, network: str, endpoint: str) -> NoReturn:  # noqa: ARG002 - the shape of Engine
        """Refuse."""
        raise self._why

    def revoke_external(self, network: str, endpoint: str) -> NoReturn:  # noqa: ARG002 - the shape of Engine
        """Refuse."""
        raise self._why

    def discovered(self, peer: Address, *, is_self: bool, gone: bool) -> NoReturn:  # noqa: ARG002 - the shape of Engine
        """Refuse."""
        raise self._why

    def greet(self) -> None:
        """Do nothing."""

    def request_pool(self, request: PoolRequest) -> NoReturn:  # noqa: ARG002 - the shape of Engine
        """Refuse."""
        raise self._why

    def release_pool(self, pool: str) -> NoReturn:  # noqa: ARG002 - the shape of Engine
        """Refuse."""
        raise self._why

    def request_address(self, request: AddressRequest) -> NoReturn:  # noqa: ARG002 - the shape of Engine
        """Refuse."""
        raise self._why

    def release_address(self, pool: str, address: Address) -> NoReturn:  # noqa: ARG002 - the shape of Engine
        """Refuse."""
        raise self._why

    def suspect(self) -> None:
        """Do nothing: without a store nothing is known to be Docker's or not."""


class RefusedViews:
    """The commands' readers: a status that says why, and nothing else."""

    def __init__(self, why: Refusing) -> None:
        """Refuse with ``why``."""
        self._why = why

    def status(self) -> View:
        """Return why weft refuses."""
        return {"version": plugin.__version__, "pid": os.getpid(), "healthy": False, "refusing": str(self._why)}

    def networks(self) -> NoReturn:
        """Refuse."""
        raise self._why

    def network(self, short: str) -> NoReturn:  # noqa: ARG002 - the shape of Views
        """Refuse."""
        raise self._why

    def endpoints(self) -> NoReturn:
        """Refuse."""
        raise self._why

    def endpoint(self, short: str) -> NoReturn:  # noqa: ARG002 - the shape of Views
        """Refuse."""
        raise self._why

    def pools(self) -> NoReturn:
        """Refuse."""
        raise self._why

    def pool(self, which: str) -> NoReturn:  # noqa: ARG002 - the shape of Views
        """Refuse."""
        raise self._why

    def ports(self) -> NoReturn:
        """Refuse."""
        raise self._why

    def add_port(self, which: str, text: str) -> NoReturn:  # noqa: ARG002 - the shape of Views
        """Refuse."""
        raise self._why

    def remove_port(self, which: str, text: str) -> NoReturn:  # noqa: ARG002 - the shape of Views
        """Refuse."""
        raise self._why

    def peers(self) -> NoReturn:
        """Refuse."""
        raise self._why

    def add_peer(self, peer: str, network: str) -> NoReturn:  # noqa: ARG002 - the shape of Views
        """Refuse."""
        raise self._why

    def remove_peer(self, peer: str, network: str) -> NoReturn:  # noqa: ARG002 - the shape of Views
        """Refuse."""
        raise self._why

    def reconcile(self, *, dry_run: bool) -> NoReturn:  # noqa: ARG002 - the shape of Views
        """Refuse."""
        raise self._why
