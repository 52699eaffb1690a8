"""Making and removing networks: check, decide, store, converge, promise. What fails is withdrawn, then answered."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Protocol

from drivers.errors import Conflict, InvalidRequest, WeftError
from drivers.facts import LinkInfo
from drivers.model import Encapsulation, Endpoint, IPNetwork, Network, Tunnel
from drivers.naming import LINK_GROUP, bridge_mac, link_name
from drivers.obstacles import Obstacle
from drivers.resources import HOST
from plugin.deadline import Deadline
from plugin.engine.tunnels import Tunnels
from plugin.requests import NetworkRequest
from plugin.runtime import Runtime
from plugin.store import OVS, NetworkRow, Phase, Store

log = logging.getLogger(__name__)


class HostLooks(Protocol):
    """What is looked up on the host before a promise is made, and told to it after."""

    def link(self, name: str) -> LinkInfo | None:
        """Return what a link is, or ``None`` if there is none of that name."""
        ...

    def connected_subnets(self) -> tuple[tuple[str, IPNetwork], ...]:
        """Return the subnets that the host is in, each with its link."""
        ...

    def forwarding4(self) -> bool:
        """Tell whether the host forwards IPv4."""
        ...

    def obstacles(self, networks: Iterable[Network]) -> list[tuple[Network, Obstacle]]:
        """Return what stops packets of networks, with what to type about it."""

    def check_ovs(self, tunnel: Encapsulation | None = None) -> None:
        """Raise where no network can be on Open vSwitch now."""
        ...

    def is_plugged(self, link: str) -> bool:
        """Tell whether the other end of a veth pair is in another network namespace: a container has it."""
        ...

    def announce(
        self, network: Network, endpoint: Endpoint, *, count: int, interval: float, wanted: Callable[[], bool]
    ) -> None:
        """Tell the network and the host where the endpoint's addresses are, while it is ``wanted``; never waits."""
        ...


