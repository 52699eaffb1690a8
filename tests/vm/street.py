"""Two hosts with a stock Debian kernel on one wire: engine, Open vSwitch and weft as services of each, under systemd.

host a  192.0.2.1  2001:db8:2::1      two containers on each network
host b  192.0.2.2  2001:db8:2::2      one
"""

import json
import subprocess
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from typing import Any

from tests.lab import image, vm_goods
from tests.lab.lan import address4
from tests.lab.vm import VM, wires
from tests.matrix.traffic import OPEN, PORT, PROTOCOLS

SOON = 300
"""Seconds: what a machine that is interpreted may take."""
MODULES = (
    "openvswitch",
    "vport-vxlan",
    "vport-gre",
    "vport-geneve",
    "ip_gre",
    "ip6_gre",
    "geneve",
    "vxlan",
    "nft_ct",
    "sctp",
    "ip_vs_rr",
    "xt_ipvs",
)
"""What is loaded by itself, too, but by an interpreted machine not within the 20 s that a call may take."""
PACKED = 1500
"""Seconds for Docker to pack 150 MB, and to unpack it."""
HAND = "weft-lab-hand"
ON = {"a": 2, "b": 1}
"""How many containers of each network a host has."""


@dataclass(frozen=True)
class Party:
    """A container: where it is, and its addresses by IP version."""

    name: str
    host: "StockHost"
    addresses: dict[int, str]


