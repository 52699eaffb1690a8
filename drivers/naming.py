"""Names and MACs from ids: stable, so that they can be told again after a crash, and as long as the kernel allows."""

from __future__ import annotations

import hashlib
import re
from ipaddress import IPv6Address
from typing import Final, Literal

from drivers.model import Interface

PREFIX: Final = "wf"
LINK_GROUP: Final = 0x57EF  # 22511: every link that weft makes is in it
LINK_NAME_BYTES: Final = 15  # IFNAMSIZ (16) less the closing NUL

_ID_BYTES: Final = LINK_NAME_BYTES - len(PREFIX) - 1
_DOCKER_ID: Final = re.compile(r"[0-9a-z]{12,64}")
_MADE_NAME: Final = re.compile(rf"{PREFIX}b[0-9a-z]{{{_ID_BYTES}}}")
_LINK_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,14}")

FIRST_OWN_VNI: Final = 1 << 20
VNIS: Final = range(1, 1 << 24)
"""Every VNI there is (RFC 7348). Those that weft chooses begin at 2^20: Swarm's begin at 4096."""

Kind = Literal["b", "h", "c", "t"]  # bridge, host's end of a veth, container's end, tunnel


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


def endpoint_mac(identity: str, address: Interface | None, endpoint: str) -> str:
    """Return the MAC of an endpoint: locally administered, from its network's identity and its address.

    A container that gets the same address again keeps its MAC, so nobody's neighbour table goes stale. Without an
    address it is derived from the endpoint's id.
    """
    return _mac(f"{identity}/{address.ip if address is not None else endpoint}")


def bridge_mac(identity: str) -> str:
    """Return the MAC of a network's bridge: fixed, so that it does not change with the ports (Linux: lowest port's).

    One network on several hosts has one identity, and so one gateway MAC.
    """
    return _mac(f"{identity}/bridge")


def vni_of(name: str) -> int:
    """Return the VNI of a network's name across hosts (``weft.name``): 2^20 to 2^24-1, the same on every host."""
    return FIRST_OWN_VNI + int(_digest(f"vni/{name}", 8), 16) % (VNIS.stop - FIRST_OWN_VNI)


def link_local(mac: str) -> IPv6Address:
    """Return the link-local address that the kernel makes of a MAC (RFC 4291, appendix A)."""
    raw = bytes.fromhex(mac.replace(":", ""))
    return IPv6Address(b"\xfe\x80" + bytes(6) + bytes((raw[0] ^ 2, *raw[1:3], 0xFF, 0xFE, *raw[3:])))


def _mac(text: str) -> str:
    tail = _digest(text, 5)
    return "02:" + ":".join(tail[at : at + 2] for at in range(0, len(tail), 2))


def _digest(text: str, size: int) -> str:
    return hashlib.blake2s(text.encode(), digest_size=size).hexdigest()
