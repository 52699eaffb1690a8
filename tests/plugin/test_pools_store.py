"""Commits that threads share, and what a pool costs the store."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_network
from pathlib import Path

import pytest

from drivers.errors import Conflict
from plugin.pools import LOCAL, PoolId
from plugin.store import Database, Store
from tests.lab.wait import await_


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "weft.db")
    yield database
    database.close()


def put(database: Database, key: str, *, fails: bool = False) -> str:
    """Write one fact together with whatever else is to be written."""

    def work(db: sqlite3.Connection) -> str:
        db.execute("INSERT INTO meta (key, value) VALUES (?, '')", (key,))
        if fails:
            raise Conflict(key)
        return key

    return database.together(work)


def test_what_fails_is_undone_alone(database: Database) -> None:
    with pytest.raises(Conflict, match="bad"):
        put(database, "bad", fails=True)
    assert (put(database, "good"), database.meta("good"), database.meta("bad")) == ("good", "", None)


def test_work_that_gathers_behind_a_commit_shares_the_next(database: Database) -> None:
    commits, results = database.commits, list[object]()

    def ask(number: int) -> None:
        try:
            results.append(put(database, f"k{number}", fails=number == 3))
        except Conflict as refused:
            results.append(refused)

    with ThreadPoolExecutor(8) as threads, database._lock:  # as while another thread's commit waits for the disk
        for number in range(8):
            threads.submit(ask, number)
        await_(lambda: len(database._waiting) == 8, 10, "the others to gather")
    assert database.commits == commits + 1
    assert sorted(map(str, results)) == [f"k{number}" for number in range(8)]
    assert [database.meta(f"k{number}") for number in range(8)] == ["", "", "", None, "", "", "", ""]


def test_a_commit_that_fails_is_told_to_everyone(database: Database) -> None:
    def work(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO endpoints (id, network, phase, link, intent) VALUES ('e', 'none', 'ready', 'l', '')")

    with pytest.raises(sqlite3.IntegrityError):
        database.together(work)
    database.together(lambda db: db.execute("PRAGMA foreign_keys").fetchone())  # and the next is none the worse


@pytest.mark.parametrize("subnet", ["10.1.0.0/16", "10.0.0.0/8", "fd00::/64"])
def test_a_lease_costs_the_same_in_any_pool(database: Database, subnet: str) -> None:
    """One commit, and as many statements with a thousand leases there as with ten."""
    pools = Store(database).pools
    pool = str(pools.add(PoolId(LOCAL, ip_network(subnet)), 1.0).id)
    costs = []
    for fill in (10, 1000):
        for _ in range(fill):
            pools.take(pool, None, gateway=False, now=1.0)
        statements: list[str] = []
        commits = database.commits
        database._connection.set_trace_callback(statements.append)
        pools.take(pool, None, gateway=False, now=1.0)
        database._connection.set_trace_callback(None)
        costs.append((len(statements), database.commits - commits))
    assert costs[0] == costs[1]
    assert costs[0][1] == 1


def test_finding_a_free_address_scans_nothing(database: Database) -> None:
    """Every statement of a lease is answered from an index."""
    pools = Store(database).pools
    pool = str(pools.add(PoolId(LOCAL, ip_network("10.0.0.0/8")), 1.0).id)
    statements: list[str] = []
    database._connection.set_trace_callback(statements.append)
    for number in (None, None, int(ip_network("10.0.0.0/8")[7])):
        pools.take(pool, number, gateway=False, now=1.0)
    pools.give_back(pool, ip_network("10.0.0.0/8")[7])
    database._connection.set_trace_callback(None)
    plans = [
        row["detail"]
        for statement in statements
        if statement.startswith(("SELECT", "UPDATE", "DELETE"))
        for row in database.read(f"EXPLAIN QUERY PLAN {statement}")
    ]
    assert len(plans) > 10
    assert [plan for plan in plans if plan.startswith("SCAN")] == []
