"""Names and MACs from ids: stable, so that they can be told again after a crash, and as long as the kernel allows."""

from __future__ import annotations

import hashlib
import re
from typing import Final, Literal

from drivers.model import Interface

PREFIX: Final = "wf"
LINK_GROUP: Final = 0x57EF  # 22511: every link that weft makes is in it
LINK_NAME_BYTES: Final = 15  # IFNAMSIZ (16) less the closing NUL

_ID_BYTES: Final = LINK_NAME_BYTES - len(PREFIX) - 1
_DOCKER_ID: Final = re.compile(r"[0-9a-z]{12,64}")
_MADE_NAME: Final = re.compile(rf"{PREFIX}b[0-9a-z]{{{_ID_BYTES}}}")
_LINK_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,14}")

Kind = Literal["b", "h", "c"]  # bridge, host's end of a veth, container's end


def link_name(kind: Kind, ident: str) -> str:
    """Return the name of a link from an id: ``wf``, its kind, twelve characters; 15 bytes in all.

    An id as Docker makes them (64 hex digits, or Swarm's 25 of base 36) shows its first twelve, which is what
    ``docker ps`` and ``docker network ls`` show; anything else is hashed. Docker's ids are random, so two that
    share twelve hex digits are a matter of 2^48; the store refuses the second one.
    """
    short = ident[:_ID_BYTES] if _DOCKER_ID.fullmatch(ident) else _digest(ident, 6)
    return f"{PREFIX}{kind}{short}"


def is_made_name(name: str) -> bool:
    """Tell whether :func:`link_name` makes such names for bridges."""
    return _MADE_NAME.fullmatch(name) is not None


def is_link_name(name: str) -> bool:
    """Tell whether the kernel and every tool we pass it to take ``name`` as a link's name."""
    return _LINK_NAME.fullmatch(name) is not None


def endpoint_mac(network: str, address: Interface | None, endpoint: str) -> str:
    """Return the MAC of an endpoint: locally administered, from its network and address.

    A container that gets the same address again keeps its MAC, so nobody's neighbour table goes stale. Without an
    address it is derived from the endpoint's id.
    """
    return _mac(f"{network}/{address.ip if address is not None else endpoint}")


def bridge_mac(network: str) -> str:
    """Return the MAC of a network's bridge: fixed, so that it does not change with the ports (Linux: lowest port's)."""
    return _mac(f"{network}/bridge")


def _mac(text: str) -> str:
    tail = _digest(text, 5)
    return "02:" + ":".join(tail[at : at + 2] for at in range(0, len(tail), 2))


def _digest(text: str, size: int) -> str:
    return hashlib.blake2s(text.encode(), digest_size=size).hexdigest()
