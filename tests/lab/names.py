"""Where the lab's things lie on the machine, and how they are called.

Every name carries the pid of its owner, so that two sessions on one machine never meet, and so that a session can tell
what it left behind from what is another's.
"""

import os
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
BIN = REPO / ".venv" / "bin"

CACHE = Path("/var/cache/weft-lab")
"""What is worth keeping between sessions: the other engines' root folders, busybox."""

DISKS = Path("/var/tmp/weft-lab")  # noqa: S108 - a real file system is wanted (overlay2 refuses tmpfs), and root owns the folder
"""The nodes' disks. Not below /etc, /opt or /var/lib: a node lays an overlay on these."""


def unique(label: str) -> str:
    """Return the name under which this session knows `label`: a netns, a disk folder, a control group."""
    return f"wl-{label}-{os.getpid()}"


def owner(name: str) -> int | None:
    """Return the pid of the session that made a name with `unique`; None if it is not such a name."""
    prefix, _, pid = name.rpartition("-")
    return int(pid) if prefix.startswith("wl-") and pid.isdecimal() else None


def is_ours(name: str) -> bool:
    """Tell whether `unique` of this session made `name`."""
    return owner(name) == os.getpid()
