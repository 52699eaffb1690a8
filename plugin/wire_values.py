"""The values in Docker's messages, by what they may be: ids, paths, addresses, ports. Parsed, or refused, when read."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import BeforeValidator, Field, StringConstraints, WithJsonSchema

from plugin import ip_text


def _interface(value: object) -> object:
    """Parse ``address/length``; an empty text is Go's way of saying none."""
    if not isinstance(value, str):
        return value
    if not value:
        return None
    return ip_text.interface(value)


def _network(value: object) -> object:
    """Parse a subnet; host bits are forgiven, as Docker forgives them (20.10.24)."""
    return ip_text.network(value, strict=False) if isinstance(value, str) and value else _none(value)


def _address(value: object) -> object:
    """Parse an address, with or without a prefix length behind it."""
    parsed = _interface(value)
    return parsed.ip if isinstance(parsed, ipaddress.IPv4Interface | ipaddress.IPv6Interface) else parsed


def _none(value: object) -> object:
    return None if value == "" else value


def or_(empty: object) -> BeforeValidator:
    """Return what reads Go's ``null`` as ``empty``."""
    return BeforeValidator(lambda value: empty if value is None else value)


def _ip(*kinds: type) -> BeforeValidator:
    def parse(value: object) -> object:
        parsed = _interface(value)
        if parsed is not None and not isinstance(parsed, kinds):
            raise ValueError(f"{value!r} is not of this IP version")
        return parsed

    return BeforeValidator(parse)


_TEXT: Final = WithJsonSchema({"type": ["string", "null"]})

Id = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z]{1,64}$")]
"""64 hex digits, or 25 of base 36 in a swarm (20.10.24 to 28.5.2)."""

SandboxPath = Annotated[str, StringConstraints(pattern=r"^/[^\x00]*$", max_length=4095)]
"""Absolute; ``/var/run/docker/netns/<12 hex digits>`` on every engine seen."""

Text = Annotated[str, or_("")]
Flat = Annotated[Mapping[str, str], or_({})]
IPv4 = Annotated[ipaddress.IPv4Interface | None, _ip(ipaddress.IPv4Interface), _TEXT]
IPv6 = Annotated[ipaddress.IPv6Interface | None, _ip(ipaddress.IPv6Interface), _TEXT]
AnyIP = Annotated[
    ipaddress.IPv4Interface | ipaddress.IPv6Interface | None,
    _ip(ipaddress.IPv4Interface, ipaddress.IPv6Interface),
    _TEXT,
]
Subnet = Annotated[ipaddress.IPv4Network | ipaddress.IPv6Network | None, BeforeValidator(_network), _TEXT]
IPAddress = Annotated[ipaddress.IPv4Address | ipaddress.IPv6Address | None, BeforeValidator(_address), _TEXT]
PoolName = Annotated[str, StringConstraints(min_length=1, max_length=256)]
PortNumber = Annotated[int, Field(ge=0, le=65535)]
