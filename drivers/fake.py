"""A host in memory: the kernel's links and settings, nft and iptables, for tests of whatever converges.

Three backends share one :class:`FakeHost`, so what one of them does to another is real: a bridge takes its addresses
with it and frees its ports, a table its elements. They refuse what the real ones refuse, with the same errno.

    host = FakeHost()
    converger = Converger(host.backends)

Tests play the rest of the world: ``plant`` (somebody makes an object), ``meddle`` and ``remove`` (somebody changes or
deletes one, perhaps ours), ``fail`` (a step is refused) and ``crash_after`` (the process dies between two steps; the
host stays as it is then). ``calls`` and ``steps`` count what was asked of it.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import RLock
from typing import ClassVar, Final

from drivers.contract import Backend, Dirty, Step
from drivers.errors import Conflict
from drivers.marks import Marks, describe
from drivers.resources import (
    HALF_MADE,
    TABLE_KEY,
    Bridge,
    Chain,
    Element,
    Foreign,
    HostAddress,
    Jump,
    Key,
    Resource,
    Rule,
    Scope,
    Setting,
    Table,
    Veth,
    chain_key,
    jump_key,
    link_key,
    setting,
)

UNMARKED: Final = "(in the group of weft's links)"
"""The mark of a half-made link: it has the group, and no alias yet."""


class Crash(BaseException):
    """The process dies here, as by SIGKILL."""


@dataclass(frozen=True, slots=True)
class Held:
    """An object of the host and the mark written on it; "" if whoever made it is no weft."""

    resource: Resource
    mark: str = ""


class FakeHost:
    """The state that the three backends share.

    ``store``        id of the store whose marks count as ours
    ``docker_user``  IP versions whose filter table has a chain DOCKER-USER
    ``objects``      all there is, whoever made it; settings apart, which exist with the value "0" until changed
    ``crash_after``  steps until :class:`Crash`; ``None``: never. Making a link is two steps, an nft batch is one
    ``faults``       steps that will be refused, by key, with how many times to go
    ``calls``        how often a backend was asked: ``calls["nft observe"]``, ``calls["kernel apply"]``
    ``steps``        every step that was taken with success, in order
    """

    def __init__(self, store: str = "fake", docker_user: Iterable[int] = (4, 6)) -> None:
        self.marks = Marks(store)
        self.docker_user = set(docker_user)
        self.objects: dict[Key, Held] = {}
        self.settings: dict[Key, str] = {}
        self.crash_after: int | None = None
        self.calls: Counter[str] = Counter()
        self.steps: list[Step] = []
        self.lock = RLock()
        self.faults: dict[Key, tuple[Exception, int | None]] = {}
        self._watchers: list[tuple[str, Dirty]] = []
        self._fakes: dict[str, FakeBackend] = {fake.name: fake(self) for fake in (FakeKernel, FakeNft, FakeXtables)}

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

    def fail(self, key: Key, error: Exception, *, times: int | None = 1) -> None:
        """Refuse the next ``times`` steps at ``key``; ``None``: all of them."""
        self.faults[key] = (error, times)

    def heal(self) -> None:
        """Take all failures back."""
        self.faults.clear()

    def watch(self, backend: str, dirty: Dirty) -> Callable[[], None]:
        """Call ``dirty`` when somebody else changes what ``backend`` holds, in the meddling thread."""
        watcher = (backend, dirty)
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher) if watcher in self._watchers else None

    @contextmanager
    def _by_others(self) -> Iterator[None]:
        with self.lock:
            before = self._seen()
            yield
            after = self._seen()
        changed = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
        owners = {key: _owner(before.get(key)) or _owner(after.get(key)) for key in changed}
        for backend, dirty in tuple(self._watchers):
            for scope in dict.fromkeys(owners[key] for key in changed if key.backend == backend):
                dirty(scope)

    def _seen(self) -> dict[Key, Resource | Foreign | None]:
        return {key: self._fakes[key.backend].see(key) for key in (*self.objects, *self.settings)}

    # -- for the backends -----------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Die here if it is time to."""
        if self.crash_after is None:
            return
        if self.crash_after == 0:
            self.crash_after = None
            raise Crash
        self.crash_after -= 1

    def stumble(self, key: Key) -> None:
        """Raise what a test asked for."""
        if key not in self.faults:
            return
        error, times = self.faults.pop(key)
        if times is None or times > 1:
            self.faults[key] = (error, times and times - 1)
        raise error

    def read(self, resource: Resource, mark: str) -> Resource | Foreign:
        """Return an object as it is read back: its value and whose it is. What a plan knows besides is not on it."""
        scope = HALF_MADE if mark == UNMARKED else self.marks.read(mark)
        if scope is None:
            return Foreign(resource.key, describe(mark))
        if isinstance(resource, Veth):
            resource = replace(resource, peer="", mac="")
        return replace(resource, scope=scope, needs=frozenset(), adopted=False, shared=False)


def _owner(seen: Resource | Foreign | None) -> Scope | None:
    return seen.scope if isinstance(seen, Resource) and seen.scope != HALF_MADE else None


def refuse(code: int, key: Key) -> OSError:
    """Return the refusal that the real one gives."""
    return OSError(code, os.strerror(code), str(key))


