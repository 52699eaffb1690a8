"""How the text of an option is read: a value, or ``ValueError``. What is allowed is said in the option's row."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Final, TypeVar, get_args

from drivers.model import Address, Encapsulation, GatewayMode, Interface, IPNetwork, OpenPorts
from drivers.naming import VNIS, is_link_name
from plugin import ip_text
from plugin.pools import NAME, is_unicast
from plugin.ports import parse_open
from plugin.requests import Route

MTU_RANGE: Final = range(68, 65536)  # RFC 791's smallest; the largest IP packet
ANNOUNCE_RANGE: Final = range(4)  # Docker's own (28.1), and RFC 4861's MAX_NEIGHBOR_ADVERTISEMENT
ANNOUNCE_MS_RANGE: Final = range(100, 2001)  # Docker's own (28.1)
PORT_RANGE: Final = range(1, 65536)
PREFIX_BYTES: Final = 13  # leaves two digits of IFNAMSIZ for the number

_TRUE: Final = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE: Final = frozenset(("0", "f", "F", "FALSE", "false", "False"))
_OWN_LINK: Final = re.compile(r"wf[bhct][0-9a-z]{12}")
_MAC: Final = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_MULTICAST_BIT: Final = 0x01
_KERNELS_OWN: Final = frozenset(("all", "default", "lo"))
_ROUTE: Final = re.compile(r"(\S+)(?:\s+via\s+(\S+))?")
_ROUTES_AT_MOST: Final = 64
_LIMITED_BROADCAST: Final = 0xFFFFFFFF

_PEERS_AT_MOST: Final = 256  # each host sends a broadcast to every other one

A = TypeVar("A", IPv4Address, IPv6Address)
W = TypeVar("W", bound=str)


class Refused(ValueError):
    """A text that is refused for a reason of its own: ``str()`` says it instead of what is allowed."""


def one_of(*values: W) -> Callable[[str], W]:
    """Return what reads one of these words."""

    def parse(text: str) -> W:
        for value in values:
            if value == text:
                return value
        raise ValueError(text)

    return parse


_mode: Final[Callable[[str], GatewayMode]] = one_of(*get_args(GatewayMode))
_encapsulation: Final[Callable[[str], Encapsulation]] = one_of(*get_args(Encapsulation))


def boolean(text: str) -> bool:
    """Read a truth as Go's ``strconv.ParseBool`` does, which Docker's bridge driver uses."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError(text)


def switch(text: str) -> bool:
    """Read a truth, or ``on`` or ``off``."""
    return boolean({"on": "true", "off": "false"}.get(text, text))


def bridge(text: str) -> str | None:
    """Read the name of a bridge; an empty one leaves it to weft."""
    if not text:
        return None
    if not is_link_name(text) or text in _KERNELS_OWN or _OWN_LINK.fullmatch(text):
        raise ValueError(text)
    return text


def interface_prefix(text: str) -> str:
    """Read the beginning of an interface's name; an empty one is Docker's own."""
    if text and (len(text) > PREFIX_BYTES or not is_link_name(f"{text}0")):
        raise ValueError(text)
    return text or "eth"


def interface_name(text: str) -> str:
    """Read the whole name of an interface."""
    if not is_link_name(text) or text in _KERNELS_OWN:
        raise ValueError(text)
    return text


def link_names(text: str) -> tuple[str, ...]:
    """Read the names of links, with colons between; an empty text is none."""
    names = tuple(text.split(":")) if text else ()
    if not all(map(is_link_name, names)) or any(map(_OWN_LINK.fullmatch, names)) or "lo" in names:
        raise ValueError(text)
    return tuple(dict.fromkeys(names))


def gateway_mode(text: str) -> GatewayMode:
    """Read what the host is to a network; an empty text is Docker's default."""
    return _mode(text or "nat")


def source4(text: str) -> IPv4Address | None:
    """Read an IPv4 address that packets can come from; an empty text leaves it to the host."""
    return _sender(IPv4Address(text)) if text else None


def source6(text: str) -> IPv6Address | None:
    """Read an IPv6 address that packets can come from; an empty text leaves it to the host."""
    return _sender(IPv6Address(ip_text.address(text))) if text else None


