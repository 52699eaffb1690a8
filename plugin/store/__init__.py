"""What was promised, on disk: networks, endpoints, and the host's switches as they were found."""

from plugin.store.database import Database
from plugin.store.rows import EndpointRow, NetworkRow, Phase
from plugin.store.store import Store

__all__ = ["Database", "EndpointRow", "NetworkRow", "Phase", "Store"]
