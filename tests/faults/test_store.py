"""What may happen to the store: weft says so, cuts nobody off, and can be brought back."""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.disk import DiskHost, disk_host
from tests.lab.wait import await_
from tests.lab.weft import STATE

pytestmark = [
    pytest.mark.faults,
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces are root's"),
]

COPY = "/var/lib/copy.db"


@pytest.fixture
def host() -> Iterator[DiskHost]:
    """Yield a host with two containers that talk; they must not have noticed anything."""
    with disk_host() as host:
        yield host
        assert host.talk.goes_on()


def remove(store: Path) -> None:
    """Delete the store, as a person would: `rm weft.db*`."""
    for path in store.parent.glob("weft.db*"):
        path.unlink()


# -- while weft runs ------------------------------------------------------------------------------------------------


def test_a_store_that_is_deleted_is_written_again(host: DiskHost) -> None:
    remove(host.store)
    await_(host.store.exists, 20, "the store to be back")  # by the look, each 5 s
    await_(lambda: "deleted while weft runs, and is written again" in host.weft.log_text(), 10, "weft's word of it")
    assert host.store.stat().st_mode & 0o777 == 0o600
    remove(host.store)
    second = host.docker.create_network(subnet="10.10.0.0/24")  # by the request, before it is answered
    assert host.store.exists()
    host.weft.kill()
    host.weft.start()
    assert host.ids() == {host.network.id, second.id}
    assert host.weft.cli("store", "check").stdout.endswith("sound\n")
    host.await_well()
    host.joins()


def test_a_store_that_is_replaced_is_not_written_and_not_lost(host: DiskHost) -> None:
    host.weft.cli("store", "backup", COPY)
    before = host.links()
    host.node.run("mv", f"{STATE}/weft.db", f"{STATE}/mine.db")
    host.node.run("cp", COPY, f"{STATE}/weft.db")
    bytes_of = host.store.read_bytes()
    host.refuses_all("not the file any longer that weft has open")
    assert host.store.read_bytes() == bytes_of
    sick = host.weft.cli("status", check=False)
    assert (sick.returncode, "somebody put another one there" in sick.stdout) == (1, True)
    assert host.links() == before
    host.store.unlink()
    host.joins()
    host.await_well()
    host.weft.kill()
    host.weft.start()
    assert host.ids() == {host.network.id}
    host.await_well()


def test_a_disk_that_is_full_refuses_with_the_reason_until_there_is_room(host: DiskHost) -> None:
    gone = host.joins()
    before = host.links()
    host.fill()
    said = host.refusal()
    for _ in range(20):  # the log that is there already has room for some
        if "is full" in said:
            break
        said = host.refusal()
    assert "the disk under /var/lib/weft is full" in said
    assert "free some space" in said
    assert "is full" in host.refusal()
    assert set(host.links()) == set(before)
    sick = host.weft.cli("status", check=False)
    assert sick.returncode == 1
    assert "the store cannot be written: the disk under /var/lib/weft is full" in sick.stdout
    assert "the store cannot be written" in host.weft.log_text()
    gone.stop()  # what Docker does then: it ignores the failures, and forgets
    host.make_room()
    host.docker.create_network(subnet="10.99.0.0/24")  # the subnet of those that were refused
    host.await_well()
    assert "the store can be written again" in host.weft.log_text()
    host.joins()
    assert host.weft.cli("store", "check").stdout.endswith("sound\n")


def test_a_disk_that_becomes_read_only_refuses_with_the_reason_until_it_is_not(host: DiskHost) -> None:
    before = host.links()
    host.weft.stop()
    host.mount("ro")
    host.weft.start()
    host.refuses_all("the disk under /var/lib/weft is read-only", "restart weft")
    sick = host.weft.cli("status", check=False)
    assert (sick.returncode, "refusing: the disk under /var/lib/weft is read-only" in sick.stdout) == (1, True)
    assert host.links() == before
    second = host.weft.place.run(host.weft.program, "serve", check=False, env=host.weft.environment)
    assert (second.returncode, "already running" in second.stderr) == (2, True)
    host.weft.stop()
    host.mount("rw")
    host.weft.start()
    host.await_well()
    assert host.links() == before
    host.joins()


# -- before it starts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["full", "new directory"])
def test_a_disk_without_room_at_the_start_is_told_of(host: DiskHost, fault: str) -> None:
    before = host.links()
    host.weft.stop()
    if fault == "new directory":
        host.node.run("sh", "-c", f"mkdir {STATE}/kept; mv {STATE}/*.* {STATE}/kept")
    host.fill()
    host.weft.start()
    host.refuses_all("the disk under /var/lib/weft is full")
    assert host.links() == before
    host.weft.stop()
    host.make_room()
    if fault == "new directory":
        remove(host.store)
        host.node.run("sh", "-c", f"mv {STATE}/kept/weft.db* {STATE}")
    host.weft.start()
    host.await_well()
    assert host.links() == before


