"""What the host is and can do, read from the network namespace of the calling thread. Nothing here changes anything.

Text files of /proc are read where they tell all: a thousand routes take a few milliseconds.
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Final

from drivers.kernel import requests, settings, wire
from drivers.kernel.netlink import Netlink
from drivers.kernel.wire import Link
from drivers.model import IPNetwork
from drivers.naming import LINK_GROUP

_DOCKERS: Final = re.compile(r"docker0|docker_gwbridge|br-[0-9a-f]{12}")
_ROUTES4: Final = Path("/proc/thread-self/net/route")
_ROUTES6: Final = Path("/proc/thread-self/net/ipv6_route")
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_SO_NETNS_COOKIE: Final = 71

_NO_LINKS: Final = frozenset({"lo", "*"})  # "*": IPv4's way to say blackhole

# <linux/route.h>, <linux/ipv6_route.h>
_UP, _GATEWAY, _REJECT = 0x1, 0x2, 0x200
_DEFAULT, _ADDRCONF, _ANYCAST, _CACHE, _LOCAL = 0x10000, 0x40000, 0x100000, 0x1000000, 0x80000000
_BY_ADVERTISEMENT: Final = _DEFAULT | _ADDRCONF
_NOT_ON_LINK: Final = _GATEWAY | _REJECT
_NOT_ON_LINK6: Final = _NOT_ON_LINK | _DEFAULT | _ANYCAST | _CACHE | _LOCAL


@dataclass(frozen=True, slots=True)
class _Route:
    link: str
    network: IPNetwork
    flags: int


def forwarding4() -> bool:
    """Tell whether the host forwards IPv4."""
    return settings.read("net/ipv4/ip_forward") == "1"


def forwarding6() -> bool:
    """Tell whether the host as a whole forwards IPv6."""
    return settings.read("net/ipv6/conf/all/forwarding") == "1"


def speaks6() -> bool:
    """Tell whether this host has IPv6 at all, and has it switched on."""
    return settings.read("net/ipv6/conf/all/disable_ipv6") == "0"


def force_forwarding() -> bool:
    """Tell whether the kernel can forward IPv6 and go on as a host besides (Linux 6.17)."""
    return settings.read("net/ipv6/conf/all/force_forwarding") is not None


def ra_links() -> frozenset[str]:
    """Return the links whose IPv6 default route the kernel would delete if it were made a router.

    It deletes what it learnt by router advertisement, on links that do not have ``accept_ra=2``
    (``rt6_purge_dflt_routers``). What a daemon learnt and added by itself is not of this kind.
    """
    learnt = {
        route.link for route in _routes6() if not route.network.prefixlen and _bits(route.flags, _BY_ADVERTISEMENT)
    }
    return frozenset(name for name in learnt if settings.read(f"net/ipv6/conf/{name}/accept_ra") == "1")


def is_operator_bridge(link: Link) -> bool:
    """Tell whether a link is a bridge that is neither weft's nor, by its name, Docker's: the operator's, perhaps."""
    return link.kind == "bridge" and link.group != LINK_GROUP and not _DOCKERS.fullmatch(link.name)


def operator_bridges() -> dict[int, str]:
    """Return the links for which :func:`is_operator_bridge` holds, by index."""
    netlink = Netlink()
    try:
        told = [wire.link(message) for message in netlink.ask(requests.dump_bridges())]
    finally:
        netlink.close()
    return {link.index: link.name for link in told if link is not None and is_operator_bridge(link)}


def operator_links() -> frozenset[str]:
    """Return their names. Docker's own networks may have such names too, by an option: the caller knows them."""
    return frozenset(operator_bridges().values())


def connected_subnets() -> tuple[tuple[str, IPNetwork], ...]:
    """Return what the host reaches without a gateway, as (link, subnet): IPv4's main table, IPv6's every table.

    Loopback, link-local and multicast are nobody's subnet and left out; weft's own are not.
    """
    found: list[tuple[str, IPNetwork]] = [
        (route.link, route.network) for route in _routes4() if route.flags & _UP and not route.flags & _NOT_ON_LINK
    ]
    found += [
        (route.link, route.network) for route in _routes6() if route.flags & _UP and not route.flags & _NOT_ON_LINK6
    ]
    return tuple(
        (link, network)
        for link, network in found
        if link not in _NO_LINKS and network.prefixlen and not _is_nobodys(network)
    )


def epoch() -> str:
    """Return what changes when the host's links are lost: the boot, and the network namespace in it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        (cookie,) = struct.unpack("=Q", sock.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8))
    return f"{_BOOT_ID.read_text().strip()}/{cookie}"


def _routes4() -> Iterator[_Route]:
    """Read lines of: Iface Destination Gateway Flags RefCnt Use Metric Mask ...; addresses in the host's byte order."""
    for line in _ROUTES4.read_text().splitlines()[1:]:
        link, destination, _, flags, _, _, _, mask, *_ = line.split()
        prefix = int(mask, 16).bit_count()
        network = IPv4Network((socket.ntohl(int(destination, 16)), prefix))
        yield _Route(link, network, int(flags, 16))


def _routes6() -> Iterator[_Route]:
    """Read lines of: destination prefix source prefix next-hop metric refcnt use flags link. No file: no IPv6."""
    try:
        lines = _ROUTES6.read_text().splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        destination, prefix, _, _, _, _, _, _, flags, link = line.split()
        yield _Route(link, IPv6Network((int(destination, 16), int(prefix, 16))), int(flags, 16))


def _bits(flags: int, wanted: int) -> bool:
    return flags & wanted == wanted


def _is_nobodys(network: IPNetwork) -> bool:
    ip = network.network_address
    return ip.is_link_local or ip.is_multicast or ip.is_loopback
