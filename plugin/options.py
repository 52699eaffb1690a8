"""``-o key=value`` and ``--driver-opt key=value`` -> settings, from one table.

To teach weft an option, add one row: its key, the setting it sets, how its text is read (:mod:`plugin.option_text`),
what is allowed.

A key that weft does not know is an error if it is ``weft.``'s or has no dot (Docker's own options all have one), with
"did you mean"; any other key is somebody else's, or of an engine to come: it is taken, with one warning in the log.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from drivers.errors import InvalidRequest
from plugin import option_text as text
from plugin.requests import MTU, EndpointSettings, NetworkSettings

LOG: Final = logging.getLogger(__name__)
IGNORED: Final = "option ignored"

TUNNEL: Final = "weft.tunnel"
VNI: Final = "weft.vni"


@dataclass(frozen=True, slots=True)
class Option:
    """One row: ``parse`` raises ``ValueError`` for a text that is not ``allowed``."""

    key: str
    sets: str
    parse: Callable[[str], object]
    allowed: str


_BRIDGE: Final = "com.docker.network.bridge"
_MODES: Final = "nat, nat-unprotected, routed, or (with --internal only) isolated"
_ROUTES: Final = (
    "SUBNET via ADDRESS, or SUBNET for one that is on the link, with commas between; each subnet once, and no default"
    " route (that is --gateway)"
)

_NAME: Final = "1 to 63 letters, digits, '.', '_' or '-', the first a letter or digit"
_PEERS: Final = "addresses of the other hosts with commas between, none of them local to a link, at most 256"
_ALLOW: Final = Option(
    "weft.publish.allow",
    "allow",
    text.sources,
    "addresses and subnets with commas between, like 10.0.0.0/8,192.168.1.5: who may use a published port",
)

NETWORK_OPTIONS: Final = (
    Option("weft.backend", "backend", text.one_of("bridge", "ovs"), "bridge or ovs"),
    Option(
        f"{_BRIDGE}.name",
        "bridge",
        text.bridge,
        "1 to 15 letters, digits, '.', '_' or '-', the first a letter or digit; not all, default or lo, and not as weft"
        " calls its own links (wfb, wfh, wfc or wft and twelve characters)",
    ),
    Option(f"{_BRIDGE}.enable_ip_masquerade", "masquerade", text.boolean, "true or false"),
    Option(f"{_BRIDGE}.enable_icc", "icc", text.boolean, "true or false"),
    Option(
        f"{_BRIDGE}.host_binding_ipv4",
        "host_binding",
        text.host_binding,
        "an address of the host, IPv4 or IPv6, where ports are published that do not say where; 0.0.0.0 is all of them",
    ),
    Option(f"{_BRIDGE}.inhibit_ipv4", "inhibit", text.boolean, "true or false"),
    Option(f"{_BRIDGE}.gateway_mode_ipv4", "mode4", text.gateway_mode, _MODES),
    Option(f"{_BRIDGE}.gateway_mode_ipv6", "mode6", text.gateway_mode, _MODES),
    Option(
        f"{_BRIDGE}.trusted_host_interfaces",
        "trusted",
        text.link_names,
        "names of the host's links with colons between, like eth1:vpn0; not lo, and none of weft's own",
    ),
    Option(MTU, "mtu", text.number_in(text.MTU_RANGE), f"{text.MTU_RANGE.start} to {text.MTU_RANGE.stop - 1} (bytes)"),
    Option(
        "com.docker.network.advertise_addr_nmsgs",
        "announce_count",
        text.number_in(text.ANNOUNCE_RANGE),
        f"{text.ANNOUNCE_RANGE.start} to {text.ANNOUNCE_RANGE.stop - 1}: how often a container's addresses are"
        " announced when it joins; 0 is never",
    ),
    Option(
        "com.docker.network.advertise_addr_ms",
        "announce_ms",
        text.number_in(text.ANNOUNCE_MS_RANGE),
        f"{text.ANNOUNCE_MS_RANGE.start} to {text.ANNOUNCE_MS_RANGE.stop - 1} (milliseconds between two announcements)",
    ),
    Option(
        "com.docker.network.container_iface_prefix",
        "interface_prefix",
        text.interface_prefix,
        f"the start of an interface's name, at most {text.PREFIX_BYTES} bytes: its number is put behind it",
    ),
    Option("com.docker.network.host_ipv4", "source4", text.source4, "an IPv4 address of the host"),
    Option("com.docker.network.host_ipv6", "source6", text.source6, "an IPv6 address of the host"),
    Option(TUNNEL, "tunnel", text.tunnel, "none, vxlan, gre or geneve"),
    Option(VNI, "vni", text.vni, "1 to 16777215, the same on every host: the network's number on the wire"),
    Option("weft.name", "name", text.pool, f"{_NAME}, the same on every host: what the network is called there"),
    Option("weft.peers", "peers", text.peers, _PEERS),
    Option("weft.tunnel.port", "port", text.udp_port, "1 to 65535, the same on every host: the tunnel's UDP port"),
    Option("weft.gwbridge", "gwbridge", text.boolean, "true or false: whether Docker's docker_gwbridge is the way out"),
    Option("weft.relay", "relay", text.switch, "on or off: whether weft passes on what NAT cannot publish"),
    Option("weft.routes", "routes", text.routes, _ROUTES),
    _ALLOW,
)
"""What ``docker network create -o`` may say."""

ENDPOINT_OPTIONS: Final = (
    Option(
        "com.docker.network.endpoint.ifname",
        "ifname",
        text.interface_name,
        "1 to 15 letters, digits, '.', '_' or '-', the first a letter or digit; not all, default or lo",
    ),
    Option(
        "weft.ip",
        "addresses",
        text.addresses,
        "an address, or one of IPv4 and one of IPv6 with a comma between; with the prefix length (10.1.2.3/24) on a"
        " network without IPAM",
    ),
    Option(
        "weft.link",
        "links",
        text.links,
        "ADDRESS:PORT[-PORT][/tcp|udp|sctp] with commas between, like 10.1.0.5:3306/tcp; an IPv6 address in brackets",
    ),
    Option("weft.routes", "routes", text.routes, _ROUTES),
    _ALLOW,
    Option(
        "weft.mac", "mac", text.mac, "six bytes, like 02:42:ac:11:00:02: unicast (the first byte even), not all zero"
    ),
)
"""What ``--driver-opt`` may say."""

POOL_OPTIONS: Final = (
    Option(
        "weft.pool",
        "name",
        text.pool,
        _NAME,
    ),
)
"""What ``--ipam-opt`` may say."""

DOCKERS_POOL_KEYS: Final = frozenset(("RequestAddressType", "com.docker.network.ipam.serial"))
"""Not options: what a swarm's manager itself puts into the map (20.10.24 to 28.5.2)."""

