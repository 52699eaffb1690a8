"""The kernel, in memory."""

from __future__ import annotations

import errno
from dataclasses import replace

from drivers.fake.backend import FakeBackend
from drivers.fake.state import UNMARKED, Held, refuse
from drivers.resources import (
    Bridge,
    FloodEntry,
    Foreign,
    HostAddress,
    Key,
    OvsPort,
    PeerTunnel,
    Resource,
    Setting,
    Veth,
    Vxlan,
    link_key,
    setting,
)

_Port = Veth | Vxlan | PeerTunnel
_ON_LINK = ("address", "flood")


class FakeKernel(FakeBackend):
    """Links, addresses and the switches under /proc/sys."""

    name = "kernel"

    def see(self, key: Key) -> Resource | Foreign | None:
        """Return what is at a key; what is on a link is its link's, an address on others' whose ``IFA_PROTO`` says."""
        if key.kind == "setting":
            return setting(key.at[0], self.host.settings.get(key, "0"))
        held = self.host.objects.get(key)
        if held is None or key.kind not in _ON_LINK:
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
        if isinstance(new, HostAddress | FloodEntry) and link_key(new.link) not in objects:
            raise refuse(errno.ENODEV, new.key)
        if isinstance(new, _Port) and link_key(new.bridge) not in objects:
            raise refuse(errno.ENODEV, link_key(new.bridge))
        if isinstance(new, Vxlan) and any(self._is_on_its_port(held.resource, new) for held in objects.values()):
            raise refuse(errno.EEXIST, new.key)
        if isinstance(new, Bridge | _Port):
            self._make_link(new)
        super().make(new)

    @staticmethod
    def _is_on_its_port(other: Resource, new: Vxlan) -> bool:
        same = isinstance(other, Vxlan) and (other.vni, other.port) == (new.vni, new.port)
        return same and other.key != new.key

    def _make_link(self, new: Bridge | _Port) -> None:
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
        """Delete an object; a link takes what is on it along, a bridge frees its ports, a port of OVS's is dead."""
        super().delete(key)
        if key.kind != "link":
            return
        for other, held in tuple(self.host.objects.items()):
            if other.kind in _ON_LINK and other.at[0] == key.at[0]:
                super().delete(other)
            elif isinstance(held.resource, _Port) and held.resource.bridge == key.at[0]:
                self.host.objects[other] = replace(held, resource=replace(held.resource, bridge=""))
            elif isinstance(held.resource, OvsPort) and held.resource.name == key.at[0]:
                self.host.objects[other] = replace(held, resource=replace(held.resource, sound=False))
