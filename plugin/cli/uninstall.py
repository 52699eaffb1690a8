"""``weft uninstall``: a host as it was before weft, from the command alone, without plugin, server or Docker."""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from drivers.converge import order
from drivers.errors import Conflict, WeftError
from drivers.host import OpenVSwitch
from plugin import client, config, door, remains, service
from plugin.cli.say import complain, counted, say
from plugin.cli.store import REPLACED
from plugin.config import Settings
from plugin.remains import Memory, Remains

STATE_FILES: Final = ("weft.db", "weft.db-wal", "weft.db-shm", "weft.db.partial", "serve.lock", "worker.lock")


def uninstall(options: argparse.Namespace) -> int:
    """Remove what carries the marks of this host's store, and nothing else."""
    if os.geteuid() != 0:
        raise Conflict("weft uninstall changes the host's network: run it as root")
    settings, _ = config.judge(os.environ, {"state_dir": options.state_dir})
    memory = Memory(options.store) if options.store else remains.recall(settings.database)
    with closing(Remains(memory, OpenVSwitch(remote=settings.remote))) as left:
        if not options.force:
            _refuse_if_in_use(settings, left)
        found = _tell(left, settings, purge=options.purge)
        if options.dry_run:
            return 1 if found else 0
        failures = left.remove()
    for failure in failures:
        complain(failure)
    if failures:
        return 1
    _remove_files(settings, purge=options.purge, store=options.store)
    return 0


def _refuse_if_in_use(settings: Settings, left: Remains) -> None:
    """Raise :class:`Conflict` while somebody needs it."""
    if door.is_held(settings.state_dir) or _answers(settings.control):
        raise Conflict(
            "a weft is running, and would put everything back: first `docker plugin disable -f weft`, or `systemctl "
            "disable --now weft.socket weft.service`; --force goes on all the same"
        )
    if plugged := left.plugged():
        named = f"{', '.join(plugged[:3])}{', ...' if plugged[3:] else ''}"
        raise Conflict(
            f"running containers would lose their network, by {counted(len(plugged), 'link')} of weft's ({named}): stop"
            " them first; --force goes on all the same"
        )


def _answers(control: Path) -> bool:
    with suppress(WeftError):
        client.ask(control, "GET", "/v1/version")
        return True
    return False


def _tell(left: Remains, settings: Settings, *, purge: bool) -> bool:
    """Say what there is to do; tell whether there is anything."""
    found = False
    for scope, difference in left.steps():
        found = True
        say(f"{scope}:")
        for step in order(difference.steps):
            say(f"  {step}")
    for path in _files(settings, purge=purge):
        found = True
        say(f"rm {path}")
    if not found:
        say("nothing of weft is left on this host")
    return found


def _files(settings: Settings, *, purge: bool) -> Iterator[Path]:
    """Yield our own files: dead sockets, what ``weft install-service`` wrote, the state if it is to go."""
    yield from (path for path in (settings.socket, settings.control) if path.is_socket())
    yield from service.written()
    if purge:
        yield from (path for name in STATE_FILES if (path := settings.state_dir / name).exists())
        yield from sorted(settings.state_dir.glob(f"{settings.database.name}{REPLACED}*"))


def _remove_files(settings: Settings, *, purge: bool, store: str | None) -> None:
    for path in list(_files(settings, purge=purge)):
        path.unlink(missing_ok=True)
    if not purge and store is None:
        remains.forget_settings(settings.database)
    for folder in (settings.control.parent, *([settings.state_dir] if purge else ())):
        with suppress(OSError):  # not there, or somebody else's files are in it
            folder.rmdir()
    if shutil.which("systemctl") and Path("/run/systemd/system").is_dir():
        service.reload_systemd()
