"""Flows in ovs-ofctl's own words: matches and actions from checked values, in the one spelling that OVS prints itself.

A planner never writes a flow by hand: it calls :func:`match` and the actions below, which refuse a value that does not
fit. Interfaces go by name; the backend knows their numbers. The spelling is that of ``ovs-ofctl dump-flows --names``
(OVS 3.1, OpenFlow 1.4), except that names always stand in quotes, which ovs-ofctl takes as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final, Literal

from drivers.errors import InvalidRequest
from drivers.model import Address
from drivers.naming import is_link_name

Value = int | str | Address
Masked = tuple[str, str]
"""A MAC and which of its bits count."""

Form = Literal["port", "mac", "ipv4", "ipv6", "hex", "decimal", "tag"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One thing that a flow can look at, or change.

    ``name``      in a match
    ``assigned``  in ``set_field``
    ``wide``      in ``move`` and ``learn``
    ``bits``      its width in a packet; a port has 32 in OpenFlow 1.4, 16 in the older spelling that ``move`` uses
    ``of``        the protocols one of which a match must name with it; empty: none
    """

    name: str
    form: Form
    bits: int
    wide: str = ""
    assigned: str = ""
    of: tuple[str, ...] = ()

    def spell(self, value: Value) -> str:
        """Return the value as OVS prints it. Raises InvalidRequest."""
        told: str | None = None
        match self.form, value:
            case "port", str() if is_link_name(value):
                told = f'"{value}"'
            case ("mac", str()) if _MAC.fullmatch(value):
                told = value
            case ("ipv4", IPv4Address()) | ("ipv6", IPv6Address(scope_id=None)):
                told = f"{value}"
            case ("hex", int()) if 0 <= value < 1 << self.bits:
                told = f"{value:#x}" if value else "0"
            case ("decimal", int()) if 0 <= value < 1 << self.bits:
                told = f"{value}"
            case "tag", str() if value == UNTAGGED:
                told = value
        if told is None:
            raise InvalidRequest(f"{self.name}={value}: a flow takes {_ALLOWED[self.form]} here, {self.bits} bits")
        return told


UNTAGGED: Final = "0x0000/0x1fff"
"""The value of ``vlan_tci`` in a frame without an 802.1Q header."""
GROUP: Final[Masked] = ("01:00:00:00:00:00", "01:00:00:00:00:00")
"""Broadcast and multicast: the lowest bit of the first byte (IEEE 802)."""
GROUP_IPV6: Final[Masked] = ("33:33:00:00:00:00", "ff:ff:00:00:00:00")
"""IPv6 multicast (RFC 2464)."""
LINK_LOCAL_GROUP: Final[Masked] = ("01:80:c2:00:00:00", "ff:ff:ff:ff:ff:f0")
"""What no bridge passes on: spanning tree, LLDP, pause frames (IEEE 802.1D)."""
BROADCAST: Final = "ff:ff:ff:ff:ff:ff"
NO_MAC: Final = "00:00:00:00:00:00"
"""What OVS says of a neighbour discovery option that is not there."""

_MAC: Final = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_ALLOWED: Final[Mapping[Form, str]] = {
    "port": "the name of an interface",
    "mac": "a MAC in small letters",
    "ipv4": "an IPv4 address",
    "ipv6": "an IPv6 address without a zone",
    "hex": "a number",
    "decimal": "a number",
    "tag": f"{UNTAGGED} and nothing else",
}

_ARP: Final = ("arp",)
_ND: Final = ("icmp6",)

