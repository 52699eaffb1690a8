from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from drivers.naming import link_name
from plugin.docker import DockerNetwork, Unreachable
from plugin.engine.orphans import APART_SECONDS, AT_START_SECONDS, Orphans
from tests.lab.wait import await_
from tests.plugin.samples import endpoint_id, endpoint_request, network_id, network_request
from tests.plugin.world import FOREVER, World, now


@dataclass
class FakeDocker:
    """Docker's own list, as a test says it is."""

    listed: list[DockerNetwork] = field(default_factory=list)
    reachable: bool = True
    looks: int = 0

    def networks(self, *, driver: str) -> list[DockerNetwork]:
        """Return the list."""
        assert driver == "weft"
        return self.listed

    def bridges(self) -> frozenset[str]:
        """Return nothing, or fail."""
        self.looks += 1
        if not self.reachable:
            raise Unreachable("no")
        return frozenset()


@dataclass
class Case:
    """A world, a Docker, a clock, and what looks at them."""

    world: World
    docker: FakeDocker
    orphans: Orphans
    time: list[float]

    def look(self, after: float = 0) -> None:
        """Look at Docker's list some seconds later."""
        self.time[0] += after
        self.orphans.look()

    def known(self) -> set[str]:
        """Return the ids that weft holds."""
        self.world.await_as_wanted()
        return {row.id for row in self.world.store.networks()} | {row.id for row in self.world.store.endpoints()}


@pytest.fixture
def case(tmp_path: Path) -> Iterator[Case]:
    world, docker, time = World(tmp_path), FakeDocker(), [1000.0]
    world.start()
    world.networks.create(network_request(1), now())
    world.endpoints.create(endpoint_request(1), now())
    orphans = Orphans(
        world.store,
        docker,
        world.addresses,
        delete_network=world.networks.delete,
        delete_endpoint=world.endpoints.delete,
        is_plugged=world.host.is_plugged,
        tell_bridges=world.runtime.judge_bridges,
        interval=FOREVER,
        clock=lambda: time[0],
    )
    yield Case(world, docker, orphans, time)
    orphans.stop()
    world.close()


def _listed(*containers: str) -> DockerNetwork:
    return DockerNetwork(network_id(1), "n1", "weft", dict.fromkeys(containers, "c"))


BOTH = {network_id(1), endpoint_id(1)}


def test_what_docker_lists_stays(case: Case) -> None:
    case.docker.listed = [_listed(endpoint_id(1))]
    case.look()
    case.look(APART_SECONDS * 10)
    assert case.known() == BOTH


def test_one_look_is_not_enough(case: Case) -> None:
    case.look()
    case.look(APART_SECONDS - 1)
    assert case.known() == BOTH


def test_two_looks_apart_sweep(case: Case) -> None:
    case.docker.listed = [_listed()]
    case.look()
    case.look(APART_SECONDS)
    assert case.known() == {network_id(1)}
    case.docker.listed = []
    case.look()
    case.look(APART_SECONDS)
    assert case.known() == set()


def _started(case: Case) -> None:
    case.orphans.start()
    await_(lambda: case.docker.looks == 1, 30, "the look at the start")


def test_what_was_forgotten_before_the_start_waits_for_less(case: Case) -> None:
    _started(case)
    case.look(AT_START_SECONDS - 1)
    assert case.known() == BOTH
    case.look(1)
    assert case.known() == set()


def test_what_comes_after_the_start_waits_as_long_as_ever(case: Case) -> None:
    case.docker.listed = [_listed(endpoint_id(1))]
    _started(case)
    case.docker.listed = []
    case.look()
    case.look(AT_START_SECONDS)
    assert case.known() == BOTH


def test_a_list_that_is_not_there_yet_at_the_start_is_asked_for_again(case: Case) -> None:
    case.docker.reachable = False
    _started(case)
    case.docker.reachable = True
    case.look(APART_SECONDS)
    assert case.known() == BOTH
    case.look(AT_START_SECONDS)
    assert case.known() == set()


def test_what_came_back_in_between_was_not_forgotten(case: Case) -> None:
    case.look()
    case.docker.listed = [_listed(endpoint_id(1))]
    case.look(APART_SECONDS)
    case.docker.listed = []
    case.look()
    assert case.known() == BOTH


def test_a_list_that_was_not_read_tells_nothing(case: Case) -> None:
    case.look()
    case.docker.reachable = False
    case.look(APART_SECONDS * 10)
    assert case.known() == BOTH


def test_what_a_container_has_plugged_in_is_never_swept(case: Case) -> None:
    case.world.host.plugged.add(link_name("h", endpoint_id(1)))
    case.look()
    case.look(APART_SECONDS * 10)
    assert case.known() == BOTH


def test_it_looks_at_once_when_something_is_suspicious(case: Case) -> None:
    case.orphans.start()
    await_(lambda: case.docker.looks == 1, 30, "the look at the start")
    case.orphans.look_soon()
    await_(lambda: case.docker.looks == 2, 30, "the look after a suspicion")
