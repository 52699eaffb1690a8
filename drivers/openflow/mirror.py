"""What is in the switch, as last heard: so that a request's path asks memory, and 1,000 endpoints cost what 10 do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from drivers.openflow.matches import canonical
from drivers.openflow.messages import Entry, Event, Place, Update


class Mirror:
    """The lasting flows of one bridge. What has a timeout was learnt from packets, and is nobody's to keep."""

    def __init__(self, flows: Iterable[tuple[Place, Entry]] = ()) -> None:
        """Take the flows as the switch tells them."""
        self._entries: dict[Place, Entry] = {}
        self._texts: dict[bytes, bytes] = {}
        for place, entry in flows:
            if entry.lasting:
                self.put(_ours(place), entry)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[tuple[Place, Entry]]:
        return iter(self._entries.items())

    def get(self, place: Place) -> Entry | None:
        """Return what is at a place."""
        return self._entries.get(place)

    def put(self, place: Place, entry: Entry) -> None:
        """Note that this is there now. Equal instructions are kept once: most flows have one of a few."""
        kept = self._texts.setdefault(entry.instructions, entry.instructions)
        self._entries[place] = entry._replace(instructions=kept)

    def drop(self, place: Place) -> None:
        """Note that nothing is there any more."""
        self._entries.pop(place, None)

    def follow(self, update: Update) -> tuple[Entry, ...]:
        """Do as somebody else did; return what was there before and what is there now, nothing if that is the same."""
        if update.place is None or update.entry is None:
            return ()
        place = _ours(update.place)
        before = self.get(place)
        if update.event == Event.REMOVED or not update.entry.lasting:
            self.drop(place)
        else:
            self.put(place, update.entry)
        after = self.get(place)
        return () if before == after else tuple(entry for entry in (before, after) if entry is not None)


def _ours(place: Place) -> Place:
    return place._replace(match=canonical(place.match))
