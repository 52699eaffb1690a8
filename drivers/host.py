"""This host: its backends, and what it is. The one object through which plugin/ reaches Linux."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from drivers import obstacles
from drivers.announce import Announcer
from drivers.clashes import Clash, Clashes
from drivers.conntrack import Conntrack
from drivers.contract import Backend
from drivers.errors import Unsupported, WeftError
from drivers.facts import HostFacts, LinkInfo, RouteInfo
from drivers.firewalld import FirewalldBackend
from drivers.kernel import facts
from drivers.kernel.backend import KernelBackend
from drivers.marks import Marks
from drivers.model import Address, Encapsulation, Endpoint, IPNetwork, Network, Transport
from drivers.nft import NftBackend
from drivers.obstacles import Obstacle
from drivers.openflow.backend import RUNDIR, OpenFlowBackend
from drivers.ovs import twins
from drivers.ovsdb import Health, OvsdbBackend, Remote, datapath
from drivers.resources import BRIDGE_TABLE_KEY, HOST, OVS_BRIDGE, Foreign, Resource, Scope, link_key
from drivers.sockets import SocketsBackend
from drivers.xtables import XtablesBackend


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenVSwitch:
    """Where this host's Open vSwitch is, and which datapath it is to use: ``auto``, ``system`` or ``netdev``."""

    remote: Remote | None = None
    datapath: str = "auto"


_ANY_OVS: Final = OpenVSwitch()


