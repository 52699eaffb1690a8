"""Hears what others change in nftables, from the kernel's notifications, and says which of two things it concerns.

The kernel tells every member of NFNLGRP_NFTABLES of each table, chain, rule, set and element that a transaction
touched, with the netlink port of whoever made it. iptables-nft speaks nftables, so its changes are heard as well; those
of iptables-legacy are not (facts/network.md 15).

Docker rewrites whole iptables tables in bursts of hundreds of messages. So only the first attributes are looked at, in
place, and one burst is one call.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from drivers.resources import XTABLES_CHAIN, XTABLES_PARENT

_NETLINK_NETFILTER: Final = 12
_SOL_NETLINK: Final = 270
_NETLINK_ADD_MEMBERSHIP: Final = 1
_NFNLGRP_NFTABLES: Final = 7
_SUBSYS_NFTABLES: Final = 10
_SO_RCVBUFFORCE: Final = 33
_BUFFER: Final = 8 << 20  # bytes; a burst of some ten thousand messages
_READ: Final = 1 << 20  # bytes, more than any one message of the kernel
_BURST: Final = 256  # datagrams that are taken together

# linux/netfilter/nf_tables.h
_CHAINS: Final = (3, 5)  # NFT_MSG_NEWCHAIN, NFT_MSG_DELCHAIN
_RULES: Final = (6, 8)  # NFT_MSG_NEWRULE, NFT_MSG_DELRULE
_NEWGEN: Final = 15
_GETGEN: Final = 16
_CHAIN_NAME: Final = dict.fromkeys(_CHAINS, 3) | dict.fromkeys(_RULES, 2)  # NFTA_CHAIN_NAME, NFTA_RULE_CHAIN
_TABLE_NAME: Final = 1  # of every message with a family

FAMILIES: Final = {"inet": 1, "bridge": 7}  # NFPROTO_INET, NFPROTO_BRIDGE
_IP_VERSIONS: Final = (2, 10)  # NFPROTO_IPV4, NFPROTO_IPV6

_HEADER: Final = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_FAMILY_AT: Final = _HEADER.size  # nfgenmsg: family, version, resource id
_ATTRIBUTES_AT: Final = _FAMILY_AT + 4
_ATTRIBUTE: Final = struct.Struct("=HH")  # length, type

_OURS: Final = b"weft\0"
_FILTER: Final = b"filter\0"
_WATCHED_CHAINS: Final = frozenset(f"{name}\0".encode() for name in (XTABLES_PARENT, XTABLES_CHAIN, "FORWARD"))


@dataclass(frozen=True, slots=True)
class Heard:
    """What a burst of notifications was about.

    ``ports``   the netlink ports that changed the table ``weft`` of our family
    ``filter``  a chain that decides about FORWARD in iptables' filter table changed, or its rules
    """

    ports: frozenset[int] = frozenset()
    filter: bool = False


def read(burst: bytes, family: str = "inet") -> Heard:
    """Read the messages of one datagram; ``family`` is that of our table.

    Raises ``ValueError`` or ``struct.error`` if it is cut short.
    """
    ports: set[int] = set()
    of_filter, ours = False, FAMILIES[family]
    at, end = 0, len(burst)
    while at < end:
        length, kind, _, _, port = _HEADER.unpack_from(burst, at)
        if not _ATTRIBUTES_AT <= length <= end - at:
            raise ValueError("a netlink message was cut short")
        subsystem, message = kind >> 8, kind & 0xFF
        if subsystem == _SUBSYS_NFTABLES:
            spoken = burst[at + _FAMILY_AT]  # of no protocol in NEWGEN, which closes each transaction
            if spoken == ours:
                if port not in ports and _attribute(burst, at, length, _TABLE_NAME) == _OURS:
                    ports.add(port)
            elif not of_filter and spoken in _IP_VERSIONS and message in _CHAIN_NAME:
                of_filter = (
                    _attribute(burst, at, length, _TABLE_NAME) == _FILTER
                    and _attribute(burst, at, length, _CHAIN_NAME[message]) in _WATCHED_CHAINS
                )
        at += _aligned(length)
    return Heard(frozenset(ports), of_filter)


def generation() -> int:
    """Return the number of nftables transactions so far in this network namespace (modulo 2^32).

    Every commit, whoever makes it, counts one: what was read between two equal answers is what was there.
    """
    request = _HEADER.pack(_ATTRIBUTES_AT, _SUBSYS_NFTABLES << 8 | _GETGEN, 1, 0, 0) + bytes(4)  # 1: NLM_F_REQUEST
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as kernel:
        kernel.sendto(request, (0, 0))
        answer = kernel.recv(_READ)
    (length, kind, *_) = _HEADER.unpack_from(answer)
    found = _attribute(answer, 0, length, 1) if kind == _SUBSYS_NFTABLES << 8 | _NEWGEN else b""  # 1: NFTA_GEN_ID
    if not found:
        raise OSError(errno.EPROTO, "the kernel does not tell its nftables generation")
    return int.from_bytes(found, "big")


class Monitor:
    """A thread that calls ``table`` or ``filter`` when somebody else changed what they stand for.

    ``family``       of the table ``weft`` that is listened for: ``inet`` or ``bridge``
    ``ours(ports)``  whether all these netlink ports are this process's own
    ``table``        that table was changed by somebody else, or notifications were lost
    ``filter``       iptables' FORWARD, DOCKER-USER or WEFT changed, by whomever: our own iptables is another process
    ``ended``        the thread is over and hears no more, by :meth:`stop` or by a failure of its own

    It has joined the group when the constructor returns, so nothing that happens later is missed.
    """

    def __init__(
        self,
        *,
        family: str,
        ours: Callable[[frozenset[int]], bool],
        table: Callable[[], None],
        filter: Callable[[], None],  # noqa: A002 - the table's name
        ended: Callable[[], None],
    ) -> None:
        self._family = family
        self._ours, self._table, self._filter, self._ended = ours, table, filter, ended
        self._kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        try:
            self._kernel.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
            self._kernel.bind((0, 0))
            self._kernel.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, _NFNLGRP_NFTABLES)
            self._kernel.setblocking(False)  # noqa: FBT003 - takes no keyword
            self._wake = os.eventfd(0)
        except OSError:
            self._kernel.close()
            raise
        self._thread = threading.Thread(target=self._run, name=f"nft-monitor-{family}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread and wait for it. A second time is fine."""
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)
            self._thread.join()
            os.close(self._wake)
            self._wake = -1

    def _run(self) -> None:
        try:
            with self._kernel, selectors.DefaultSelector() as selector:
                selector.register(self._kernel, selectors.EVENT_READ)
                selector.register(self._wake, selectors.EVENT_READ)
                while all(key.fd != self._wake for key, _ in selector.select()):
                    self._hear()
        finally:
            self._ended()

    def _hear(self) -> None:
        """Take what is waiting, a burst at most, then tell."""
        ports: set[int] = set()
        lost = of_filter = False
        for _ in range(_BURST):
            try:
                heard = read(self._kernel.recv(_READ), self._family)
            except BlockingIOError:
                break
            except (ValueError, struct.error):
                lost = True
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                lost = True
            else:
                ports |= heard.ports
                of_filter = of_filter or heard.filter
        if lost or not self._ours(frozenset(ports)):
            self._table()
        if lost or of_filter:
            self._filter()


def _attribute(data: bytes, message: int, length: int, wanted: int) -> bytes:
    """Return the value of an attribute of the message at ``message``, or nothing."""
    at, end = message + _ATTRIBUTES_AT, message + length
    while at + _ATTRIBUTE.size <= end:
        size, kind = _ATTRIBUTE.unpack_from(data, at)
        if size < _ATTRIBUTE.size:
            raise ValueError("a netlink attribute was cut short")
        if kind & 0x3FFF == wanted:  # less the flags NLA_F_NESTED and NLA_F_NET_BYTEORDER
            return data[at + _ATTRIBUTE.size : at + size]
        at += _aligned(size)
    return b""


def _aligned(size: int) -> int:
    return size + 3 & ~3