def _sender(address: A) -> A:
    if address.is_multicast or address.is_loopback or address.is_unspecified:
        raise ValueError(address)
    return address


def host_binding(text: str) -> Address | None:
    """Read where ports are published: ``None`` for every address, which is what ``0.0.0.0`` means here (moby 28.5)."""
    if not text:
        return None
    address = ip_text.address(text)
    if address.is_multicast:
        raise ValueError(text)
    return None if address == IPv4Address(0) else address


def addresses(text: str) -> tuple[Interface, ...]:
    """Read one address, or one of each IP version with a comma between."""
    found = tuple(ip_text.interface(one.strip()) for one in text.split(","))
    if len({one.version for one in found}) < len(found) or any(
        one.ip.is_multicast or one.ip.is_loopback or one.ip.is_unspecified for one in found
    ):
        raise ValueError(text)
    return found


def mac(text: str) -> str:
    """Read a MAC that an interface can have."""
    found = text.lower().replace("-", ":")
    if not _MAC.fullmatch(found) or int(found[:2], 16) & _MULTICAST_BIT or not found.strip("0:"):
        raise ValueError(text)
    return found


def sources(text: str) -> tuple[IPNetwork, ...]:
    """Read addresses and subnets with commas between."""
    return tuple(ip_text.network(one.strip()) for one in text.split(","))


def routes(text: str) -> tuple[Route, ...]:
    """Read ``SUBNET via ADDRESS`` or ``SUBNET`` (on the link), with commas between; each subnet once."""
    found = tuple(map(_route, text.split(",")))
    if len({one.destination for one in found}) < len(found) or len(found) > _ROUTES_AT_MOST:
        raise ValueError(text)
    return found


def _route(text: str) -> Route:
    matched = _ROUTE.fullmatch(text.strip())
    if matched is None:
        raise ValueError(text)
    destination = ip_text.network(matched[1])
    gateway = ip_text.address(matched[2]) if matched[2] else None
    if gateway is not None and gateway.version != destination.version:
        raise ValueError(text)
    if not destination.prefixlen or not is_unicast(destination):
        raise ValueError(text)
    return Route(destination=destination, gateway=gateway)


def links(text: str) -> tuple[OpenPorts, ...]:
    """Read ``ADDRESS:PORT[-PORT][/tcp|udp|sctp]`` with commas between."""
    return tuple(parse_open(one.strip()) for one in text.split(","))


def tunnel(text: str) -> Encapsulation | None:
    """Read how a network goes on at other hosts; ``none`` and an empty text: not at all."""
    if text == "stt":
        raise Refused("Open vSwitch has dropped STT (3.1 and 3.5 accept it and pass nothing); its successor is geneve")
    return None if text in ("", "none") else _encapsulation(text)


def vni(text: str) -> int:
    """Read a VNI."""
    if not re.fullmatch(r"[0-9]{1,8}", text) or int(text) not in VNIS:
        raise ValueError(text)
    return int(text)


def peers(text: str) -> tuple[Address, ...]:
    """Read the addresses of other hosts, with commas between; an empty text is none. Each counts once."""
    found = tuple(dict.fromkeys(peer(one.strip()) for one in text.split(","))) if text.strip() else ()
    if len(found) > _PEERS_AT_MOST:
        raise ValueError(text)
    return found


def peer(text: str) -> Address:
    """Read the address of another host."""
    address = ip_text.address(text)
    odd = address.is_multicast or address.is_loopback or address.is_unspecified or address.is_link_local
    if odd or getattr(address, "ipv4_mapped", None) or int(address) == _LIMITED_BROADCAST:
        raise ValueError(text)
    return address


def pool(text: str) -> str:
    """Read the name of a pool."""
    if not NAME.fullmatch(text):
        raise ValueError(text)
    return text


def number_in(allowed: range) -> Callable[[str], int]:
    """Return what reads a number of a range."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) not in allowed:
            raise ValueError(text)
        return int(text)

    return parse


udp_port: Final = number_in(PORT_RANGE)
