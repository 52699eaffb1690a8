"""What weft does when its store is not what it was: an older copy, another store's, or one that cannot be written."""

from __future__ import annotations

import sqlite3
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from drivers.errors import Conflict, Refusing
from drivers.naming import link_name
from drivers.resources import HOST, TABLE_KEY, link_key, scope_of
from plugin.engine.views import Views
from plugin.server import _settle
from plugin.store import Database, Store
from plugin.storefile.copies import copy_into
from tests.lab.wait import await_
from tests.plugin.samples import endpoint_id, endpoint_request, network_id, network_request, subnet
from tests.plugin.test_orphans import FakeDocker
from tests.plugin.world import World, now

LINK = link_name("h", endpoint_id(1))
SCOPES = {scope_of(network_id(1)), scope_of(network_id(1), endpoint_id(1))}
EMPTY = "UPDATE networks SET attached = 0; DELETE FROM endpoints; DELETE FROM networks"


def make(world: World, number: int = 1, *, plugged: bool = True) -> None:
    """Make a network and a container on it."""
    world.networks.create(network_request(number), now())
    world.endpoints.create(endpoint_request(number, number), now())
    if plugged:
        world.host.plugged.add(link_name("h", endpoint_id(number)))


def forget(world: World, *statements: str) -> None:
    """Have the store be an older one, without a word to weft, which is down."""
    world.close()
    connection = sqlite3.connect(world._path)
    connection.executescript("; ".join(statements))
    connection.close()
    world.restart()


# -- what the store does not know any longer ------------------------------------------------------------------------


def test_what_a_container_has_is_left_alone_whatever_the_store_has_forgotten(world: World) -> None:
    make(world)
    before = dict(world.host.fake.objects)
    forget(world, EMPTY)
    assert world.host.fake.objects == before
    findings = {finding.scope: finding for finding in world.runtime.findings()}
    assert findings.keys() == SCOPES
    for finding in findings.values():
        assert finding.steps == ()
        assert "the store does not know it" in finding.problems[0]
        assert "weft store restore FILE" in finding.problems[0]
    world.runtime.reconcile(now())
    assert world.host.fake.objects == before


def test_the_host_s_own_stays_as_long_as_somebody_needs_it(world: World) -> None:
    make(world)
    forget(world, EMPTY)
    world.networks.create(network_request(2), now())
    world.networks.delete(network_id(2), now())  # the last one that the store knows
    assert TABLE_KEY in world.host.fake.objects
    assert link_key(LINK) in world.host.fake.objects


def test_when_the_container_has_gone_it_is_swept(world: World) -> None:
    make(world)
    forget(world, EMPTY)
    world.host.plugged.clear()
    world.runtime.reconcile(now())
    world.runtime.reconcile(now())
    assert world.host.fake.objects == {}
    assert world.runtime.findings() == []


def test_what_nobody_has_is_swept_beside_it(world: World) -> None:
    make(world)
    make(world, 2, plugged=False)
    forget(world, EMPTY)
    assert {scope for scope in world.marked() if scope != HOST} == SCOPES


def test_an_endpoint_of_a_network_that_is_known_is_left_alone_too(world: World) -> None:
    make(world)
    before = dict(world.host.fake.objects)
    forget(world, "DELETE FROM endpoints")
    assert world.host.fake.objects == before
    (finding,) = world.runtime.findings()
    assert finding.scope == scope_of(network_id(1), endpoint_id(1))


# -- another boot, by what an older copy says ------------------------------------------------------------------------


def test_after_a_power_off_endpoints_are_withdrawn_but_not_those_that_live(world: World) -> None:
    world.store.epoch = "before"
    make(world)
    make(world, 2, plugged=False)
    _settle(world.store, "now", world.host.is_plugged)
    phases = {row.id: str(row.phase) for row in world.store.endpoints()}
    assert phases == {endpoint_id(1): "ready", endpoint_id(2): "deleting"}
    assert world.store.epoch == "now"


