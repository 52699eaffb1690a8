"""The kernel as one side of the host: links, addresses and switches, read back and changed."""

from __future__ import annotations

import errno
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from drivers.contract import Dirty, Step
from drivers.errors import HostFailure, Unsupported, WeftError
from drivers.facts import LinkInfo, RouteInfo
from drivers.kernel import settings, tunnels
from drivers.kernel.addresses import Addresses, Owner
from drivers.kernel.floods import Floods
from drivers.kernel.links import Links, index_to_name
from drivers.kernel.monitor import Monitor
from drivers.kernel.netlink import Netlink
from drivers.kernel.routes import is_own, route_to
from drivers.marks import Marks
from drivers.model import Address
from drivers.resources import (
    Bridge,
    FloodEntry,
    Foreign,
    GatewayLink,
    HostAddress,
    Key,
    PeerTunnel,
    Resource,
    Setting,
    Veth,
    Vxlan,
)

_HINTS: Final[Mapping[int, str]] = {
    errno.EXFULL: "the bridge has all the 1,023 ports that a Linux bridge can have",
    errno.EROFS: "/proc/sys is read-only here: the managed plugin needs /proc/sys/net mounted at /host/sysctl/net",
    errno.EPERM: "not permitted: weft needs CAP_NET_ADMIN in the host's network namespace",
}


class KernelBackend:
    """Implements :class:`drivers.contract.Backend` for the keys whose backend is ``kernel``.

    ``owner`` says to which network's scope an adopted bridge belongs, by the store; it is called from every thread
    that uses the backend, and from the monitor's.
    """

    def __init__(self, marks: Marks, owner: Owner) -> None:
        self._netlink = Netlink()
        self._links = Links(self._netlink, marks)
        self._addresses = Addresses(self._netlink, self._links, owner)
        self._floods = Floods(self._netlink, self._links)
        self._owner = owner

    @property
    def calls(self) -> int:
        """How many netlink requests were made: the measure of an operation's work."""
        return self._netlink.calls

    def close(self) -> None:
        """Close the netlink socket. The watches are stopped by what :meth:`watch` returned."""
        self._netlink.close()

    def link(self, name: str) -> LinkInfo | None:
        """Return what a link is, or ``None`` if there is none of that name."""
        link = self._links.find(name)
        return None if link is None else LinkInfo(kind=link.kind_shown, group=link.group, mtu=link.mtu)

    def is_plugged(self, name: str) -> bool:
        """Tell whether the other end of a veth pair is in another network namespace: a container has it."""
        link = self._links.find(name)
        return link is not None and link.elsewhere

    def other_stores(self) -> Mapping[str, int]:
        """Return the stores that have links here and are not this one, with how many they have."""
        return self._links.strangers()

    def check_tunnel(self, kind: str) -> None:
        """Raise :class:`drivers.errors.Unsupported` if the kernel can make no tunnels of this kind."""
        if not tunnels.has_kind(self._netlink, kind):
            raise Unsupported(tunnels.lacking(kind))

    def tunnels_on(self, port: int) -> list[str]:
        """Return the tunnel links that have a UDP port, whoever made them."""
        return tunnels.on_port(self._netlink, port)

    def route_to(self, address: Address) -> RouteInfo | None:
        """Return how packets for an address leave now, or ``None`` if there is no way there."""
        return route_to(self._netlink, self._links, address)

    def is_own(self, address: Address) -> bool:
        """Tell whether an address is this host's."""
        return is_own(self._netlink, address)

    def observe(self, keys: Collection[Key]) -> Mapping[Key, Resource | Foreign]:
        """Return what is at the keys: one request for each link, one more for its addresses, one for its peers."""
        found: dict[Key, Resource | Foreign] = {}
        on_links: dict[str, list[Key]] = defaultdict(list)
        for key in keys:
            if key.kind != "setting":
                on_links[key.at[0]].append(key)
            elif (setting := settings.observe(key)) is not None:
                found[key] = setting
        for name, asked in on_links.items():
            link = self._links.find(name)
            if link is None:
                continue
            addresses = [key for key in asked if key.kind == "address"]
            found |= {key: self._links.seen(name, link, index_to_name) for key in asked if key.kind == "link"}
            found |= self._addresses.seen(addresses, link) if addresses else {}
            peers = [key for key in asked if key.kind == "flood"]
            found |= self._floods.seen(peers, link) if peers else {}
        return found

    def survey(self) -> Mapping[Key, Resource]:
        """Return what has our mark: a dump of links, one of addresses, and one for each VXLAN device."""
        links = self._links.dump()

        def name_of(index: int) -> str:
            return links[index].name if index in links else ""

        ours = (link for link in links.values() if self._links.owner(link) is not None)
        seen = (self._links.seen(link.name, link, name_of) for link in ours)
        found: dict[Key, Resource] = {link.key: link for link in seen if not isinstance(link, Foreign)}
        return found | self._addresses.survey(links) | self._floods.survey(links.values())

    def apply(self, steps: Sequence[Step]) -> Mapping[Key, Exception]:
        """Take the steps in turn, going on past failures, which are returned."""
        failures: dict[Key, Exception] = {}
        for step in steps:
            try:
                self._take(step)
            except WeftError as error:
                failures[step.key] = error
            except OSError as error:
                failures[step.key] = _failure(step, error)
        return failures

    def watch(self, dirty: Dirty) -> Callable[[], None]:
        """Call ``dirty`` on changes made by others. What is changed after this has returned is not missed."""
        return Monitor(self._links, self._owner, dirty).stop

    def _take(self, step: Step) -> None:
        match step.old, step.new:
            case _, Setting() as new:
                settings.write(new.path, new.value)
            case _, Bridge(adopted=True):
                pass
            case old, (Bridge() | Veth() | PeerTunnel()) as new:
                self._links.change(old, new)
            case old, Vxlan() as new:
                with self._floods.kept(new.name):
                    self._links.change(old, new)
            case _, FloodEntry() as new:
                self._floods.add(new)
            case _, HostAddress() as new:
                self._addresses.add(new)
            case old, None if old is not None:
                self._remove(old)
            case _:
                raise _not_ours_to_change(step)

    def _remove(self, old: Resource) -> None:
        match old:
            case GatewayLink():
                pass  # it goes with its port
            case Bridge(adopted=False) | Veth() | Vxlan() | PeerTunnel():
                self._links.remove(old.name)
            case FloodEntry():
                self._floods.remove(old)
            case HostAddress():
                self._addresses.remove(old)
            case _:
                raise _not_ours_to_change(Step(old, None))


def _not_ours_to_change(step: Step) -> HostFailure:
    return HostFailure(f"{step.key} is not the kernel's to change: {step}")


def _failure(step: Step, error: OSError) -> HostFailure:
    verb = "removed" if step.new is None else "made" if step.old is None else "changed"
    words = _HINTS.get(error.errno or 0) or error.strerror or str(error)
    return HostFailure(f"{step.key} could not be {verb}: {words} (by hand: {step})")
