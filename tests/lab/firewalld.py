"""firewalld and the system bus in a node, as on a machine that boots with them; and ufw.

On a node with another root they are the machine's own programs, beside it, with a configuration of their own; their bus
lies in the node all the same, where dockerd looks for it.
"""

import os
import shutil
import signal
import subprocess
from typing import Self

from tests.lab.node import Node
from tests.lab.process import Environment, Place, Process
from tests.lab.wait import await_

SOCKET = "/run/dbus/system_bus_socket"
SOCKET_ADDRESS = f"unix:path={SOCKET}"

CONFIG = """
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
  "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>{address}</listen>
  <auth>EXTERNAL</auth>
  <servicedir>{services}</servicedir>
  <policy context="default"><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/></policy>
</busconfig>
"""
"""Everybody may do everything, and polkitd is not started: it would be outside of the node."""

RELOAD = """
from firewall.client import FirewallClient
FirewallClient().reload()
"""
EVERYTHING = """
from firewall.client import FirewallClient
client = FirewallClient()
config = client.config()
for name in client.getZones():
    print("zone", name, sorted(client.getZoneSettings(name).getSettingsDict().items()))
for name in client.getPolicies():
    print("policy", name, sorted(client.getPolicySettings(name).getSettingsDict().items()))
for name in config.getZoneNames():
    print("kept zone", name, sorted(config.getZoneByName(name).getSettings().getSettingsDict().items()))
for name in config.getPolicyNames():
    print("kept policy", name, sorted(config.getPolicyByName(name).getSettings().getSettingsDict().items()))
"""
"""Debian's own Python prints what eight calls of firewall-cmd would, in the time of one."""


class Bus:
    """The system bus of a node. What `services` describe, D-Bus's own way, is started by whoever asks for it."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.services = node.disk / "services"
        self._process: Process | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def place(self) -> Place:
        """Where its programs run: in the node, or beside it."""
        return self.node if self.node.root is None else self.node.beside

    @property
    def environment(self) -> Environment:
        """What makes a program at that place use this bus."""
        return {"DBUS_SYSTEM_BUS_ADDRESS": SOCKET_ADDRESS} if self.node.root is None else self.beside

    @property
    def beside(self) -> Environment:
        """What makes a program with the machine's own files use it."""
        return {"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={self.node.path(SOCKET)}"}

    def start(self) -> None:
        """Start dbus-daemon and wait for its socket."""
        socket = self.node.path(SOCKET)
        socket.parent.mkdir(exist_ok=True)
        socket.unlink(missing_ok=True)
        self.services.mkdir(exist_ok=True)
        address = self.environment["DBUS_SYSTEM_BUS_ADDRESS"]
        config = self.node.disk / "bus.conf"
        config.write_text(CONFIG.format(address=address, services=self.services), encoding="ascii")
        log = self.node.disk / "bus.log"
        self._process = self.place.spawn("dbus-daemon", f"--config-file={config}", "--nofork", log=log)
        await_(socket.is_socket, 20, f"the system bus of {self.node.netns}")

    def stop(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()

    def run(self, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program that uses the bus."""
        return self.place.run(*argv, check=check, env=self.environment)


class Firewalld:
    """firewalld on the bus of a node, with Debian's configuration."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.node = bus.node
        self.config = self.node.disk / "firewalld"
        self.log = self.node.disk / "firewalld.log"
        self._process: Process | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.config.mkdir(exist_ok=True)
        shutil.copy("/etc/firewalld/firewalld.conf", self.config)
        options = ("--nofork", "--nopid", "--log-target=console", f"--system-config={self.config}")
        self._process = process = self.bus.place.spawn("firewalld", *options, log=self.log, env=self.bus.environment)

        def answers() -> bool:
            if not process.alive:
                raise RuntimeError(f"firewalld ended with {process.returncode}:\n{process.text()[-4000:]}")
            return self.cmd("--state", check=False) == "running"

        await_(answers, 60, f"firewalld in {self.node.netns}")

    @property
    def is_running(self) -> bool:
        """Tell whether it lives."""
        return self._process is not None and self._process.alive

    def stop(self) -> None:
        """SIGTERM: it takes its rules away."""
        if self._process is not None:
            self._process.stop(60)

    def restart(self) -> None:
        """SIGTERM and start."""
        self.stop()
        self.start()

    def hang(self) -> None:
        """Let it answer nothing from now on."""
        if self._process is not None:
            self._process.signal(signal.SIGSTOP)

    def wake(self) -> None:
        """Let it go on; also `nsenter`, which stops with its child."""
        if self._process is not None:
            os.killpg(os.getpgid(self._process.pid), signal.SIGCONT)

    def cmd(self, *args: str, check: bool = True) -> str:
        """Run `firewall-cmd ARGS` as a person on that host would; return what it prints."""
        return self.bus.run("firewall-cmd", *args, check=check).stdout.strip()

    def everything(self) -> str:
        """Return all zones and policies that it has, on disk and now."""
        return self.bus.run("/usr/bin/python3", "-c", EVERYTHING).stdout

    def reset(self) -> str:
        """Have it forget what it was told, and return `everything`, which is Debian's then."""
        for kind in ("zones", "policies"):
            shutil.rmtree(self.config / kind, ignore_errors=True)
        return self.bus.run("/usr/bin/python3", "-c", RELOAD + EVERYTHING).stdout

    def type(self, lines: str) -> None:
        """Type a line that weft has printed, `a; b` or `a && b`, at a shell."""
        self.bus.run("sh", "-ec", lines)
