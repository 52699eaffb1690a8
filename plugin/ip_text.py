"""Addresses and networks from their texts, without a zone.

``ipaddress`` takes whatever stands behind a ``%`` for the name of a zone (Python 3.9 and later), spaces and braces
included, and writes it out again: text that must not come to nft. Nothing that weft is told of is of one link only.
"""

from __future__ import annotations

import ipaddress

from drivers.model import Address, Interface, IPNetwork


def address(text: str) -> Address:
    """Read an address. Raises ``ValueError``."""
    return ipaddress.ip_address(_plain(text))


def interface(text: str) -> Interface:
    """Read ``address/length``; an address alone is a network of its own. Raises ``ValueError``."""
    return ipaddress.ip_interface(_plain(text))


def network(text: str, *, strict: bool = True) -> IPNetwork:
    """Read ``network/length``; host bits are refused if ``strict``. Raises ``ValueError``."""
    return ipaddress.ip_network(_plain(text), strict=strict)


def _plain(text: str) -> str:
    if "%" in text:
        raise ValueError("an address with a zone is no address of a network")
    return text