# -- another store ---------------------------------------------------------------------------------------------------


def test_another_store_s_links_are_told_of(world: World) -> None:
    views = Views(world.store, world.runtime, world.ports, FakeDocker(), world.host, peers=world.peers)
    assert views.status()["notes"] == []
    world.host.others = {"0a1b2c3d": 3}
    (note,) = views.status()["notes"]
    assert note.startswith(f"3 links are another store's (0a1b2c3d, this is {world.store.id}), and left alone: ")
    assert "weft store restore FILE" in note
    assert "weft uninstall --store" in note


# -- a disk that cannot be written ----------------------------------------------------------------------------------


class FullDisk:
    """A disk that takes nothing durable while it is full."""

    def __init__(self, world: World, patch: pytest.MonkeyPatch) -> None:
        real, self._is_full = Database.transaction, True

        def transaction(database: Database, *, durable: bool) -> AbstractContextManager[sqlite3.Connection]:
            if durable and self._is_full and database is world.store._db:
                raise Refusing("the disk under /var/lib/weft is full")
            return real(database, durable=durable)

        patch.setattr(Database, "transaction", transaction)

    def fill(self) -> None:
        """Leave no room."""
        self._is_full = True

    def make_room(self) -> None:
        """Have room again."""
        self._is_full = False


@pytest.fixture
def full(world: World, monkeypatch: pytest.MonkeyPatch) -> FullDisk:
    return FullDisk(world, monkeypatch)


def test_what_failed_on_a_full_disk_is_withdrawn_when_there_is_room(world: World, full: FullDisk) -> None:
    with pytest.raises(Refusing, match="is full"):
        world.networks.create(network_request(), now())
    assert [str(row.phase) for row in world.store.networks()] == ["pending"]
    again = network_request(3, subnets=(subnet("10.1.0.0/24"),))
    with pytest.raises(Conflict, match="overlaps"):
        world.networks.create(again, now())
    full.make_room()
    world.runtime.docker_calls(now())  # as each call does first
    world.networks.create(again, now())
    assert [row.id for row in world.store.networks()] == [network_id(3)]
    assert {scope for scope in world.marked() if scope != HOST} == {scope_of(network_id(3))}


def test_an_endpoint_likewise_by_the_next_look(world: World, full: FullDisk) -> None:
    full.make_room()
    world.networks.create(network_request(), now())
    before = dict(world.host.fake.objects)
    full.fill()
    with pytest.raises(Refusing, match="is full"):
        world.endpoints.create(endpoint_request(), now())
    full.make_room()
    world.runtime.dirty(None)
    await_(lambda: not world.store.endpoints(), 30, "the endpoint to be withdrawn")
    assert world.host.fake.objects == before


def test_a_store_that_is_full_says_so_and_is_well_when_there_is_room(tmp_path: Path) -> None:
    database = Database(tmp_path / "weft.db")
    store = Store(database)
    connection = database._connection
    connection.execute(f"PRAGMA max_page_count = {connection.execute('PRAGMA page_count').fetchone()[0]}")
    much = {f"net/{number}": "x" * 3000 for number in range(100)}
    with pytest.raises(Refusing, match=r"the disk under .* is full .*free some space, then try again"):
        store.keep_host_settings(much)
    assert "is full" in store.trouble
    store.try_again()
    connection.execute("PRAGMA max_page_count = 100000")
    store.keep_host_settings({"net/last": "x" * 3000})
    assert store.trouble == ""
    assert "net/last" in store.host_settings()
    store.close()


def test_a_copy_is_of_one_moment_while_others_write(tmp_path: Path, world: World) -> None:
    make(world)
    copy_into(world.store._db._connection, tmp_path / "copy.db")
    make(world, 2)
    copy = Store(Database(tmp_path / "copy.db"))
    assert [row.id for row in copy.networks()] == [network_id(1)]
    copy.close()
