"""A virtual machine with a stock Debian kernel: what this machine's own kernel lacks is there, and a reboot is one.

qemu interprets the guest (TCG), for KVM is not everywhere. Programs are run through a serial port, whatever becomes of
the guest's network. Its disk is a layer over that of `vm_image`; what it gets from the working tree is a second disk
(`vm_goods`).
"""

import json
import socket
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from tests.lab import vm_image
from tests.lab.names import DISKS, unique
from tests.lab.node import remove_disk
from tests.lab.process import CommandFailedError, Process, run
from tests.lab.wait import await_

PATIENCE = 600
"""Seconds that a guest may take to boot: it is interpreted, on a machine that has something else to do."""
SLACK = 60
"""Seconds beyond a program's own bound, for its answer."""
MEMORY = 1536  # MiB


class Port:
    """A serial port of the guest, on which each line is a message in JSON."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.connect(str(path))
        except OSError:
            self._socket.close()
            raise
        self._changed = threading.Condition()
        self._answers: dict[int, dict[str, Any]] = {}
        self._asked = 0
        self.boots: list[str] = []
        """The boot ids of those who came to the other end, in order."""
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        """Hear no more."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _listen(self) -> None:
        with self._socket.makefile("rb") as lines:
            for line in lines:
                with suppress(ValueError), self._changed:  # a machine that reboots may cut a line
                    said = json.loads(line)
                    if "boot" in said:
                        self.boots.append(said["boot"])
                    else:
                        self._answers[said["id"]] = said
                    self._changed.notify_all()

    def ask(self, message: dict[str, Any], bound: float) -> dict[str, Any]:
        """Send a message and return its answer."""
        with self._changed:
            self._asked += 1
            number = self._asked
            self._socket.sendall(json.dumps(message | {"id": number}).encode() + b"\n")
            if not self._changed.wait_for(lambda: number in self._answers, bound):
                raise TimeoutError(f"no answer within {bound:g} s to {message}")
            return self._answers.pop(number)

    def await_boots(self, count: int, alive: Process) -> None:
        """Wait until somebody came to the other end so many times."""

        def came() -> bool:
            if not alive.alive:
                raise RuntimeError(f"qemu ended with {alive.returncode}: {alive.text()}")
            return len(self.boots) >= count

        await_(came, PATIENCE, f"boot {count}")


class VM:
    """A machine with one network card, at the end `wire` (arguments of qemu's -netdev); `goods` is its second disk."""

    def __init__(self, label: str, number: int, wire: str, goods: Path) -> None:
        self.name = label
        self.folder = DISKS / unique(label)
        self._number = number
        self._wire = wire
        self._goods = goods
        self._process: Process | None = None
        self.agent: Port
        self.hand: Port

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True)
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process = None
            self.agent.close()
            self.hand.close()
        remove_disk(self.folder.name)

    @property
    def process(self) -> Process:
        """Its qemu."""
        if self._process is None:
            raise RuntimeError(f"{self.name} has no power")
        return self._process

    def _start(self) -> None:
        image, disk = vm_image.folder(), self.folder / "disk"
        run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(image / "disk"), str(disk)])
        self._process = Process(self._argv(image, disk), self.folder / "qemu.log", None, forks=False)
        self.agent, self.hand = self._port("agent"), self._port("hand")

    def _argv(self, image: Path, disk: Path) -> Sequence[str]:
        kernel = "root=/dev/vda rw console=ttyS0 loglevel=4 panic=1 net.ifnames=0 mitigations=off"
        more = f"systemd.hostname={self.name} systemd.mask=serial-getty@ttyS0.service systemd.show_status=error"
        drives = ((disk, "qcow2", "off"), (self._goods, "raw", "on"))
        return [
            *("qemu-system-x86_64", "-name", self.name, "-machine", "q35", "-accel", "tcg", "-cpu", "Nehalem"),
            *("-smp", "1", "-m", str(MEMORY), "-nodefaults", "-no-user-config", "-display", "none"),
            *("-kernel", str(image / "kernel"), "-initrd", str(image / "initrd"), "-append", f"{kernel} {more}"),
            *("-serial", f"file:{self.folder / 'console'}"),
            *("-device", "virtio-rng-pci", "-device", "virtio-serial-pci"),
            *(
                part
                for at, (path, form, fixed) in enumerate(drives)
                for part in (
                    *("-drive", f"if=none,id=disk{at},file={path},format={form},readonly={fixed},cache=unsafe"),
                    *("-device", f"virtio-blk-pci,drive=disk{at}"),
                )
            ),
            *(
                part
                for name, port in (("agent", "weft-lab"), ("hand", "weft-hand"))
                for part in (
                    *("-chardev", f"socket,id={name},path={self.folder / name},server=on,wait=off"),
                    *("-device", f"virtserialport,chardev={name},name={port}"),
                )
            ),
            *("-netdev", f"{self._wire},id=lan"),
            *("-device", f"virtio-net-pci,netdev=lan,mac={vm_image.mac(self._number)}"),
        ]

    def _port(self, name: str) -> Port:
        def connected() -> Port | None:
            if not self.process.alive:
                raise RuntimeError(f"qemu ended with {self.process.returncode}: {self.process.text()}")
            return Port(self.folder / name)

        return await_(connected, 20, f"qemu of {self.name}")

    def await_up(self, boots: int = 1) -> None:
        """Wait until it has booted so many times, and everything that starts with it has been started."""
        self.agent.await_boots(boots, self.process)
        done = self.run("systemctl", "is-system-running", "--wait", check=False, timeout=PATIENCE)
        if done.stdout.strip() != "running":
            raise RuntimeError(f"{self.name}: {done.stdout}{self.run('systemctl', '--failed').stdout}")

    def reboot(self) -> None:
        """`systemctl reboot`, and wait until it is up again."""
        boots = len(self.agent.boots)
        self.run("systemctl", "reboot", "--no-block")
        self.await_up(boots + 1)
        if len(set(self.agent.boots)) != boots + 1:
            raise RuntimeError(f"{self.name} came back without a boot: {self.agent.boots}")

    def run(
        self, *argv: str | Path, check: bool = True, stdin: str = "", timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in it to its end."""
        words = list(map(str, argv))
        message = {"argv": words, "stdin": stdin, "env": {}, "timeout": timeout}
        said = self.agent.ask(message, timeout + SLACK)
        done = subprocess.CompletedProcess(words, said["code"], said["out"], said["err"])
        if check and done.returncode:
            raise CommandFailedError(done)
        return done


def wires(folder: Path) -> tuple[str, str]:
    """Return the two ends of one wire, as `VM` takes them: frames go from socket to socket, on this machine alone."""
    here, there = folder / "here", folder / "there"
    return _end(here, there), _end(there, here)


def _end(own: Path, other: Path) -> str:
    return f"dgram,local.type=unix,local.path={own},remote.type=unix,remote.path={other}"
