"""The switches under /proc/sys/net. They are of the network namespace of the thread that reads or writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from drivers.errors import InvalidRequest
from drivers.resources import Key, Setting, setting

NET: Final = Path("/proc/sys/net")
MOUNTED_NET: Final = Path("/host/sysctl/net")
"""Where plugin.json mounts the host's /proc/sys/net: in a managed plugin the one at its own place is read-only."""


def file_of(path: str) -> Path:
    """Return the file of a switch, from its path under /proc/sys: the one place that knows where that is mounted.

    Raises :class:`InvalidRequest` for anything but plain names below ``net/``.
    """
    top, *names = path.split("/")
    if top != "net" or not names or any(name in ("", ".", "..") or "\0" in name for name in names):
        raise InvalidRequest(
            f"{path!r} is no switch of the network under /proc/sys: a path like net/ipv4/ip_forward is"
        )
    return (MOUNTED_NET if MOUNTED_NET.is_dir() else NET).joinpath(*names)


def read(path: str) -> str | None:
    """Return the value of a switch, or ``None`` if this kernel, or a link that is gone, has no such switch."""
    try:
        return file_of(path).read_text().strip()
    except FileNotFoundError:
        return None


def write(path: str, value: str) -> None:
    """Set a switch. Raises ``OSError``."""
    file_of(path).write_text(value)


def observe(key: Key) -> Setting | None:
    """Return the switch as it stands, or ``None`` if there is none."""
    (path,) = key.at
    value = read(path)
    if value is None:
        return None
    return setting(path, value)


def of_bridge(link: str, *, ipv6: bool, route_localnet: bool) -> dict[str, str]:
    """Return what a bridge's switches must be, in the order of writing.

    A bridge that speaks IPv6 ignores router advertisements, for a container must not give the host a default route;
    one that does not has none at all, and so no link-local address by which containers could reach the host.
    """
    at4, at6 = f"net/ipv4/conf/{link}", f"net/ipv6/conf/{link}"
    switches = {f"{at6}/accept_ra": "0", f"{at6}/disable_ipv6": "0"} if ipv6 else {f"{at6}/disable_ipv6": "1"}
    return switches | {f"{at4}/route_localnet": f"{int(route_localnet)}"}
