"""``weft store``: is the state sound, a copy of it, putting one back. With SQLite alone, whether weft runs or not."""

from __future__ import annotations

import argparse
import json
import os
import time
from contextlib import closing, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from drivers.errors import Conflict, HostFailure, Refusing, WeftError
from plugin import client, config, door
from plugin.cli.say import complain, counted, say
from plugin.config import Settings
from plugin.storefile.check import SCHEMA, Decode, Examined, examine, opened
from plugin.storefile.copies import BESIDE, copy_into, sync

REPLACED: Final = ".replaced-"
"""What stands behind the name of a store that was replaced, before the time."""

_STOP: Final = "`docker plugin disable -f weft` (the managed plugin), or `systemctl stop weft.socket weft.service`"


def check(options: argparse.Namespace) -> int:
    """Say whether the store is sound; 1 if it is not."""
    path = Path(options.file) if options.file else _settings(options).database
    decode = _decoders()
    try:
        found = examine(path, decode)
    except Refusing as why:
        return _told(options, path, None, (str(why),))
    return _told(options, path, found, found.problems, decoded=bool(decode))


def backup(options: argparse.Namespace) -> int:
    """Write a copy of one moment, while weft runs or not."""
    target = Path(options.file).absolute()
    with closing(opened(_settings(options).database)) as store:
        try:
            copy_into(store, target)
        except FileExistsError:
            raise Conflict(f"{target} is there already, and is not overwritten: name a new file") from None
        except OSError as error:
            raise HostFailure(
                f"{target} could not be written ({error.strerror or error}); nothing is left of it"
            ) from error
    try:
        found = examine(target, _decoders())
    except WeftError as why:
        raise Refusing(f"{target} was written, but of a store that is damaged: {why}") from why
    say(f"{target}: store {found.store}, {_size(found)}")
    return _told_problems(found.problems)


def restore(options: argparse.Namespace) -> int:
    """Put a copy in the place of the store, which is kept beside it."""
    settings = _settings(options)
    if os.geteuid() != 0:
        raise Conflict("weft store restore changes weft's state: run it as root")
    os.umask(0o077)  # the lock and the copies are root's alone
    source = Path(options.file).absolute()
    _refuse_if_it_runs(settings)
    try:
        lock = door.hold(settings, " (weft store restore)")
    except door.AlreadyRunning as error:
        raise Conflict(f"a weft is {error}: first {_STOP}") from error
    except OSError as error:
        raise HostFailure(f"{settings.state_dir} cannot be used ({error.strerror})") from error
    with closing(lock):
        try:
            _restore(source, settings.database)
        except OSError as error:
            raise HostFailure(f"{settings.database} is as it was: {error.strerror or error}") from error
    say("next: start weft; at its start it brings the host to what the copy says")
    return 0


def _restore(source: Path, database: Path) -> None:
    if source == database.absolute():
        raise Conflict(f"{source} is the store itself: name a copy")
    partial = database.with_name(f"{database.name}.partial")
    partial.unlink(missing_ok=True)
    with closing(opened(source)) as copy:
        examine(source)  # whose it is, before anything is written
        copy_into(copy, partial)
    try:
        found = _sound(partial, source)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _keep(database)
    partial.rename(database)
    sync(database)
    say(f"{database}: now store {found.store}, {_size(found)}, from {source}")


def _sound(partial: Path, source: Path) -> Examined:
    found = examine(partial, _decoders())
    if found.problems:
        raise Refusing(f"{source} is damaged, and was not put back: {'; '.join(found.problems)}")
    return found


def _keep(database: Path) -> None:
    """Give the store that is there another name, with what SQLite keeps beside it: the last commits may be there."""
    if not database.exists():
        return
    kept = database.with_name(f"{database.name}{REPLACED}{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
    number = 1
    while kept.exists():
        kept, number = kept.with_name(f"{kept.name.partition('~')[0]}~{number}"), number + 1
    there = [suffix for suffix in ("", *BESIDE) if Path(f"{database}{suffix}").exists()]
    for suffix in there:
        os.link(f"{database}{suffix}", f"{kept}{suffix}")
    sync(kept)
    for suffix in BESIDE:  # of the old one: SQLite would take them for the new one's
        Path(f"{database}{suffix}").unlink(missing_ok=True)
    say(f"kept what was there as {kept}")


def _settings(options: argparse.Namespace) -> Settings:
    return config.judge(os.environ, {"state_dir": options.state_dir})[0]


def _refuse_if_it_runs(settings: Settings) -> None:
    running = door.is_held(settings.state_dir)
    with suppress(WeftError):
        client.ask(settings.control, "GET", "/v1/version")
        running = True
    if running:
        raise Conflict(
            f"a weft is running, and would go on writing the store that is replaced: first {_STOP}. Running containers "
            "keep their network meanwhile"
        )


def _decoders() -> dict[str, Decode]:
    """Return the server's own models of rows; none in the zipapp, which has the commands only."""
    if find_spec("pydantic") is None:
        return {}
    from plugin.store.store import endpoint_of, network_of  # noqa: PLC0415 - the server's

    return {"networks": network_of, "endpoints": endpoint_of}


def _told(
    options: argparse.Namespace, path: Path, found: Examined | None, problems: tuple[str, ...], *, decoded: bool = True
) -> int:
    if options.json:
        view = {"path": str(path), "sound": not problems, "problems": problems, "decoded": decoded}
        if found:
            view |= {"store": found.store, "schema": found.schema}
            view |= {"networks": found.networks, "endpoints": found.endpoints}
        say(json.dumps(view, indent=2))
        return 1 if problems else 0
    if found:
        say(f"{path}: store {found.store}, schema {found.schema}, {_size(found)}")
        if found.schema < SCHEMA:
            say(
                f"an older weft wrote it: this one brings it to schema {SCHEMA} at its start, and only then checks rows"
            )
        if not decoded:
            say("rows were not read as the server reads them: this weft is the command alone")
    return _told_problems(problems)


def _told_problems(problems: tuple[str, ...]) -> int:
    for problem in problems:
        complain(problem)
    if not problems:
        say("sound")
    return 1 if problems else 0


def _size(found: Examined) -> str:
    return f"{counted(found.networks, 'network')}, {counted(found.endpoints, 'endpoint')}"