class Networks:
    """The use cases of networks."""

    def __init__(self, store: Store, runtime: Runtime, host: HostLooks, tunnels: Tunnels, *, backend: str) -> None:
        """Make networks of ``backend`` where the request does not say."""
        self._store = store
        self._runtime = runtime
        self._host = host
        self._tunnels = tunnels
        self._backend = backend

    def create(self, request: NetworkRequest, deadline: Deadline) -> None:
        """Make a network. Making an equal one again is a success; one that differs is a :class:`Conflict`."""
        known = self._store.network(request.id)
        if known is not None and known.phase is Phase.DELETING:
            self.delete(request.id, deadline)
            known = None
        row = NetworkRow(network=self._decide(request, known), settings=request.settings)
        if known is not None:
            _check_equal(known, row)
            log.info("network is there already", extra={"network": known.id[:12]})
            return
        self._check_subnets(row.network)
        if row.network.backend == OVS:
            self._host.check_ovs(row.network.tunnel.kind if row.network.tunnel else None)
        self._store.add_network(row, pools=request.pools)
        try:
            self._runtime.converge_host(deadline, ovs=row.network.backend == OVS)
            self._runtime.converge(row.scope, deadline)
            self._store.network_ready(row.id)
        except BaseException:
            self._withdraw(row)
            raise
        self._tell(row.network)

    def delete(self, ident: str, deadline: Deadline) -> None:
        """Remove a network and all endpoints that are left on it. Removing what is unknown is a success."""
        row = self._store.network(ident)
        if row is None:
            return
        self._store.withdraw_network(ident)
        for endpoint in self._store.endpoints(ident):
            self._runtime.converge(endpoint.scope, deadline)
        self._runtime.converge(row.scope, deadline)
        self._runtime.converge_host(deadline, ovs=row.network.backend == OVS)
        log.info("network deleted", extra={"network": ident[:12], "link": row.network.link})

    def _decide(self, request: NetworkRequest, known: NetworkRow | None) -> Network:
        """Return the network with every choice made: its bridge, whether that is adopted, its tunnel, MAC and MTU.

        What was chosen for one that is ``known`` and was asked for in the same words is not chosen again.
        """
        asked = request.settings
        name = asked.bridge or link_name("b", request.id)
        backend = asked.backend or self._backend
        theirs = self._operators_bridge(request.id, name) if asked.bridge else None
        if theirs and asked.mtu and asked.mtu < theirs.mtu:
            raise InvalidRequest(
                f"network {request.id[:12]}: com.docker.network.driver.mtu={asked.mtu}: the bridge {name} has "
                f"{theirs.mtu}, and a port with less would lower it; allowed is {theirs.mtu} or more, or none"
            )
        if theirs and backend == OVS:
            raise InvalidRequest(
                f"network {request.id[:12]}: {name} is a bridge of your own, and weft.backend=ovs has one of its own; "
                "leave com.docker.network.bridge.name out, or name what does not exist yet"
            )
        if theirs and not asked.icc:
            raise InvalidRequest(
                f"network {request.id[:12]}: com.docker.network.bridge.enable_icc=false cannot be on {name}, a bridge "
                "of your own: keeping containers apart there would cut them off from its other machines, too; leave "
                "the bridge's name out, or name one that does not exist yet"
            )
        if theirs and asked.tunnel:
            raise InvalidRequest(
                f"network {request.id[:12]}: weft.tunnel={asked.tunnel} cannot be on {name}, a bridge of your own: its "
                "machines would be joined to the other hosts, gateways and all; leave the bridge's name out, or name "
                "one that does not exist yet"
            )
        if known is not None and known.settings == asked:
            tunnel, mtu, zone = known.network.tunnel, known.network.mtu, known.network.zone
        else:
            (tunnel, mtu), zone = self._tunnels.decide(request, backend), None
        network = Network(
            id=request.id,
            backend=backend,
            link=name,
            mac="",
            adopted=theirs is not None,
            subnets=request.subnets,
            mtu=mtu or (theirs.mtu if theirs else None),
            internal=request.internal,
            mode4=asked.mode4,
            mode6=asked.mode6,
            masquerade=asked.masquerade,
            source4=asked.source4,
            source6=asked.source6,
            icc=asked.icc,
            trusted=asked.trusted,
            relay=asked.relay,
            allow=asked.allow,
            tunnel=tunnel,
            zone=zone,
        )
        return replace(network, mac=bridge_mac(network.identity))

    def _operators_bridge(self, ident: str, name: str) -> LinkInfo | None:
        """Return the operator's bridge of a name; ``None`` if there is no such link, or it is one that weft made."""
        link, holder = self._host.link(name), self._store.network_of_link(name)
        if link is None or (holder is not None and not holder.network.adopted):
            return None
        if link.kind != "bridge" or link.group == LINK_GROUP:
            what = f"a {link.kind}" if link.kind != "bridge" else "a bridge that another weft made"
            raise Conflict(
                f"network {ident[:12]}: com.docker.network.bridge.name={name}: that link is {what}; "
                "allowed is the name of a Linux bridge of your own, or a name that is not taken"
            )
        return link

    def _check_subnets(self, network: Network) -> None:
        """Refuse a subnet that the host is in by another link: one of the two would get the other's packets.

        Where the network has no gateway, the host has no way into it, and so none that could be the wrong one.
        """
        subnets = [subnet for subnet in network.subnets if subnet.gateway is not None]
        if not subnets:
            return
        for link, there in self._host.connected_subnets():
            if link == network.link:
                continue
            for subnet in subnets:
                if subnet.version == there.version and subnet.network.overlaps(there):
                    row = self._store.network_of_link(link)
                    whose = f"network {row.id[:12]}" if row else f"the host's own {there} on {link}"
                    raise Conflict(
                        f"network {network.id[:12]}: the subnet {subnet.network} overlaps {whose}; "
                        "choose another --subnet (`ip route` shows what is taken), or leave the host out of the "
                        "network (--internal, gateway mode isolated)"
                    )

    def _withdraw(self, row: NetworkRow) -> None:
        """Take a network back after a failure. What cannot be removed now is removed by the reconciler."""
        self._runtime.withdraw(row.scope, partial(self._store.withdraw_network, row.id))
        try:
            self._runtime.converge_host(Deadline(None), ovs=row.network.backend == OVS)
        except (WeftError, ExceptionGroup):
            log.exception("withdrawing a network", extra={"network": row.id[:12]})
            self._runtime.dirty(HOST)

    def _tell(self, network: Network) -> None:
        if network.is_forwarded(4) and not self._host.forwarding4():
            log.warning(
                "IPv4 forwarding is off, so the network has no way out",
                extra={
                    "network": network.id[:12],
                    "why": "dockerd was started with --ip-forward=false, or something switched it off",
                    "fix": "sysctl -w net.ipv4.ip_forward=1",
                },
            )
        for _, obstacle in self._host.obstacles([network]):
            log.warning(
                "a firewall stands in the way",
                extra={"network": network.id[:12], "why": obstacle.what, "fix": obstacle.fix},
            )
        log.info(
            "network created",
            extra={
                "network": network.id[:12],
                "link": network.link,
                "adopted": network.adopted,
                "subnets": ",".join(str(subnet.network) for subnet in network.subnets) or "none",
                "internal": network.internal,
                **_told(network.tunnel),
            },
        )


def _check_equal(known: NetworkRow, row: NetworkRow) -> None:
    numbered = replace(row.network, number=known.network.number)  # which the store chose
    if replace(known, phase=row.phase) != replace(row, network=numbered):
        raise Conflict(f"network {row.id[:12]} exists already and differs: {known}; asked for: {row}")


def _told(tunnel: Tunnel | None) -> dict[str, object]:
    return {} if tunnel is None else {"tunnel": tunnel.kind, "vni": tunnel.vni, "local": tunnel.local or "any"}
