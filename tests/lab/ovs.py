"""A real Open vSwitch with the userspace datapath, in a namespace or a node of the tests' own.

It needs no kernel module and no service of the machine. Several of them live on one machine, each with a run directory
and a network namespace of its own: two in one namespace would both want the link `ovs-netdev` (facts/ovs.md 1).

    with NetNs("ovs") as netns, Ovs(netns) as ovs:
        ovs.vsctl("add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev")
"""

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Self

from drivers.kernel.offload import compute_checksums
from tests.lab.names import DISKS
from tests.lab.net import RUN_NETNS, NetNs
from tests.lab.node import Node
from tests.lab.process import Environment, Place, Process
from tests.lab.wait import await_
from tests.netns import inside

RUNDIR = Path("/run/openvswitch")
DATABASE = Path("/etc/openvswitch/conf.db")
SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"

BOUND = 20
"""Seconds for a daemon to answer, on a machine that has something else to do."""


class Ovs:
    """ovsdb-server and ovs-vswitchd. Either may be killed and started again; the database stays.

    In a `Node` everything is where Debian puts it: /run/openvswitch, which goes with the power, and the database on the
    disk in /etc/openvswitch. One with another root has the machine's programs beside it, as it has weft, with their
    sockets in the node. In a `NetNs` all of it is in one folder, thrown away at the end.
    """

    def __init__(self, home: NetNs | Node) -> None:
        self._home = home
        self.netns = home.netns
        self.place: Place = home.workplace if isinstance(home, Node) else home
        self.database: Process | None = None
        self.vswitchd: Process | None = None
        self._logs = home.disk if isinstance(home, Node) else DISKS / home.netns
        self._rundir = RUNDIR if isinstance(home, Node) else self._logs
        """The run directory, as whoever is at home sees it."""
        self._file = DATABASE if self.place is home and isinstance(home, Node) else self._logs / "conf.db"

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        if not isinstance(self._home, Node):
            shutil.rmtree(self._rundir, ignore_errors=True)
            with suppress(OSError):
                DISKS.rmdir()

    @property
    def rundir(self) -> Path:
        """The run directory, as the programs see it."""
        return self._rundir if self.place is self._home else self.outside

    @property
    def outside(self) -> Path:
        """The run directory, as the machine sees it; another one after each `up` of a node."""
        return self._home.path(str(self._rundir)) if isinstance(self._home, Node) else self._rundir

    @property
    def remote(self) -> str:
        """What a client on the machine connects to: `unix:` and a path."""
        return f"unix:{self.outside / 'db.sock'}"

    @property
    def environment(self) -> Environment:
        """What makes the programs of Open vSwitch use this one, in the place."""
        names = ("OVS_RUNDIR", "OVS_LOGDIR", "OVS_SYSCONFDIR")
        return dict.fromkeys(names, str(self.rundir)) | {"OVS_DBDIR": str(self._file.parent)}

    def start(self) -> None:
        """Start both daemons and wait until what is in the database is in effect."""
        self.start_database()
        self.start_vswitchd()

    def start_database(self) -> None:
        """Start ovsdb-server, with a new database where there is none, and wait until it answers."""
        for folder in (self.rundir, self._file.parent):
            self.place.run("mkdir", "-p", folder)
        if self.place.run("test", "-s", self._file, check=False).returncode:
            self.place.run("ovsdb-tool", "create", self._file, SCHEMA)
        remotes = (f"--remote=punix:{self.rundir}/db.sock", "--remote=db:Open_vSwitch,Open_vSwitch,manager_options")
        self.database = self._spawn("ovsdb-server", self._file, *remotes)
        self._await(self.database, "--no-wait", "init")

    def start_vswitchd(self) -> None:
        """Start ovs-vswitchd and wait until it has taken what is in the database."""
        self.vswitchd = self._spawn("ovs-vswitchd", f"unix:{self.rundir}/db.sock")
        # ovs-vsctl waits for what it has changed: another value each time (the machine's pids are)
        self._await(self.vswitchd, "set", "Open_vSwitch", ".", f"external-ids:weft-lab={self.vswitchd.pid}")

    def kill_database(self) -> None:
        """SIGKILL for ovsdb-server."""
        if self.database is not None:
            self.database.kill()

    def kill_vswitchd(self) -> None:
        """SIGKILL for ovs-vswitchd: flows are lost, ports and their numbers are not (facts/ovs.md 6)."""
        if self.vswitchd is not None:
            self.vswitchd.kill()

    def kill(self) -> None:
        """SIGKILL for both."""
        self.kill_vswitchd()
        self.kill_database()

    def forget(self) -> None:
        """Throw the database away, while ovsdb-server is down."""
        self.place.run("rm", "-f", self._file)

    def vsctl(self, *args: str, check: bool = True) -> str:
        """Run `ovs-vsctl ARGS`, which waits for ovs-vswitchd, 10 s at most; return what it prints."""
        how = ("ovs-vsctl", "--timeout=10", f"--db=unix:{self.rundir}/db.sock")
        return self.place.run(*how, *args, env=self.environment, check=check).stdout.strip()

    def ofctl(self, *args: str, stdin: str = "") -> str:
        """Run `ovs-ofctl -O OpenFlow14 ARGS`; return what it prints."""
        return self.place.run("ovs-ofctl", "-O", "OpenFlow14", *args, env=self.environment, stdin=stdin).stdout

    def appctl(self, *args: str) -> str:
        """Run `ovs-appctl ARGS` for ovs-vswitchd; return what it prints."""
        return self.place.run("ovs-appctl", *args, env=self.environment).stdout

    def take_nic(self, link: str, bridge: str = "br-phy") -> None:
        """Move a link and its addresses to a bridge: in userspace, tunnels leave by no other (facts/ovs.md 2).

        The bridge has a MAC of its own, and the link itself answers nobody: else each packet would be taken twice.
        """
        told = json.loads(self.place.run("ip", "-j", "address", "show", "dev", link).stdout)[0]
        own = [f"{one['local']}/{one['prefixlen']}" for one in told["addr_info"] if one["scope"] == "global"]
        mac = f"06{told['address'][2:]}"
        with inside(RUN_NETNS / self.netns):
            compute_checksums(link)
        self.place.run("ip", "address", "flush", "dev", link, "scope", "global")
        self.place.run("ip", "link", "set", link, "arp", "off")
        self.place.run("sh", "-c", f"echo 1 >/proc/sys/net/ipv6/conf/{link}/disable_ipv6")
        self.vsctl(
            *("add-br", bridge, "--", "set", "Bridge", bridge, "datapath_type=netdev", "fail_mode=standalone"),
            *(f"other_config:hwaddr={mac}", "--", "add-port", bridge, link),
        )
        for address in own:
            self.place.run("ip", "address", "add", address, "dev", bridge, *(["nodad"] if ":" in address else []))
        self.place.run("ip", "link", "set", bridge, "up")

    def log_text(self) -> str:
        """Return what ovs-vswitchd has said, over all its starts."""
        return (self._logs / "ovs-vswitchd.log").read_text(encoding="utf-8", errors="replace")

    def _spawn(self, program: str, *args: str | Path) -> Process:
        argv = (program, *args, "--pidfile", "--no-chdir", "-vsyslog:off", "-vconsole:info")
        return self.place.spawn(*argv, log=self._logs / f"{program}.log", env=self.environment)

    def _await(self, daemon: Process, *args: str) -> None:
        """Wait until `ovs-vsctl ARGS` succeeds, which takes this daemon."""
        how = ("ovs-vsctl", "--timeout=1", f"--db=unix:{self.rundir}/db.sock")

        def answers() -> bool:
            if not daemon.alive:
                raise RuntimeError(f"{' '.join(daemon.argv)}: exit {daemon.returncode}\n{daemon.text()}")
            return self.place.run(*how, *args, env=self.environment, check=False).returncode == 0

        await_(answers, BOUND, f"{daemon.argv} to answer")
