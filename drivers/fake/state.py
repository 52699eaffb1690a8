"""What is on the fake host, and what happens to whoever changes it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from threading import RLock
from typing import Final

from drivers.contract import Dirty, Step
from drivers.marks import Marks, describe
from drivers.resources import (
    HALF_MADE,
    Foreign,
    Key,
    Resource,
    Veth,
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


class State:
    """What the backends share. The fields are those of :class:`drivers.fake.host.FakeHost`."""

    def __init__(self, store: str = "fake", docker_user: Iterable[int] = (4, 6), *, firewalld: bool = False) -> None:
        self.marks = Marks(store)
        self.docker_user = set(docker_user)
        self.firewalld = firewalld
        self.on_disk: Held | None = None
        self.objects: dict[Key, Held] = {}
        self.settings: dict[Key, str] = {}
        self.crash_after: int | None = None
        self.calls: Counter[str] = Counter()
        self.steps: list[Step] = []
        self.lock = RLock()
        self.faults: dict[Key, tuple[Exception, int | None]] = {}
        self.watchers: list[tuple[str, Dirty]] = []

    def tick(self) -> None:
        """Die here if it is time to."""
        if self.crash_after is None:
            return
        if self.crash_after == 0:
            self.crash_after = None
            self.restart()
            raise Crash
        self.crash_after -= 1

    def restart(self) -> None:
        """Let the process end: its sockets are closed, all else stays."""
        ours = [key for key, held in self.objects.items() if key.backend == "sockets" and held.mark]
        for key in ours:
            del self.objects[key]

    def watch(self, backend: str, dirty: Dirty) -> Callable[[], None]:
        """Call ``dirty`` when somebody else changes what ``backend`` holds, in the meddling thread."""
        watcher = (backend, dirty)
        self.watchers.append(watcher)
        return lambda: self.watchers.remove(watcher) if watcher in self.watchers else None

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


def refuse(code: int, key: Key) -> OSError:
    """Return the refusal that the real one gives."""
    return OSError(code, os.strerror(code), str(key))