FIELDS: Final[Mapping[str, Field]] = {
    field.name: field
    for field in (  # in the order in which OVS prints them
        *(
            Field(name=f"reg{number}", assigned=f"reg{number}", wide=f"NXM_NX_REG{number}", form="hex", bits=32)
            for number in range(8)
        ),
        Field(name="tun_id", assigned="tun_id", wide="NXM_NX_TUN_ID", form="hex", bits=64),
        Field(name="tun_src", assigned="tun_src", wide="NXM_NX_TUN_IPV4_SRC", form="ipv4", bits=32),
        Field(name="tun_dst", assigned="tun_dst", wide="NXM_NX_TUN_IPV4_DST", form="ipv4", bits=32),
        Field(name="tun_ipv6_src", assigned="tun_ipv6_src", wide="NXM_NX_TUN_IPV6_SRC", form="ipv6", bits=128),
        Field(name="tun_ipv6_dst", assigned="tun_ipv6_dst", wide="NXM_NX_TUN_IPV6_DST", form="ipv6", bits=128),
        Field(name="in_port", form="port", bits=32),
        Field(name="vlan_tci", form="tag", bits=13),
        Field(name="dl_src", assigned="eth_src", wide="NXM_OF_ETH_SRC", form="mac", bits=48),
        Field(name="dl_dst", assigned="eth_dst", wide="NXM_OF_ETH_DST", form="mac", bits=48),
        Field(
            name="ipv6_src",
            assigned="ipv6_src",
            wide="NXM_NX_IPV6_SRC",
            form="ipv6",
            bits=128,
            of=("ipv6", "icmp6"),
        ),
        Field(
            name="ipv6_dst",
            assigned="ipv6_dst",
            wide="NXM_NX_IPV6_DST",
            form="ipv6",
            bits=128,
            of=("ipv6", "icmp6"),
        ),
        Field(name="nw_src", assigned="ip_src", wide="NXM_OF_IP_SRC", form="ipv4", bits=32, of=("ip",)),
        Field(name="nw_dst", assigned="ip_dst", wide="NXM_OF_IP_DST", form="ipv4", bits=32, of=("ip",)),
        Field(name="arp_spa", assigned="arp_spa", wide="NXM_OF_ARP_SPA", form="ipv4", bits=32, of=_ARP),
        Field(name="arp_tpa", assigned="arp_tpa", wide="NXM_OF_ARP_TPA", form="ipv4", bits=32, of=_ARP),
        Field(name="arp_op", assigned="arp_op", wide="NXM_OF_ARP_OP", form="decimal", bits=16, of=_ARP),
        Field(name="arp_sha", assigned="arp_sha", wide="NXM_NX_ARP_SHA", form="mac", bits=48, of=_ARP),
        Field(name="arp_tha", assigned="arp_tha", wide="NXM_NX_ARP_THA", form="mac", bits=48, of=_ARP),
        Field(name="icmp_type", assigned="icmpv6_type", wide="NXM_NX_ICMPV6_TYPE", form="decimal", bits=8, of=_ND),
        Field(name="icmp_code", form="decimal", bits=8, of=_ND),
        Field(name="nd_target", assigned="nd_target", wide="NXM_NX_ND_TARGET", form="ipv6", bits=128, of=_ND),
        Field(name="nd_sll", assigned="nd_sll", wide="NXM_NX_ND_SLL", form="mac", bits=48, of=_ND),
        Field(name="nd_tll", assigned="nd_tll", wide="NXM_NX_ND_TLL", form="mac", bits=48, of=_ND),
        Field(name="nd_reserved", assigned="nd_reserved", form="decimal", bits=32, of=_ND),
        Field(name="nd_options_type", assigned="nd_options_type", form="decimal", bits=8, of=_ND),
    )
}

PROTOCOLS: Final = ("arp", "ip", "ipv6", "icmp6")

DROP: Final = "drop"
IN_PORT: Final = "IN_PORT"
"""Back to where the packet came from, which ``output`` never does."""

_TABLES: Final = range(254)  # OVS 3.1: 0 to 253
_SECONDS: Final = range(1, 1 << 16)


