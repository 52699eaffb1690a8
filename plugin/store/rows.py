"""The rows of the store as values."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from drivers.model import Endpoint, Network
from drivers.resources import Scope, scope_of
from plugin.requests import DEFAULTS, ENDPOINT_DEFAULTS, EndpointSettings, NetworkSettings, PortRequest


@dataclass(frozen=True, slots=True)
class Bridges:
    """What is known of the host's bridges that are not weft's.

    ``dockers``  by Docker's own list, those to which the operator gave names
    ``judged``   those that were there when the list was last looked at
    """

    dockers: frozenset[str] = frozenset()
    judged: frozenset[str] = frozenset()


class Phase(enum.StrEnum):
    """How far a promise has come: PENDING -> READY -> DELETING -> the row is gone.

    PENDING was not answered yet; READY was; DELETING is being withdrawn, and the row stays until nothing of it is left
    on the host.
    """

    PENDING = "pending"
    READY = "ready"
    DELETING = "deleting"


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkRow:
    """A network, the settings that it was asked for with, and its phase."""

    network: Network
    phase: Phase = Phase.PENDING
    settings: NetworkSettings = DEFAULTS

    @property
    def id(self) -> str:
        """Docker's id of it."""
        return self.network.id

    @property
    def scope(self) -> Scope:
        """The scope of what it owns on the host."""
        return scope_of(self.network.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointRow:
    """An endpoint, its phase, what it was asked for with, and what Docker has done with it.

    ``sandbox``   the container's network namespace, while it is joined
    ``external``  it is the one by which its container reaches the world (ProgramExternalConnectivity)
    """

    endpoint: Endpoint
    phase: Phase = Phase.PENDING
    sandbox: str | None = None
    external: bool = False
    ports: tuple[PortRequest, ...] = ()
    settings: EndpointSettings = ENDPOINT_DEFAULTS

    @property
    def id(self) -> str:
        """Docker's id of it."""
        return self.endpoint.id

    @property
    def scope(self) -> Scope:
        """The scope of what it owns on the host."""
        return scope_of(self.endpoint.network, self.endpoint.id)
