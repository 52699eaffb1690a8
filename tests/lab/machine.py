"""The machine the lab runs on, which must not notice: what a session may not leave behind, and may not have touched."""

import os
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

from tests.lab.control_groups import hierarchies, remove_control_groups
from tests.lab.names import DISKS, is_ours, owner
from tests.lab.net import RUN_NETNS, delete_netns
from tests.lab.node import remove_disk
from tests.lab.process import children, exists, run


@dataclass(frozen=True, slots=True)
class Machine:
    """Links and rules of the machine's own netns, and every trace of this session: see `traces`."""

    links: tuple[str, ...]
    rules: tuple[str, ...]
    traces: tuple[str, ...]

    def difference(self, after: "Machine") -> str:
        """Say what came (+) and what went (-); empty if nothing did."""
        said: list[str] = []
        for field in fields(self):
            old, new = Counter(getattr(self, field.name)), Counter(getattr(after, field.name))
            said += [
                f"{field.name}: {sign} {line}" for sign, lines in (("-", old - new), ("+", new - old)) for line in lines
            ]
        return "\n".join(said)


def machine() -> Machine:
    """Look at the machine."""
    return Machine(
        links=tuple(sorted(path.name for path in Path("/sys/class/net").iterdir())),
        rules=tuple(_rules()),
        traces=tuple(sorted(traces())),
    )


def _rules() -> Iterable[str]:
    return run(["nft", "--stateless", "list", "ruleset"], check=False).stdout.splitlines()


def traces() -> Iterable[str]:
    """Find what carries this session's name or is its child: namespaces, disks, mounts, control groups, processes."""
    for folder in (RUN_NETNS, DISKS, *hierarchies()):
        yield from (str(path) for path in folder.glob("wl-*") if is_ours(path.name))
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        if any(is_ours(part) for part in line.replace(" ", "/").split("/")):
            yield f"mount {line}"
    for pid in children(os.getpid()):
        yield f"process {pid}: {_command(pid)}"


def sweep() -> None:
    """Remove what sessions left that ended without cleaning up (SIGKILL): their nodes died with them, names stay."""
    left = [path.name for folder in (RUN_NETNS, DISKS, *hierarchies()) for path in folder.glob("wl-*")]
    for name in set(left):
        pid = owner(name)
        if pid is not None and not exists(pid):
            delete_netns(name)
            remove_disk(name)
            with suppress(OSError):  # busy: its session lives in another PID namespace
                remove_control_groups(name)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").replace("\0", " ").strip()
    except OSError:
        return "gone"
