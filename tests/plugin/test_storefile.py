"""The store as a file: deleted, replaced, copied, damaged, put back; and what the command says of it."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from drivers.errors import Refusing
from plugin import config, door
from plugin.cli.main import main
from plugin.store import Database, EndpointRow, NetworkRow, Store
from plugin.store.schema import MIGRATIONS
from plugin.storefile.check import SCHEMA, examine
from plugin.storefile.trouble import unwritable
from tests.plugin.samples import endpoint, network, network_id

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "weft.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    store = Store(Database(path))
    store.add_network(NetworkRow(network=network(1)))
    store.network_ready(network_id(1))
    store.add_endpoint(EndpointRow(endpoint=endpoint(1)))
    yield store
    store.close()


@pytest.fixture
def command(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.setenv("WEFT_STATE_DIR", str(path.parent))
    monkeypatch.setenv("WEFT_CONTROL", str(path.parent / "control.sock"))

    def run(*args: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["store", *args])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def change(path: Path, statement: str) -> None:
    """Change a store behind weft's back."""
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(statement)
    connection.close()


# -- deleted, or replaced, while it is open -------------------------------------------------------------------------


@pytest.mark.parametrize("gone", [("",), ("", "-wal", "-shm"), ("-wal",)])
def test_a_file_that_is_deleted_is_written_again_before_anything_is_kept(
    path: Path, store: Store, gone: tuple[str, ...]
) -> None:
    for suffix in gone:
        Path(f"{path}{suffix}").unlink()
    store.add_network(NetworkRow(network=network(2)))
    assert path.stat().st_mode & 0o777 == 0o600 or "" not in gone
    copy = Store(Database(path))
    assert [row.id for row in copy.networks()] == [network_id(1), network_id(2)]
    assert copy.id == store.id
    copy.close()
    assert len(store.networks()) == 2
    assert store.trouble == ""


def test_a_folder_that_is_deleted_is_made_again_as_root_s_alone(path: Path, store: Store) -> None:
    for file in path.parent.iterdir():
        file.unlink()
    path.parent.rmdir()
    store.try_again()
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert examine(path).problems == ()


def test_nothing_is_written_beside_a_file_that_somebody_put_there(path: Path, store: Store, tmp_path: Path) -> None:
    kept = path.rename(tmp_path / "kept.db")
    path.write_bytes(b"somebody's")
    before = kept.read_bytes()
    with pytest.raises(Refusing, match="is not the file any longer that weft has open"):
        store.add_network(NetworkRow(network=network(2)))
    assert "not the file any longer" in store.trouble
    assert (path.read_bytes(), kept.read_bytes()) == (b"somebody's", before)
    assert len(store.networks()) == 1  # what is open can still be read
    path.unlink()
    store.try_again()
    assert store.trouble == ""
    store.add_network(NetworkRow(network=network(2)))
    assert examine(path).networks == 2


def test_a_row_that_makes_no_sense_is_named(path: Path, store: Store) -> None:
    change(path, "UPDATE networks SET intent = '[]'")
    with pytest.raises(
        Refusing, match=f"what it says of network {network_id(1)[:12]} makes no sense.*weft store restore"
    ):
        store.networks()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(28, "No space left on device"), "is full"),
        (OSError(30, "Read-only file system"), "is read-only"),
        (OSError(5, "Input/output error"), "see dmesg"),
        (sqlite3.DatabaseError("database disk image is malformed"), "weft store check"),
    ],
)
def test_an_error_of_the_disk_says_what_to_do(path: Path, error: OSError | sqlite3.Error, words: str) -> None:
    assert words in str(unwritable(path, error))


# -- check ----------------------------------------------------------------------------------------------------------


def test_the_command_knows_the_version_that_the_server_writes() -> None:
    assert len(MIGRATIONS) == SCHEMA


def test_a_sound_store_is_sound_while_it_is_open(store: Store, command: Command) -> None:
    code, out, err = command("check")
    assert (code, err) == (0, "")
    assert f"store {store.id}, schema {SCHEMA}, 1 network, 1 endpoint" in out
    assert out.endswith("sound\n")
    told = json.loads(command("check", "--json")[1])
    assert (told["sound"], told["problems"], told["decoded"]) == (True, [], True)


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE networks SET attached = 7", "count of endpoints is wrong"),
        ("UPDATE networks SET id = 'f' || substr(id, 2)", "refers to networks, where nothing is"),
        ("UPDATE endpoints SET intent = json_replace(intent, '$[0].network', 'x')", "its network is not the one"),
        ("UPDATE networks SET intent = json_replace(intent, '$[0].mtu', 'wide')", "makes no sense to weft"),
        ("INSERT INTO peers VALUES ('x', '192.0.2.1', 'command', 4)", "its network is not there"),
        ("INSERT INTO peers VALUES ('', 'nowhere', 'command', 4)", "makes no sense to weft"),
        (
            "INSERT INTO pools VALUES (2, 'nonsense', '', '', 4, x'0b000000', x'0b0000ff', NULL, NULL, 0)",
            "pool 2: it makes no sense to weft",
        ),
    ],
)
def test_what_is_wrong_with_a_store_is_said(
    path: Path, store: Store, command: Command, statement: str, words: str
) -> None:
    assert store.networks()
    change(path, statement)
    code, out, err = command("check")
    assert code == 1
    assert words in err
    assert "sound" not in out


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("INSERT INTO leases VALUES (1, x'0a000005', 'container', 0)", "its address counts as free"),
        ("INSERT INTO leases VALUES (1, x'0b000005', 'container', 0)", "it is not in its pool"),
    ],
)
def test_a_lease_that_cannot_be_is_said(path: Path, store: Store, command: Command, statement: str, words: str) -> None:
    assert store.networks()
    change(
        path,
        "INSERT INTO pools VALUES (1, 'weft-local/10.0.0.0/24', 'weft-local', '', 4, x'0a000000', x'0a0000ff', NULL, "
        "NULL, 0)",
    )
    change(path, "INSERT INTO gaps VALUES (1, x'0a000001', x'0a0000fe')")
    assert command("check")[0] == 0
    change(path, statement)
    code, _, err = command("check")
    assert (code, words in err) == (1, True)


