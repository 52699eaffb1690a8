"""The other hosts to which networks go on, changed while containers run.

A network's peers are the host's list and its own, those of its tunnel's IP version, without this host: so the same list
can be given to every host. A change is one element and one entry for each network it concerns.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from drivers.errors import InvalidRequest, NotFound, WeftError
from drivers.model import Address
from plugin.deadline import Deadline
from plugin.engine.tunnels import Tunnels
from plugin.runtime import Runtime
from plugin.store import NetworkRow, Phase, Store
from plugin.store.peers import MadeBy, PeerRow

log = logging.getLogger(__name__)


class Peers:
    """The use cases of peers."""

    def __init__(self, store: Store, runtime: Runtime, tunnels: Tunnels, *, setting: Iterable[Address] = ()) -> None:
        """Keep peers in ``store``; ``setting`` are those of WEFT_PEERS."""
        self._store = store
        self._runtime = runtime
        self._tunnels = tunnels
        self._setting = tuple(setting)

    def settle(self) -> None:
        """Keep what WEFT_PEERS says now, and no longer what it said before."""
        self._store.peers.settle(self._setting)

    def add(self, network: str | None, peer: Address, deadline: Deadline, *, made_by: MadeBy = "command") -> PeerRow:
        """Let a network, or every one (``None``), go on at this host, too. Raises :class:`InvalidRequest`."""
        rows = self._concerned(network, peer)
        with self._changing(rows, deadline):
            self._store.peers.add(network, peer, made_by)
        for row in rows:
            self._tunnels.fits(row.network, peer)
        log.info("peer added", extra={"peer": peer, "network": (network or "every one")[:12], "by": made_by})
        return PeerRow(network=network, address=peer, made_by=made_by)

    def remove(
        self, network: str | None, peer: Address, deadline: Deadline, *, made_by: MadeBy | None = None
    ) -> list[PeerRow]:
        """End that; what was learnt behind the peer is forgotten. Raises :class:`NotFound`."""
        with self._changing(self._concerned(network, peer), deadline):
            gone = self._store.peers.remove(network, peer, made_by)
        if not gone and made_by is None:
            raise NotFound(
                f"{peer} is no peer of {'the host' if network is None else f'network {network[:12]} alone'}; "
                "see `weft peer ls`"
            )
        if network is None and peer in self._setting and made_by is None:
            log.warning("peer is in WEFT_PEERS", extra={"peer": peer, "why": "it is back at the next start of weft"})
        log.info("peer removed", extra={"peer": peer, "network": (network or "every one")[:12]})
        return gone

    def of_docker(self) -> frozenset[Address]:
        """Return those that Docker told of."""
        return frozenset(row.address for row in self._store.peers.rows() if row.made_by == "docker")

    def forget_docker(self) -> None:
        """Keep nothing of what Docker told in another life, before the host is looked at: it is asked no more."""
        for address in self.of_docker():
            self._store.peers.remove(None, address, "docker")
        self._store.swarm_address = None

    def discovered(self, peer: Address, *, is_self: bool, gone: bool, deadline: Deadline) -> None:
        """Take note of a host that Docker discovered, or lost. This one is no peer: it is how the others know us."""
        if is_self:
            self._known_as(peer)
            return
        if gone:
            self.remove(None, peer, deadline, made_by="docker")
        else:
            self.add(None, peer, deadline, made_by="docker")

    def _known_as(self, address: Address) -> None:
        if self._store.swarm_address == address:
            return
        self._store.swarm_address = address
        self._tunnels.settle()
        self._runtime.dirty(None)

    def _concerned(self, network: str | None, peer: Address) -> list[NetworkRow]:
        """Return the networks that a peer is of."""
        if network is None:
            return [row for row in self._store.networks() if _goes_on_at(row, peer)]
        row = self._store.network(network)
        if row is None or row.phase is Phase.DELETING:
            raise NotFound(f"weft has no network {network[:12]}; see `weft network ls`")
        tunnel = row.network.tunnel
        if tunnel is None:
            raise InvalidRequest(
                f"network {network[:12]} is of this host only: a network is given its tunnel when it is made "
                "(-o weft.tunnel=vxlan -o weft.name=NAME)"
            )
        if tunnel.version != peer.version:
            raise InvalidRequest(
                f"network {network[:12]} has IPv{tunnel.version} peers, and {peer} is IPv{peer.version}: the two "
                "cannot be mixed in one network; name every host by an address of the same IP version"
            )
        return [row]

    @contextmanager
    def _changing(self, rows: Iterable[NetworkRow], deadline: Deadline) -> Iterator[None]:
        """Look where the networks' resources are, let the store change, then bring the networks to it.

        Each one, whatever became of those before it. Raises ``ExceptionGroup`` of what failed.
        """
        before = {row.scope: self._runtime.keys(row.scope) for row in rows}
        yield
        failed: list[Exception] = []
        for scope, keys in before.items():
            try:
                self._runtime.converge(scope, deadline, also=keys)
            except (WeftError, ExceptionGroup) as failure:
                failed.append(failure)
        if failed:
            raise ExceptionGroup("a network could not be brought to its peers", failed)


def _goes_on_at(row: NetworkRow, peer: Address) -> bool:
    tunnel = row.network.tunnel
    return tunnel is not None and tunnel.version == peer.version and row.phase is not Phase.DELETING
