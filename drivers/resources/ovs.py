"""Open vSwitch's bridges and ports, as its database has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from drivers.resources.base import Key, Rank, Resource

Options = tuple[tuple[str, str], ...]
"""A port's options in the order of their names: ``(("key", "flow"), ("remote_ip", "flow"))``."""

OVS_BRIDGE: Final = "br-int"
"""The bridge that weft makes, unless it is told another name."""

TUNNELS: Final = frozenset({"geneve", "gre", "vxlan"})
"""Types of tunnel ports. ``stt`` is none: OVS takes it, says that all is well, and nothing passes (facts/ovs.md 2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OvsBridge(Resource):
    """A bridge of Open vSwitch that forwards by flows alone: ``fail_mode=secure``, without in-band control.

    ``datapath_type``  ``system`` (the kernel's module) or ``netdev`` (userspace)
    ``mac``            of its own port; "": OVS picks one, and another one when the ports change
    ``sound``          False is only ever seen: it forwards without flows, or ovs-vswitchd has no datapath for it
    """

    rank: ClassVar[Rank] = Rank.DEVICE
    datapath_type: str = "netdev"
    mac: str = ""
    sound: bool = True

    @property
    def name(self) -> str:
        """Its name, which is its own port's and the link's, too."""
        return self.key.at[0]

    def __str__(self) -> str:
        mac = f" other_config:hwaddr={self.mac}" if self.mac else ""
        return (
            f"ovs-vsctl add-br {self.name} -- set Bridge {self.name} datapath_type={self.datapath_type}"
            f" fail_mode=secure other_config:disable-in-band=true{mac}"
        )

    def undo(self) -> str:
        """Return the line that removes it."""
        return f"ovs-vsctl del-br {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OvsPort(Resource):
    """A port that OVS makes itself: a link of the host (``internal``), or a tunnel.

    One in the scope of its bridge needs the bridge by its key: both are devices.

    ``options``  of a tunnel; with ``key`` and ``remote_ip`` set to ``flow`` one port serves all networks and peers
    ``mac``      of an internal port's link
    ``mtu``      of an internal port's link; ``None``: the smallest among the bridge's ports
    ``sound``    False is only ever seen: ovs-vswitchd could not make it, or its link was taken away
    """

    rank: ClassVar[Rank] = Rank.DEVICE
    bridge: str = OVS_BRIDGE
    type: str = "internal"
    options: Options = ()
    mac: str = ""
    mtu: int | None = None
    sound: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", tuple(sorted(self.options)))

    @property
    def name(self) -> str:
        """Its name. One name space for the ports of all bridges, as in the database."""
        return self.key.at[0]

    def __str__(self) -> str:
        settings = [f"type={self.type}"] if self.type else []
        settings += [f"options:{name}={value}" for name, value in self.options]
        settings += [f"""'mac="{self.mac}"'"""] if self.mac else []
        settings += [f"mtu_request={self.mtu}"] if self.mtu else []
        more = f" -- set Interface {self.name} {' '.join(settings)}" if settings else ""
        return f"ovs-vsctl add-port {self.bridge} {self.name}{more}"

    def undo(self) -> str:
        """Return the line that removes it."""
        return f"ovs-vsctl del-port {self.bridge} {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OvsDevicePort(OvsPort):
    """A port for a link that is there already: the host's end of a veth pair.

    It comes after the link and goes before it, so it has a rank of its own: OVS holds a socket on the link, and one
    that was made anew under the same name forwards nothing, without a word of complaint (facts/ovs.md 6). ``sound`` is
    False then, too.
    """

    rank: ClassVar[Rank] = Rank.ADDRESS
    type: str = ""


def ovs_bridge_key(name: str) -> Key:
    """Return the key of a bridge of Open vSwitch."""
    return Key("ovsdb", "bridge", (name,))


def ovs_port_key(name: str) -> Key:
    """Return the key of a port of Open vSwitch, on whichever bridge it is."""
    return Key("ovsdb", "port", (name,))