class Host:
    """The host in whose network namespace this process runs."""

    def __init__(
        self,
        marks: Marks,
        owner: Callable[[str], Scope | None],
        scopes: Callable[[], Iterable[Scope]] = tuple,
        ovs: OpenVSwitch = _ANY_OVS,
    ) -> None:
        """Write and read ``marks``. Raises :class:`Unsupported`.

        ``owner`` says whose an adopted bridge is; ``scopes`` lists what is stored. Open vSwitch is not looked for
        before something is asked of it.
        """
        self._kernel = KernelBackend(marks, owner)
        self._conntrack = Conntrack()
        self._nft = NftBackend(marks, self._conntrack.after)
        self._nft_bridge = NftBackend(marks, table=BRIDGE_TABLE_KEY)
        self._clashes = Clashes(marks)
        self._xtables = XtablesBackend(marks)
        self._sockets = SocketsBackend(marks)
        self._announcer = Announcer()
        self._firewalld = FirewalldBackend(self._seen)
        self._datapath, self._chosen = ovs.datapath, ""
        self._ovsdb = OvsdbBackend(marks, ovs.remote, links_on=self._kernel.tunnels_on)
        rundir = ovs.remote.rundir if ovs.remote and ovs.remote.rundir else RUNDIR
        self._openflow = OpenFlowBackend(marks, scopes, self._ovsdb.ofport, rundir=rundir)

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
            "ovsdb": self._ovsdb,
            "openflow": self._openflow,
        }

    def facts(self, *, may_forward: bool, ovs: bool = False) -> HostFacts:
        """Read what the host is now; ``may_forward``: Docker was up in this boot; ``ovs``: some network is on it."""
        return HostFacts(
            docker_user=self._xtables.docker_user(),
            force_forwarding=facts.force_forwarding(),
            forwarding6=facts.forwarding6(),
            may_forward=may_forward,
            ra_links=facts.ra_links(),
            operator_links=facts.operator_links(),
            firewalld=self._firewalld.answers(),
            ovs_datapath=self._ovs_datapath() if ovs else "netdev",
        )

    def obstacles(self, networks: Iterable[Network]) -> list[tuple[Network, Obstacle]]:
        """Return what stops packets of networks that are to go out or come in, with what to type about it."""
        networks = tuple(networks)
        routed = [network for network in networks if network.subnets and not network.internal]
        found: list[tuple[Network, Obstacle]] = []
        with suppress(WeftError):  # a firewall that cannot be looked at is none that can be told of
            for version in (4, 6):
                speakers = [network for network in routed if network.speaks(version)]
                closed = self._xtables.closed(version) if speakers else {}
                found += [(one, told) for one in speakers for told in obstacles.of_filter(version, one.link, closed)]
        own = [network for network in routed if not network.adopted]
        found += self._underlay(networks)
        if not own:
            return found
        if self._firewalld.answers():
            zones = self._firewalld.zones()
            return found + [(one, told) for one in own for told in obstacles.of_zone(one.link, zones.get(one.link))]
        table = self._nft.foreign("firewalld")
        return found + [(one, told) for one in own for told in obstacles.of_firewalld(one.link, table)]

    def _underlay(self, networks: Iterable[Network]) -> Iterator[tuple[Network, Obstacle]]:
        """Yield why tunnels on Open vSwitch have no way to the peers, where it is known from which address they go."""
        tunnels = [(one, one.tunnel.local) for one in networks if one.backend == "ovs" and one.tunnel]
        if not tunnels or self._ovs_datapath() != "netdev" or self._ovsdb.absence():
            return
        there = facts.connected_subnets()
        for network, local in tunnels:
            if local is not None:
                links = {link for link, subnet in there if local in subnet}
                for told in obstacles.of_underlay(local, sorted(links), self._ovsdb.internal_ports()):
                    yield network, told

    def check_ovs(self, tunnel: Encapsulation | None = None) -> None:
        """Raise :class:`HostFailure` or :class:`Unsupported` where no network, or no such tunnel, can be on OVS now."""
        self._chosen = datapath.choose(self._datapath, self._ovsdb.datapath_types())
        if tunnel is not None and tunnel not in self._ovsdb.iface_types():
            raise Unsupported(
                f"this Open vSwitch has no ports of type {tunnel}: see `ovs-vsctl get Open_vSwitch . iface_types`"
            )

    def ovs_health(self) -> Health:
        """Return how Open vSwitch is doing, without waiting for it."""
        return self._ovsdb.health()

    def ovs_absence(self) -> str:
        """Return why Open vSwitch cannot be spoken to now, without waiting for it; "" if it can be, or may soon."""
        return self._ovsdb.absence()

    def _ovs_datapath(self) -> str:
        """Return the datapath that was chosen, or is to be once Open vSwitch answers: it is no reason to wait."""
        if not self._chosen:
            wants_kernel = self._datapath == "system" or (self._datapath == "auto" and datapath.kernel_has_datapath())
            self._chosen = "system" if wants_kernel else "netdev"
        return self._chosen

    def link(self, name: str) -> LinkInfo | None:
        """Return what a link is, or ``None`` if there is none of that name."""
        return self._kernel.link(name)

    def route_to(self, address: Address) -> RouteInfo | None:
        """Return how packets for an address leave now, or ``None`` if there is no way there."""
        return self._kernel.route_to(address)

    def is_own(self, address: Address) -> bool:
        """Tell whether an address is this host's."""
        return self._kernel.is_own(address)

    def check_tunnel(self, kind: str) -> None:
        """Raise :class:`drivers.errors.Unsupported` if the kernel can make no tunnels of this kind."""
        self._kernel.check_tunnel(kind)

    def clashes(self) -> tuple[Clash, ...]:
        """Return what of containers' MACs and addresses came out of a tunnel."""
        found = set(self._clashes.seen())
        with suppress(WeftError):  # of an Open vSwitch that does not answer other things are told
            told = ((scope, twins.clash(match)) for scope, match in self._openflow.taken(OVS_BRIDGE, twins.COUNTING))
            found |= {Clash(scope, what) for scope, what in told if what and scope != HOST}
        return tuple(sorted(found))

    def is_plugged(self, link: str) -> bool:
        """Tell whether the other end of a veth pair is in another network namespace: a container has it."""
        return self._kernel.is_plugged(link)

    def other_stores(self) -> Mapping[str, int]:
        """Return the stores that have links here and are not this one, with how many they have."""
        return self._kernel.other_stores()

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
            "nft": self._nft.calls + self._nft_bridge.calls + self._clashes.calls,
            "xtables": self._xtables.calls,
            "sockets": self._sockets.calls,
            "firewalld": self._firewalld.calls,
            "ovsdb": self._ovsdb.calls,
            "openflow": self._openflow.calls,
        }

    def close(self) -> None:
        """End the announcer's thread and close every socket."""
        self._announcer.stop()
        self._kernel.close()
        self._nft.close()
        self._nft_bridge.close()
        self._clashes.close()
        self._xtables.close()
        self._sockets.close()
        self._firewalld.close()
        self._openflow.close()
        self._ovsdb.close()
        self._conntrack.close()

    def _seen(self, link: str) -> Resource | Foreign | None:
        key = link_key(link)
        return self._kernel.observe([key]).get(key)
