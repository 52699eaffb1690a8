"""Open vSwitch's database and its daemon, in memory."""

from __future__ import annotations

import errno
from dataclasses import replace

from drivers.contract import Step
from drivers.errors import Conflict, HostFailure
from drivers.fake.backend import FakeTransactions
from drivers.fake.state import Held, refuse
from drivers.resources import (
    Key,
    OvsBridge,
    OvsDevicePort,
    OvsPort,
    Resource,
    link_key,
    ovs_bridge_key,
)


class FakeOvsdb(FakeTransactions):
    """Bridges and ports. Those that OVS makes have a link of the host's, without our mark, that comes and goes with it.

    A port for a link that is missing is written all the same, does not work, and is a failure. So is one whose link was
    deleted, even if there is another of its name by now: :class:`drivers.fake.kernel.FakeKernel` sees to that.
    """

    name = "ovsdb"

    def take(self, step: Step) -> None:
        """Take one step or raise. A bridge is not deleted under others' ports."""
        if isinstance(step.old, OvsBridge) and step.new is None:
            strangers = [held for held in self._ports(step.old.name) if self.host.marks.read(held.mark) is None]
            if strangers:
                raise Conflict(f"bridge {step.old.name} would take along ports that weft did not make")
        super().take(step)

    def make(self, new: Resource) -> None:
        """Make or change a bridge or a port; what cannot be changed in place takes two transactions."""
        there = self.host.objects.get(new.key)
        if isinstance(new, OvsPort):
            self._need_bridge(new)
            if there is not None and not _keeps(there.resource, new):
                self.delete(new.key)
                self.host.tick()
                there = None
        if there is None and isinstance(new, OvsBridge | OvsPort):
            self._make_link(new)
        missing = isinstance(new, OvsDevicePort) and link_key(new.name) not in self.host.objects
        super().make(replace(new, sound=False) if isinstance(new, OvsPort) and missing else new)
        if missing:
            raise HostFailure(f"{new.key}: could not open network device (No such device)")

    def delete(self, key: Key) -> None:
        """Delete a port, or a bridge with all its ports; their links go with them."""
        held = self.host.objects.get(key)
        super().delete(key)
        match held.resource if held else None:
            case OvsBridge() as bridge:
                for port in self._ports(bridge.name):
                    self.delete(port.resource.key)
                self._delete_link(bridge.name)
            case OvsPort(type="internal") as port:
                self._delete_link(port.name)
            case _:
                pass

    def _ports(self, bridge: str) -> list[Held]:
        return [
            held
            for held in self.host.objects.values()
            if isinstance(held.resource, OvsPort) and held.resource.bridge == bridge
        ]

    def _need_bridge(self, new: OvsPort) -> None:
        bridge = self.host.objects.get(ovs_bridge_key(new.bridge))
        if bridge is None:
            raise HostFailure(f"{new.key} cannot be made: Open vSwitch has no bridge {new.bridge}")
        if self.host.marks.read(bridge.mark) is None:
            raise Conflict(f"{new.key} cannot be made: bridge {new.bridge} is not weft's")

    def _make_link(self, new: OvsBridge | OvsPort) -> None:
        if isinstance(new, OvsPort) and new.type != "internal":
            return
        if link_key(new.name) in self.host.objects:
            raise refuse(errno.EEXIST, link_key(new.name))
        self.host.objects[link_key(new.name)] = Held(Resource(key=link_key(new.name), scope=new.scope))

    def _delete_link(self, name: str) -> None:
        gone = [key for key in self.host.objects if key.backend == "kernel" and key.at[0] == name]
        for key in gone:
            del self.host.objects[key]


def _keeps(there: Resource, new: OvsPort) -> bool:
    """Tell whether a port can become another one without being made anew."""
    return isinstance(there, OvsPort) and there.sound and (there.bridge, there.type) == (new.bridge, new.type)
