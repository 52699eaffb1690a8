"""The host's own neighbour tables: an entry that the kernel learnt is put right when its address has moved.

What the host itself sends out of a bridge it does not hear, so it is told by this what an announcement tells everybody
else. What somebody set on purpose (``permanent``, ``noarp``, ``extern_learn``, ``managed``) is his and stays as it is.
"""

from __future__ import annotations

import errno
import socket

from drivers.kernel import requests, wire
from drivers.kernel.netlink import Netlink
from drivers.model import Address


class Neighbours:
    """The entries of the tables ``arp`` and ``ndisc``, one by one."""

    def __init__(self, netlink: Netlink) -> None:
        """Ask by ``netlink``."""
        self._netlink = netlink

    def correct(self, link: str, mac: str, address: Address) -> None:
        """Let a learnt entry of ``address`` on ``link`` lead to ``mac``; where there is no entry, none is made.

        The entry is ``stale`` afterwards: used at once, and confirmed by the kernel while it is. Raises ``OSError``
        if the link is gone or the kernel refuses.
        """
        index = socket.if_nametoindex(link)
        try:
            (told,) = self._netlink.ask(requests.get_neighbour(index, address))
            known = wire.neighbour(told)
            if known.learnt and known.mac != mac:
                self._netlink.ask(requests.change_neighbour(index, address, mac))
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
