"""What the fake backends have in common."""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import ClassVar

from drivers.contract import Dirty, Step
from drivers.fake.state import Held, State, refuse
from drivers.resources import (
    HALF_MADE,
    Foreign,
    Key,
    Resource,
)


class FakeBackend:
    """Observes and changes a part of the state; steps are taken one by one."""

    name: ClassVar[str]

    def __init__(self, host: State) -> None:
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


class FakeTransactions(FakeBackend):
    """A batch is one transaction."""

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
            self.host.calls[f"{self.name} apply"] += 1
            self.host.steps += steps
        return {}
