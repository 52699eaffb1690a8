"""What each scope should have, from its stored row and what the host is: where the planners are asked."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Protocol

from drivers.clashes import Clash
from drivers.contract import Backend
from drivers.facts import HostFacts
from drivers.model import Address, Network, Peer, Use
from drivers.registry import PLANNERS
from drivers.resources import HOST, Key, Resource, Scope
from plugin.store import Bridges, EndpointRow, NetworkRow, Phase, Store

OVS_BACKENDS: Final = frozenset({"ovsdb", "openflow"})
"""What is asked of Open vSwitch, which most hosts do not have: left alone until a network is on it."""

_ALL_HOST: Final = HostFacts(docker_user=frozenset({4, 6}), may_forward=False, firewalld=True)
_ALL_USE: Final = Use(networks=1, apart=True, tunnels=True)


class HostSide(Protocol):
    """What is needed of ``drivers.host.Host``; the fakes have it too."""

    @property
    def backends(self) -> Mapping[str, Backend]:
        """The backends by their name in the keys."""
        ...

    def facts(self, *, may_forward: bool, ovs: bool = False) -> HostFacts:
        """Read what the host is now."""
        ...

    def ovs_absence(self) -> str:
        """Return why Open vSwitch cannot be spoken to now, without waiting for it; "" if it can be, or may soon."""
        ...

    def is_own(self, address: Address) -> bool:
        """Tell whether an address is this host's."""
        ...

    def clashes(self) -> tuple[Clash, ...]:
        """Return what of containers' MACs and addresses came out of a tunnel."""
        ...


@dataclass(frozen=True, slots=True)
class Plan:
    """What one scope should have, where to look for what it may have, and whether its row goes when nothing is left."""

    wanted: tuple[Resource, ...] = ()
    keys: frozenset[Key] = frozenset()
    ending: NetworkRow | EndpointRow | None = None

    def but(self, backends: frozenset[str]) -> Plan:
        """Return what is left without some backends' part of it."""
        if not backends:
            return self
        wanted = tuple(one for one in self.wanted if one.key.backend not in backends)
        return replace(self, wanted=wanted, keys=frozenset(key for key in self.keys if key.backend not in backends))


class Plans:
    """Plans from stored rows. Thread-safe.

    ``may_forward``  Docker was up in this boot, so forwarding may be asked for
    ``spared``       scopes that the store does not know and a container needs: then nothing of the host goes
    """

    def __init__(self, store: Store, host: HostSide) -> None:
        """Read rows of ``store``, and facts of ``host`` when :meth:`refresh` is called."""
        self._store = store
        self._host = host
        self._facts = HostFacts()
        self._bridges = store.bridges()
        self._mutex = threading.Lock()
        self._host_keys = _keys(_host_plan(_ALL_HOST, _ALL_USE))
        self.may_forward = False
        self.spared: frozenset[Scope] = frozenset()

    def refresh(self) -> bool:
        """Read what the host is; tell whether that has changed."""
        facts = self._host.facts(may_forward=self.may_forward, ovs=self._store.use().ovs)
        changed = facts != self._facts
        self._facts = facts
        return changed

    def judge_bridges(self, dockers: frozenset[str] | None) -> bool:
        """Take note of which bridges are Docker's; see ``Runtime.judge_bridges``. Tell whether that has changed."""
        known = self._bridges
        there = self._host.facts(may_forward=self.may_forward).operator_links
        found = Bridges(known.dockers if dockers is None else dockers, there)
        if found == known:
            return False
        self._store.keep_bridges(found)
        self._bridges = found
        return True

    def of(self, scope: Scope) -> Plan:
        """Return the plan of a scope by what is stored now."""
        if scope == HOST:
            return self._of_host()
        row = self._store.row_of(scope)
        if row is None:
            return Plan()
        wanted = self._of_row(row)
        if row.phase is Phase.DELETING:
            return Plan((), _keys(wanted), ending=row)
        return Plan(wanted, _keys(wanted))

    def _of_host(self) -> Plan:
        facts = replace(self._facts, operator_links=self._facts.operator_links & self._bridges.judged)
        wanted = _host_plan(facts, replace(self._store.use(), docker_links=self._bridges.dockers))
        with self._mutex:
            self._host_keys |= _keys(wanted)
            return Plan(wanted, _keys(wanted) if self.spared else self._host_keys)

    def _of_row(self, row: NetworkRow | EndpointRow) -> tuple[Resource, ...]:
        match row:
            case NetworkRow(network=network):
                network = replace(
                    network, loopback=self._store.ports.to_loopback(network.id), peers=self._peers(network)
                )
                return PLANNERS[network.backend].network(self._facts, network)
            case EndpointRow(endpoint=endpoint):
                owner = self._store.network(endpoint.network)
                if owner is None:
                    return ()
                if row.external:
                    endpoint = replace(endpoint, published=self._store.ports.of(endpoint.id))
                if not owner.network.icc:
                    endpoint = replace(endpoint, links=(*endpoint.links, *self._store.links.of(endpoint.id)))
                return PLANNERS[owner.network.backend].endpoint(self._facts, owner.network, endpoint)

    def _peers(self, network: Network) -> tuple[Peer, ...]:
        """Return a network's peers, this host left out: a list may be the same on every host."""
        if network.tunnel is None:
            return ()
        listed = self._store.peers.numbered(network.id, network.tunnel.version)
        return tuple(peer for peer in listed if not self._host.is_own(peer.address))


def _host_plan(facts: HostFacts, use: Use) -> tuple[Resource, ...]:
    return tuple(resource for planner in PLANNERS.values() for resource in planner.host(facts, use))


def _keys(resources: tuple[Resource, ...]) -> frozenset[Key]:
    """Return where to look for what a scope may have left: never at what is the operator's."""
    return frozenset(resource.key for resource in resources if not resource.adopted)
