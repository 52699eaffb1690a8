"""weft without dockerd as its manager: two systemd units, and a file by which dockerd finds the socket.

The socket unit binds before docker.service starts, so that dockerd finds weft whatever is slow; weft itself starts with
the host, not with the first call, for networks are rebuilt before Docker asks. It does not require docker.service: weft
goes on while Docker is restarted, and is there before it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from drivers.errors import Conflict, HostFailure, InvalidRequest
from plugin.config import CONTROL, SOCKET

MARK: Final = "# Written by `weft install-service`; `weft uninstall` removes it."
UNITS: Final = Path("/etc/systemd/system")
DISCOVERY: Final = Path("/etc/docker/plugins/weft.json")
DISCOVERED: Final = {"Name": "weft", "Addr": f"unix://{SOCKET}"}

SOCKET_UNIT: Final = f"""\
{MARK}
[Unit]
Description=Sockets of weft, the Docker network plugin
Before=docker.service docker.socket

[Socket]
ListenStream={SOCKET}
ListenStream={CONTROL}
SocketMode=0600
DirectoryMode=0700
RemoveOnStop=yes

[Install]
WantedBy=sockets.target
"""

SERVICE_UNIT: Final = f"""\
{MARK}
[Unit]
Description=weft, the Docker network plugin
Before=docker.service
After=weft.socket network-pre.target firewalld.service nftables.service openvswitch-switch.service
Requires=weft.socket

[Service]
Type=notify
ExecStart={{program}} serve
EnvironmentFile=-/etc/default/weft
Restart=always
RestartSec=1
TimeoutStopSec=10
# announcements and published ports beside CAP_NET_ADMIN; the holder of a port is named by reading /proc
CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW CAP_NET_BIND_SERVICE CAP_DAC_READ_SEARCH CAP_DAC_OVERRIDE CAP_SYS_PTRACE
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths=/run
ProtectHome=read-only
PrivateTmp=yes
StateDirectory=weft
StateDirectoryMode=0700
LockPersonality=yes
RestrictRealtime=yes

[Install]
WantedBy=multi-user.target
Also=weft.socket
"""


def files(program: Path) -> Mapping[Path, str]:
    """Return what is written where; ``program`` is the command that is to run. Raises :class:`InvalidRequest`."""
    if not program.is_absolute() or any(character.isspace() or character in "%\"'\\$;" for character in str(program)):
        raise InvalidRequest(f"{program} cannot stand in a unit: install weft at a plain absolute path")
    return {
        UNITS / "weft.socket": SOCKET_UNIT,
        UNITS / "weft.service": SERVICE_UNIT.format(program=program),
        DISCOVERY: json.dumps(DISCOVERED) + "\n",
    }


def install(program: Path) -> list[Path]:
    """Write the files, and return those that were not there. Raises :class:`Conflict` for one that is not ours."""
    wanted = files(program)
    for path in wanted:
        if path.exists() and not _is_ours(path):
            raise Conflict(f"{path} is there and was not written by weft: move it away first")
    changed = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in changed:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted[path], encoding="utf-8")
        path.chmod(0o644)
    return changed


def written() -> Iterator[Path]:
    """Yield the files that are there and ours."""
    yield from (path for path in (UNITS / "weft.socket", UNITS / "weft.service", DISCOVERY) if _is_ours(path))


def this_program() -> Path:
    """Return the path of the command that runs."""
    return Path(shutil.which(sys.argv[0]) or sys.argv[0]).absolute()


def reload_systemd() -> None:
    """Have systemd read its units again. Raises :class:`HostFailure`."""
    try:
        subprocess.run(["systemctl", "daemon-reload"], check=True, capture_output=True, text=True, timeout=60)  # noqa: S607 - wherever the host has it
    except (OSError, subprocess.SubprocessError) as error:
        raise HostFailure(f"systemctl daemon-reload: {error}") from error


def _is_ours(path: Path) -> bool:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return text.startswith(MARK) or (path == DISCOVERY and text == json.dumps(DISCOVERED) + "\n")
