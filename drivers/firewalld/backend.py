"""firewalld as one side of the host: zone ``weft``, and which links of ours are in it.

firewalld knows no marks. The zone and its policy are ours by their name, which nobody else has a reason to take; a link
in the zone is ours if the link itself carries our mark. A name that only weft makes, without a link, is what is left of
one of ours. A link that somebody put into another zone stays there: that zone judges it, by his choice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from drivers.contract import Dirty, Step
from drivers.errors import Conflict, HostFailure, InvalidRequest, WeftError
from drivers.firewalld.client import Client, method
from drivers.firewalld.watch import Watch
from drivers.firewalld.zone import WeftZone
from drivers.naming import is_made_name
from drivers.resources import HALF_MADE, ZONE, ZONE_KEY, Foreign, InZone, Key, Resource, Zone, in_zone_key
from drivers.system_bus import Refused

LinkSeen = Callable[[str], Resource | Foreign | None]
"""What a link is, by its name: one of ours, somebody else's, or none."""

_ADD: Final = method("zone", "addInterface", "ss")
_REMOVE: Final = method("zone", "removeInterface", "ss")
_ACTIVE: Final = method("zone", "getActiveZones")

# firewalld's words for what is as it should be already (firewall/errors.py, 1.3)
_IN_IT: Final = ("ZONE_ALREADY_SET", "ALREADY_ENABLED")
_NOT_IN_IT: Final = ("UNKNOWN_INTERFACE", "ZONE_CONFLICT", "NOT_ENABLED", "INVALID_ZONE")
_IN_ANOTHER: Final = "ZONE_CONFLICT"


class FirewalldBackend:
    """Implements :class:`drivers.contract.Backend` for the keys whose backend is ``firewalld``. Thread-safe.

    Where firewalld is not there, or silent, there is nothing to see, and every step fails at once.
    """

    def __init__(self, link: LinkSeen) -> None:
        """``link`` says whose a link is."""
        self._link = link
        self._client = Client()
        self._zone = WeftZone(self._client, self._others)

    @property
    def calls(self) -> int:
        """How many times firewalld was asked."""
        return self._client.calls

    def close(self) -> None:
        """Hang up. Nothing on the host changes."""
        self._client.close()

    def answers(self) -> bool:
        """Tell whether firewalld is there and answers."""
        return self._client.answers()

    def zones(self) -> Mapping[str, str]:
        """Return the zone of each link that was put into one; none if firewalld does not answer."""
        try:
            return self._zones()
        except (HostFailure, Refused):
            return {}

    # -- what is there ----------------------------------------------------------------------------------------------

    def observe(self, keys: Collection[Key]) -> Mapping[Key, Resource | Foreign]:
        """Return what is at ``keys``: one question for all links, a handful for the zone."""
        if not keys or not self.answers():
            return {}
        try:
            zones = self._zones() if any(key != ZONE_KEY for key in keys) else {}
            found = {key: self._zone.read() if key == ZONE_KEY else self._found(key, zones) for key in keys}
        except (HostFailure, Refused):  # the step that follows fails as well, and tells
            return {}
        return {key: one for key, one in found.items() if one is not None}

    def survey(self) -> Mapping[Key, Resource]:
        """Read the zone again, and return it and the links of ours in it."""
        if not self.answers():
            return {}
        try:
            zones, zone = self._zones(), self._zone.read(again=True)
        except (HostFailure, Refused):
            return {}
        found = {key: self._found(key, zones) for key in map(in_zone_key, zones)} | {ZONE_KEY: zone}
        return {key: one for key, one in found.items() if isinstance(one, Resource)}

    def _found(self, key: Key, zones: Mapping[str, str]) -> Resource | Foreign | None:
        (name,) = key.at
        zone = zones.get(name)
        if zone is None:
            return None
        if zone != ZONE:
            return Foreign(key, f"firewalld's zone {zone}, into which somebody put it")
        match self._link(name):
            case Resource(scope=scope):
                return InZone(key=key, scope=scope)
            case None if is_made_name(name):
                return InZone(key=key, scope=HALF_MADE)
            case _:
                return Foreign(key, f"somebody who put {name} into zone {ZONE}")

    def _zones(self) -> Mapping[str, str]:
        """Return the same, or raise."""
        active: Mapping[str, Mapping[str, Sequence[str]]] = self._client.first(_ACTIVE)
        return {link: zone for zone, held in active.items() for link in held.get("interfaces", ())}

    def _others(self) -> list[str]:
        """Return the links in the zone that somebody else put there, and that exist."""
        here = [link for link, zone in self._zones().items() if zone == ZONE]
        return [link for link in here if isinstance(self._link(link), Foreign)]

    # -- what is changed --------------------------------------------------------------------------------------------

    def apply(self, steps: Sequence[Step]) -> Mapping[Key, Exception]:
        """Take the steps in turn, going on past failures, which are returned."""
        failures: dict[Key, Exception] = {}
        for step in steps:
            try:
                self._take(step)
            except WeftError as failure:
                failures[step.key] = failure
            except Refused as refused:
                failures[step.key] = HostFailure(f"firewalld: {refused} (by hand: {step})")
        return failures

    def _take(self, step: Step) -> None:
        match step.resource:
            case Zone() if step.new:
                self._zone.make()
            case Zone():
                self._zone.remove()
            case InZone(link=link) if step.new:
                self._put(link)
            case InZone(link=link):
                self._take_out(link)
            case other:
                raise InvalidRequest(f"{other.key} is not for firewalld")

    def _put(self, link: str) -> None:
        try:
            self._client.ask(_ADD, ZONE, link)
        except Refused as refused:
            if str(refused).startswith(_IN_ANOTHER):
                raise Conflict(f"link {link} was put into another zone of firewalld meanwhile") from None
            if not str(refused).startswith(_IN_IT):
                raise

    def _take_out(self, link: str) -> None:
        try:
            self._client.ask(_REMOVE, ZONE, link)
        except Refused as refused:
            if not str(refused).startswith(_NOT_IN_IT):
                raise

    # -- what others change -----------------------------------------------------------------------------------------

    def watch(self, dirty: Dirty) -> Callable[[], None]:
        """Call ``dirty`` when firewalld has come, or has reloaded; what it lost then is put back by the look."""

        def came() -> None:
            self._zone.restarted()
            dirty(None)

        def reloaded() -> None:
            self._zone.forget()
            dirty(None)

        return Watch(self._client, came=came, reloaded=reloaded).stop
