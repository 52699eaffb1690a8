"""The kernel, in memory."""

from __future__ import annotations

import errno
from dataclasses import replace

from drivers.fake.backend import FakeBackend
from drivers.fake.state import UNMARKED, Held, refuse
from drivers.resources import (
    Bridge,
    Foreign,
    HostAddress,
    Key,
    OvsPort,
    Resource,
    Setting,
    Veth,
    link_key,
    setting,
)


class FakeKernel(FakeBackend):
    """Links, addresses and the switches under /proc/sys."""

    name = "kernel"

    def see(self, key: Key) -> Resource | Foreign | None:
        """Return what is at a key; an address is its link's, and on a link of others whose ``IFA_PROTO`` says."""
        if key.kind == "setting":
            return setting(key.at[0], self.host.settings.get(key, "0"))
        held = self.host.objects.get(key)
        if held is None or key.kind != "address":
            return super().see(key)
        link = self.host.objects[link_key(key.at[0])].mark
        ours = link == UNMARKED or self.host.marks.read(link) is not None
        return self.host.read(held.resource, link if ours else held.mark)

    def make(self, new: Resource) -> None:
        """Make or change a link, an address or a setting."""
        objects = self.host.objects
        if isinstance(new, Setting):
            self.host.settings[new.key] = new.value
            return
        if isinstance(new, HostAddress) and link_key(new.link) not in objects:
            raise refuse(errno.ENODEV, new.key)
        if isinstance(new, Veth) and link_key(new.bridge) not in objects:
            raise refuse(errno.ENODEV, link_key(new.bridge))
        if isinstance(new, Bridge | Veth):
            self._make_link(new)
        super().make(new)

    def _make_link(self, new: Bridge | Veth) -> None:
        """Make a link that has no alias yet: the kernel takes none at the making."""
        there = self.host.objects.get(new.key)
        if there is not None and isinstance(there.resource, type(new)):
            return
        self.delete(new.key)
        if isinstance(new, Veth) and link_key(new.peer) in self.host.objects:
            raise refuse(errno.EEXIST, link_key(new.peer))
        self.host.objects[new.key] = Held(new, UNMARKED)
        self.host.tick()

    def delete(self, key: Key) -> None:
        """Delete an object; a link takes its addresses with it, a bridge frees its ports, a port of OVS's is dead."""
        super().delete(key)
        if key.kind != "link":
            return
        for other, held in tuple(self.host.objects.items()):
            if other.kind == "address" and other.at[0] == key.at[0]:
                super().delete(other)
            elif isinstance(held.resource, Veth) and held.resource.bridge == key.at[0]:
                self.host.objects[other] = replace(held, resource=replace(held.resource, bridge=""))
            elif isinstance(held.resource, OvsPort) and held.resource.name == key.at[0]:
                self.host.objects[other] = replace(held, resource=replace(held.resource, sound=False))
