"""nft, in memory: one backend a table."""

from __future__ import annotations

import errno

from drivers.contract import Step
from drivers.errors import Conflict
from drivers.fake.backend import FakeTransactions
from drivers.fake.state import refuse
from drivers.nft_text import Listing, Told, creation, kinds_of
from drivers.resources import (
    BRIDGE_TABLE_KEY,
    TABLE_KEY,
    Element,
    Foreign,
    Key,
    Resource,
    Table,
)


class FakeNft(FakeTransactions):
    """The table ``inet weft`` and its elements."""

    name = "nft"
    table = TABLE_KEY

    def make(self, new: Resource) -> None:
        """Make the table, which keeps its elements when it is replaced, or an element of one of its sets or maps."""
        if isinstance(new, Element):
            table = self.host.objects.get(self.table)
            text = table.resource.text if table and isinstance(table.resource, Table) else ""
            kind = kinds_of(text).get(new.set_name)
            if kind is None:
                raise refuse(errno.ENOENT, new.key)
            told = Told(value=new.value)
            creation(new.key, kind, told)  # which raises unless it is spelled as it would be read back
            if (other := self._beside(new.key).overlapping(new.key, kind)) is not None:
                raise Conflict(f"{new.key} overlaps {other}")
        super().make(new)

    def _beside(self, key: Key) -> Listing:
        there = (one for one in self.host.objects if (one.backend, one.kind) == (key.backend, key.kind))
        return Listing(key.backend, sets={key.kind: {one.at: Told() for one in there}})

    def take(self, step: Step) -> None:
        """Take one step or raise. The table is not deleted under another weft's elements."""
        elements = (self.see(key) for key in self.host.objects if key.backend == self.name)
        if step.key == self.table and step.new is None and any(isinstance(one, Foreign) for one in elements):
            raise Conflict(f"table {' '.join(self.table.at)} still holds elements of others")
        super().take(step)

    def delete(self, key: Key) -> None:
        """Delete an element, or the table with all its elements."""
        for gone in [one for one in self.host.objects if one.backend == self.name] if key == self.table else [key]:
            super().delete(gone)


class FakeNftBridge(FakeNft):
    """The table ``bridge weft``."""

    name = "nft-bridge"
    table = BRIDGE_TABLE_KEY
