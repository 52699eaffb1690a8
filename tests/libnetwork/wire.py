"""How engines differ on the wire, the wire itself, and ``-p`` as they spell it: what `tests.libnetwork` is made of."""

import http.client
import json
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

MAY_BE_MISSING: Final = frozenset(
    ("NetworkDriver.ProgramExternalConnectivity", "NetworkDriver.RevokeExternalConnectivity")
)
"""Of these a 404 is no error (20.10.24 to 28.5.2)."""

PROTOCOLS: Final = {"tcp": 6, "udp": 17, "sctp": 132}
_PUBLISH: Final = re.compile(
    r"(?:(?P<ip>\[[0-9a-f:]+\]|\d+(?:\.\d+){3}):)?(?:(?P<first>\d+)(?:-(?P<last>\d+))?:)?(?P<port>\d+)(?:/(?P<protocol>\w+))?"
)


class CallRefusedError(Exception):
    """A call failed; the message is what the operator of a real engine reads."""

    def __init__(self, method: str, said: str) -> None:
        super().__init__(f"{method}: {said}")
        self.method = method
        self.said = said


@dataclass(frozen=True, slots=True)
class Dialect:
    """What differs between engines.

    ``says_ipv4``             CreateNetwork has ``enable_ipv4``
    ``checks_gateway``        GwAllocCheck comes before CreateNetwork
    ``moves_late``            at a start the link is moved after ProgramExternalConnectivity (by a hook of runc)
    ``needs_oper_info``       a failing EndpointOperInfo fails the start
    ``leaves_after_bad_join``  Leave comes after a Join whose answer was rejected
    """

    host: str
    first_use: tuple[str, ...]
    says_ipv4: bool
    checks_gateway: bool
    moves_late: bool
    needs_oper_info: bool
    leaves_after_bad_join: bool
    program_options: dict[str, Any] = field(default_factory=dict)


DIALECTS: Final = {
    "20.10.24": Dialect(
        host="",
        first_use=(
            "Plugin.Activate",
            "NetworkDriver.GetCapabilities",
            "IpamDriver.GetCapabilities",
            "IpamDriver.GetDefaultAddressSpaces",
        ),
        says_ipv4=False,
        checks_gateway=False,
        moves_late=True,
        needs_oper_info=True,
        leaves_after_bad_join=False,
    ),
    "28.5.2": Dialect(
        host="plugin.moby.localhost",
        first_use=("Plugin.Activate", "NetworkDriver.GetCapabilities", "IpamDriver.GetCapabilities"),
        says_ipv4=True,
        checks_gateway=True,
        moves_late=False,
        needs_oper_info=False,
        leaves_after_bad_join=True,
        program_options={"com.docker.network.driver.private.no_proxy_6to4": False},
    ),
}


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("plugin", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def post(path: Path, dialect: Dialect, method: str, body: dict[str, Any] | None, timeout: float) -> dict[str, Any]:
    """Make one call as an engine does, and return the answer; raises :class:`CallRefusedError` where it would fail.

    The errors are read as engines read them: any status but 200, ``Err`` of NetworkDriver and ``Error`` of IpamDriver.
    """
    raw = b"" if body is None else json.dumps(body).encode() + b"\n"
    connection = _Connection(path, timeout)
    try:
        connection.putrequest("POST", f"/{method}", skip_host=True, skip_accept_encoding=True)
        for name, value in {
            "Host": dialect.host,
            "User-Agent": "Go-http-client/1.1",
            "Content-Length": str(len(raw)),
            "Accept": "application/vnd.docker.plugins.v1.2+json",
        }.items():
            connection.putheader(name, value)
        connection.endheaders(raw)
        response = connection.getresponse()
        text = response.read().decode()
    finally:
        connection.close()
    if response.status == http.client.NOT_FOUND and method in MAY_BE_MISSING:
        return {}
    answer: dict[str, Any] = json.loads(text)
    said = answer.get("Error" if method.startswith("IpamDriver.") else "Err", "")
    if response.status != http.client.OK:
        raise CallRefusedError(method, said or text)
    if said:
        raise CallRefusedError(method, f"remote: {said}")
    return answer


def port_options(publish: Sequence[str]) -> dict[str, Any]:
    """Return the two options of ports for ``-p`` as the operator types it: ``[ip:][host[-last]:]port[/protocol]``."""
    exposed: list[dict[str, int]] = []
    rows: list[dict[str, Any]] = []
    for text in publish:
        found = _PUBLISH.fullmatch(text)
        assert found is not None, f"-p {text}"
        first = int(found["first"] or 0)
        of = {"Proto": PROTOCOLS[found["protocol"] or "tcp"], "Port": int(found["port"])}
        host = {
            "HostIP": (found["ip"] or "").strip("[]"),
            "HostPort": first,
            "HostPortEnd": int(found["last"] or first),
        }
        exposed.append(of)
        rows.append({**of, "IP": "", **host})
    return {"com.docker.network.endpoint.exposedports": exposed, "com.docker.network.portmap": rows}
