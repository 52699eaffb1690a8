"""What the tests of every backend ask of it: to make, to remove, and to tell what is there."""

from drivers.contract import Backend, Step
from drivers.resources import Foreign, Key, Resource


def create(*resources: Resource) -> list[Step]:
    """Return the steps that make them."""
    return [Step(None, resource) for resource in resources]


def delete(*resources: Resource) -> list[Step]:
    """Return the steps that remove them."""
    return [Step(resource, None) for resource in resources]


def applied(backend: Backend, *wanted: Resource) -> None:
    """Make them, and be sure that nothing failed."""
    failures = backend.apply(create(*wanted))
    assert not failures, failures


def observed(backend: Backend, *resources: Resource) -> dict[Key, Resource | Foreign]:
    """Return what is at their keys."""
    return dict(backend.observe([resource.key for resource in resources]))