DOCKERS_ENDPOINT_KEYS: Final = frozenset(
    ("com.docker.network.endpoint.exposedports", "com.docker.network.portmap", "com.docker.network.endpoint.macaddress")
)
"""Not options: Docker's own data, which it sends in the same map (20.10.24 to 28.5.2)."""


_SHOWN_KEY: Final = 80  # characters of a key that are told, and remembered
_WARNED_OF: Final = 8  # keys of a call


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


def _read(table: Sequence[Option], given: Mapping[str, object], of: str) -> dict[str, object]:
    rows = {option.key: option for option in table}
    settings: dict[str, object] = {}
    problems: list[str] = []
    ignored: list[str] = []
    for key, value in sorted(given.items()):
        option = rows.get(key)
        if option is None:
            if _is_ours_to_judge(key):
                problems.append(_unknown(key, of, rows))
            else:
                ignored.append(key)
            continue
        try:
            settings[option.sets] = option.parse(value if isinstance(value, str) else _refuse(value))
        except text.Refused as why:
            problems.append(f"{key}={_shown(value)} cannot be: {why}")
        except ValueError:
            problems.append(f"{key}={_shown(value)} cannot be: allowed is {option.allowed}")
    _warn(ignored, of, rows)
    if problems:
        raise InvalidRequest("\n".join(problems))
    return settings


def _refuse(value: object) -> str:
    raise ValueError(value)


def _is_ours_to_judge(key: str) -> bool:
    return key.lower().startswith("weft.") or "." not in key


def _unknown(key: str, of: str, rows: Mapping[str, Option]) -> str:
    known = f"weft knows {', '.join(rows)}" if rows else "this version of weft knows none"
    return f"unknown {of} option {_shown(key)}: {did_you_mean(key, rows) or known}"


def _warn(ignored: Sequence[str], of: str, rows: Mapping[str, Option]) -> None:
    """Say what is taken and does nothing: a few keys of a call by name, however many it has."""
    for key in ignored[:_WARNED_OF]:
        _warn_once(key[:_SHOWN_KEY], of, did_you_mean(key, rows))
    if (more := len(ignored) - _WARNED_OF) > 0:
        LOG.warning(IGNORED, extra={"option": f"{more} more", "of": of})


def did_you_mean(key: str, known: Mapping[str, object]) -> str:
    """Return ``did you mean ...?`` with the key that looks most like this one, whole or by its last part, or ""."""
    texts: dict[str, str] = {}
    for name in known:
        texts.setdefault(name.rpartition(".")[2], name)
        texts[name] = name
    near = difflib.get_close_matches(key.lower(), texts, n=1, cutoff=0.75)
    return f"did you mean {texts[near[0]]}?" if near else ""


def _shown(value: object) -> str:
    said = value if isinstance(value, str) else repr(value)
    return repr(said if len(said) <= 80 else f"{said[:77]}...")


@lru_cache(maxsize=1024)
def _warn_once(key: str, of: str, hint: str) -> None:
    LOG.warning(IGNORED, extra={"option": key, "of": of} | ({"hint": hint} if hint else {}))
