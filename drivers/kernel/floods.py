"""The peers of VXLAN devices: entries for the MAC of all zeros in the device's own forwarding table.

An entry has no room for a mark: on a device of ours every one is ours. The kernel tells a table only as a whole, so a
look costs one dump of that device's, with the MACs learnt there.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Final

from drivers.kernel import requests
from drivers.kernel.links import Links, index_of_link
from drivers.kernel.netlink import Netlink
from drivers.kernel.tunnel_wire import ALL_ZERO, ForwardingEntry, forwarding_entry
from drivers.kernel.wire import Link
from drivers.model import Address
from drivers.resources import FloodEntry, Foreign, Key, flood_key

_GONE: Final = frozenset({errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.EINVAL})


class Floods:
    """The peers of one store's VXLAN devices."""

    def __init__(self, netlink: Netlink, links: Links) -> None:
        self._netlink = netlink
        self._links = links

    def seen(self, keys: Iterable[Key], link: Link) -> dict[Key, FloodEntry | Foreign]:
        """Return what is at these keys, all on ``link``."""
        there = self._peers(link.index)
        return {key: self._seen(key, link) for key in keys if ip_address(key.at[1]) in there}

    def survey(self, links: Iterable[Link]) -> dict[Key, FloodEntry]:
        """Return all peers of our VXLAN devices: a dump for each device."""
        found: dict[Key, FloodEntry] = {}
        for link in links:
            scope = self._links.owner(link)
            if link.kind == "vxlan" and scope is not None:
                keys = (flood_key(link.name, str(peer)) for peer in self._peers(link.index))
                found |= {key: FloodEntry(key=key, scope=scope) for key in keys}
        return found

    def add(self, new: FloodEntry) -> None:
        """Add a peer; one that is there is as good."""
        self._append(index_of_link(new), ip_address(new.peer))

    def remove(self, old: FloodEntry) -> None:
        """Remove a peer and the MACs learnt behind it, or traffic to it would go on until they age out."""
        link = self._links.find(old.link)
        if link is None:
            return
        peer = ip_address(old.peer)
        for entry in self._entries(link.index):
            if entry.peer == peer:
                self._delete(entry, peer)

    @contextmanager
    def kept(self, name: str) -> Iterator[None]:
        """Let a device be made anew, and give it the peers that it had."""
        before = self._links.find(name)
        peers = self._peers(before.index) if before is not None and before.kind == "vxlan" else set()
        yield
        after = self._links.find(name)
        if after is None:
            return
        for peer in sorted(peers - self._peers(after.index), key=int):
            try:
                self._append(after.index, peer)
            except OSError as error:
                if error.errno != errno.EAFNOSUPPORT:  # it is of the other IP version now
                    raise

    def _seen(self, key: Key, link: Link) -> FloodEntry | Foreign:
        scope = self._links.owner(link)
        if scope is None:
            return Foreign(key, f"a peer of the operator's on {link.name}")
        return FloodEntry(key=key, scope=scope)

    def _peers(self, index: int) -> set[Address]:
        return {one.peer for one in self._entries(index) if one.mac == ALL_ZERO and one.peer is not None}

    def _entries(self, index: int) -> list[ForwardingEntry]:
        told = map(forwarding_entry, self._netlink.ask(requests.dump_forwarding(index)))
        return [entry for entry in told if entry.own and entry.index == index]

    def _append(self, index: int, peer: Address) -> None:
        self._netlink.ask(requests.append_forwarding(index, ALL_ZERO, peer))

    def _delete(self, entry: ForwardingEntry, peer: Address) -> None:
        try:
            self._netlink.ask(requests.delete_forwarding(entry.index, entry.mac, peer))
        except OSError as error:
            if error.errno not in _GONE:
                raise