def test_a_file_that_is_none_of_weft_s_is_not_taken_for_one(path: Path, tmp_path: Path, command: Command) -> None:
    for name, content in (("garbage", b"x" * 9000), ("empty", b"")):
        (tmp_path / name).write_bytes(content)
        code, _, err = command("check", str(tmp_path / name))
        assert (code, "cannot be read" in err or "not one of weft's" in err) == (1, True)
    change(tmp_path / "other", "CREATE TABLE meta (key)")
    assert "not one of weft's" in command("check", str(tmp_path / "other"))[2]
    assert command("check", str(tmp_path / "none"))[0] == 2
    assert command("check")[0] == 2
    assert not path.exists()


# -- backup and restore ---------------------------------------------------------------------------------------------


def test_a_copy_is_whole_root_s_alone_and_overwrites_nothing(store: Store, command: Command, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    before = os.umask(0)
    try:
        assert command("backup", str(copy))[0] == 0
    finally:
        os.umask(before)
    assert copy.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith("copy")] == ["copy.db"]
    assert examine(copy) == examine(store._db.path)
    code, _, err = command("backup", str(copy))
    assert (code, "is there already, and is not overwritten" in err) == (2, True)
    code, _, err = command("backup", str(tmp_path / "no" / "copy.db"))
    assert (code, "could not be written" in err) == (2, True)


def test_a_copy_that_is_put_back_is_the_store_and_the_old_one_is_kept(
    path: Path, store: Store, command: Command, tmp_path: Path
) -> None:
    copy = str(tmp_path / "copy.db")
    command("backup", copy)
    store.add_network(NetworkRow(network=network(2)))
    store.close()
    code, out, err = command("restore", copy)
    assert (code, err) == (0, "")
    assert f"now store {store.id}, 1 network," in out
    assert path.stat().st_mode & 0o777 == 0o600
    (kept,) = (one for one in path.parent.iterdir() if one.name.startswith("weft.db.replaced-"))
    assert (examine(path).networks, examine(kept).networks) == (1, 2)
    assert command("restore", str(kept))[0] == 0
    assert examine(path).networks == 2
    assert Store(Database(path)).id == store.id


def test_what_a_dead_weft_had_in_its_log_is_kept_too(
    path: Path, store: Store, command: Command, tmp_path: Path
) -> None:
    copy = str(tmp_path / "copy.db")
    command("backup", copy)
    store.add_network(NetworkRow(network=network(2)))
    assert Path(f"{path}-wal").stat().st_size
    assert command("restore", copy)[0] == 0  # the connection is still open: as after a SIGKILL, the log was not closed
    (kept,) = (one for one in path.parent.iterdir() if one.name.endswith("Z"))
    assert (examine(path).networks, examine(kept).networks) == (1, 2)


def test_nothing_is_put_back_while_weft_runs(path: Path, store: Store, command: Command, tmp_path: Path) -> None:
    copy = str(tmp_path / "copy.db")
    command("backup", copy)
    before = path.stat().st_ino
    settings = config.read({"WEFT_STATE_DIR": str(path.parent)})
    with door.hold(settings):
        code, _, err = command("restore", copy)
    assert code == 2
    assert "docker plugin disable -f weft" in err
    assert "systemctl stop weft.socket weft.service" in err
    assert path.stat().st_ino == before
    assert store.networks()


@pytest.mark.parametrize("fault", ["garbage", "newer", "damaged", "other", "none", "itself"])
def test_what_cannot_be_the_store_is_not_put_back(
    path: Path, store: Store, command: Command, tmp_path: Path, fault: str
) -> None:
    copy = tmp_path / "copy.db"
    command("backup", str(copy))
    store.close()
    before = path.read_bytes()
    match fault:
        case "garbage":
            copy.write_bytes(b"x" * 9000)
        case "newer":
            change(copy, f"PRAGMA user_version = {SCHEMA + 1}")
        case "damaged":
            change(copy, "UPDATE networks SET attached = 9")
        case "other":
            copy.unlink()
            change(copy, "CREATE TABLE somebodys (thing)")
        case "none":
            copy.unlink()
        case _:
            copy = path
    words = {
        "garbage": "cannot be read",
        "newer": "a newer weft",
        "damaged": "was not put back",
        "other": "not one of weft's",
        "none": "there is no file",
        "itself": "is the store itself",
    }
    code, _, err = command("restore", str(copy))
    assert (code, words[fault] in err) == (2, True), err
    assert path.read_bytes() == before
    assert sorted(one.name for one in path.parent.iterdir()) == ["serve.lock", "weft.db"]


def test_an_older_weft_s_copy_is_put_back_and_brought_to_this_version(
    path: Path, command: Command, tmp_path: Path
) -> None:
    copy = tmp_path / "old.db"
    connection = sqlite3.connect(copy)
    connection.executescript(f"BEGIN;{MIGRATIONS[0]};PRAGMA user_version = 1;COMMIT;")
    connection.execute("INSERT INTO meta VALUES ('store', '0a1b2c3d')")
    connection.commit()
    connection.close()
    path.parent.mkdir()
    assert command("restore", str(copy))[0] == 0
    store = Store(Database(path))
    assert (store.id, store.networks()) == ("0a1b2c3d", [])
    store.close()
    assert examine(path).schema == SCHEMA
