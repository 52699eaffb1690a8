"""What comes out of a tunnel and says that it is a container of this host: somebody has its MAC or address, too.

The flows count it, and :func:`clash` reads off a flow what it counts. A packet with the address of a container here is
dropped: that container comes first. Its MAC alone claims nothing that the container could lose.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import Final

from drivers.ovs.model import Attachment
from drivers.ovs.tables import NETWORK, Board, Table
from drivers.resources import Resource
from drivers.resources.flow_text import Value, match, resubmit

COUNTING: Final = (Table.SAME_MAC, Table.SAME_ADDRESS)
_COUNTED: Final = 50  # priority

_CLAIM: Final = re.compile(r"\b(?:dl_src|arp_spa|nw_src|ipv6_src)=([^,]+)")


def otherwise(board: Board) -> Iterator[Resource]:
    """Yield the host's part: whoever is nobody here goes on."""
    yield board.flow(Table.SAME_MAC, 0, match(), resubmit(Table.SAME_ADDRESS))
    yield board.flow(Table.SAME_ADDRESS, 0, match(), resubmit(Table.DESTINATION))


def counted(board: Board, network: int, at: Attachment) -> Iterator[Resource]:
    """Yield an endpoint's part: its MAC, and each address in IP and ARP."""
    of: dict[str, Value] = {NETWORK: network}
    yield board.flow(Table.SAME_MAC, _COUNTED, match(**of, dl_src=at.mac), resubmit(Table.SAME_ADDRESS))
    for address in at.addresses:
        if isinstance(address, IPv4Address):
            yield board.flow(Table.SAME_ADDRESS, _COUNTED, match("arp", **of, arp_spa=address))
            yield board.flow(Table.SAME_ADDRESS, _COUNTED, match("ip", **of, nw_src=address))
        else:
            yield board.flow(Table.SAME_ADDRESS, _COUNTED, match("ipv6", **of, ipv6_src=address))


def clash(flow_match: str) -> str | None:
    """Return the MAC or address that a flow counts by its match, ``None`` if it counts nothing of the kind."""
    found = _CLAIM.search(flow_match)
    return found[1] if found else None
