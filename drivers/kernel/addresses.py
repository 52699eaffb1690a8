"""The host's addresses on links. An address has no room for a mark: its link, or its ``IFA_PROTO``, tells whose it is.

On a link of ours every address but the kernel's own is ours. On an adopted bridge those with our ``IFA_PROTO`` are
(Linux 5.18; older kernels do not keep it, so there an address once added stays the operator's).
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from ipaddress import ip_interface
from typing import Final

from drivers.errors import Conflict
from drivers.kernel import requests, wire
from drivers.kernel.links import Links, index_of_link
from drivers.kernel.netlink import Netlink
from drivers.kernel.wire import OUR_PROTO, Address, Link
from drivers.resources import Foreign, HostAddress, Key, Scope, address_key

_GONE: Final = frozenset({errno.EADDRNOTAVAIL, errno.ENODEV, errno.ENXIO})

Owner = Callable[[str], Scope | None]


class Addresses:
    """The addresses of one store. ``owner`` says to which network's scope an adopted bridge belongs."""

    def __init__(self, netlink: Netlink, links: Links, owner: Owner) -> None:
        self._netlink = netlink
        self._links = links
        self._owner = owner

    def on(self, link: Link) -> list[Address]:
        """Return the addresses of one link, by one request that costs no more on a host with many."""
        return [wire.address(told) for told in self._netlink.ask(requests.dump_addresses(link.index))]

    def seen(self, keys: Iterable[Key], link: Link) -> dict[Key, HostAddress | Foreign]:
        """Return what is at these keys, all on ``link``."""
        there = {address.interface: address for address in self.on(link)}
        wanted = ((key, there.get(ip_interface(key.at[1]))) for key in keys)
        return {key: self._seen(key, link, address) for key, address in wanted if address is not None}

    def survey(self, links: dict[int, Link]) -> dict[Key, HostAddress]:
        """Return all addresses of ours, by one dump."""
        found: dict[Key, HostAddress] = {}
        for told in self._netlink.ask(requests.dump_addresses()):
            address = wire.address(told)
            link = links.get(address.index)
            if link is None or address.the_kernels:
                continue
            key = address_key(link.name, address.interface)
            match self._seen(key, link, address):
                case HostAddress() as ours:
                    found[key] = ours
        return found

    def add(self, new: HostAddress) -> None:
        """Add an address; an equal one of ours is as good."""
        address = ip_interface(new.address)
        index = index_of_link(new)
        try:
            self._netlink.ask(requests.new_address(index, address))
        except FileExistsError:
            self._accept(new)

    def remove(self, old: HostAddress) -> None:
        """Delete an address; one that is gone is as good.

        With the first IPv4 address of a subnet the kernel deletes all others of that subnet on the link
        (``promote_secondaries=0``), and on an adopted bridge they may be the operator's: they are put back.
        """
        link = self._links.find(old.link)
        if link is None:
            return
        address = ip_interface(old.address)
        before = self._told(link) if address.version == _IPV4 else {}
        try:
            self._netlink.ask(requests.delete_address(link.index, address))
        except OSError as error:
            if error.errno not in _GONE:
                raise
            return
        if len(before) > 1:
            for lost in before.keys() - self._told(link).keys() - {address}:
                self._netlink.ask(requests.add_again(before[lost]))

    def _told(self, link: Link) -> dict[object, bytes]:
        told = self._netlink.ask(requests.dump_addresses(link.index))
        return {wire.address(message).interface: message.body for message in told}

    def _seen(self, key: Key, link: Link, address: Address) -> HostAddress | Foreign:
        scope = self._links.owner(link)
        if scope is None and address.proto == OUR_PROTO:
            scope = self._owner(link.name)
        if scope is None:
            return Foreign(key, f"an address of the operator's on {link.name}")
        return HostAddress(key=key, scope=scope)

    def _accept(self, new: HostAddress) -> None:
        """Take an address that exists already for the one to be added, if it is equal."""
        link = self._links.find(new.link)
        found = self.seen([new.key], link).get(new.key) if link is not None else None
        if found == new or (isinstance(found, Foreign) and new.shared):
            return
        if found is not None:
            holder = found.what if isinstance(found, Foreign) else str(found.scope)
            raise Conflict(f"{new.key} is taken by {holder}")
        ip = ip_interface(new.address).ip
        others = (
            str(have.interface) for have in (self.on(link) if link is not None else ()) if have.interface.ip == ip
        )
        raise Conflict(f"{new.key} is there as {', '.join(others) or 'something else'} already")


_IPV4: Final = 4
