"""What a planner and a backend promise. Everything else in drivers/ is one or the other, or the loop between them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from drivers.facts import HostFacts
from drivers.model import Endpoint, Network, Use
from drivers.resources import Foreign, Key, Rank, Resource, Scope


@dataclass(frozen=True, slots=True)
class Step:
    """One change. ``old`` None: create; ``new`` None: delete; both: change in place, or delete + create at once."""

    old: Resource | None
    new: Resource | None

    @property
    def resource(self) -> Resource:
        """The resource the step is about: the new one, else the old."""
        resource = self.new or self.old
        if resource is None:
            raise ValueError("a step without a resource is no step")
        return resource

    @property
    def key(self) -> Key:
        """The key it changes."""
        return self.resource.key

    @property
    def rank(self) -> Rank:
        """When it is taken."""
        return self.resource.rank

    def __str__(self) -> str:
        if self.new is None:
            return self.resource.undo()
        if self.old is None:
            return f"{self.new}"
        was = f"{self.old}"
        return f"{self.new}  # " + ("not known to be whole" if was == f"{self.new}" else f"was: {was}")


Effect = Callable[[Sequence[Step]], None]
"""What follows from steps that were taken and is no state of its own: idempotent, never diffed, and never raises."""


class Planner(Protocol):
    """Says what should exist. Pure: no I/O, clock or randomness; equal arguments give equal answers.

    Each function returns resources of its own scope only, and never looks at siblings.
    """

    def host(self, facts: HostFacts, use: Use) -> tuple[Resource, ...]:
        """Return what the host as a whole needs."""
        ...

    def network(self, facts: HostFacts, network: Network) -> tuple[Resource, ...]:
        """Return what one network needs."""
        ...

    def endpoint(self, facts: HostFacts, network: Network, endpoint: Endpoint) -> tuple[Resource, ...]:
        """Return what one endpoint needs."""
        ...


Dirty = Callable[[Scope | None], None]
"""Called by a watch: this scope may differ from what is wanted; ``None``: anything may."""


class Backend(Protocol):
    """One side of the host that holds state: reads it back, changes it, tells of changes by others."""

    def observe(self, keys: Collection[Key]) -> Mapping[Key, Resource | Foreign]:
        """Return what is at ``keys``; what does not exist is left out. O(len(keys)), never a dump."""
        ...

    def survey(self) -> Mapping[Key, Resource]:
        """Return all that carries our mark and our store's id, by one dump."""
        ...

    def apply(self, steps: Sequence[Step]) -> Mapping[Key, Exception]:
        """Take the steps of one rank as one batch and return the failures. Taking them again is a no-op."""
        ...

    def watch(self, dirty: Dirty) -> Callable[[], None]:
        """Call ``dirty`` on changes made by others, from a thread of its own; return what stops and joins it."""
        ...
