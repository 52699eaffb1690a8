"""The fake host, with the rest of the world on it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from drivers.contract import Backend
from drivers.fake.backend import FakeBackend
from drivers.fake.firewalld import FakeFirewalld
from drivers.fake.kernel import FakeKernel
from drivers.fake.nft import FakeNft, FakeNftBridge
from drivers.fake.ovsdb import FakeOvsdb
from drivers.fake.sockets import FakeSockets
from drivers.fake.state import Held, State
from drivers.fake.xtables import FakeXtables
from drivers.resources import (
    HALF_MADE,
    ZONE_KEY,
    Foreign,
    Key,
    Resource,
    Scope,
    Setting,
)

_FAKES: Final = (FakeKernel, FakeNft, FakeNftBridge, FakeXtables, FakeSockets, FakeFirewalld, FakeOvsdb)


class FakeHost(State):
    """The state that the backends share, and what others do to it.

    ``store``        id of the store whose marks count as ours
    ``docker_user``  IP versions whose filter table has a chain DOCKER-USER
    ``firewalld``    firewalld runs; ``on_disk`` is the zone that it will have when it runs again
    ``objects``      all there is, whoever made it; settings apart, which exist with the value "0" until changed
    ``crash_after``  steps until :class:`Crash`; ``None``: never. Making a link is two steps, and so is making a
                    port of Open vSwitch anew; a batch of nft's or OVSDB's is one
    ``faults``       steps that will be refused, by key, with how many times to go
    ``calls``        how often a backend was asked: ``calls["nft observe"]``, ``calls["kernel apply"]``
    ``steps``        every step that was taken with success, in order
    """

    def __init__(self, store: str = "fake", docker_user: Iterable[int] = (4, 6), *, firewalld: bool = False) -> None:
        super().__init__(store, docker_user, firewalld=firewalld)
        self._fakes: dict[str, FakeBackend] = {fake.name: fake(self) for fake in _FAKES}

    @property
    def backends(self) -> dict[str, Backend]:
        """The backends by the names that keys have for them."""
        return dict(self._fakes)

    # -- the rest of the world ------------------------------------------------------------------------------------

    def plant(self, resource: Resource, mark: str = "") -> None:
        """Let somebody make an object (or replace one). ``mark`` may be another store's, or :data:`UNMARKED`."""
        with self._by_others():
            if isinstance(resource, Setting):
                self.settings[resource.key] = resource.value
            else:
                self.objects[resource.key] = Held(resource, mark)

    def meddle(self, key: Key, **changes: object) -> None:
        """Let somebody change fields of an object, which keeps its mark: ``meddle(key, mtu=1400)``."""
        held = self.objects[key]
        self.plant(replace(held.resource, **changes), held.mark)  # type: ignore[arg-type] # the fields of any resource

    def remove(self, key: Key) -> None:
        """Let somebody delete an object, with all that goes with it."""
        with self._by_others():
            self._fakes[key.backend].delete(key)

    def start_firewalld(self) -> None:
        """Let firewalld come: it has the zone from its disk, and no link in it."""
        with self._by_others():
            self.firewalld = True
            if self.on_disk is not None:
                self.objects[ZONE_KEY] = self.on_disk

    def stop_firewalld(self) -> None:
        """Let firewalld go: nothing of it is to be seen."""
        with self._by_others():
            self.firewalld = False
            self.on_disk = self.objects.get(ZONE_KEY)
            self._fakes["firewalld"].delete(ZONE_KEY)

    def fail(self, key: Key, error: Exception, *, times: int | None = 1) -> None:
        """Refuse the next ``times`` steps at ``key``; ``None``: all of them."""
        self.faults[key] = (error, times)

    def heal(self) -> None:
        """Take all failures back."""
        self.faults.clear()

    @contextmanager
    def _by_others(self) -> Iterator[None]:
        with self.lock:
            before = self._seen()
            yield
            after = self._seen()
        changed = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
        owners = {key: _owner(before.get(key)) or _owner(after.get(key)) for key in changed}
        for backend, dirty in tuple(self.watchers):
            for scope in dict.fromkeys(owners[key] for key in changed if key.backend == backend):
                dirty(scope)

    def _seen(self) -> dict[Key, Resource | Foreign | None]:
        return {key: self._fakes[key.backend].see(key) for key in (*self.objects, *self.settings)}


def _owner(seen: Resource | Foreign | None) -> Scope | None:
    return seen.scope if isinstance(seen, Resource) and seen.scope != HALF_MADE else None
