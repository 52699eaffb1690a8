"""A swarm's nodes, as Docker lists them: what its discovery does not tell, or told while weft was away.

DiscoverNew tells a plugin of the nodes that come while it is there. One that is enabled, or comes back, while the swarm
is up is told of its own node alone (20.10.24 to 28.5.2), and of a node that left meanwhile nobody tells it at all. So
Docker's own list is looked at: when weft starts, at each interval, and soon after a node was discovered or a network of
the swarm was made here. Every node is on the network ``ingress``, and Docker lists the nodes of it on each of them,
managers or not (spec/decisions/0016).

A node that is listed is a peer at once. One that is not is none any longer when two looks some time apart lack it: it
may have been discovered just now, and be listed a moment later. What was not read completely takes nobody away.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final, Protocol

from drivers.model import Address
from plugin.deadline import Deadline
from plugin.docker import Swarm, Unreachable
from plugin.engine.peers import Peers
from plugin.option_text import peer
from plugin.reconciler import Reconciler

log = logging.getLogger(__name__)

APART_SECONDS: Final = 30.0
SOON_SECONDS: Final = 5.0  # dockerd starts a plugin before it answers itself, and joins its swarm later still


class DockersSwarm(Protocol):
    """What is asked of Docker (:class:`plugin.docker.Docker`)."""

    def swarm(self) -> Swarm:
        """Return what this host knows of its swarm."""
        ...


class Nodes:
    """Keeps the peers at what Docker lists, from a thread of its own."""

    def __init__(
        self,
        docker: DockersSwarm,
        peers: Peers,
        *,
        is_own: Callable[[Address], bool],
        interval: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Look at ``docker`` each ``interval`` seconds; ``is_own`` tells whether an address is this host's."""
        self._docker = docker
        self._peers = peers
        self._is_own = is_own
        self._clock = clock
        self._complete = False
        self._missing_since: dict[Address, float] = {}
        self._looks = Reconciler(lambda _: self.look(), interval, name="swarm-look")

    def start(self) -> None:
        """Start looking."""
        self._looks.start()

    def stop(self) -> None:
        """Stop, and join the thread."""
        self._looks.stop()

    def look_soon(self) -> None:
        """Look as soon as the thread is free. Never waits."""
        self._looks.dirty(None)

    def joined(self) -> None:
        """Take note that a container has joined a network: by now Docker lists who else is on it, if on no other."""
        if not self._complete:
            self.look_soon()

    def look(self) -> None:
        """Compare the peers with Docker's list once."""
        try:
            swarm = self._docker.swarm()
        except Unreachable as why:
            log.debug("the swarm's nodes were not read", extra={"why": str(why)})
            self._looks.within(SOON_SECONDS)
            return
        self._complete = swarm.complete
        known = self._peers.of_docker()
        listed = frozenset(address for text in swarm.nodes if (address := _address(text)) is not None)
        for address in sorted(listed - known, key=int):
            if not self._is_own(address):
                self._peers.add(None, address, Deadline(), made_by="docker")
        self._judge(known - listed if swarm.complete else frozenset())
        if not swarm.settled:
            self._looks.within(SOON_SECONDS)

    def _judge(self, missing: frozenset[Address]) -> None:
        now = self._clock()
        self._missing_since = {address: self._missing_since.get(address, now) for address in missing}
        for address, since in self._missing_since.items():
            if now - since >= APART_SECONDS:
                self._peers.remove(None, address, Deadline(), made_by="docker")
        if missing:
            self._looks.within(APART_SECONDS)


def _address(text: str) -> Address | None:
    """Return a node's address; ``None`` for what no host can have, such as ``unknown`` for one that is just leaving."""
    try:
        return peer(text)
    except ValueError:
        return None
