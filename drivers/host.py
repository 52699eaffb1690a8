"""This host: its backends, and what it is. The one object through which plugin/ reaches Linux."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress

from drivers import obstacles
from drivers.announce import Announcer
from drivers.conntrack import Conntrack
from drivers.contract import Backend
from drivers.errors import WeftError
from drivers.facts import HostFacts, LinkInfo
from drivers.firewalld import FirewalldBackend
from drivers.kernel import facts
from drivers.kernel.backend import KernelBackend
from drivers.marks import Marks
from drivers.model import Endpoint, IPNetwork, Network, Transport
from drivers.nft import NftBackend
from drivers.obstacles import Obstacle
from drivers.resources import BRIDGE_TABLE_KEY, Foreign, Resource, Scope, link_key
from drivers.sockets import SocketsBackend
from drivers.xtables import XtablesBackend


class Host:
    """The host in whose network namespace this process runs."""

    def __init__(self, marks: Marks, owner: Callable[[str], Scope | None]) -> None:
        """Write and read ``marks``; ``owner`` says whose an adopted bridge is. Raises :class:`Unsupported`."""
        self._kernel = KernelBackend(marks, owner)
        self._conntrack = Conntrack()
        self._nft = NftBackend(marks, self._conntrack.after)
        self._nft_bridge = NftBackend(marks, table=BRIDGE_TABLE_KEY)
        self._xtables = XtablesBackend(marks)
        self._sockets = SocketsBackend(marks)
        self._announcer = Announcer()
        self._firewalld = FirewalldBackend(self._seen)

    @property
    def backends(self) -> Mapping[str, Backend]:
        """The backends by their name in the keys."""
        return {
            "kernel": self._kernel,
            "nft": self._nft,
            "nft-bridge": self._nft_bridge,
            "xtables": self._xtables,
            "sockets": self._sockets,
            "firewalld": self._firewalld,
        }

    def facts(self, *, may_forward: bool) -> HostFacts:
        """Read what the host is now; ``may_forward``: Docker was up in this boot."""
        return HostFacts(
            docker_user=self._xtables.docker_user(),
            force_forwarding=facts.force_forwarding(),
            forwarding6=facts.forwarding6(),
            may_forward=may_forward,
            ra_links=facts.ra_links(),
            operator_links=facts.operator_links(),
            firewalld=self._firewalld.answers(),
        )

    def obstacles(self, networks: Iterable[Network]) -> list[tuple[Network, Obstacle]]:
        """Return what stops packets of networks that are to go out or come in, with what to type about it."""
        routed = [network for network in networks if network.subnets and not network.internal]
        found: list[tuple[Network, Obstacle]] = []
        with suppress(WeftError):  # a firewall that cannot be looked at is none that can be told of
            for version in (4, 6):
                speakers = [network for network in routed if network.speaks(version)]
                closed = self._xtables.closed(version) if speakers else {}
                found += [(one, told) for one in speakers for told in obstacles.of_filter(version, one.link, closed)]
        own = [network for network in routed if not network.adopted]
        if not own:
            return found
        if self._firewalld.answers():
            zones = self._firewalld.zones()
            return found + [(one, told) for one in own for told in obstacles.of_zone(one.link, zones.get(one.link))]
        table = self._nft.foreign("firewalld")
        return found + [(one, told) for one in own for told in obstacles.of_firewalld(one.link, table)]

    def link(self, name: str) -> LinkInfo | None:
        """Return what a link is, or ``None`` if there is none of that name."""
        return self._kernel.link(name)

    def is_plugged(self, link: str) -> bool:
        """Tell whether the other end of a veth pair is in another network namespace: a container has it."""
        return self._kernel.is_plugged(link)

    def connected_subnets(self) -> tuple[tuple[str, IPNetwork], ...]:
        """Return the subnets that the host is in, each with its link."""
        return facts.connected_subnets()

    def free_port(self, transport: Transport, addresses: Sequence[str], candidates: range | None) -> int:
        """Return a port that can be bound on all addresses now. Raises :class:`Conflict` if there is none."""
        return self._sockets.free_port(transport, addresses, candidates)

    def announce(
        self, network: Network, endpoint: Endpoint, *, count: int, interval: float, wanted: Callable[[], bool]
    ) -> None:
        """Tell the network and this host where the endpoint's addresses are: see :meth:`Announcer.announce`."""
        addresses = [address.ip for address in endpoint.addresses]
        self._announcer.announce(network.link, endpoint.mac, addresses, count=count, interval=interval, wanted=wanted)

    def speaks6(self) -> bool:
        """Tell whether this host has IPv6 at all."""
        return facts.speaks6()

    def forwarding4(self) -> bool:
        """Tell whether the host forwards IPv4."""
        return facts.forwarding4()

    def epoch(self) -> str:
        """Return what changes with each boot, and in each network namespace."""
        return facts.epoch()

    def calls(self) -> Mapping[str, int]:
        """Return the operations of each backend since the start."""
        return {
            "netlink": self._kernel.calls + self._announcer.calls,
            "nft": self._nft.calls + self._nft_bridge.calls,
            "xtables": self._xtables.calls,
            "sockets": self._sockets.calls,
            "firewalld": self._firewalld.calls,
        }

    def close(self) -> None:
        """End the announcer's thread and close every socket."""
        self._announcer.stop()
        self._kernel.close()
        self._nft.close()
        self._nft_bridge.close()
        self._xtables.close()
        self._sockets.close()
        self._firewalld.close()
        self._conntrack.close()

    def _seen(self, link: str) -> Resource | Foreign | None:
        key = link_key(link)
        return self._kernel.observe([key]).get(key)
