"""Sockets, in memory."""

from __future__ import annotations

import errno
from ipaddress import ip_address

from drivers.fake.backend import FakeBackend
from drivers.fake.state import refuse
from drivers.resources import (
    Foreign,
    Hold,
    Key,
    Resource,
)


class FakeSockets(FakeBackend):
    """Host ports that are held. Those of other processes (``plant`` a hold) are in the way, and not ours to see."""

    name = "sockets"

    def see(self, key: Key) -> Resource | Foreign | None:
        """Return what this process holds at a key."""
        seen = super().see(key)
        return None if isinstance(seen, Foreign) else seen

    def make(self, new: Resource) -> None:
        """Hold a run of ports, unless one of them is in use; or relay otherwise what is held."""
        if isinstance(new, Hold) and self.see(new.key) is None:
            others = (held.resource for held in self.host.objects.values())
            if any(isinstance(other, Hold) and _meet(new, other) for other in others):
                raise refuse(errno.EADDRINUSE, new.key)
        super().make(new)


def _meet(one: Hold, other: Hold) -> bool:
    """Tell whether two holds have a port in common."""
    addresses = ip_address(one.address), ip_address(other.address)
    return (
        one.transport == other.transport
        and addresses[0].version == addresses[1].version
        and (addresses[0] == addresses[1] or any(address.is_unspecified for address in addresses))
        and max(one.ports[0], other.ports[0]) <= min(one.ports[-1], other.ports[-1])
    )
