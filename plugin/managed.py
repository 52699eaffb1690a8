"""weft as a managed plugin: dockerd starts it, and whatever is wrong has to be answered, for nobody sees an exit code.

A plugin that ends while it is being enabled is worse than one that refuses: dockerd says that there is no socket,
tries again by itself, and afterwards often cannot enable it at all ("container id already in use") until the plugin is
removed and installed again (facts/managed-plugin.md 3). So a setting that cannot be understood, a second weft and a
state directory that cannot be made are the answer to every call, and a line in dockerd's log.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from drivers.errors import HostFailure, Refusing
from plugin import config, logs
from plugin.door import AlreadyRunning, Door, bind, hold
from plugin.storefile.trouble import unreadable

if TYPE_CHECKING:
    from plugin.config import Settings

log = logging.getLogger(__name__)

_AGAIN: Final = "`docker plugin disable -f`, `docker plugin set`, `docker plugin enable`"
_MOUNT: Final = re.compile(r"\S+ \S+ \S+ (?:\S*/)?(?P<id>[0-9a-f]{64}) (?P<at>\S+) ")  # proc(5), mountinfo


def serve_managed(environment: Mapping[str, str], flags: Mapping[str, str | None]) -> int:
    """Run weft until SIGTERM; return the exit code. Binds Docker's socket whatever is wrong."""
    settings, problems = config.judge(environment, flags)
    logs.setup(settings.log_level, settings.log_format, managed=True)
    os.umask(0o077)
    door, why = _open(settings)
    if problems:
        why = Refusing(f"{'; '.join(problems)}. Say it anew: {_AGAIN}")
    from plugin.server import serve_behind  # noqa: PLC0415 - the sockets come first

    return serve_behind(door, settings, refused=why, plugin=plugin_id(settings.socket))


def plugin_id(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str | None:
    """Return the id that dockerd gave this plugin, or ``None`` if it manages none here.

    dockerd mounts a folder that is called so over the folder of the socket (20.10.24 to 28.5.2).
    """
    for line in mounts.read_text(encoding="utf-8").splitlines():
        found = _MOUNT.match(line)
        if found and found["at"] == str(path.parent):
            return found["id"]
    return None


def _open(settings: Settings) -> tuple[Door, Refusing | None]:
    """Bind what can be bound, Docker's socket first; say what there is to refuse for."""
    docker = bind(settings.socket)
    try:
        lock = hold(settings, " (of the managed plugin)")
    except AlreadyRunning as error:
        return Door(None, (docker,)), Refusing(f"another weft is {error}: stop one of them, then {_AGAIN}")
    except OSError as error:
        return Door(None, (docker,)), Refusing(f"{unreadable(settings.database, error)}: {_AGAIN}")
    try:
        return Door(lock, (docker, bind(settings.control))), None
    except HostFailure as error:
        log.error("no command can reach weft", extra={"why": str(error)})  # noqa: TRY400 - the reason says it
        return Door(lock, (docker,)), None
