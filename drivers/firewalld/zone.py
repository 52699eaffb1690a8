"""Zone ``weft`` and policy ``weft-forwarding``: as firewalld has them on disk, and as it does them now.

firewalld takes a new zone only by a reload, as Docker's own does (zone ``docker``, policy ``docker-forwarding``; Docker
20.10, 28). A reload ends whatever the operator has set for now only, so it is asked for when the first network is made
and when the last is gone, and never twice in vain. What is on disk counts from the next reload on, so while a watch
tells of reloads, what was read is remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from drivers.errors import Conflict, HostFailure
from drivers.firewalld.client import PATH, Client, method
from drivers.resources import HOST, POLICY, ZONE, ZONE_KEY, Zone

Settings = Mapping[str, Any]
"""As D-Bus has them: each value with its type before it, and only what is not the default."""

RELOAD_PATIENCE: Final = 5.0  # seconds; 0.2 with the zones that come with firewalld 1.3 (measured)

_CONFIG: Final = f"{PATH}/config"
_ABOUT: Final = {
    "short": ("s", "weft"),
    "description": ("s", "Links of weft's networks: their verdicts are in nftables' table inet weft."),
}
_ZONE: Final[Settings] = {"target": ("s", "ACCEPT")}
_POLICY: Final[Settings] = {
    "target": ("s", "ACCEPT"),
    "ingress_zones": ("as", ["ANY"]),
    "egress_zones": ("as", [ZONE]),
}


@dataclass(frozen=True, slots=True)
class _Kind:
    """A zone or a policy: its name, its settings, and firewalld's words for what can be done with it."""

    name: str
    settings: Settings
    interface: str
    names: str
    read: str
    kept_names: str
    find: str
    add: str
    read_kept: str
    update: str


_KINDS: Final = (
    _Kind(
        name=ZONE,
        settings=_ZONE,
        interface="zone",
        names="getZones",
        read="getZoneSettings2",
        kept_names="getZoneNames",
        find="getZoneByName",
        add="addZone2",
        read_kept="getSettings2",
        update="update2",
    ),
    _Kind(
        name=POLICY,
        settings=_POLICY,
        interface="policy",
        names="getPolicies",
        read="getPolicySettings",
        kept_names="getPolicyNames",
        find="getPolicyByName",
        add="addPolicy",
        read_kept="getSettings",
        update="update",
    ),
)


