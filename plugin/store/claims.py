"""What only one network, or endpoint, can have: claimed in the transaction that stores it, or refused by who has it."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from typing import Final

from drivers.errors import Conflict
from drivers.model import Network, Subnet, Tunnel
from drivers.ovs.model import SLOTS
from plugin.store.numbers import free_number

OVS: Final = "ovs"
"""The backend whose networks and ports have numbers of their own."""

ZONES: Final = range(0x5700, 0x6700)
"""Conntrack zones of networks on which the host is not: clear of the small numbers that others begin with."""


def ends(subnet: Subnet) -> tuple[bytes, bytes]:
    """Return a subnet's first and last address, packed."""
    return subnet.network.network_address.packed, subnet.network.broadcast_address.packed


def claim_slot(db: sqlite3.Connection, network: str) -> int:
    """Return the number that a network's next port has; 0 where it is not on Open vSwitch. Raises :class:`Conflict`."""
    on_ovs = db.execute("SELECT 1 FROM networks WHERE id = ? AND number IS NOT NULL", (network,)).fetchone()
    if not on_ovs:
        return 0
    free = free_number(db, "SELECT slot FROM endpoints WHERE network = ? AND slot IS NOT NULL", network, below=SLOTS)
    if free >= SLOTS:
        raise Conflict(
            f"network {network[:12]} has {SLOTS - 1} containers on this host, as many as weft has places for on Open "
            "vSwitch: stop some, or put further ones on another network"
        )
    return free


def claim_subnet(db: sqlite3.Connection, network: Network, subnet: Subnet) -> None:
    """Refuse a subnet that overlaps another network's, if both have a gateway on the host: it has one way to it.

    None of those overlap, so only the nearest one below can.
    """
    if subnet.gateway is None:
        return
    first, last = ends(subnet)
    near = db.execute(
        "SELECT network, last FROM subnets WHERE gateway AND version = ? AND first <= ? ORDER BY first DESC LIMIT 1",
        (subnet.version, last),
    ).fetchone()
    if near and near["last"] >= first:
        raise Conflict(
            f"network {network.id[:12]}: the subnet {subnet.network} overlaps one of network {near['network'][:12]}, "
            "and the host has a gateway in both; choose another --subnet, or leave the host out of one of them "
            "(--internal with -o com.docker.network.bridge.gateway_mode_ipv4=isolated, for IPv6 gateway_mode_ipv6)"
        )


def claim_vni(db: sqlite3.Connection, network: Network, vni: int) -> None:
    """Refuse a VNI that another network has: on the wire they would be one."""
    held = db.execute("SELECT id FROM networks WHERE vni = ?", (vni,)).fetchone()
    if held:
        raise Conflict(
            f"network {network.id[:12]}: VNI {vni} is that of network {held['id'][:12]} on this host, and a segment is "
            "one network; choose another weft.vni, or another weft.name (two names may come to the same VNI)"
        )


def claim_tunnel(db: sqlite3.Connection, network: Network, tunnel: Tunnel) -> None:
    """Refuse a kind of tunnel and UDP port that the other backend has: one of the two takes all that comes in by it."""
    held = db.execute(
        "SELECT id FROM networks WHERE tunnel = ? AND (number IS NULL) = ?", (spelled(tunnel), network.backend == OVS)
    ).fetchone()
    if held:
        taken, other = (
            (f"UDP port {tunnel.port}", "another weft.tunnel.port") if tunnel.port else ("GRE", "another tunnel")
        )
        raise Conflict(
            f"network {network.id[:12]}: {taken} is that of network {held['id'][:12]} on this host, which has the "
            f"other weft.backend, and one of them takes all that comes in by it; choose {other}, or the same backend"
        )


def spelled(tunnel: Tunnel) -> str:
    """Return a tunnel's kind and UDP port in one word, as ``vxlan/4789``."""
    return f"{tunnel.kind}/{tunnel.port}"


def with_zone(db: sqlite3.Connection, network: Network) -> Network:
    """Choose the lowest free conntrack zone for a network that has no gateway, on a bridge of weft's own."""
    if network.adopted or any(subnet.gateway is not None for subnet in network.subnets):
        return network
    taken = {row["zone"] for row in db.execute("SELECT zone FROM networks WHERE zone IS NOT NULL")}
    return replace(network, zone=next((zone for zone in ZONES if zone not in taken), None))
