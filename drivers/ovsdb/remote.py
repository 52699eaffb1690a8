"""Where the database of Open vSwitch is: from the environment, as the tools of OVS have it."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Final

from drivers.errors import InvalidRequest

RUNDIR: Final = Path("/run/openvswitch")  # of Debian, Ubuntu, Fedora; /var/run is a link to /run
PORT: Final = 6640  # IANA's for OVSDB, RFC 7047

ALLOWED: Final = "unix: and an absolute path of at most 107 bytes, or tcp:ADDRESS:PORT (tcp:[ADDRESS]:PORT for IPv6)"

_TCP: Final = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<ipv4>[0-9.]+))(?::(?P<port>[0-9]{1,5}))?")
_SUN_PATH: Final = 107  # bytes of a unix socket's path, less the closing NUL (Linux, unix(7))
_PATIENCE: Final = 1.0  # seconds for another machine to answer a connect


@dataclass(frozen=True, slots=True)
class Remote:
    """The database's address, spelled for python-ovs, and the run directory of the daemons beside it.

    The run directory is where ovs-vswitchd's pid and control socket are looked for; over TCP there is none to look at.
    """

    address: str
    rundir: Path | None = RUNDIR

    def __str__(self) -> str:
        return self.address

    def refusal(self) -> str:
        """Return why nobody answers there, in the kernel's words; "" if somebody does.

        At once for a unix socket, within a second over TCP.
        """
        kind, _, where = self.address.partition(":")
        host, _, port = where.rpartition(":")
        with socket.socket(_family(self.address)) as probe:
            probe.settimeout(_PATIENCE)
            try:
                probe.connect(where if kind == "unix" else (host.strip("[]"), int(port)))
            except OSError as error:
                return error.strerror or str(error)
        return ""


def find(environment: Mapping[str, str]) -> Remote:
    """Return the database that ``WEFT_OVSDB`` names, else ``db.sock`` in ``OVS_RUNDIR``, else Debian's own.

    Raises :class:`InvalidRequest` with the variable, the value and what is allowed.
    """
    given = environment.get("OVS_RUNDIR") or str(RUNDIR)
    if not Path(given).is_absolute():
        raise InvalidRequest(f"OVS_RUNDIR={given!r}: allowed is an absolute path")
    rundir = Path(given)
    address = environment.get("WEFT_OVSDB") or f"unix:{rundir}/db.sock"
    try:
        return parse(address, rundir)
    except ValueError as error:
        raise InvalidRequest(f"WEFT_OVSDB={address!r}: allowed is {error}") from None


def parse(text: str, rundir: Path = RUNDIR) -> Remote:
    """Return the remote that ``text`` spells. Raises ``ValueError``, whose words are what is allowed.

    Names of hosts are not: looking one up would hold up the one thread that all of weft's OVSDB work waits for. Nor
    are the passive and the ssl: forms.
    """
    kind, _, where = text.partition(":")
    match kind:
        case "unix" if where.startswith("/") and len(where.encode()) <= _SUN_PATH and "\0" not in where:
            return Remote(f"unix:{where}", rundir)
        case "tcp" if (address := _tcp(where)) is not None:
            return Remote(f"tcp:{address}", None)
        case _:
            raise ValueError(ALLOWED)


def _tcp(where: str) -> str | None:
    """Return address and port in python-ovs's spelling, or ``None``."""
    found = _TCP.fullmatch(where)
    if found is None or not 0 < int(found["port"] or PORT) < 1 << 16:
        return None
    try:
        host = f"[{IPv6Address(found['ipv6'])}]" if found["ipv6"] else f"{IPv4Address(found['ipv4'])}"
    except ValueError:
        return None
    return f"{host}:{int(found['port'] or PORT)}"


def _family(address: str) -> socket.AddressFamily:
    if address.startswith("unix:"):
        return socket.AF_UNIX
    return socket.AF_INET6 if address.startswith("tcp:[") else socket.AF_INET