class WeftZone:
    """Reads, makes and removes them. Raises ``HostFailure``, ``Refused`` or ``Conflict``."""

    def __init__(self, client: Client, others_in: Callable[[], list[str]]) -> None:
        """``others_in`` returns the links in the zone that somebody else put there."""
        self._client = client
        self._others_in = others_in
        self._in_vain = False
        self._age = object()
        self._remembered: tuple[object, Zone | None] | None = None

    def read(self, *, again: bool = False) -> Zone | None:
        """Return the zone with its policy, ``None`` if there is nothing of either; as remembered, or ``again``."""
        now, remembered = self._age, self._remembered
        if remembered is not None and remembered[0] is now and not again and self._client.present is not None:
            return remembered[1]
        kept = [self._kept(kind) for kind in _KINDS]
        loaded = [self._loaded(kind) for kind in _KINDS]
        found = None
        if any(one is not None for one in (*kept, *loaded)):
            found = Zone(key=ZONE_KEY, scope=HOST, kept=_are_right(kept), loaded=_are_right(loaded))
        self._in_vain = self._in_vain and not _are_right(loaded)
        self._remembered = (now, found)
        return found

    def forget(self) -> None:
        """Take note that the zone may be another one now, and what is being read meanwhile may be the old one."""
        self._age = object()

    def make(self) -> None:
        """Make them, or put them right; reload if that is what it takes."""
        try:
            self._make()
        finally:
            self.forget()

    def remove(self) -> None:
        """Remove them, unless somebody else uses the zone."""
        try:
            self._remove()
        finally:
            self.forget()

    def restarted(self) -> None:
        """Take note that firewalld is another one now: a reload may help again."""
        self._in_vain = False
        self.forget()

    def _make(self) -> None:
        for kind in _KINDS:
            kept = self._kept(kind)
            if kept is None:
                self._config(kind.add, "sa{sv}", kind.name, {**kind.settings, **_ABOUT})
            elif not _is_right(kind, kept):
                self._of_kept(kind, kind.update, "a{sv}", kind.settings)
        if self._is_loaded():
            return
        if self._in_vain:
            raise HostFailure(
                f"firewalld did not take zone {ZONE} by its last reload, and is not asked again: see its log"
            )
        self._in_vain = True
        self._reload()
        if not self._is_loaded():
            raise HostFailure(f"firewalld has reloaded, and zone {ZONE} is still not there: see its log")
        self._in_vain = False

    def _remove(self) -> None:
        users = [*self._others_in(), *self._others_naming()]
        if users:
            raise Conflict(
                f"firewalld's zone {ZONE} is used by {', '.join(users)}, which weft did not put there: "
                "see firewall-cmd --info-zone=weft and --list-all-policies"
            )
        for kind in reversed(_KINDS):
            if self._kept(kind) is not None:
                self._of_kept(kind, "remove")
        if any(self._loaded(kind) is not None for kind in _KINDS):
            self._reload()

    def _is_loaded(self) -> bool:
        return _are_right([self._loaded(kind) for kind in _KINDS])

    def _loaded(self, kind: _Kind) -> Settings | None:
        """Return what firewalld does now. Names first: it logs an error for each name that it does not know."""
        if kind.name not in self._client.first(method(kind.interface, kind.names)):
            return None
        return self._settings(method(kind.interface, kind.read, "s"), kind.name)

    def _kept(self, kind: _Kind) -> Settings | None:
        if kind.name not in self._config(kind.kept_names):
            return None
        return self._settings_at(kind, self._config(kind.find, "s", kind.name))

    def _others_naming(self) -> list[str]:
        """Return the policies of others that name the zone: without it, firewalld would not start with them."""
        (_, policies) = _KINDS
        found = []
        for name in self._config(policies.kept_names):
            settings = self._settings_at(policies, self._config(policies.find, "s", name))
            zones = (zone for way in ("ingress_zones", "egress_zones") for zone in _value(settings, way) or ())
            if name != POLICY and ZONE in zones:
                found.append(f"policy {name}")
        return found

    def _reload(self) -> None:
        self._client.ask(method("", "reload"), patience=RELOAD_PATIENCE)

    def _config(self, member: str, signature: str = "", *arguments: object) -> Any:  # noqa: ANN401 - see Client.first
        return self._client.first(method("config", member, signature, path=_CONFIG), *arguments)

    def _of_kept(self, kind: _Kind, member: str, signature: str = "", *arguments: object) -> None:
        at = self._config(kind.find, "s", kind.name)
        self._client.ask(method(f"config.{kind.interface}", member, signature, path=at), *arguments)

    def _settings_at(self, kind: _Kind, at: str) -> Settings:
        return self._settings(method(f"config.{kind.interface}", kind.read_kept, path=at))

    def _settings(self, *question: Any) -> Settings:  # noqa: ANN401 - a method and its arguments
        settings: Settings = self._client.first(*question)
        return settings


def _are_right(found: list[Settings | None]) -> bool:
    return all(one is not None and _is_right(kind, one) for kind, one in zip(_KINDS, found, strict=True))


def _is_right(kind: _Kind, found: Settings) -> bool:
    """Tell whether settings are what they should be; what else somebody has set there is his."""
    return all(_value(found, name) == value for name, (_, value) in kind.settings.items())


def _value(settings: Settings, name: str) -> Any:  # noqa: ANN401 - a D-Bus variant's
    return settings[name][1] if name in settings else None
