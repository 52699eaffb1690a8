"""`make demo-multihost`: two Docker hosts on this machine, networks over both, and the commands a person would type.

Both are in namespaces of their own, which this machine's network does not notice, and are gone at the end.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from tests.lab import image
from tests.lab.demo import say, show, step
from tests.lab.hosts import DockerHost, docker_hosts
from tests.lab.wait import await_

GRE = ("weft.backend=ovs", "weft.tunnel=gre", "weft.name=shop")
VXLAN = ("weft.tunnel=vxlan", "weft.name=lab")


@dataclass(frozen=True)
class Demo:
    """The play: two hosts, one on the left and one on the right."""

    left: DockerHost
    right: DockerHost

    def play(self) -> None:
        """Show what weft does; raise if it does not."""
        for host in (self.left, self.right):
            say(f"{host.name} is {host.address}: Docker Engine {host.engine.version}, Open vSwitch and weft")
        step("Each weft was told of both hosts (itself it leaves out).")
        self.type(self.left, "weft", "peer", "ls")
        step("One network, on Open vSwitch and over GRE: the same command on both, but for the range of addresses.")
        self.network(1, "shop", GRE)
        self.across("shop", "ann", "bob")
        step("Another one, on Linux bridges and over VXLAN.")
        self.network(2, "lab", VXLAN)
        self.across("lab", "cat", "dan")
        step("What goes through a tunnel is smaller, and containers are told so.")
        for name in ("ann", "cat"):
            self.type(self.left, "docker", "exec", name, "cat", "/sys/class/net/eth0/mtu")
        step("The other host is no peer any more: nothing goes there, nothing comes in.")
        self.type(self.left, "weft", "peer", "rm", self.right.address)
        address = self.address(self.right, "bob", "shop")
        said = self.type(self.left, "docker", "exec", "ann", "ping", "-c", "1", "-W", "1", address, check=False)
        if "100% packet loss" not in said:
            raise SystemExit("it went through")
        self.type(self.left, "weft", "peer", "add", self.right.address)
        await_(partial(self.pings, "ann", address), 30, "the answer")
        say("and again: bob answers")
        step("Both hosts are as wanted.")
        for host in (self.left, self.right):
            self.type(host, "weft", "status")

    def network(self, number: int, name: str, options: Sequence[str]) -> None:
        """Make a network on both hosts."""
        for host in (self.left, self.right):
            self.type(host, *host.create(number, *options), name)

    def across(self, network: str, here: str, there: str) -> None:
        """Start a container on each host, and have them talk."""
        for host, name in ((self.left, here), (self.right, there)):
            self.type(host, "docker", "run", "-d", "--name", name, "--network", network, image.NAME)
        address = self.address(self.right, there, network)
        await_(partial(self.pings, here, address), 30, "the first answer")
        self.type(self.left, "docker", "exec", here, "ping", "-c", "2", address)

    def pings(self, name: str, address: str) -> bool:
        """Tell whether a container on the left is answered; first packets are lost, while the hosts find each other."""
        return "1 packets received" in self.left.engine.docker(
            "exec", name, "ping", "-c", "1", "-W", "1", address, check=False
        )

    def address(self, host: DockerHost, name: str, network: str) -> str:
        """Return a container's IPv4 address."""
        form = f'{{{{ (index .NetworkSettings.Networks "{network}").IPAddress }}}}'
        return host.engine.docker("inspect", "--format", form, name)

    def type(self, host: DockerHost, program: str, *args: str, check: bool = True) -> str:
        """Show a command as a person would type it on a host, run it, and show and return what it said."""
        show([f"{host.name}#", program, *args])
        said = host.engine.docker(*args, check=check) if program == "docker" else host.weft.cli(*args).stdout
        for line in said.splitlines():
            say(line)
        return said


def main() -> int:
    """Play, and clean up."""
    step("Two Docker hosts are started in namespaces of their own, joined by a wire.")
    with docker_hosts(("left", "right"), peers=(1, 2)) as hosts:
        Demo(hosts["left"], hosts["right"]).play()
    step("All of it is cleaned up.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
