"""Who may use a relayed port: what the operator allowed, and always the host itself.

The relay has to judge by itself, for its clients never meet the rules of the forward chain.
"""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from typing import Final

from drivers.kernel.netlink import Netlink

log = logging.getLogger(__name__)

_RTM_GETROUTE: Final = 26
_NLM_F_REQUEST: Final = 0x1
_HEADER: Final = struct.Struct("=IHHII")
_ROUTE: Final = struct.Struct("=BBBBBBBBI")
_ATTRIBUTE: Final = struct.Struct("=HH")
_RTA_DST, _RTA_OIF = 1, 4
_TYPE_AT: Final = 7  # bytes into struct rtmsg
_RTN_LOCAL: Final = 2

Client = tuple[str, int] | tuple[str, int, int, int]
"""A client as ``accept`` and ``recvmsg`` tell of it; IPv6 has flow and scope, too."""


class Admission:
    """Judges clients for one hold. ``allow`` empty: all may."""

    def __init__(self, allow: Sequence[str], netlink: Netlink) -> None:
        self._allow = tuple(ip_network(source, strict=False) for source in allow)
        self._netlink = netlink

    def permits(self, client: Client) -> bool:
        """Tell whether this client may use the port."""
        if not self._allow:
            return True
        address = ip_address(client[0].partition("%")[0])
        return (
            any(address in network for network in self._allow)
            or address.is_loopback
            or self._is_ours(client[0], client[3] if len(client) > 2 else 0)
        )

    def _is_ours(self, text: str, scope: int) -> bool:
        """Tell whether the kernel would send a packet for the address to itself.

        To try to bind it would say yes to everybody where ``ip_nonlocal_bind`` is set, as load balancers do.
        """
        address = ip_address(text.partition("%")[0])
        body = _attribute(_RTA_DST, address.packed) + (_attribute(_RTA_OIF, struct.pack("=I", scope)) if scope else b"")
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        body = _ROUTE.pack(family, len(address.packed) * 8, 0, 0, 0, 0, 0, 0, 0) + body
        request = _HEADER.pack(_HEADER.size + len(body), _RTM_GETROUTE, _NLM_F_REQUEST, 0, 0) + body
        try:
            (told,) = self._netlink.ask(request)
        except (OSError, ValueError) as error:
            log.debug("no route back to a client", extra={"client": text, "why": str(error)})
            return False
        return told.body[_TYPE_AT] == _RTN_LOCAL


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value
