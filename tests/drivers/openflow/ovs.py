"""An Open vSwitch of a test's own, with the userspace datapath, in the network namespace of the thread that starts it.

Nothing is daemonised: the two programs are children of this process, and end with it or before.
"""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from tests.lab.wait import await_

SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
BRIDGE = "br-int"
BOUND = 20  # seconds


class Ovs:
    """ovsdb-server and ovs-vswitchd. Leaving the ``with`` ends both."""

    def __init__(self) -> None:
        self.rundir = Path(tempfile.mkdtemp(prefix="ovs-"))  # short: a socket's path has 107 bytes
        self._db = self.rundir / "db.sock"
        self._netns = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._programs: dict[str, subprocess.Popen[bytes]] = {}
        self._numbers: dict[str, int] = {}

    def __enter__(self) -> Self:
        self.run("ovsdb-tool", "create", f"{self.rundir}/conf.db", SCHEMA)
        self._start("ovsdb-server", f"{self.rundir}/conf.db", f"--remote=punix:{self._db}")
        await_(self._db.exists, BOUND, "ovsdb-server's socket")
        self.vsctl("--no-wait", "init")
        self.start_vswitchd()
        return self

    def __exit__(self, *_: object) -> None:
        for name in ("ovs-vswitchd", "ovsdb-server"):
            self.stop(name)
        os.close(self._netns)
        shutil.rmtree(self.rundir)

    def start_vswitchd(self) -> None:
        """Start ovs-vswitchd, and wait until it has taken what the database holds."""
        self._start("ovs-vswitchd", f"unix:{self._db}")
        self.vsctl("set", "Open_vSwitch", ".", "external_ids:test=started")

    def stop(self, name: str, how: signal.Signals = signal.SIGTERM) -> None:
        """End one of the two programs."""
        program = self._programs.pop(name, None)
        if program is not None:
            program.send_signal(how)
            program.wait(BOUND)

    def pause(self) -> None:
        """Let ovs-vswitchd hang."""
        self._programs["ovs-vswitchd"].send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._programs["ovs-vswitchd"].send_signal(signal.SIGCONT)

    def add_bridge(self, name: str = BRIDGE, *more: str) -> None:
        """Make a bridge that drops what no flow takes."""
        self.vsctl("add-br", name, "--", "set", "bridge", name, "datapath_type=netdev", "fail_mode=secure", *more)

    def add_port(self, name: str, *settings: str, bridge: str = BRIDGE) -> int:
        """Make an interface of the bridge, an internal one unless told otherwise, and return its OpenFlow number."""
        self.vsctl("add-port", bridge, name, "--", "set", "interface", name, *(settings or ("type=internal",)))
        number = int(self.vsctl("get", "interface", name, "ofport"))
        self._numbers[name] = number
        return number

    def remove_port(self, name: str) -> None:
        """Remove an interface."""
        self.vsctl("del-port", name)
        self._numbers.pop(name, None)

    def ofport(self, name: str) -> int | None:
        """Return an interface's OpenFlow number, as the OVSDB backend would."""
        return self._numbers.get(name)

    def vsctl(self, *args: str) -> str:
        """Run ovs-vsctl."""
        return self.run("ovs-vsctl", f"--db=unix:{self._db}", "--timeout=20", *args).strip()

    def ofctl(self, *args: str, text: str = "") -> str:
        """Run ovs-ofctl."""
        return self.run("ovs-ofctl", "-O", "OpenFlow14", *args, text=text)

    def appctl(self, *args: str) -> str:
        """Run ovs-appctl at ovs-vswitchd."""
        pid = self._programs["ovs-vswitchd"].pid
        return self.run("ovs-appctl", "-t", f"{self.rundir}/ovs-vswitchd.{pid}.ctl", *args)

    def flows(self, bridge: str = BRIDGE) -> list[str]:
        """Return all flows as ovs-ofctl shows them, without counters and quotes, sorted."""
        told = self.ofctl("--names", "--no-stats", "dump-flows", bridge)
        return sorted(line.strip().replace('"', "") for line in told.splitlines())

    def run(self, *args: str, text: str = "") -> str:
        """Run a program beside the two, and return what it prints."""
        done = subprocess.run(args, input=text, env=self._env, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode:
            raise AssertionError(f"{' '.join(args)}: {done.stderr or done.stdout}")
        return done.stdout

    @property
    def _env(self) -> Mapping[str, str]:
        folders = ("OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR")
        return {**os.environ, **dict.fromkeys(folders, str(self.rundir))}

    def _start(self, name: str, *args: str) -> None:
        """Start a program in the namespace in which this object was made, whichever thread asks."""
        enter = ("setpriv", "--pdeathsig=KILL", "nsenter", f"--net=/proc/{os.getpid()}/fd/{self._netns}", "--")
        log = ("-vconsole:off", f"--log-file={self.rundir}/{name}.log")
        self._programs[name] = subprocess.Popen(
            [*enter, name, *log, "--no-chdir", *args], env=self._env, stdin=subprocess.DEVNULL
        )
