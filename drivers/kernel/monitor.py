"""Watches what others do to our links and addresses, and to the operator's bridges, and marks scopes dirty.

Nothing that weft does itself while it makes a link looks like any of this: it never sets a link down, never takes a
port out of a bridge, and never deletes an address but to remove it for good. Its own deletions do wake it, once.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import threading
from typing import Final

from drivers.contract import Dirty
from drivers.kernel import wire
from drivers.kernel.addresses import Owner
from drivers.kernel.facts import is_operator_bridge, operator_bridges
from drivers.kernel.links import Links
from drivers.kernel.wire import IFF_UP, Link, Message
from drivers.naming import LINK_GROUP
from drivers.resources import HOST

_SOL_NETLINK: Final = 270
_ADD_MEMBERSHIP: Final = 1
_LINK, _IPV4_ADDRESS, _IPV6_ADDRESS = 1, 5, 9  # RTNLGRP_*
_SO_RCVBUFFORCE: Final = 33
_RECEIVE_BYTES: Final = 65536
_PORTS: Final = frozenset(("veth", *wire.TUNNEL_KINDS))
_QUEUE_BYTES: Final = 4 << 20  # some thousand events; past it the kernel drops them and says so


class Monitor:
    """A thread that listens from the moment this is made until :meth:`stop`."""

    def __init__(self, links: Links, owner: Owner, dirty: Dirty) -> None:
        self._links = links
        self._owner = owner
        self._dirty = dirty
        self._socket = _open()
        self._operators = operator_bridges()
        self._ports: dict[int, int] = {}  # of the operator's bridges: index -> its bridge's
        self._wake = os.eventfd(0)
        self._thread = threading.Thread(target=self._listen, name="weft-netlink-monitor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread and close what it held. Once is enough; twice does nothing."""
        if not self._thread.is_alive():
            return
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        self._socket.close()
        os.close(self._wake)

    def _listen(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake, selectors.EVENT_READ)
            selector.register(self._socket, selectors.EVENT_READ)
            while not any(key.fd == self._wake for key, _ in selector.select()):
                self._receive()

    def _receive(self) -> None:
        try:
            data = self._socket.recv(_RECEIVE_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            self._start_afresh()
            return
        for message in wire.messages(data):
            self._judge(message)

    def _start_afresh(self) -> None:
        """Deal with events that were dropped: forget the rest of them, too, for a survey is asked for anyway.

        The kernel drops all that comes until the queue has been emptied once.
        """
        while True:
            try:
                self._socket.recv(_RECEIVE_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
        self._operators = operator_bridges()
        self._dirty(None)

    def _judge(self, message: Message) -> None:
        match message.type:
            case wire.RTM_NEWLINK | wire.RTM_DELLINK:
                link = wire.link(message)
                if link is not None:
                    gone = message.type == wire.RTM_DELLINK
                    self._judge_ours(link, gone=gone)
                    self._judge_operators(link, gone=gone)
            case wire.RTM_DELADDR:
                self._judge_address(wire.address(message))

    def _judge_ours(self, link: Link, *, gone: bool) -> None:
        scope = self._links.owner(link)
        if scope is None:
            return
        switched = bool(link.changed & IFF_UP)
        went_down = switched and not link.up
        # the kernel sets a new port up before it puts it into its bridge (do_setlink, Linux 6.18)
        # a port of Open vSwitch is in no bridge that the kernel knows of; unlike one of a bridge it is NOARP
        left_its_bridge = link.kind in _PORTS and link.up and not switched and not link.master and link.arp
        if gone or went_down or left_its_bridge:
            self._dirty(scope)

    def _judge_operators(self, link: Link, *, gone: bool) -> None:
        """Tell of a bridge that comes or goes, and of its first and further ports: it may be Docker's after all.

        Docker makes the bridge before its list has the network, and plugs a container in after it (all engines).
        """
        known = self._operators.get(link.index), self._ports.get(link.index)
        if gone or not is_operator_bridge(link):
            self._operators.pop(link.index, None)
        else:
            self._operators[link.index] = link.name
        if gone or link.group == LINK_GROUP or link.master not in self._operators:
            self._ports.pop(link.index, None)
        else:
            self._ports[link.index] = link.master
        if known != (self._operators.get(link.index), self._ports.get(link.index)):
            self._dirty(HOST)

    def _judge_address(self, address: wire.Address) -> None:
        try:
            link = self._links.at(address.index)
        except OSError:
            self._dirty(None)  # whose it was cannot be told
            return
        if link is None:
            return  # its link is gone, too, and tells for itself
        scope = self._links.owner(link) or self._owner(link.name)
        if scope is not None:
            self._dirty(scope)


def _open() -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    try:
        with contextlib.suppress(PermissionError):  # root in a user namespace has the host's default
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _QUEUE_BYTES)
        sock.bind((0, 0))
        for group in (_LINK, _IPV4_ADDRESS, _IPV6_ADDRESS):
            sock.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
    except OSError:
        sock.close()
        raise
    return sock
