"""Several Docker hosts on one LAN: a real engine, Open vSwitch and weft on each, and one network over all of them.

host N: lan0, in Open vSwitch's br-phy, which has the address 192.0.2.N
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tests.lab.engine import Engine
from tests.lab.lan import Lan, address4
from tests.lab.node import Node
from tests.lab.ovs import Ovs
from tests.lab.weft import Weft


@dataclass(frozen=True)
class DockerHost:
    """One of them."""

    name: str
    number: int
    node: Node
    engine: Engine
    ovs: Ovs
    weft: Weft

    @property
    def address(self) -> str:
        """Its address on the LAN."""
        return str(address4(self.number))

    def create(self, number: int, *options: str) -> list[str]:
        """Return what is typed to have network `number` here: the same on each host but for its range of addresses."""
        return [
            *("docker", "network", "create", "-d", "weft"),
            *("--subnet", f"10.20.{number}.0/24", "--gateway", f"10.20.{number}.1"),
            *("--ip-range", f"10.20.{number}.{16 * self.number}/28"),
            *("--ipv6", "--subnet", f"fd20:{number}::/64", "--gateway", f"fd20:{number}::1"),
            *("--ip-range", f"fd20:{number}::{self.number}:0/112"),
            *(part for option in options for part in ("-o", option)),
        ]


@contextmanager
def docker_hosts(names: Sequence[str], *, peers: Sequence[int]) -> Iterator[dict[str, DockerHost]]:
    """Yield the hosts, whose lists name the hosts with the numbers `peers`."""
    with ExitStack() as stack:
        lan = stack.enter_context(Lan())
        hosts = {}
        for number, name in enumerate(names, 1):
            node = stack.enter_context(Node(name))
            lan.plug(node, number)
            ovs = stack.enter_context(Ovs(node))
            ovs.take_nic("lan0")
            engine = stack.enter_context(Engine(node))
            engine.load_image()
            listed = ",".join(str(address4(one)) for one in peers)
            weft = stack.enter_context(Weft(node, settings={"WEFT_PEERS": listed}))
            hosts[name] = DockerHost(name, number, node, engine, ovs, weft)
        yield hosts
        for host in hosts.values():
            host.engine.clean()
