"""Containers whose MAC or address also came out of their network's tunnel: somebody else has it, too.

Table ``bridge weft`` counts such frames, for each container of this host (:mod:`drivers.ruleset_bridge`); here the
counters are read. They begin anew with the container, and when the table's text is replaced.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from drivers import ruleset_bridge
from drivers.libnftables import Nft
from drivers.marks import Marks
from drivers.resources import BRIDGE_TABLE_KEY, Scope

_TABLE: Final = " ".join(BRIDGE_TABLE_KEY.at)


@dataclass(frozen=True, slots=True, order=True)
class Clash:
    """A container's ``what`` (its MAC, or an address) that came out of the tunnel. ``scope`` is the container's."""

    scope: Scope
    what: str


class Clashes:
    """Reads the counters of one store's containers."""

    def __init__(self, marks: Marks) -> None:
        self._marks = marks
        self._nft = Nft()

    def seen(self) -> tuple[Clash, ...]:
        """Return what was counted since its container started; nothing if there is no such table."""
        told = self._nft.listing(_TABLE)
        if told is None:
            return ()
        sets = (entry["set"] for entry in json.loads(told)["nftables"] if "set" in entry)
        counted = (one for one in sets if one["name"] in ruleset_bridge.COUNTED)
        return tuple(sorted(clash for one in counted for clash in self._of(one)))

    @property
    def calls(self) -> int:
        """How many times nft was run."""
        return self._nft.calls

    def close(self) -> None:
        """Give back the socket."""
        self._nft.close()

    def _of(self, told: dict[str, Any]) -> Iterator[Clash]:
        for entry in told.get("elem", ()):
            element = entry["elem"]
            scope = self._marks.read(element.get("comment"))
            if scope is not None and element.get("counter", {}).get("packets"):
                yield Clash(scope, str(element["val"]["concat"][-1]))
