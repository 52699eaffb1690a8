"""``-o key=value`` and ``--driver-opt key=value`` -> settings, from one table.

To teach weft an option, add one row: its key, the setting it sets, how its text is read, what is allowed. A row without
a setting is an option of Docker's bridge driver that weft takes only where its value asks for what weft does anyway:
an option that opens or closes something is never passed over in silence.

A key that weft does not know is an error if it is ``weft.``'s or has no dot (Docker's own options all have one), with
"did you mean"; any other key is somebody else's, or of an engine to come: it is taken, with one warning in the log.
"""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_interface, ip_network
from typing import Final

from drivers.errors import InvalidRequest
from drivers.model import Interface, IPNetwork
from drivers.naming import is_link_name
from plugin.pools import NAME

LOG: Final = logging.getLogger(__name__)
IGNORED: Final = "option ignored"

MTU: Final = "com.docker.network.driver.mtu"

IPV6_MTU: Final = 1280
"""Bytes every IPv6 link must carry (RFC 8200, section 5)."""

_MTU: Final = range(68, 65536)  # RFC 791's smallest; the largest IP packet
_PREFIX_BYTES: Final = 13  # leaves two digits of IFNAMSIZ for the number
_TRUE: Final = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE: Final = frozenset(("0", "f", "F", "FALSE", "false", "False"))
_OWN_LINK: Final = re.compile(r"wf[bhc][0-9a-z]{12}")
_MAC: Final = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_MULTICAST_BIT: Final = 0x01
_KERNELS_OWN: Final = frozenset(("all", "default", "lo"))