def match(protocol: str = "", /, **wanted: Value | Masked) -> str:
    """Return a match. A pair of MACs is a value and its mask.

    What asks for a field of neighbour discovery asks for code 0, too, which such messages have (RFC 4861, 4.3). Without
    it Open vSwitch (3.1, its kernel datapath) caches the first packet's way for every target.

    Raises InvalidRequest for a value that does not fit its field, or a field that the protocol has not: OVS would
    ignore it, and the flow would match more than it says.
    """
    if protocol and protocol not in PROTOCOLS:
        raise InvalidRequest(f"a flow matches one of {', '.join(PROTOCOLS)}, not {protocol}")
    if any(name.startswith("nd_") for name in wanted):
        wanted = {"icmp_code": 0} | wanted
    for name in wanted:
        field = _field(name)
        if field.of and protocol not in field.of:
            raise InvalidRequest(f"a flow that matches {name} must match {' or '.join(field.of)} too")
    told = (f"{name}={_spell(field, wanted[name])}" for name, field in FIELDS.items() if name in wanted)
    return ",".join((protocol, *told) if protocol else told)


def output(port: str) -> str:
    """Send it out of an interface."""
    return f"output:{FIELDS['in_port'].spell(port)}"


def resubmit(table: int) -> str:
    """Go on in another table, then come back to the next action."""
    return f"resubmit(,{_number('a table', table, _TABLES)})"


def set_field(name: str, value: Value) -> str:
    """Write a value into a field, named as in a match."""
    field = _field(name)
    if not field.assigned:
        raise InvalidRequest(f"no flow can write {name}")
    return f"set_field:{field.spell(value)}->{field.assigned}"


def move(source: str, target: str) -> str:
    """Copy one field to another of the same width."""
    one, other = _field(source), _field(target)
    if not one.wide or not other.wide or one.bits != other.bits:
        raise InvalidRequest(f"{source} cannot be copied to {target}")
    return f"move:{one.wide}[]->{other.wide}[]"


def learn(
    *,
    table: int,
    priority: int,
    seconds: int,
    cookie: int,
    limit: int,
    match: Sequence[tuple[str, str]],  # the parameter is what a flow calls it
    load: Sequence[tuple[str, Value]],
) -> str:
    """Write a flow into ``table`` that lives for ``seconds``, made from the packet; ``limit`` of them at most.

    ``match``  pairs: the new flow's field, and the packet's field whose value it matches
    ``load``   pairs: the field it writes, and the packet's field to write there, or a number

    All learnt flows go with the one that learnt them (``delete_learned``), told by the ``cookie``.
    """
    head = (
        f"table={_number('a table', table, _TABLES)}",
        f"hard_timeout={_number('a time in seconds', seconds, _SECONDS)}",
        f"priority={_number('a priority', priority, range(1 << 16))}",
        "delete_learned",
        f"cookie={_number('a cookie', cookie, range(1, 1 << 64)):#x}",
        f"limit={_number('a limit', limit, range(1, 1 << 32))}",
    )
    specs = [_learnt(target, source) for target, source in match]
    specs += [_loaded(target, value) for target, value in load]
    return f"learn({','.join((*head, *specs))})"


def actions(*parts: str) -> str:
    """Return a flow's actions, taken in order; without any it drops."""
    return ",".join(parts) or DROP


def _learnt(target: str, source: str) -> str:
    one, other = _field(target), _field(source)
    return f"{one.wide}[]" if one == other else f"{one.wide}[]={other.wide}[]"


def _loaded(target: str, value: Value) -> str:
    field = _field(target)
    if isinstance(value, str):
        return f"load:{_field(value).wide}[]->{field.wide}[]"
    number = _number(f"{target}", value, range(1 << field.bits)) if isinstance(value, int) else int(value)
    return f"load:{number:#x}->{field.wide}[]"


def _spell(field: Field, value: Value | Masked) -> str:
    if not isinstance(value, tuple):
        return field.spell(value)
    if field.form != "mac":
        raise InvalidRequest(f"{field.name} is matched as a whole")
    return "/".join(map(field.spell, value))


def _field(name: str) -> Field:
    if name not in FIELDS:
        raise InvalidRequest(f"no flow of ours looks at {name}")
    return FIELDS[name]


def _number(what: str, value: int, allowed: range) -> int:
    if value not in allowed:
        raise InvalidRequest(f"{what} is a number from {allowed.start} to {allowed.stop - 1}, not {value}")
    return value
