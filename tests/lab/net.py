"""Wires: network namespaces without more, and the neighbour that plays the LAN and the router.

    node                                neighbour
    lan0 192.0.2.1/24      <-veth->     lan0 192.0.2.2/24
         2001:db8:2::1/64               lan0 2001:db8:2::2/64
    default via 192.0.2.2, 2001:db8:2::2

The addresses are documentation's own (RFC 5737, RFC 3849): nothing real is ever meant by them.
"""

from contextlib import suppress
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path
from typing import Protocol, Self

from tests.lab.names import unique
from tests.lab.process import CommandFailedError, Place, run
from tests.lab.wait import await_

RUN_NETNS = Path("/run/netns")

NODE_SIDE = (IPv4Interface("192.0.2.1/24"), IPv6Interface("2001:db8:2::1/64"))
LAN_SIDE = (IPv4Interface("192.0.2.2/24"), IPv6Interface("2001:db8:2::2/64"))
HERE: dict[int, str] = {side.version: str(side.ip) for side in NODE_SIDE}
"""The node's own addresses on the LAN, by IP version."""
THERE: dict[int, str] = {side.version: str(side.ip) for side in LAN_SIDE}
"""The neighbour's."""


class HasNetns(Protocol):
    """Whatever has a named network namespace: a `NetNs`, a `Node`."""

    @property
    def netns(self) -> str:
        """The name that `ip netns` knows."""


def add_netns(name: str) -> None:
    """Make a network namespace with lo up and no forwarding.

    A new netns inherits ip_forward from the machine's own (net.core.devconf_inherit_init_net), and a dockerd that finds
    1 sets no FORWARD DROP (facts/network.md 3): as on a fresh host it is 0 here.
    """
    run(["ip", "netns", "add", name])
    run(["ip", "-n", name, "link", "set", "lo", "up"])
    for knob in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        run(["ip", "netns", "exec", name, "sh", "-c", f"echo 0 >/proc/sys/net/{knob}"])


def delete_netns(name: str) -> None:
    """Remove a namespace's name; it goes when its last process has gone. A name that is not there is fine."""
    if (RUN_NETNS / name).exists():
        run(["ip", "netns", "del", name])


class NetNs(Place):
    """A network namespace and nothing else: the machine's own files and processes, other links."""

    def __init__(self, label: str) -> None:
        super().__init__()
        self.netns = unique(label)

    def __enter__(self) -> Self:
        add_netns(self.netns)
        return self

    def __exit__(self, *_: object) -> None:
        self.end_spawned()
        delete_netns(self.netns)

    def door(self) -> tuple[str, ...]:
        """`ip netns exec`: also a /sys of this namespace (ip-netns(8))."""
        return ("ip", "netns", "exec", self.netns)

    def ip(self, *args: str) -> str:
        """Run `ip` here, and return what it prints."""
        return self.run("ip", *args).stdout


Side = tuple[IPv4Interface, IPv6Interface]


def wire(node: HasNetns, place: NetNs, link: str, sides: tuple[Side, Side], *, bridge: bool = False) -> None:
    """Draw a wire between a node and a place, which routes by the node; ``sides`` are the addresses of both.

    The node's end is called ``link``; or it is a port of a bridge of that name, which is made. The place calls its own
    eth0, and the wire goes with it.
    """
    port = f"p{link}" if bridge else link
    ip = ("ip", "-n", node.netns)
    run([*ip, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", place.netns])
    if bridge:
        run([*ip, "link", "add", link, "type", "bridge"])
        run([*ip, "link", "set", port, "up", "master", link])
    for netns, name, side in ((node.netns, link, sides[0]), (place.netns, "eth0", sides[1])):
        run(["ip", "-n", netns, "link", "set", name, "up"])
        for address in side:
            nodad = ["nodad"] if address.version == 6 else []
            run(["ip", "-n", netns, "address", "add", str(address), "dev", name, *nodad])
    for address in sides[0]:
        place.ip("route", "add", "default", "via", str(address.ip))


class Neighbour(NetNs):
    """The host next door, on the node's LAN, and the node's way out.

    `plug` draws the wire; a node that was without power has lost its end and is plugged in again. With `way_out`
    False the node gets no default route by it: it has one already.
    """

    v4 = LAN_SIDE[0].ip
    v6 = LAN_SIDE[1].ip
    node_v4 = NODE_SIDE[0].ip
    node_v6 = NODE_SIDE[1].ip

    def __init__(self, node: HasNetns, label: str = "lan", *, way_out: bool = True) -> None:
        super().__init__(label)
        self._node = node
        self._way_out = way_out

    def __enter__(self) -> Self:
        super().__enter__()
        try:
            self.plug()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.unplug()
        super().__exit__()

    def plug(self) -> None:
        """Draw the wire between the node and this namespace, with addresses and the node's default routes."""
        self.unplug()
        near, far = self._node.netns, self.netns
        run(["ip", "-n", near, "link", "add", "lan0", "type", "veth", "peer", "name", "lan0", "netns", far])
        for netns, side in ((near, NODE_SIDE), (far, LAN_SIDE)):
            for address in side:
                nodad = ["nodad"] if address.version == 6 else []
                run(["ip", "-n", netns, "address", "add", str(address), "dev", "lan0", *nodad])
            run(["ip", "-n", netns, "link", "set", "lan0", "up"])
        for address in LAN_SIDE if self._way_out else ():
            run(["ip", "-n", near, f"-{address.version}", "route", "add", "default", "via", str(address.ip)])

    def unplug(self) -> None:
        """Take the wire away, from whichever end still has it; wait until this end has seen it."""
        for netns in (self.netns, self._node.netns):
            if (RUN_NETNS / netns).exists():
                with suppress(CommandFailedError):
                    run(["ip", "-n", netns, "link", "del", "lan0"])
        await_(lambda: "lan0" not in self.ip("-br", "link"), 10, "the end of the wire")