Value = str | int | bool | tuple[Interface, ...] | tuple[IPNetwork, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSettings:
    """What the options of a network ask for; a default is what Docker's bridge driver does without the option."""

    backend: str | None = None
    bridge: str | None = None
    mtu: int | None = None
    masquerade: bool = True
    interface_prefix: str = "eth"
    relay: bool = True
    allow: tuple[IPNetwork, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSettings:
    """What the options of an endpoint ask for. ``addresses``: at most one of each family; a length may be left out."""

    addresses: tuple[Interface, ...] = ()
    mac: str | None = None
    allow: tuple[IPNetwork, ...] = ()


@dataclass(frozen=True, slots=True)
class Option:
    """One row: ``parse`` raises ``ValueError`` for a text that is not ``allowed``; ``sets`` "" keeps nothing."""

    key: str
    sets: str
    parse: Callable[[str], Value]
    allowed: str


# -- how a text is read ---------------------------------------------------------------------------------------------


def _boolean(text: str) -> bool:
    """Read a truth as Go's ``strconv.ParseBool`` does, which Docker's bridge driver uses."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError(text)


def _mtu(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) not in _MTU:
        raise ValueError(text)
    return int(text)


def _bridge(text: str) -> str | None:
    if not text:
        return None
    if not is_link_name(text) or text in _KERNELS_OWN or _OWN_LINK.fullmatch(text):
        raise ValueError(text)
    return text


def _interface_prefix(text: str) -> str:
    if text and (len(text) > _PREFIX_BYTES or not is_link_name(f"{text}0")):
        raise ValueError(text)
    return text or "eth"


def _addresses(text: str) -> tuple[Interface, ...]:
    """Read one address, or one of each family with a comma between."""
    found = tuple(ip_interface(one.strip()) for one in text.split(","))
    if len({one.version for one in found}) < len(found) or any(
        one.ip.is_multicast or one.ip.is_loopback or one.ip.is_unspecified or getattr(one, "scope_id", None)
        for one in found
    ):
        raise ValueError(text)
    return found


def _mac(text: str) -> str:
    mac = text.lower().replace("-", ":")
    if not _MAC.fullmatch(mac) or int(mac[:2], 16) & _MULTICAST_BIT or not mac.strip("0:"):
        raise ValueError(text)
    return mac


def _switch(text: str) -> bool:
    return _boolean({"on": "true", "off": "false"}.get(text, text))


def _sources(text: str) -> tuple[IPNetwork, ...]:
    return tuple(ip_network(one.strip()) for one in text.split(","))


def _pool(text: str) -> str:
    if not NAME.fullmatch(text):
        raise ValueError(text)
    return text


def _one_of(*values: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in values:
            raise ValueError(text)
        return text

    return parse


def _only(truth: bool) -> Callable[[str], bool]:
    def parse(text: str) -> bool:
        if _boolean(text) is not truth:
            raise ValueError(text)
        return truth

    return parse


_NOT_YET: Final = "the rest is not in this version of weft"

_ALLOW: Final = Option(
    "weft.publish.allow",
    "allow",
    _sources,
    "addresses and subnets with commas between, like 10.0.0.0/8,192.168.1.5: who may use a published port",
)

NETWORK_OPTIONS: Final = (
    Option("weft.backend", "backend", _one_of("bridge"), f"bridge; {_NOT_YET}"),
    Option(
        "com.docker.network.bridge.name",
        "bridge",
        _bridge,
        "1 to 15 letters, digits, '.', '_' or '-', the first a letter or digit; not all, default or lo, and not as weft"
        " calls its own links (wfb, wfh or wfc and twelve characters)",
    ),
    Option("com.docker.network.bridge.enable_ip_masquerade", "masquerade", _boolean, "true or false"),
    Option(
        "com.docker.network.bridge.enable_icc",
        "",
        _only(truth=True),
        f"true (containers of one network reach each other); {_NOT_YET}",
    ),
    Option("com.docker.network.bridge.host_binding_ipv4", "", _one_of("", "0.0.0.0"), f"0.0.0.0; {_NOT_YET}"),  # noqa: S104
    Option("com.docker.network.bridge.inhibit_ipv4", "", _only(truth=False), f"false; {_NOT_YET}"),
    Option("com.docker.network.bridge.gateway_mode_ipv4", "", _one_of("", "nat"), f"nat; {_NOT_YET}"),
    Option("com.docker.network.bridge.gateway_mode_ipv6", "", _one_of("", "nat"), f"nat; {_NOT_YET}"),
    Option("com.docker.network.bridge.trusted_host_interfaces", "", _one_of(""), f"nothing; {_NOT_YET}"),
    Option(MTU, "mtu", _mtu, f"{_MTU.start} to {_MTU.stop - 1} (bytes)"),
    Option(
        "com.docker.network.container_iface_prefix",
        "interface_prefix",
        _interface_prefix,
        f"the start of an interface's name, at most {_PREFIX_BYTES} bytes: its number is put behind it",
    ),
    Option("weft.relay", "relay", _switch, "on or off: whether weft passes on what NAT cannot publish"),
    _ALLOW,
    Option("com.docker.network.host_ipv4", "", _one_of(""), f"nothing; {_NOT_YET}"),
    Option("com.docker.network.host_ipv6", "", _one_of(""), f"nothing; {_NOT_YET}"),
)
"""What ``docker network create -o`` may say."""

ENDPOINT_OPTIONS: Final = (
    Option(
        "weft.ip",
        "addresses",
        _addresses,
        "an address, or one of IPv4 and one of IPv6 with a comma between; with the prefix length (10.1.2.3/24) on a"
        " network without IPAM",
    ),
    _ALLOW,
    Option("weft.mac", "mac", _mac, "six bytes, like 02:42:ac:11:00:02: unicast (the first byte even), not all zero"),
)
"""What ``--driver-opt`` may say."""

POOL_OPTIONS: Final = (
    Option(
        "weft.pool",
        "name",
        _pool,
        "1 to 63 letters, digits, '.', '_' or '-', the first a letter or digit",
    ),
)
"""What ``--ipam-opt`` may say."""

DOCKERS_POOL_KEYS: Final = frozenset(("RequestAddressType", "com.docker.network.ipam.serial"))
"""Not options: what a swarm's manager itself puts into the map (20.10.24 to 28.5.2)."""

DOCKERS_ENDPOINT_KEYS: Final = frozenset(
    ("com.docker.network.endpoint.exposedports", "com.docker.network.portmap", "com.docker.network.endpoint.macaddress")
)
"""Not options: Docker's own data, which it sends in the same map (20.10.24 to 28.5.2)."""


# -- reading --------------------------------------------------------------------------------------------------------


def network_settings(given: Mapping[str, str]) -> NetworkSettings:
    """Return what the options of ``docker network create`` ask for.

    Raises :class:`InvalidRequest` with one line for each option that cannot be.
    """
    return NetworkSettings(**_read(NETWORK_OPTIONS, given, "network"))  # type: ignore[arg-type]  # a row's parser fits its setting


def endpoint_settings(given: Mapping[str, object]) -> EndpointSettings:
    """Return what the ``--driver-opt`` of an endpoint ask for; raises :class:`InvalidRequest`."""
    own = {key: given[key] for key in given.keys() - DOCKERS_ENDPOINT_KEYS}
    return EndpointSettings(**_read(ENDPOINT_OPTIONS, own, "endpoint"))  # type: ignore[arg-type]  # as above


def pool_name(given: Mapping[str, str]) -> str:
    """Return the name that ``--ipam-opt weft.pool`` gives a pool, or ""; raises :class:`InvalidRequest`."""
    own = {key: given[key] for key in given.keys() - DOCKERS_POOL_KEYS}
    return str(_read(POOL_OPTIONS, own, "IPAM").get("name", ""))


def _read(table: Sequence[Option], given: Mapping[str, object], of: str) -> dict[str, Value]:
    rows = {option.key: option for option in table}
    settings: dict[str, Value] = {}
    problems: list[str] = []
    for key, value in sorted(given.items()):
        option = rows.get(key)
        if option is None:
            problems += _unknown(key, of, rows)
            continue
        try:
            parsed = option.parse(value if isinstance(value, str) else _refuse(value))
        except ValueError:
            problems.append(f"{key}={_shown(value)} cannot be: allowed is {option.allowed}")
            continue
        if option.sets:
            settings[option.sets] = parsed
    if problems:
        raise InvalidRequest("\n".join(problems))
    return settings


def _refuse(value: object) -> str:
    raise ValueError(value)


def _unknown(key: str, of: str, rows: Mapping[str, Option]) -> Iterator[str]:
    """Return what is wrong with a key that no row has: nothing, after a warning, if it is not ours to judge."""
    hint = did_you_mean(key, rows)
    if key.lower().startswith("weft.") or "." not in key:
        known = f"weft knows {', '.join(rows)}" if rows else "this version of weft knows none"
        yield f"unknown {of} option {_shown(key)}: {hint or known}"
    else:
        _warn_once(key, of, hint)


def did_you_mean(key: str, known: Mapping[str, object]) -> str:
    """Return ``did you mean ...?`` with the key that looks most like this one, whole or by its last part, or ""."""
    texts: dict[str, str] = {}
    for name in known:
        texts.setdefault(name.rpartition(".")[2], name)
        texts[name] = name
    near = difflib.get_close_matches(key.lower(), texts, n=1, cutoff=0.75)
    return f"did you mean {texts[near[0]]}?" if near else ""


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return repr(text if len(text) <= 80 else f"{text[:77]}...")


@lru_cache(maxsize=1024)
def _warn_once(key: str, of: str, hint: str) -> None:
    LOG.warning(IGNORED, extra={"option": key, "of": of} | ({"hint": hint} if hint else {}))