class StockHost:
    """One of the hosts, as its operator sees it."""

    def __init__(self, vm: VM, number: int) -> None:
        self.vm = vm
        self.number = number

    @property
    def address(self) -> str:
        """Its address on the wire."""
        return str(address4(self.number))

    def set_up(self) -> None:
        """Do what docs/install.md says, once."""
        self.vm.await_up()
        self.vm.run("modprobe", "-a", *MODULES, timeout=SOON)
        self.vm.run(vm_goods.WEFT, "install-service")
        self.vm.run("systemctl", "daemon-reload")
        self.vm.run("systemctl", "enable", "--now", "weft.socket", "weft.service", timeout=SOON)
        self.docker("import", "-c", f"CMD {json.dumps(image.COMMAND)}", str(vm_goods.IMAGE), image.NAME)
        self.lend_hand()

    def lend_hand(self) -> None:
        """Start what speaks from the containers."""
        count = len(self.vm.hand.boots)
        start = ("systemd-run", f"--unit={HAND}", f"--setenv=PYTHONPATH={vm_goods.LAB}")
        self.vm.run(*start, "/usr/bin/python3", "-m", "tests.vm.hand")
        self.vm.hand.await_boots(count + 1, self.vm.process)
        self.do("be_in", name=self.vm.name, netns="/proc/1/ns/net", sctp=False)

    def do(self, call: str, **how: object) -> Any:  # noqa: ANN401 - JSON is anything
        """Have the hand do something; return what it says."""
        said = self.vm.hand.ask({"call": call, **how}, SOON)
        if "failed" in said:
            raise AssertionError(f"{call} on {self.vm.name}: {said['failed']}")
        return said["said"]

    def docker(self, *args: str, check: bool = True, bound: float = SOON) -> str:
        """Run `docker ARGS` as a person there would."""
        done = self.vm.run("docker", *args, check=check, timeout=bound)
        return (done.stdout if check else done.stdout + done.stderr).strip()

    def weft(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `weft ARGS` as a person there would."""
        return self.vm.run(vm_goods.WEFT, *args, check=check)

    def create(self, network: str, number: int, *options: str, check: bool = True) -> str:
        """Make this host's part of a network: the same on each host but for its range of addresses."""
        return self.docker(
            *("network", "create", "-d", "weft"),
            *("--subnet", f"10.20.{number}.0/24", "--gateway", f"10.20.{number}.1"),
            *("--ip-range", f"10.20.{number}.{16 * self.number}/28"),
            *("--ipv6", "--subnet", f"fd20:{number}::/64", "--gateway", f"fd20:{number}::1"),
            *("--ip-range", f"fd20:{number}::{self.number}:0/112"),
            *(part for option in options for part in ("-o", option)),
            network,
            check=check,
        )

    def start(self, name: str, network: str, *args: str) -> Party:
        """Start a container that comes back by itself, and be in it."""
        self.docker("run", "-d", "--name", name, "--restart", "always", "--network", network, *args, image.NAME)
        return self.party(name)

    def party(self, name: str) -> Party:
        """Be in a running container."""
        (told,) = json.loads(self.docker("inspect", name))
        self.do("be_in", name=name, netns=f"/proc/{told['State']['Pid']}/ns/net", sctp=True)
        (on,) = told["NetworkSettings"]["Networks"].values()
        return Party(name, self, {4: on["IPAddress"], 6: on["GlobalIPv6Address"]})

    def in_(self, name: str, *argv: str) -> str:
        """Run a program of the host's in a container's network namespace."""
        pid = self.docker("inspect", "-f", "{{.State.Pid}}", name)
        return self.vm.run("nsenter", "-t", pid, "-n", *argv).stdout

    def versions(self) -> str:
        """Return what it is made of."""
        kernel = self.vm.run("uname", "-r").stdout.strip()
        switch = self.vm.run("ovs-vswitchd", "--version").stdout.split("\n")[0].split()[-1]
        engine = self.docker("version", "-f", "{{.Server.Version}}")
        return f"Linux {kernel}, Open vSwitch {switch}, Docker Engine {engine}"

    def complaints(self) -> str:
        """Return what is wrong, as weft and Docker say since the last boot."""
        said = self.vm.run("journalctl", "-b", "-p", "warning", "-u", "weft", "-u", "docker", "--no-pager", check=False)
        return f"{self.docker('ps', '-a')}\n{self.weft('status', check=False).stdout}\n{said.stdout[-4000:]}"

    def healthy(self) -> bool:
        """Tell whether the host is as weft wants it."""
        return bool(json.loads(self.weft("status", "--json", check=False).stdout)["healthy"])

    def serve_as_plugin(self, *settings: str) -> None:
        """Have the managed plugin in place of the service."""
        self.vm.run("systemctl", "disable", "--now", "weft.socket", "weft.service", timeout=SOON)
        self.docker("plugin", "create", "weft", str(vm_goods.PLUGIN), bound=PACKED)
        self.docker("plugin", "set", "weft", *settings)
        self.docker("plugin", "enable", "--timeout", str(SOON), "weft")

    def serve_as_service(self) -> None:
        """Have the service again."""
        self.docker("plugin", "rm", "-f", "weft", check=False)
        self.vm.run("systemctl", "enable", "--now", "weft.socket", "weft.service", timeout=SOON)

    def clean(self) -> None:
        """Remove every container and network."""
        if found := self.docker("ps", "-aq").split():
            self.docker("rm", "-f", *found)
        if found := self.docker("network", "ls", "-q", "-f", "driver=weft").split():
            self.docker("network", "rm", *found)


Cell = tuple[Party, Party, str]


@dataclass
class Street:
    """The hosts, and the containers by network."""

    hosts: dict[str, StockHost]
    backend: str
    parties: dict[str, list[Party]] = field(default_factory=dict)

    def on_both(self, act: Callable[[StockHost], object]) -> None:
        """Do something on both hosts at once."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(act, self.hosts.values()))

    def build(self, networks: Iterable[str]) -> None:
        """Make a network by each kind of tunnel, and the containers.

        One host after the other makes its part: both at once are interpreted too slowly for what a call may take.
        """
        kinds = list(networks)
        peers = f"weft.peers={address4(1)},{address4(2)}"
        for host in self.hosts.values():
            for number, kind in enumerate(kinds, 1):
                options = (f"weft.backend={self.backend}", f"weft.tunnel={kind}", f"weft.name={kind}", peers)
                host.create(kind, number, *options)

        def part(host: StockHost) -> list[tuple[str, Party]]:
            names = {f"{kind}-{host.vm.name}{which + 1}": kind for kind in kinds for which in range(ON[host.vm.name])}
            return [(kind, host.start(name, kind)) for name, kind in names.items()]

        with ThreadPoolExecutor() as pool:
            for made in pool.map(part, self.hosts.values()):
                for kind, party in made:
                    self.parties.setdefault(kind, []).append(party)

    def thin_out(self) -> None:
        """Leave one container of each network on each host."""
        for kind, parties in self.parties.items():
            first = {party.host: party for party in reversed(parties)}
            for party in parties:
                if party is not first[party.host]:
                    party.host.docker("rm", "-f", party.name)
            self.parties[kind] = [*first.values()]

    def find(self) -> None:
        """Be in all containers again: those that came back have other namespaces."""
        for kind, parties in self.parties.items():
            self.parties[kind] = [party.host.party(party.name) for party in parties]

    def pairs(self, network: str, wanted: str = OPEN, *, apart: bool = False) -> list[Cell]:
        """Return every pair of containers of a network, or every pair on different hosts."""
        found = permutations(self.parties[network], 2)
        return [(one, other, wanted) for one, other in found if not apart or one.host is not other.host]

    def surprises(self, cells: Iterable[Cell], protocols: Iterable[str] = PROTOCOLS) -> list[str]:
        """Make all attempts of these cells by each protocol and IP version; return those that went otherwise.

        Who is let in is seen by his own address.
        """
        knocks: dict[str, list[tuple[str, str, str, int, str]]] = {}
        for one, other, wanted in cells:
            for version in (4, 6):
                for protocol in protocols:
                    exact = wanted == OPEN and protocol != "icmp"
                    say = f"{OPEN} from {one.addresses[version]}" if exact else wanted
                    knock = (one.name, other.addresses[version], protocol, PORT, say)
                    knocks.setdefault(one.host.vm.name, []).append(knock)
        with ThreadPoolExecutor() as pool:
            told = pool.map(lambda name: self.hosts[name].do("knock", knocks=knocks[name]), knocks)
            return [line for lines in told for line in lines]

    def talks(self, network: str) -> bool:
        """Tell whether all containers of a network talk."""
        return not self.surprises(self.pairs(network))


@contextmanager
def stock_hosts(folder: Path) -> Iterator[dict[str, StockHost]]:
    """Yield two hosts that are set up, without networks."""
    goods = vm_goods.make(folder)
    with ExitStack() as stack:
        machines = [
            stack.enter_context(VM(name, number, wire, goods))
            for number, (name, wire) in enumerate(zip(ON, wires(folder), strict=True), 1)
        ]
        hosts = {vm.name: StockHost(vm, number) for number, vm in enumerate(machines, 1)}
        with ThreadPoolExecutor() as pool:
            list(pool.map(StockHost.set_up, hosts.values()))
        yield hosts
