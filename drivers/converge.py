"""Bring one scope to what is wanted: observe, diff, apply by rank. The only place where steps are taken.

It goes on past failures that do not depend on each other and raises them together, so one look at the error shows
all that is wrong. Taking it again after any of them, or after a crash at any point, is always right.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from drivers.contract import Backend, Step
from drivers.diff import Difference, diff
from drivers.errors import Conflict, HostFailure, NotFound, WeftError
from drivers.resources import Foreign, Key, Rank, Resource, Scope


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one converge did: the steps taken, in order, those put off for later, and what it had to do without."""

    taken: tuple[Step, ...] = ()
    deferred: tuple[Step, ...] = ()
    lacking: tuple[Exception, ...] = ()


class Incomplete(ExceptionGroup[Exception]):
    """What failed in one converge, each a :class:`WeftError`; ``taken`` are the steps that did not fail, in order."""

    taken: tuple[Step, ...] = ()

    def derive(self, excs: Sequence[Exception], /) -> Incomplete:  # type: ignore[override]
        """Return the same with other failures, as ``split`` wants it."""
        other = Incomplete(self.message, excs)
        other.taken = self.taken
        return other


def order(steps: Iterable[Step]) -> list[Step]:
    """Return the steps in the order that never leaves a door open.

    Fences are built first and pulled down last; in between, what is no longer wanted goes from the outside in, then
    what is wanted is built from the device up. Within a rank, what needs nothing comes first.
    """

    def turn(step: Step) -> tuple[int, int, str, bool, Key]:
        rank = step.rank
        place = (step.key.backend, bool(step.resource.needs), step.key)
        if step.new is None:
            return (3, -rank, *place) if rank is Rank.FENCE else (1, -rank, *place)
        return (0, rank, *place) if rank is Rank.FENCE else (2, rank, *place)

    return sorted(steps, key=turn)


def _batch(step: Step) -> tuple[bool, Rank, str, bool]:
    """Return what steps that may be taken together have in common; none of them needs another one."""
    return (step.new is None, step.rank, step.key.backend, bool(step.resource.needs))


@dataclass(frozen=True, slots=True)
class Converger:
    """Observes and applies through backends, each by its name in the keys.

    ``checkpoint`` is called before each batch of steps and may raise, for a deadline; what was done by then stays
    and is withdrawn by the next converge.
    """

    backends: Mapping[str, Backend]
    checkpoint: Callable[[], None] = field(default=lambda: None)

    def observe(self, keys: Collection[Key]) -> dict[Key, Resource | Foreign]:
        """Return what is at the keys."""
        by_backend: dict[str, list[Key]] = defaultdict(list)
        for key in keys:
            by_backend[key.backend].append(key)
        observed: dict[Key, Resource | Foreign] = {}
        for name, asked in by_backend.items():
            observed.update(self.backends[name].observe(asked))
        return observed

    def survey(self, *, partial: bool = False) -> dict[Scope, dict[Key, Resource]]:
        """Return all of ours on this host, by scope; if ``partial``, but for backends that do not answer."""
        scopes: dict[Scope, dict[Key, Resource]] = defaultdict(dict)
        for backend in self.backends.values():
            try:
                found = backend.survey()
            except WeftError:
                if not partial:
                    raise
                continue
            for key, resource in found.items():
                scopes[resource.scope][key] = resource
        return dict(scopes)

    def difference(self, scope: Scope, wanted: Collection[Resource], keys: Collection[Key] = ()) -> Difference:
        """Return what :meth:`converge` would do, without doing it."""
        return diff(scope, wanted, self.observe({resource.key for resource in wanted} | set(keys)))

    def converge(
        self,
        scope: Scope,
        wanted: Collection[Resource],
        keys: Collection[Key] = (),
        *,
        defer: Callable[[Step], bool] = lambda _: False,
    ) -> Outcome:
        """Make the host have ``wanted`` and nothing else of this scope at ``keys``.

        ``defer`` picks steps that may be put off; they are returned, not taken. Raises :class:`Incomplete` if anything
        failed; the rest is done all the same. Failures of what is optional are returned, unless there are others.
        """
        found = self.difference(scope, wanted, keys)
        failures: dict[Key, Exception] = {
            foreign.key: Conflict(f"{scope}: {foreign.key} is taken by {foreign.what}") for foreign in found.conflicts
        }
        failures |= {
            resource.key: NotFound(f"{scope}: {resource.key} does not exist, and is the operator's to make: {resource}")
            for resource in found.missing
        }
        taken: list[Step] = []
        deferred = [step for step in found.steps if defer(step)]
        steps = order(step for step in found.steps if step not in deferred)
        skipped: set[Key] = set()
        for _, group in groupby(steps, key=_batch):
            ready: list[Step] = []
            for step in group:
                if step.new and not step.new.needs.isdisjoint(failures.keys() | skipped):
                    skipped.add(step.key)
                else:
                    ready.append(step)
            if not ready:
                continue
            self.checkpoint()
            failed = self.backends[ready[0].key.backend].apply(ready)
            failures |= {key: _explained(scope, key, error) for key, error in failed.items()}
            taken += [step for step in ready if step.key not in failed]
        optional = {step.key for step in found.steps if step.resource.optional}
        if failures.keys() - optional:
            incomplete = Incomplete(f"{scope} could not be brought to what is wanted", list(failures.values()))
            incomplete.taken = tuple(taken)
            raise incomplete
        return Outcome(tuple(taken), tuple(deferred), tuple(failures.values()))


def _explained(scope: Scope, key: Key, error: Exception) -> Exception:
    return error if isinstance(error, WeftError) else HostFailure(f"{scope}: {key}: {error}")
