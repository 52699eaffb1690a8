"""Settings: one table. Each is an environment variable ``WEFT_NAME`` and a flag ``--name`` of ``weft serve``.

The defaults live here and nowhere else: a managed plugin that is upgraded keeps the old version's variables. A setting
that cannot be understood stops ``weft serve`` before it binds, with a message that names the variable, the value and
what is allowed; a managed plugin answers with that message (:mod:`plugin.managed`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from drivers.errors import InvalidRequest
from drivers.model import Address
from drivers.ovsdb.remote import Remote
from drivers.ovsdb.remote import parse as parse_remote
from plugin import option_text
from plugin.pools import DEFAULT, Bases, parse_bases
from plugin.requests import DriverScope

SOCKET: Final = "/run/docker/plugins/weft.sock"
CONTROL: Final = "/run/weft/control.sock"
DOCKER: Final = "unix:///var/run/docker.sock"

_SUN_PATH: Final = 107  # bytes of a unix socket's path, less the closing NUL (Linux, unix(7))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What ``weft serve`` runs with.

    ``reconcile_interval`` is in seconds; ``docker`` is the path of Docker's socket; ``pools`` are cut for networks that
    weft gives addresses to and that name no subnet. ``advertise`` is this host's address in tunnels, ``None``: that of
    the route to the peers; ``peers`` are the other hosts, of every network with a tunnel; ``tunnel_port`` is VXLAN's.
    ``scope`` is what Docker is told: ``global`` lets a swarm's manager make networks for all its nodes.
    """

    socket: Path
    control: Path
    state_dir: Path
    backend: str
    scope: DriverScope
    ovsdb: str
    ovs_datapath: str
    ovs_rundir: Path
    pools: Bases
    advertise: Address | None
    peers: tuple[Address, ...]
    tunnel_port: int
    log_level: str
    log_format: str
    reconcile_interval: int
    docker: Path

    @property
    def database(self) -> Path:
        """The store's file."""
        return self.state_dir / "weft.db"

    @property
    def remote(self) -> Remote:
        """Where Open vSwitch's database is."""
        return parse_remote(self.ovsdb or f"unix:{self.ovs_rundir}/db.sock", self.ovs_rundir)


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table: its attribute in :class:`Settings`, default, meaning and parser."""

    attribute: str
    default: str
    meaning: str
    parse: Callable[[str], object]
    variable: str = ""

    @property
    def name(self) -> str:
        """The environment variable."""
        return self.variable or f"WEFT_{self.attribute.upper()}"

    @property
    def flag(self) -> str:
        """The flag of ``weft serve``."""
        return f"--{self.attribute.replace('_', '-')}"


def _path(text: str) -> Path:
    path = Path(text)
    if not path.is_absolute() or "\0" in text:
        raise ValueError("an absolute path")
    return path


def _socket(text: str) -> Path:
    path = _path(text)
    if len(str(path).encode()) > _SUN_PATH:
        raise ValueError(f"an absolute path of at most {_SUN_PATH} bytes")
    return path


def _docker(text: str) -> Path:
    if not text.startswith("unix://"):
        raise ValueError("unix:// and an absolute path: weft reads Docker's list over a unix socket only")
    return _path(text.removeprefix("unix://"))


def _one_of(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError(" or ".join(allowed))
        return text

    return parse


def _seconds(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise ValueError(f"a whole number of seconds, {least} to {most}")
        return int(text)

    return parse


def _ovsdb(text: str) -> str:
    if text:
        parse_remote(text)
    return text


def _advertise(text: str) -> Address | None:
    try:
        return option_text.peer(text) if text else None
    except ValueError:
        raise ValueError("an address of this host that others reach, not one local to a link") from None


def _peers(text: str) -> tuple[Address, ...]:
    try:
        return option_text.peers(text)
    except ValueError:
        raise ValueError("addresses of other hosts with commas between, at most 256") from None


def _port(text: str) -> int:
    try:
        return option_text.udp_port(text)
    except ValueError:
        raise ValueError("a UDP port, 1 to 65535") from None


TABLE: Final = (
    Setting("socket", SOCKET, "the plugin's socket, where Docker looks for it", _socket),
    Setting("control", CONTROL, "the commands' socket", _socket),
    Setting("state_dir", "/var/lib/weft", "where the store lies", _path),
    Setting("backend", "bridge", "what backs a network that does not say: bridge or ovs", _one_of("bridge", "ovs")),
    Setting("scope", "local", "local, or global: networks of a swarm (docs/swarm.md)", _one_of("local", "global")),
    Setting("ovsdb", "", "Open vSwitch's database: unix:PATH or tcp:IP:PORT; empty: db.sock in OVS_RUNDIR", _ovsdb),
    Setting(
        "ovs_datapath",
        "auto",
        "Open vSwitch's datapath: auto (the kernel's, where it is), system or netdev",
        _one_of("auto", "system", "netdev"),
    ),
    Setting("ovs_rundir", "/var/run/openvswitch", "where Open vSwitch keeps its sockets", _path, "OVS_RUNDIR"),
    Setting("pools", DEFAULT, "where weft's IPAM takes pools from: BASE/LENGTH/SIZE,...", parse_bases),
    Setting("advertise", "", "this host's address in tunnels; none: that of the route to the peers", _advertise),
    Setting("peers", "", "the other hosts of networks with a tunnel: ADDRESS,...", _peers),
    Setting("tunnel_port", "4789", "the UDP port of VXLAN tunnels, the same on every host", _port),
    Setting("log_level", "info", "debug, info, warning or error", _one_of("debug", "info", "warning", "error")),
    Setting("log_format", "text", "text (logfmt) or json", _one_of("text", "json")),
    Setting("reconcile_interval", "60", "seconds between two looks at the whole host, 5 to 3600", _seconds(5, 3600)),
    Setting("docker", DOCKER, "Docker's socket, for read-only look-ups", _docker, "DOCKER_HOST"),
)


def read(environment: Mapping[str, str], flags: Mapping[str, str | None] | None = None) -> Settings:
    """Return the settings: a flag beats the environment, which beats the default. Raises :class:`InvalidRequest`.

    An empty variable counts as not set. An unknown ``WEFT_`` variable is an error: it is most likely a misspelling.
    """
    settings, problems = judge(environment, flags)
    if problems:
        raise InvalidRequest("\n".join(problems))
    return settings


def judge(
    environment: Mapping[str, str], flags: Mapping[str, str | None] | None = None
) -> tuple[Settings, tuple[str, ...]]:
    """Return the settings as :func:`read` does, each broken one as its default, and what is wrong with those."""
    flags = flags or {}
    problems = []
    known = {setting.name for setting in TABLE}
    if unknown := sorted(name for name in environment if name.startswith("WEFT_") and name not in known):
        problems.append(f"{unknown[0]} is not a setting of weft; there are: {', '.join(sorted(known))}")
    values: dict[str, object] = {}
    for setting in TABLE:
        given = flags.get(setting.attribute) or environment.get(setting.name) or setting.default
        if setting.attribute == "docker" and not given.startswith("unix://"):
            given = setting.default if flags.get("docker") is None else given
        try:
            values[setting.attribute] = setting.parse(given)
        except ValueError as error:
            problems.append(f"{setting.name}={given!r}: allowed is {error}")
            values[setting.attribute] = setting.parse(setting.default)
    return Settings(**cast("dict[str, Any]", values)), tuple(problems)


def control_path(environment: Mapping[str, str]) -> Path:
    """Return the commands' socket: all that a command needs to know."""
    return Path(environment.get("WEFT_CONTROL") or CONTROL)
