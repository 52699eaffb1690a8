"""Host ports that are ours: held with bound sockets, so that a later comer is told that they are taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from drivers.resources.base import Key, Rank, Resource

HELD_AT_MOST: Final = 1024
"""Ports of a longer range are looked at once instead of held: sockets are not free (facts/network.md 16)."""

RELAYED_AT_MOST: Final = 100
"""Ports of a longer range are not relayed: each would be a listening socket."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold(Resource):
    """A run of host ports, held from the moment it is published.

    ``relay``  where weft passes on what reaches the sockets, for NAT does not take it there: the container's address,
               and its port for the first of the run; ``None``: nowhere, the sockets are bound and do not listen
    ``allow``  the sources that the relay serves; empty: all
    """

    rank: ClassVar[Rank] = Rank.DEVICE
    relay: tuple[str, int] | None = None
    allow: tuple[str, ...] = ()

    @property
    def transport(self) -> str:
        """``tcp``, ``udp`` or ``sctp``."""
        return self.key.at[0]

    @property
    def address(self) -> str:
        """The host's address; ``0.0.0.0`` or ``::`` for every one."""
        return self.key.at[1]

    @property
    def ports(self) -> range:
        """The host ports."""
        first, _, last = self.key.at[2].partition("-")
        return range(int(first), int(last or first) + 1)

    def __str__(self) -> str:
        passed = f", passed on to {self.relay[0]} port {self.relay[1]}" if self.relay else ""
        return f"# hold {self.transport} {self.address} port {self.key.at[2]}{passed}"

    def undo(self) -> str:
        """Return what a person would call it."""
        return f"# let go of {self.transport} {self.address} port {self.key.at[2]}"


def hold_key(transport: str, address: str, first: int, last: int) -> Key:
    """Return the key of a run of host ports."""
    return Key("sockets", "hold", (transport, address, f"{first}-{last}" if last > first else f"{first}"))
