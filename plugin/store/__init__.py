"""What was promised, on disk: networks, endpoints, pools, leases, and the host's switches as they were found."""

from plugin.store.claims import OVS
from plugin.store.database import Database
from plugin.store.pools import LeaseRow, PoolRow
from plugin.store.rows import Bridges, EndpointRow, NetworkRow, Phase
from plugin.store.store import Store

__all__ = ["OVS", "Bridges", "Database", "EndpointRow", "LeaseRow", "NetworkRow", "Phase", "PoolRow", "Store"]
