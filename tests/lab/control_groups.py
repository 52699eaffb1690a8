"""The control groups of a node's containers: the one thing of a node that is not in a namespace.

`Engine` gives its dockerd the node's name as parent of all it makes, so that they can be told, and go with the node.
"""

from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


def hierarchies() -> list[Path]:
    """Return where groups can be: one place with cgroup v2, a folder per controller with v1."""
    return [ROOT, *(path for path in ROOT.iterdir() if path.is_dir() and not path.is_symlink())]


def remove_control_groups(name: str) -> bool:
    """Remove the groups of a node; OSError (EBUSY) while the kernel still buries their processes."""
    for parent in hierarchies():
        group = parent / name
        for folder in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
            folder.rmdir()
        if group.is_dir():
            group.rmdir()
    return True
