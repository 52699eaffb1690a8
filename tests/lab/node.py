"""A Docker host on this machine: namespaces, a /run and a disk of its own, and a plug that can be pulled.

`nsenter` and `unshare`, not `ip netns exec`, which hides /sys/fs/cgroup; `pivot_root`, not `chroot`, or `docker exec`
lands in the machine's own root; a PID namespace, so that nothing outlives the node's init.
"""

import os
import shutil
import signal
import subprocess
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Self

from tests.lab.control_groups import remove_control_groups
from tests.lab.names import DISKS, unique
from tests.lab.net import add_netns, delete_netns
from tests.lab.process import Place, children
from tests.lab.wait import await_

INIT = Path(__file__).with_name("init.sh")


class Node(Place):
    """A Docker host: programs run in its net, mount, pid, uts and ipc namespaces.

    Its disk holds /etc/docker, /var/lib/docker, /var/lib/containerd, /var/lib/weft and whatever else it writes below
    /etc, /opt and /var/lib; /run is a tmpfs and gone with the power. The rest it shares with the machine, or with
    `root`: a folder with another engine in it (see `root.py`).
    """

    forks = True

    def __init__(self, label: str, root: Path | None = None) -> None:
        super().__init__()
        self.netns = unique(label)
        self.root = root
        self.disk = DISKS / self.netns
        self._unshare: subprocess.Popen[bytes] | None = None
        self._pid = 0
        self.beside = Beside(self)
        """The node's network and processes, the machine's own files: where weft runs if `root` is another Debian."""

    @property
    def workplace(self) -> Place:
        """Where the machine's own programs run: in the node, or beside it if `root` is another Debian."""
        return self if self.root is None else self.beside

    def __enter__(self) -> Self:
        try:
            self.up()
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    @property
    def pid(self) -> int:
        """The machine's pid of the node's init; another one after each `up`."""
        if not self.is_up:
            raise RuntimeError(f"{self.netns} has no power")
        return self._pid

    @property
    def is_up(self) -> bool:
        """Tell whether the node has power."""
        return self._unshare is not None and self._unshare.poll() is None

    def path(self, inside: str) -> Path:
        """Return the machine's path of a path inside the node; sockets can be bound and connected there."""
        return Path(f"/proc/{self.pid}/root{inside}")

    def door(self) -> tuple[str, ...]:
        """`nsenter` into all namespaces of the node."""
        return ("nsenter", "-t", str(self.pid), "-m", "-n", "-p", "-u", "-i", "--")

    def up(self) -> None:
        """Give it power: a new netns, a new boot, the old disk."""
        add_netns(self.netns)
        self.disk.mkdir(parents=True, exist_ok=True)
        log = self.disk / "init.log"
        enter = ("nsenter", f"--net=/run/netns/{self.netns}")
        leave = ("unshare", "--mount", "--uts", "--pid", "--ipc", "--fork", "--kill-child", "--propagation", "private")
        init = ("/bin/bash", str(INIT), self.netns, str(self.disk), str(self.root or ""))
        with log.open("wb") as out:
            self._unshare = unshare = subprocess.Popen(
                (*enter, *leave, *init), stdin=subprocess.PIPE, stdout=out, stderr=out, start_new_session=True
            )

        def booted() -> int | None:
            if unshare.poll() is not None:
                raise RuntimeError(f"{self.netns} did not start: {log.read_text(encoding='utf-8')}")
            pid = next(iter(children(unshare.pid)), 0)
            return pid if pid and Path(f"/proc/{pid}/root/run/node-up").exists() else None

        self._pid = await_(booted, 20, f"{self.netns} to boot")

    def power_off(self) -> None:
        """Pull the plug: SIGKILL for init, and the kernel does the rest (pid_namespaces(7)). The disk stays."""
        if self._unshare is not None:
            for pid in children(self._unshare.pid):
                os.kill(pid, signal.SIGKILL)
            self._unshare.wait()
            if self._unshare.stdin:
                self._unshare.stdin.close()
            self._unshare = None
        self.end_spawned()
        self.beside.end_spawned()
        delete_netns(self.netns)
        await_(partial(remove_control_groups, self.netns), 10, f"the control groups of {self.netns} to be empty")

    def down(self) -> None:
        """Pull the plug and throw the disk away."""
        self.power_off()
        remove_disk(self.netns)


def remove_disk(name: str) -> None:
    """Throw a node's disk away, and the folder of all disks with the last one."""
    shutil.rmtree(DISKS / name, ignore_errors=True)
    with suppress(OSError):
        DISKS.rmdir()


class Beside(Place):
    """The node's network and processes, the machine's own files.

    `ip netns exec` inside gives a /sys of the node's network; the PID namespace is entered too, so that pulling the
    plug ends what runs here like everything else.
    """

    forks = True

    def __init__(self, node: Node) -> None:
        super().__init__()
        self._node = node

    def door(self) -> tuple[str, ...]:
        """`nsenter` without the mount namespace, then `ip netns exec`."""
        node = self._node
        return ("nsenter", "-t", str(node.pid), "-p", "-u", "-i", "--", "ip", "netns", "exec", node.netns)