class FakeBackend:
    """What the three have in common; steps are taken one by one."""

    name: ClassVar[str]

    def __init__(self, host: FakeHost) -> None:
        self.host = host

    def observe(self, keys: Collection[Key]) -> Mapping[Key, Resource | Foreign]:
        """Return what is at the keys."""
        with self.host.lock:
            self.host.calls[f"{self.name} observe"] += 1
            return {key: seen for key in keys if (seen := self.see(key)) is not None}

    def survey(self) -> Mapping[Key, Resource]:
        """Return what carries our store's mark: no settings, no half-made links."""
        with self.host.lock:
            self.host.calls[f"{self.name} survey"] += 1
            seen = [(key, self.see(key)) for key in self.host.objects if key.backend == self.name]
            return {key: one for key, one in seen if isinstance(one, Resource) and one.scope != HALF_MADE}

    def apply(self, steps: Sequence[Step]) -> Mapping[Key, Exception]:
        """Take the steps and return what was refused."""
        failures: dict[Key, Exception] = {}
        with self.host.lock:
            self.host.calls[f"{self.name} apply"] += 1
            for step in steps:
                self.host.tick()
                try:
                    self.take(step)
                except Exception as error:  # noqa: BLE001 - whatever a test injected
                    failures[step.key] = error
                else:
                    self.host.steps.append(step)
        return failures

    def watch(self, dirty: Dirty) -> Callable[[], None]:
        """Call ``dirty`` when somebody else changes something."""
        return self.host.watch(self.name, dirty)

    def take(self, step: Step) -> None:
        """Take one step or raise. Making what is equal is a success; so is deleting what is gone, or another's now."""
        self.host.stumble(step.key)
        seen = self.see(step.key)
        if step.new is None:
            if isinstance(seen, Resource) and seen.scope == step.resource.scope:
                self.delete(step.key)
        elif seen != step.new:
            if step.old is None and seen is not None:
                raise refuse(errno.EEXIST, step.key)
            self.make(step.new)

    def see(self, key: Key) -> Resource | Foreign | None:
        """Return what is at a key."""
        held = self.host.objects.get(key)
        return None if held is None else self.host.read(held.resource, held.mark)

    def make(self, new: Resource) -> None:
        """Make or change an object, with its mark."""
        self.host.objects[new.key] = Held(new, self.host.marks.write(new.scope))

    def delete(self, key: Key) -> None:
        """Delete an object if it is there."""
        self.host.objects.pop(key, None)


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
        """Delete an object; a link takes its addresses with it, and a bridge frees its ports."""
        super().delete(key)
        if key.kind != "link":
            return
        for other, held in tuple(self.host.objects.items()):
            if other.kind == "address" and other.at[0] == key.at[0]:
                super().delete(other)
            elif isinstance(held.resource, Veth) and held.resource.bridge == key.at[0]:
                self.host.objects[other] = replace(held, resource=replace(held.resource, bridge=""))


class FakeNft(FakeBackend):
    """The table ``inet weft`` and its elements. A batch is one transaction."""

    name = "nft"

    def apply(self, steps: Sequence[Step]) -> Mapping[Key, Exception]:
        """Take the steps at once; if one is refused, none of them is taken, and then each by itself."""
        with self.host.lock:
            self.host.tick()
            objects, faults = dict(self.host.objects), dict(self.host.faults)
            try:
                for step in steps:
                    self.take(step)
            except Exception:  # noqa: BLE001 - whatever a test injected
                self.host.objects, self.host.faults = objects, faults
                return super().apply(steps)
            self.host.calls["nft apply"] += 1
            self.host.steps += steps
        return {}

    def make(self, new: Resource) -> None:
        """Make the table, which keeps its elements when it is replaced, or an element of one of its sets."""
        if isinstance(new, Element):
            table = self.host.objects.get(TABLE_KEY)
            text = table.resource.text if table and isinstance(table.resource, Table) else ""
            if f"set {new.set_name} " not in text:
                raise refuse(errno.ENOENT, new.key)
        super().make(new)

    def take(self, step: Step) -> None:
        """Take one step or raise. The table is not deleted under another weft's elements."""
        elements = (self.see(key) for key in self.host.objects if key.backend == "nft")
        if step.key == TABLE_KEY and step.new is None and any(isinstance(one, Foreign) for one in elements):
            raise Conflict("table inet weft still holds elements of others")
        super().take(step)

    def delete(self, key: Key) -> None:
        """Delete an element, or the table with all its elements."""
        for gone in [one for one in self.host.objects if one.backend == "nft"] if key == TABLE_KEY else [key]:
            super().delete(gone)


class FakeXtables(FakeBackend):
    """iptables and ip6tables: our chain, its rules, and the jump from DOCKER-USER."""

    name = "xtables"

    def make(self, new: Resource) -> None:
        """Make a chain, a rule in it, or the jump to it."""
        if isinstance(new, Rule | Jump) and chain_key(new.version) not in self.host.objects:
            raise refuse(errno.ENOENT, chain_key(new.version))
        if isinstance(new, Jump) and new.version not in self.host.docker_user:
            raise refuse(errno.ENOENT, new.key)
        super().make(new)

    def delete(self, key: Key) -> None:
        """Delete a rule, the jump, or the chain with all its rules, unless something jumps to it."""
        held = self.host.objects.get(key)
        if held is not None and isinstance(held.resource, Chain):
            if jump_key(held.resource.version) in self.host.objects:
                raise refuse(errno.EBUSY, key)
            for rule in [one for one in self.host.objects if one.kind == "rule" and one.at[0] == key.at[0]]:
                super().delete(rule)
        super().delete(key)