@pytest.mark.parametrize("fault", ["deleted", "another store's"])
def test_a_store_that_is_not_the_one_which_made_it_sweeps_nothing(host: DiskHost, fault: str) -> None:
    host.weft.cli("store", "backup", COPY)
    table = host.node.run("nft", "list", "table", "inet", "weft").stdout
    host.weft.stop()
    before = host.links()
    remove(host.store)
    if fault == "another store's":
        other = host.weft.environment | {"WEFT_STATE_DIR": "/var/lib/other"}
        process = host.node.spawn(host.weft.program, "serve", log=host.node.disk / "other.log", env=other)
        await_(host.node.path("/var/lib/other/weft.db").exists, 20, "another store")
        await_(lambda: host.weft.call("Plugin.Activate").status == 200, 20, "another weft")
        process.stop()
        host.node.run("sh", "-c", f"cp /var/lib/other/weft.db* {STATE}")
    host.weft.start()
    sick = host.weft.cli("status", check=False)
    assert (sick.returncode, "links are another store's (" in sick.stdout) == (1, True)
    assert "this host has links of another store's" in host.weft.log_text()
    with pytest.raises(Exception, match="its state was lost"):
        host.docker.start_container(host.network)
    host.weft.cli("reconcile", check=False)
    assert host.links() == before
    assert "masquerade" in host.node.run("nft", "list", "table", "inet", "weft").stdout
    assert host.talk.goes_on()
    host.weft.stop()
    assert "kept what was there as" in host.weft.cli("store", "restore", COPY).stdout
    host.weft.start()
    host.await_well()
    assert host.ids() == {host.network.id}
    assert host.links() == before
    assert sorted(host.node.run("nft", "list", "table", "inet", "weft").stdout.split()) == sorted(table.split())
    host.joins()


def test_an_older_copy_cuts_nobody_off_that_it_does_not_know(host: DiskHost) -> None:
    host.weft.cli("store", "backup", COPY)
    newer = host.docker.create_network(subnet="10.10.0.0/24")
    late, newcomer = host.pair(newer), host.joins()
    before = set(host.links())
    host.weft.stop()
    host.weft.cli("store", "restore", COPY)
    host.weft.start()
    status = host.status()
    unknown = [one["scope"] for one in status["differs"] if "the store does not know it" in str(one["problems"])]
    assert len(unknown) == 4  # the network, its two containers, and the newcomer
    host.weft.cli("reconcile", check=False)
    assert set(host.links()) == before
    assert late.goes_on()
    host.asks(newcomer)
    with pytest.raises(Exception, match="its state was lost"):
        host.docker.start_container(newer)
    newcomer.stop()
    for container in (late.one, late.two):
        container.stop()
    host.await_well()  # now nobody needs them: swept
    assert not set(host.links()) & {f"wfb{newer.id[:12]}", f"wfh{late.one.netns[:12]}"}
    assert len(host.links()) == 3
    host.joins()


@pytest.mark.parametrize("at", ["header", "tables"])
def test_a_damaged_page_refuses_all_and_a_copy_brings_it_back(host: DiskHost, at: str) -> None:
    host.weft.cli("store", "backup", COPY)
    before = host.links()
    host.weft.stop()
    whole = bytearray(host.store.read_bytes())
    size = int.from_bytes(whole[16:18], "big")
    page = 0 if at == "header" else _root(whole, "endpoints") - 1
    whole[page * size : page * size + 200] = b"\xa5" * 200
    host.store.write_bytes(whole)
    host.weft.start()
    host.refuses_all("the state in /var/lib/weft/weft.db cannot be read", "weft store restore FILE")
    assert host.links() == before
    assert host.weft.cli("status", check=False).returncode == 1
    sick = host.weft.cli("store", "check", check=False)
    assert (sick.returncode, "weft: " in sick.stderr) == (1, True)
    running = host.weft.cli("store", "restore", COPY, check=False)
    assert (running.returncode, "docker plugin disable -f" in running.stderr) == (2, True)
    host.weft.stop()
    host.weft.cli("store", "restore", COPY)
    host.weft.start()
    host.await_well()
    assert host.links() == before
    host.joins()


def _root(whole: bytes | bytearray, table: str) -> int:
    """Return the first page of a table; SQLite itself goes astray below /proc/PID/root."""
    database = sqlite3.connect(":memory:")
    database.deserialize(whole[:18] + b"\x01\x01" + whole[20:])  # not in WAL mode
    (page,) = database.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
    database.close()
    return int(page)


@pytest.mark.parametrize("torn", ["cut", "garbled"])
def test_a_torn_write_keeps_what_was_promised_before_it(host: DiskHost, torn: str) -> None:
    second = host.docker.create_network(subnet="10.10.0.0/24")
    newest = host.pair(second)
    before = host.links()
    host.weft.kill()
    log = host.store.with_name("weft.db-wal")
    whole = log.read_bytes()
    assert len(whole) > 10 * 4096
    log.write_bytes(whole[: len(whole) - 3000] if torn == "cut" else whole[:-3000] + b"\xa5" * 3000)
    host.weft.start()
    assert host.ids() == {host.network.id, second.id}
    assert host.links() == before
    assert newest.goes_on()
    host.joins()
    assert host.weft.cli("store", "check").stdout.endswith("sound\n")


def test_a_log_that_is_lost_cuts_nobody_off(host: DiskHost) -> None:
    """`rm weft.db-wal`, as somebody does who tidies up: all that was kept since the last checkpoint is gone."""
    host.weft.kill()
    before = host.links()
    shutil.copy(host.store, host.store.with_name("copy.db"))
    for suffix in ("-wal", "-shm"):
        host.store.with_name(f"weft.db{suffix}").unlink()
    host.weft.start()
    host.weft.cli("reconcile", check=False)
    assert host.links() == before
    assert host.talk.goes_on()
    assert host.weft.cli("status", check=False).returncode == 1
