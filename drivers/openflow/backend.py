"""The backend of flows: any number of bridges, one thread that keeps in touch with them."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from drivers.contract import Dirty, Step
from drivers.errors import InvalidRequest, WeftError
from drivers.marks import Marks
from drivers.openflow.marks import Cookies, Scopes
from drivers.openflow.ports import OfPort
from drivers.openflow.switch import Switch
from drivers.resources import OVS_BRIDGE, Foreign, Key, Resource, Scope

RUNDIR: Final = Path("/var/run/openvswitch")
"""Where ovs-vswitchd puts the bridges' sockets, unless it is told otherwise (``OVS_RUNDIR``)."""

_LOOK: Final = 0.5  # seconds between two looks for a bridge that is not there


class OpenFlowBackend:
    """Implements :class:`drivers.contract.Backend` for the keys whose backend is ``openflow``. Thread-safe.

    ``scopes``   lists the scopes that the store has: a cookie holds only their hash
    ``ofport``   the OpenFlow number of an interface as OVSDB has it, ``None`` if it has none
    ``rundir``   where ovs-vswitchd puts the bridges' sockets
    ``bridges``  the bridges that are surveyed and watched; no other is touched

    Nothing is connected before it is asked for, and a bridge that is not there has no flows.
    """

    def __init__(
        self,
        marks: Marks,
        scopes: Scopes,
        ofport: OfPort,
        *,
        rundir: Path = RUNDIR,
        bridges: Sequence[str] = (OVS_BRIDGE,),
    ) -> None:
        self._wake = threading.Event()
        self._watchers: list[Dirty] = []
        self._switches = {
            bridge: Switch(
                bridge,
                rundir,
                Cookies(marks.store, scopes),
                ofport,
                changed=self._tell,
                heard=self._wake.set,
            )
            for bridge in bridges
        }

    @property
    def calls(self) -> int:
        """How many times a switch was asked for something, and answered: the measure of an operation's work."""
        return sum(switch.calls for switch in self._switches.values())

    def close(self) -> None:
        """End the connections. Nothing in the switches changes."""
        for switch in self._switches.values():
            switch.close()

    def observe(self, keys: Collection[Key]) -> Mapping[Key, Resource | Foreign]:
        """Return what is at ``keys``, from memory: the flow monitor tells what others change."""
        asked: dict[str, list[Key]] = defaultdict(list)
        for key in keys:
            asked[key.at[0]].append(key)
        found: dict[Key, Resource | Foreign] = {}
        for bridge, mine in asked.items():
            found |= self._switch(bridge).observe(mine)
        return found

    def survey(self) -> Mapping[Key, Resource]:
        """Return all flows of this store: one dump of each bridge. What was learnt from packets is none of them."""
        return {key: found for switch in self._switches.values() for key, found in switch.survey().items()}

    def apply(self, steps: Sequence[Step]) -> Mapping[Key, Exception]:
        """Take the steps of each bridge in one atomic bundle, less what it refuses, which is returned."""
        failures: dict[Key, Exception] = {}
        asked: dict[str, list[Step]] = defaultdict(list)
        for step in steps:
            asked[step.key.at[0]].append(step)
        for bridge, mine in asked.items():
            try:
                failures |= self._switch(bridge).apply(mine)
            except InvalidRequest as failure:
                failures |= dict.fromkeys((step.key for step in mine), failure)
        return failures

    def taken(self, bridge: str, tables: Collection[int]) -> list[tuple[Scope, str]]:
        """Return the scope and the match of each flow of a bridge's tables that is ours and took a packet."""
        return self._switch(bridge).taken(tables)

    def watch(self, dirty: Dirty) -> Callable[[], None]:
        """Tell of flows that others changed, and of a bridge that came back: it has lost them all (``None``).

        A bridge that is not there is looked for twice a second.
        """
        stop = threading.Event()
        self._watchers.append(dirty)

        def keep_in_touch() -> None:
            while not stop.is_set():
                for switch in self._switches.values():
                    with suppress(WeftError):  # it is asked again soon, and whoever needs it is told
                        switch.look()
                self._wake.wait(_LOOK)
                self._wake.clear()

        thread = threading.Thread(target=keep_in_touch, name="openflow-watch", daemon=True)
        thread.start()

        def end() -> None:
            stop.set()
            self._wake.set()
            thread.join()
            with suppress(ValueError):
                self._watchers.remove(dirty)

        return end

    def _tell(self, scope: Scope | None) -> None:
        for dirty in tuple(self._watchers):
            dirty(scope)

    def _switch(self, bridge: str) -> Switch:
        if bridge not in self._switches:
            raise InvalidRequest(f"bridge {bridge} is not one whose flows weft keeps")
        return self._switches[bridge]
