"""Publishing on a host in memory: what is claimed, held and translated, and that nothing of it is left."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from drivers.errors import Conflict, InvalidRequest, NotFound
from drivers.fake import Crash
from drivers.naming import link_name
from drivers.resources import Bridge, Hold, Key, Publish, Resource, element_key, hold_key, link_key, scope_of
from plugin.ports import parse
from plugin.requests import PortRequest
from tests.plugin.samples import endpoint_id, endpoint_request, network_id, network_request
from tests.plugin.world import World, now

ANN, BOB = endpoint_id(1), endpoint_id(2)
BRIDGE = link_key(link_name("b", network_id(1)))


@pytest.fixture
def world(world: World) -> World:
    world.networks.create(network_request(), now())
    return world


def make(world: World, number: int, *ports: str, plugged: bool = True) -> str:
    """Make an endpoint that wants ports published; return its id."""
    world.endpoints.create(endpoint_request(number, ports=tuple(map(parse, ports))), now())
    if plugged:
        world.host.plugged.add(link_name("h", endpoint_id(number)))
    return endpoint_id(number)


def publish(world: World, number: int, *ports: str) -> str:
    """Make an endpoint that publishes ports."""
    ident = make(world, number, *ports)
    world.ports.program(ident, now())
    return ident


def claimed(world: World, ident: str | None = None) -> list[tuple[int, int, int]]:
    """Return version, first and last host port of what is claimed."""
    rows = [row.publication for row in world.store.ports.rows(ident)]
    return [(one.version, one.first, one.last) for one in rows]


def opened(world: World, ident: str) -> list[Resource]:
    """Return what there is on the host for the ports of an endpoint."""
    ours = world.marked().get(scope_of(network_id(1), ident), [])
    return [resource for resource in ours if isinstance(resource, Hold | Publish)]


def keys(world: World, ident: str) -> list[str]:
    """Return the same by what and where."""
    return sorted(f"{one.key.kind} {' '.join(one.key.at)}" for one in opened(world, ident))


def routes_loopback(world: World) -> bool:
    """Tell whether the bridge routes 127.0.0.0/8."""
    bridge = world.host.fake.objects[BRIDGE].resource
    assert isinstance(bridge, Bridge)
    return bridge.route_localnet


# -- Program and Revoke ---------------------------------------------------------------------------------------------


def test_between_program_and_revoke_and_not_longer(world: World) -> None:
    make(world, 1, "8080:80", "10000-19999:10000-19999/udp")
    assert (claimed(world), opened(world, ANN)) == ([], [])
    world.ports.program(ANN, now())
    assert claimed(world) == [(4, 8080, 8080), (6, 8080, 8080), (4, 10000, 19999)]
    assert keys(world, ANN) == [
        "hold tcp 0.0.0.0 8080",
        "hold tcp :: 8080",
        "hold udp 0.0.0.0 10000-19999",
        "publish4 tcp 8080",
        "range4 udp 10000-19999",
    ]
    world.ports.revoke(ANN, now())
    assert (claimed(world), opened(world, ANN)) == ([], [])
    assert not world.runtime.findings()


def test_a_second_program_changes_nothing(world: World) -> None:
    publish(world, 1, "8080:80", "81")
    before, steps, commits = claimed(world), len(world.host.fake.steps), world.store.commits
    world.ports.program(ANN, now())
    assert (claimed(world), len(world.host.fake.steps), world.store.commits) == (before, steps, commits)


def test_two_programs_at_once_are_one(world: World) -> None:
    for number in range(1, 9):
        port = 8000 + number
        ident = make(world, number, f"{port}:80")
        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(world.ports.program, ident, now()) for _ in range(2)]:
                done.result()
        assert claimed(world, ident) == [(4, port, port), (6, port, port)]
    assert not world.runtime.findings()


def test_revoke_comes_without_program_and_of_the_unknown(world: World) -> None:
    make(world, 1, "8080:80")
    world.ports.revoke(ANN, now())
    world.ports.revoke(BOB, now())
    assert claimed(world) == []
    with pytest.raises(NotFound):
        world.ports.program(BOB, now())


def test_the_way_out_moves_any_number_of_times(world: World) -> None:
    make(world, 1, "8080:80")
    for _ in range(3):
        world.ports.program(ANN, now())
        assert len(opened(world, ANN)) == 3
        world.ports.revoke(ANN, now())
        assert (claimed(world), opened(world, ANN)) == ([], [])


def test_a_container_is_given_its_old_way_out_back_before_the_new_one_is_taken_away(world: World) -> None:
    """Docker got no answer to the Program of the new one: it programs the old one first, then leaves the new one."""
    world.networks.create(network_request(2), now())
    make(world, 1, "8080:80")
    world.endpoints.create(endpoint_request(2, on=2, ports=(parse("8080:80"),)), now())
    world.host.plugged.add(link_name("h", BOB))
    for ident in (ANN, BOB):
        world.endpoints.join(ident, "/var/run/docker/netns/0123456789ab")
    world.ports.program(ANN, now())
    world.ports.revoke(ANN, now())
    world.ports.program(BOB, now())
    world.ports.program(ANN, now())
    assert (claimed(world, ANN), claimed(world, BOB)) == ([(4, 8080, 8080), (6, 8080, 8080)], [])
    assert not world.runtime.findings()
    world.endpoints.leave(BOB)
    world.endpoints.delete(BOB, now())
    world.await_as_wanted()
    assert claimed(world) == [(4, 8080, 8080), (6, 8080, 8080)]


def test_an_endpoint_is_deleted_with_its_ports(world: World) -> None:
    publish(world, 1, "8080:80")
    world.ports.revoke(ANN, now())
    world.endpoints.delete(ANN, now())
    world.await_as_wanted()
    assert publish(world, 2, "8080:80") == BOB


# -- failures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    [
        hold_key("tcp", "0.0.0.0", 8080, 8080),  # noqa: S104 - a key
        hold_key("tcp", "::", 8080, 8080),
        element_key("publish4", "tcp", "8080"),
    ],
    ids=lambda key: key.kind + key.at[1].replace(".", ""),
)
def test_a_program_that_fails_leaves_nothing(world: World, key: Key) -> None:
    make(world, 1, "8079:79", "8080:80", "127.0.0.1:8081:81")
    world.host.fake.fail(key, OSError(errno.EADDRINUSE, "somebody has it"))
    with pytest.raises(ExceptionGroup) as failed:
        world.ports.program(ANN, now())
    assert "somebody has it" in str(failed.value.exceptions)
    assert (claimed(world), opened(world, ANN), routes_loopback(world)) == ([], [], False)
    row = world.store.endpoint(ANN)
    assert row is not None
    assert not row.external
    world.ports.program(ANN, now())  # as `docker start` does
    assert len(opened(world, ANN)) == 8


def test_an_address_that_nothing_can_serve_fails_before_anything_is_claimed(world: World) -> None:
    make(world, 1, "8080:80", "[::1]:9:9/sctp")
    with pytest.raises(InvalidRequest, match="no IPv6 address"):
        world.ports.program(ANN, now())
    assert (claimed(world), opened(world, ANN)) == ([], [])


def test_a_port_of_a_live_container_is_a_conflict_and_of_a_dead_one_is_taken_over(world: World) -> None:
    publish(world, 1, "8080:80")
    make(world, 2, "8079:79", "8080:80")
    with pytest.raises(Conflict, match=f"8080/tcp is published by endpoint {ANN[:12]}"):
        world.ports.program(BOB, now())
    assert opened(world, BOB) == []
    assert len(opened(world, ANN)) == 3
    assert claimed(world) == claimed(world, ANN)
    world.host.plugged.remove(link_name("h", ANN))
    world.ports.program(BOB, now())
    assert opened(world, ANN) == []
    assert len(opened(world, BOB)) == 6
    world.await_as_wanted()
    assert world.store.endpoint(ANN) is None


@pytest.mark.parametrize("steps", range(3))
def test_a_crash_in_the_middle_is_settled_at_the_start(world: World, steps: int) -> None:
    """Revoke dies before one of its steps; the ports are free for another after the next start."""
    publish(world, 1, "8080:80")
    world.host.fake.crash_after = steps
    with pytest.raises(Crash):
        world.ports.revoke(ANN, now())
    world.host.fake.crash_after = None
    world.store.ports.release_idle()  # as the server does at a start
    world.restart()
    assert claimed(world) == []
    assert opened(world, ANN) == []
    publish(world, 2, "8080:80")
    assert len(opened(world, BOB)) == 3


def test_a_crash_between_closing_and_letting_go_is_settled_at_the_start(world: World) -> None:
    publish(world, 1, "8080:80", "8081:81")
    world.store.ports.close([row for row in world.store.ports.rows(ANN) if row.publication.first == 8080])
    make(world, 2, "8080:80")
    with pytest.raises(Conflict):  # the host may still lead it to ann
        world.ports.program(BOB, now())
    world.store.ports.release_idle()
    world.restart()
    world.ports.program(BOB, now())
    assert claimed(world, ANN) == [(4, 8081, 8081), (6, 8081, 8081)]


def test_a_restart_keeps_what_is_published(world: World) -> None:
    publish(world, 1, "8080:80", "81")
    before = keys(world, ANN)
    world.store.ports.release_idle()
    world.restart()
    assert keys(world, ANN) == before
    assert len(before) == 6


# -- choices --------------------------------------------------------------------------------------------------------


def test_weft_chooses_what_is_free_and_clear_of_its_own(world: World) -> None:
    world.host.taken |= {("tcp", 8400)}
    publish(world, 1, "8401:1")
    publish(world, 2, "8403:2")
    ask = PortRequest(transport="tcp", container_first=80, host_first=8400, host_last=8405)
    ports = (ask, PortRequest(transport="tcp", container_first=81, host_first=8400, host_last=8405))
    world.endpoints.create(endpoint_request(3, ports=(*ports, parse("8404:3"))), now())
    world.ports.program(endpoint_id(3), now())
    assert sorted({first for _, first, _ in claimed(world, endpoint_id(3))}) == [8402, 8404, 8405]


@pytest.mark.parametrize("transport", ["tcp", "udp", "sctp"])
def test_several_choices_in_one_request_are_different_ports(world: World, transport: str) -> None:
    publish(world, 1, *(f"{port}/{transport}" for port in range(80, 100)), f"32770:1/{transport}")
    ports = [first for version, first, _ in claimed(world, ANN) if version == 4]
    assert len(set(ports)) == 21


def test_a_choice_that_somebody_else_was_quicker_to_claim_is_made_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(world, 1)
    real = world.store.ports.claim
    lost: list[object] = []

    def claim(endpoint: str, publications: Sequence[object], **how: bool) -> None:
        if len(lost) < 3:
            real(ANN, publications, live=False)  # type: ignore[arg-type] # passed on
            lost.append(publications)
        real(endpoint, publications, **how)  # type: ignore[arg-type] # passed on

    make(world, 2, "80")
    monkeypatch.setattr(world.store.ports, "claim", claim)
    world.ports.program(BOB, now())
    assert len(lost) == 3
    assert len(claimed(world, BOB)) == 2


# -- weft port add and rm -------------------------------------------------------------------------------------------


def test_ports_are_added_and_removed_while_the_container_runs(world: World) -> None:
    publish(world, 1, "8080:80")
    added = world.ports.add(ANN[:12], parse("9000-9009:9000-9009/udp"), now())
    assert [(row.live, row.publication.version) for row in added] == [(True, 4), (True, 6)]
    assert "range4 udp 9000-9009" in keys(world, ANN)
    with pytest.raises(NotFound, match=r"does not publish 9000:9000/udp"):
        world.ports.remove(ANN, parse("9000:9000/udp"), now())  # a part of a run
    assert len(world.ports.remove(ANN, parse("9000-9009:9000-9009/udp"), now())) == 2
    assert keys(world, ANN) == ["hold tcp 0.0.0.0 8080", "hold tcp :: 8080", "publish4 tcp 8080"]
    world.ports.remove(ANN, parse("80/tcp"), now())  # host ports left out match any
    assert (claimed(world), opened(world, ANN)) == ([], [])
    world.ports.add(ANN, parse("8080:80"), now())
    world.ports.revoke(ANN, now())
    assert (claimed(world), opened(world, ANN)) == ([], [])


def test_an_addition_that_fails_leaves_what_was_there(world: World) -> None:
    publish(world, 1, "8080:80")
    before, there = claimed(world), keys(world, ANN)
    world.host.fake.fail(hold_key("tcp", "::", 8081, 8081), OSError(errno.EADDRINUSE, "somebody has it"))
    with pytest.raises(ExceptionGroup):
        world.ports.add(ANN, parse("8081:81"), now())
    assert (claimed(world), keys(world, ANN)) == (before, there)
    with pytest.raises(Conflict, match="8080/tcp is published by"):
        world.ports.add(ANN, parse("127.0.0.1:8080:81"), now())
    assert (claimed(world), keys(world, ANN)) == (before, there)


def test_only_the_way_out_of_a_container_publishes(world: World) -> None:
    make(world, 1)
    with pytest.raises(InvalidRequest, match="not its container's way out"):
        world.ports.add(ANN, parse("8080:80"), now())
    assert claimed(world) == []


def test_an_added_port_outlives_a_restart_of_weft(world: World) -> None:
    publish(world, 1)
    world.ports.add(ANN, parse("8080:80"), now())
    before = keys(world, ANN)
    world.store.ports.release_idle()
    world.restart()
    assert keys(world, ANN) == before != []
    assert [row.live for row in world.store.ports.rows(ANN)] == [True, True]


# -- loopback -------------------------------------------------------------------------------------------------------


def test_the_bridge_routes_loopback_from_the_first_publication_to_the_last(world: World) -> None:
    def bridge_steps() -> int:
        return sum(step.key == BRIDGE for step in world.host.fake.steps)

    made = bridge_steps()
    publish(world, 3, "192.0.2.1:7070:80", "[::1]:7070:80")
    assert (routes_loopback(world), bridge_steps()) == (False, made)
    publish(world, 1, "8080:80")
    assert (routes_loopback(world), bridge_steps()) == (True, made + 1)
    publish(world, 2, "127.0.0.1:9090:80")
    world.ports.add(BOB, parse("9091:80"), now())
    world.ports.revoke(ANN, now())
    world.ports.remove(BOB, parse("9091:80"), now())
    assert (routes_loopback(world), bridge_steps()) == (True, made + 1)
    world.ports.revoke(BOB, now())
    assert (routes_loopback(world), bridge_steps()) == (False, made + 2)
    assert not world.runtime.findings()
