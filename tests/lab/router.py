"""A neighbour that is a router: a host learns from its advertisements where the way out is, and lives on that.

`python -m tests.lab.router LINK` sends one advertisement; `Router` runs it in its namespace.
"""

import socket
import struct
import sys
from ipaddress import IPv6Address

from tests.lab.names import REPO
from tests.lab.net import HasNetns, Neighbour

ADVERTISEMENT = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)
"""A default route for half an hour, and nothing else (RFC 4861, section 4.2); the kernel fills in the checksum."""


class Router(Neighbour):
    """The host next door as a router: no route to it is given to the node, it has to hear of it.

    `outside` is an address behind it, which is reached by the default route alone.
    """

    outside = IPv6Address("2001:db8:ffff::1")

    def __init__(self, node: HasNetns, label: str = "router") -> None:
        super().__init__(node, label, way_out=False)

    def plug(self) -> None:
        """Draw the wire. A router forwards, and says so to who looks for it: else nobody keeps its route (ndisc.c)."""
        super().plug()
        self.run("sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
        self.ip("address", "replace", f"{self.outside}/128", "dev", "lo", "nodad")

    def advertise(self) -> None:
        """Send one advertisement."""
        self.run(sys.executable, "-m", "tests.lab.router", "lan0", cwd=REPO)


def advertise(link: str) -> None:
    """Send one advertisement to all nodes on a link; a host takes none that came further (hop limit 255)."""
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, socket.if_nametoindex(link))
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        sock.sendto(ADVERTISEMENT, ("ff02::1", 0))


if __name__ == "__main__":
    advertise(*sys.argv[1:])
