"""What comes out of a tunnel and says that it is a container of this host: somebody has its MAC or address, too.

The flows count it, and :func:`clash` reads off a flow what it counts. A packet with the address of a container here
goes no further: that container comes first. Its claim to the address, by ARP or neighbour discovery, goes to that
container alone, so that duplicate address detection finds it (RFC 5227, RFC 4862) and nobody else is misled. Its MAC
alone claims nothing that the container could lose.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import Final

from drivers.ovs.model import Attachment
from drivers.ovs.source import ADVERTISEMENT
from drivers.ovs.tables import NETWORK, Board, Table
from drivers.resources import Resource
from drivers.resources.flow_text import Value, match, output, resubmit, set_field

COUNTING: Final = (Table.SAME_MAC, Table.SAME_ADDRESS)
_COUNTED: Final = 50  # priority
_CLAIM_BY_ND: Final = 60

_NOBODYS: Final = set_field(NETWORK, 0)  # and so dropped; no fence, which others would wait for

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
            yield board.flow(Table.SAME_ADDRESS, _COUNTED, match("arp", **of, arp_spa=address), output(at.port))
            yield board.flow(Table.SAME_ADDRESS, _COUNTED, match("ip", **of, nw_src=address), _NOBODYS)
        else:
            claim = match("icmp6", **of, ipv6_src=address, icmp_type=ADVERTISEMENT, nd_target=address)
            yield board.flow(Table.SAME_ADDRESS, _CLAIM_BY_ND, claim, output(at.port))
            yield board.flow(Table.SAME_ADDRESS, _COUNTED, match("ipv6", **of, ipv6_src=address), _NOBODYS)


def clash(flow_match: str) -> str | None:
    """Return the MAC or address that a flow counts by its match, ``None`` if it counts nothing of the kind."""
    found = _CLAIM.search(flow_match)
    return found[1] if found else None
