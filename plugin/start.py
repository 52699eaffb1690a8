"""``weft serve``, as an operator or systemd starts it: the door first, then the house."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from plugin import logs
from plugin.door import bound, open_door
from plugin.storefile.trouble import unreadable

if TYPE_CHECKING:
    from drivers.errors import Refusing
    from plugin.config import Settings


def serve(settings: Settings) -> int:
    """Run weft until SIGTERM; return the exit code. Raises AlreadyRunning, and has bound nothing then.

    A state directory that cannot be used is no reason to end: whoever asks is told so.
    """
    logs.setup(settings.log_level, settings.log_format)
    os.umask(0o077)  # what weft keeps is root's alone, wherever it is kept
    why: Refusing | None = None
    try:
        door = open_door(settings)
    except OSError as error:
        door, why = bound(settings, None), unreadable(settings.database, error)
    from plugin.server import serve_behind  # noqa: PLC0415 - the sockets come first

    return serve_behind(door, settings, refused=why)
