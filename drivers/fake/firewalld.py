"""firewalld, in memory."""

from __future__ import annotations

import errno
from collections.abc import Mapping

from drivers.fake.backend import FakeBackend
from drivers.fake.state import UNMARKED, refuse
from drivers.naming import is_made_name
from drivers.resources import HOST, ZONE_KEY, Foreign, InZone, Key, Resource, link_key


class FakeFirewalld(FakeBackend):
    """The zone ``weft``, and which links are in it. A link's mark says whose it is; the zone is ours by its name."""

    name = "firewalld"

    def see(self, key: Key) -> Resource | Foreign | None:
        """Return what is at a key; a name of ours without a link is left over."""
        held = self.host.objects.get(key)
        if held is None:
            return None
        if not isinstance(held.resource, InZone):
            return self.host.read(held.resource, self.host.marks.write(HOST))
        link = self.host.objects.get(link_key(held.resource.link))
        if link is None and is_made_name(held.resource.link):
            return self.host.read(held.resource, UNMARKED)
        return self.host.read(held.resource, link.mark if link else "")

    def survey(self) -> Mapping[Key, Resource]:
        """Return the zone, and every link of ours in it, also what is left over."""
        with self.host.lock:
            self.host.calls["firewalld survey"] += 1
            seen = {key: self.see(key) for key in self.host.objects if key.backend == self.name}
            return {key: one for key, one in seen.items() if isinstance(one, Resource)}

    def make(self, new: Resource) -> None:
        """Make the zone, or put a link into it."""
        if not self.host.firewalld:
            raise refuse(errno.ETIMEDOUT, new.key)
        if isinstance(new, InZone) and ZONE_KEY not in self.host.objects:
            raise refuse(errno.ENOENT, ZONE_KEY)
        super().make(new)

    def delete(self, key: Key) -> None:
        """Take a link out, or the zone with all that is in it."""
        gone = [one for one in self.host.objects if one.backend == self.name] if key == ZONE_KEY else [key]
        for one in gone:
            super().delete(one)
