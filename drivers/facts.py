"""What the host can do and is: read once, then passed as a value, so that planners stay pure."""

from __future__ import annotations

from dataclasses import dataclass

from drivers.model import Address


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkInfo:
    """What a link is: its kind as the kernel calls it (``bridge``, ``veth``; ``device``: hardware), group and MTU."""

    kind: str
    group: int
    mtu: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteInfo:
    """How packets for an address leave: by which link, from which address, and how large they may be (bytes).

    ``own``  the address is this host's
    """

    link: str
    mtu: int
    source: Address | None = None
    own: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """The host as the planners see it.

    ``docker_user``       the IP versions whose filter table has a chain DOCKER-USER now
    ``force_forwarding``  the kernel forwards IPv6 per link (``net.ipv6.conf.*.force_forwarding``, Linux 6.17)
    ``forwarding6``       ``net.ipv6.conf.all.forwarding`` is on already, by somebody else's choice
    ``may_forward``       Docker was up in this boot, so forwarding may be asked for (see spec/ownership.md)
    ``ra_links``          links with an IPv6 default route learnt by router advertisement and ``accept_ra=1``:
                          the kernel would delete it when ``all.forwarding`` is switched on
    ``ovs_datapath``      the datapath of a network on Open vSwitch: ``system`` (the kernel's) or ``netdev`` (userspace)
    ``operator_links``    bridges that are neither weft's nor Docker's: the operator's own, an uplink perhaps
    ``firewalld``         firewalld runs, and answers
    """

    docker_user: frozenset[int] = frozenset()
    force_forwarding: bool = True
    forwarding6: bool = False
    may_forward: bool = False
    ra_links: frozenset[str] = frozenset()
    operator_links: frozenset[str] = frozenset()
    firewalld: bool = False
    ovs_datapath: str = "netdev"
