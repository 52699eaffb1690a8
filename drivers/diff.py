"""Compare what is with what should be. Pure: two mappings in, steps and conflicts out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from drivers.contract import Step
from drivers.resources import HALF_MADE, Foreign, Key, Resource, Scope, Setting


@dataclass(frozen=True, slots=True)
class Difference:
    """What it takes to get from observed to wanted.

    ``steps``      in no particular order; each touches only what carries the scope
    ``conflicts``  keys we want that somebody without our mark, or another scope, holds
    ``missing``    adopted resources that do not exist: only the operator can make them
    """

    steps: tuple[Step, ...] = ()
    conflicts: tuple[Foreign, ...] = ()
    missing: tuple[Resource, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.steps or self.conflicts or self.missing)


def diff(scope: Scope, wanted: Iterable[Resource], observed: Mapping[Key, Resource | Foreign]) -> Difference:
    """Compare the resources of one scope with what is there.

    A key that somebody else holds is a conflict if we want it and no business of ours if we do not. What the operator
    has made for us to use need only be there.
    """
    steps: list[Step] = []
    conflicts: list[Foreign] = []
    missing: list[Resource] = []
    ours = (scope, HALF_MADE)
    want = {resource.key: resource for resource in wanted}
    for key, resource in want.items():
        match observed.get(key):
            case None if resource.adopted:
                missing.append(resource)
            case None:
                steps.append(Step(None, resource))
            case Foreign() | Resource() if resource.adopted and not isinstance(resource, Setting):
                pass
            case Foreign() as foreign:
                if not resource.shared:
                    conflicts.append(foreign)
            case found if found.scope not in ours:
                conflicts.append(Foreign(key, f"{found.scope}"))
            case found if found != resource:
                steps.append(Step(found, resource))
    unwanted = (found for key, found in observed.items() if key not in want and not isinstance(found, Foreign))
    steps += [Step(found, None) for found in unwanted if found.scope in ours and not found.adopted]
    return Difference(tuple(steps), tuple(conflicts), tuple(missing))
