"""What may exist on a host, as values. A planner returns them, a backend reads them back, ``diff`` compares.

Every resource knows its key (how the host itself tells it apart), its scope (the mark written on the host's object),
its rank (when it is made and removed) and the keys it needs. Its ``str()`` is the line a person would type to make it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import ClassVar, Final

from drivers.model import Interface
from drivers.naming import LINK_GROUP


class Rank(enum.IntEnum):
    """When a step is taken: creates go up, deletes go down, so a network is closed first and opened last."""

    FENCE = 1
    DEVICE = 2
    LINK = 3
    ADDRESS = 4
    FORWARD = 5
    OPEN = 6


@dataclass(frozen=True, slots=True, order=True)
class Scope:
    """Who owns a resource: the host, one network, or one endpoint. Made by :func:`scope_of`."""

    network: str = ""
    endpoint: str = ""

    def __str__(self) -> str:
        if not self.network:
            return "host"
        return f"network {self.network[:12]}" + (f" endpoint {self.endpoint[:12]}" if self.endpoint else "")


HOST: Final = Scope()
HALF_MADE: Final = Scope("half-made")
"""The scope of a link that a crash left between its making and its marking: in our group, without a mark. It belongs to
whoever asks for its name: the kernel takes no alias at the making of a link (Linux 6.18, ``rtnl_create_link``)."""

SCOPE_ID: Final = 32
"""Characters of an id in a scope: two of them fit into an nft comment (128 bytes), and they tell all ids apart."""


def scope_of(network: str, endpoint: str = "") -> Scope:
    """Return the scope of a network or an endpoint: the first 32 characters of their ids."""
    return Scope(network[:SCOPE_ID], endpoint[:SCOPE_ID])


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Identity as the host itself sees it, never a handle (ifindex, rule number): those change under our feet."""

    backend: str  # kernel | nft | xtables
    kind: str
    at: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.kind} {' '.join(self.at)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """Something that should exist. ``==`` compares value and scope.

    ``adopted``  the operator's own: it must exist, and is never created or deleted
    ``shared``   if somebody without our mark has it there already, that is as good, and it stays theirs
    """

    rank: ClassVar[Rank]
    key: Key
    scope: Scope
    needs: frozenset[Key] = field(default=frozenset(), compare=False)
    adopted: bool = field(default=False, compare=False)
    shared: bool = field(default=False, compare=False)

    def undo(self) -> str:
        """Return the line a person would type to remove it."""
        return f"# {self.key} is not ours to remove"


@dataclass(frozen=True, slots=True)
class Foreign:
    """A key we asked for is taken by something without our mark: a conflict, never a step."""

    key: Key
    what: str


# -- the kernel's links, addresses and switches ---------------------------------------------------------------------


DEFAULT_MTU: Final = 1500  # of Ethernet; what ``mtu=None`` is made with


def _drop_default_mtu(link: Bridge | Veth) -> None:
    """Make a default that is spelled out equal to one that is not."""
    if link.mtu == DEFAULT_MTU:
        object.__setattr__(link, "mtu", None)


def link_key(name: str) -> Key:
    """Return the key of a link. One name space for all kinds of link, as in the kernel."""
    return Key("kernel", "link", (name,))


@dataclass(frozen=True, slots=True, kw_only=True)
class Bridge(Resource):
    """A Linux bridge, up, in our link group. An adopted one is compared by existence only.

    ``ipv6`` True: speaks IPv6 and ignores router advertisements (``accept_ra=0``), for a container must not give the
    host a default route; False: IPv6 is off on it (``disable_ipv6=1``), so the host has no link-local address there.
    ``sound`` False is only ever seen: it is down, out of our group, or accepts router advertisements.
    """

    rank: ClassVar[Rank] = Rank.DEVICE
    mac: str = ""
    mtu: int | None = None
    ipv6: bool = False
    sound: bool = True

    def __post_init__(self) -> None:
        _drop_default_mtu(self)

    @property
    def name(self) -> str:
        """The link's name."""
        return self.key.at[0]

    def __str__(self) -> str:
        if self.adopted:
            return f"ip link add {self.name} type bridge"
        mtu = f" mtu {self.mtu}" if self.mtu else ""
        return f"ip link add {self.name} group {LINK_GROUP} address {self.mac}{mtu} type bridge"

    def undo(self) -> str:
        """Return the line that removes it."""
        return f"ip link del {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Veth(Resource):
    """A veth pair: the host's end, up, is a port of ``bridge``; the other end waits for its container.

    ``peer`` and ``mac`` are of the container's end. They cannot be read back once the container has it (it is renamed
    in another namespace), so they do not take part in the comparison.
    ``sound`` False is only ever seen: it is down, out of our group, or may have a link-local address.
    """

    rank: ClassVar[Rank] = Rank.LINK
    bridge: str = ""
    mtu: int | None = None
    sound: bool = True
    peer: str = field(default="", compare=False)
    mac: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        _drop_default_mtu(self)

    @property
    def name(self) -> str:
        """The name of the host's end."""
        return self.key.at[0]

    def __str__(self) -> str:
        mtu = f" mtu {self.mtu}" if self.mtu else ""
        return (
            f"ip link add {self.name} group {LINK_GROUP} master {self.bridge}{mtu} up"
            f" type veth peer name {self.peer} address {self.mac}{mtu}"
        )

    def undo(self) -> str:
        """Return the line that removes it."""
        return f"ip link del {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostAddress(Resource):
    """An address of the host on a link, IPv6 without duplicate address detection.

    An address has no room for a mark of ours. On a bridge of ours it is ours; on an adopted one ``IFA_PROTO``
    (Linux 5.18) tells ours from the operator's, and the store tells whose bridge it is.
    """

    rank: ClassVar[Rank] = Rank.ADDRESS

    @property
    def link(self) -> str:
        """The link's name."""
        return self.key.at[0]

    @property
    def address(self) -> str:
        """The address with its prefix length."""
        return self.key.at[1]

    def __str__(self) -> str:
        return f"ip address add {self.address} dev {self.link}" + (" nodad" if ":" in self.address else "")

    def undo(self) -> str:
        """Return the line that removes it."""
        return f"ip address del {self.address} dev {self.link}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting(Resource):
    """A switch of the host under /proc/sys that must have a value; always ``adopted``.

    What may be one is a closed list in spec/ownership.md. The value found is stored before it is changed, and given
    back at uninstall, not when the last network goes: others may rely on it by then.
    """

    rank: ClassVar[Rank] = Rank.ADDRESS
    value: str = ""

    @property
    def path(self) -> str:
        """The path under /proc/sys, with slashes: ``net/ipv6/conf/eth0/accept_ra``."""
        return self.key.at[0]

    def __str__(self) -> str:
        return f"sysctl -w {self.path}={self.value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Forwarding(Setting):
    """A switch that makes the host forward: set after every other one."""

    rank: ClassVar[Rank] = Rank.FORWARD


def setting(path: str, value: str, needs: frozenset[Key] = frozenset()) -> Setting:
    """Return the switch at a path: those that make links forward which exist already are :class:`Forwarding`."""
    kind = Forwarding if path.endswith(("forwarding", "ip_forward")) and "/default/" not in path else Setting
    return kind(key=setting_key(path), scope=HOST, adopted=True, value=value, needs=needs)


def address_key(link: str, address: Interface) -> Key:
    """Return the key of a host's address on a link."""
    return Key("kernel", "address", (link, address.with_prefixlen))


def setting_key(path: str) -> Key:
    """Return the key of a switch under /proc/sys."""
    return Key("kernel", "setting", (path,))


# -- nftables -------------------------------------------------------------------------------------------------------

TABLE_KEY: Final = Key("nft", "table", ("inet", "weft"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Table(Resource):
    """The table ``inet weft``: every verdict, in static text. Only the elements of its sets ever change.

    ``text`` is what stands between the table's braces. It is replaced as a whole, in one transaction that keeps the
    elements, so no packet meets half of it.
    """

    rank: ClassVar[Rank] = Rank.FENCE
    text: str = ""

    def __str__(self) -> str:
        return "nft -f - <<<'table inet weft { ... }'"

    def undo(self) -> str:
        """Return the line that removes it."""
        return "nft delete table inet weft"


@dataclass(frozen=True, slots=True, kw_only=True)
class Element(Resource):
    """One element of a set of ``inet weft``, with the scope in its comment."""

    @property
    def at(self) -> tuple[str, ...]:
        """The fields of the element, in the set's order, as nft writes them."""
        return self.key.at

    @property
    def set_name(self) -> str:
        """The set it is in."""
        return self.key.kind

    def __str__(self) -> str:
        return f"nft add element inet weft {self.set_name} {{ {' . '.join(self.at)} }}"

    def undo(self) -> str:
        """Return the line that removes it."""
        return f"nft delete element inet weft {self.set_name} {{ {' . '.join(self.at)} }}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence(Element):
    """An element that closes something: there before the link is, gone after it."""

    rank: ClassVar[Rank] = Rank.FENCE


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit(Element):
    """An element that opens something, or changes what leaves."""

    rank: ClassVar[Rank] = Rank.FORWARD


def element_key(set_name: str, *at: str) -> Key:
    """Return the key of an element of a set of ``inet weft``."""
    return Key("nft", set_name, at)


# -- iptables -------------------------------------------------------------------------------------------------------

XTABLES_CHAIN: Final = "WEFT"
XTABLES_PARENT: Final = "DOCKER-USER"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain(Resource):
    """Our chain WEFT in iptables' (or ip6tables') filter table: the answer to Docker's FORWARD DROP.

    ``rules`` are the host's own, in order, as arguments after ``-A WEFT``; endpoints on adopted bridges add theirs
    behind them.
    """

    rank: ClassVar[Rank] = Rank.FORWARD
    rules: tuple[str, ...] = ()

    @property
    def version(self) -> int:
        """IP version, 4 or 6."""
        return int(self.key.at[0])

    def __str__(self) -> str:
        return f"{program(self.version)} -N {XTABLES_CHAIN}"

    def undo(self) -> str:
        """Return the line that removes it."""
        return f"{program(self.version)} -F {XTABLES_CHAIN}; {program(self.version)} -X {XTABLES_CHAIN}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Jump(Resource):
    """The one jump from DOCKER-USER: below the operator's rules, above Docker's closing RETURN.

    ``placed`` is False where it was found elsewhere in the chain.
    """

    rank: ClassVar[Rank] = Rank.OPEN
    placed: bool = True

    @property
    def version(self) -> int:
        """IP version, 4 or 6."""
        return int(self.key.at[0])

    def __str__(self) -> str:
        return f"{program(self.version)} -A {XTABLES_PARENT} -j {XTABLES_CHAIN}"

    def undo(self) -> str:
        """Return the line that removes it."""
        return f"{program(self.version)} -D {XTABLES_PARENT} -j {XTABLES_CHAIN}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule(Resource):
    """One accepting rule in the chain WEFT, for an endpoint on an adopted bridge (whose links have no group)."""

    rank: ClassVar[Rank] = Rank.FORWARD

    @property
    def version(self) -> int:
        """IP version, 4 or 6."""
        return int(self.key.at[0])

    @property
    def spec(self) -> str:
        """The rule's arguments after ``-A WEFT``, without its comment."""
        return self.key.at[1]

    def __str__(self) -> str:
        return f"{program(self.version)} -A {XTABLES_CHAIN} {self.spec}"

    def undo(self) -> str:
        """Return the line that removes it."""
        return f"{program(self.version)} -D {XTABLES_CHAIN} {self.spec}"


def program(version: int) -> str:
    """Return the name of the iptables program for an IP version."""
    return "iptables" if version == 4 else "ip6tables"  # noqa: PLR2004 - IPv4 is called 4


def chain_key(version: int) -> Key:
    """Return the key of our chain for an IP version."""
    return Key("xtables", "chain", (str(version),))


def jump_key(version: int) -> Key:
    """Return the key of the jump for an IP version."""
    return Key("xtables", "jump", (str(version),))


def rule_key(version: int, spec: str) -> Key:
    """Return the key of a rule in our chain."""
    return Key("xtables", "rule", (str(version), spec))
