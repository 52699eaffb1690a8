"""A driver that does nothing: what Docker itself costs, and a driver's calls, when the driver is as quick as can be.

    .venv/bin/python -m bench.nothing    # serves /run/docker/plugins/nothing.sock: docker network create -d nothing

A container is only started when its driver hands over a link, so there is one: a veth pair, made with one netlink
message and removed after the answer. It leads nowhere: no bridge, no address, no rule. No body is decoded, what is
needed is picked from its beginning; nothing is stored. The gateway is answered, so that Docker makes all the calls that
it makes to weft.
"""

from __future__ import annotations

import json
import re
import socketserver
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from pyroute2 import IPRoute

SOCKET: Final = "/run/docker/plugins/nothing.sock"

_NETWORK: Final = re.compile(rb'"NetworkID": ?"(\w+)"')
_ENDPOINT: Final = re.compile(rb'"EndpointID": ?"(\w+)"')
_GATEWAY: Final = re.compile(rb'"Gateway": ?"([0-9.]+)/')
_ANSWERS: Final[dict[str, dict[str, object]]] = {
    "Plugin.Activate": {"Implements": ["NetworkDriver"]},
    "NetworkDriver.GetCapabilities": {"Scope": "local", "ConnectivityScope": "local"},
    "NetworkDriver.CreateEndpoint": {"Interface": {}},
}


class Driver:
    """The veth pairs, and the gateway of each network."""

    def __init__(self) -> None:
        self._netlink = IPRoute()
        self._gateways: dict[str, str] = {}
        self._ending: SimpleQueue[str] = SimpleQueue()
        threading.Thread(target=self._remove, daemon=True).start()

    def answer(self, method: str, body: bytes) -> dict[str, object]:
        """Return what a call is answered."""
        match method.rpartition(".")[2]:
            case "CreateNetwork":
                self._gateways[_found(_NETWORK, body)] = _found(_GATEWAY, body)
            case "CreateEndpoint":
                tail = _found(_ENDPOINT, body)[:11]
                self._netlink.link("add", ifname=f"noh{tail}", kind="veth", peer={"ifname": f"noc{tail}"})
            case "Join":
                link = {"SrcName": f"noc{_found(_ENDPOINT, body)[:11]}", "DstPrefix": "eth"}
                gateway = self._gateways.get(_found(_NETWORK, body), "")
                return {"InterfaceName": link, "Gateway": gateway, "DisableGatewayService": True}
            case "DeleteEndpoint":
                self._ending.put(f"noh{_found(_ENDPOINT, body)[:11]}")
        return _ANSWERS.get(method, {})

    def _remove(self) -> None:
        """Remove pairs when nobody waits: the kernel takes 20 ms for each."""
        with IPRoute() as netlink:
            while True:
                netlink.link("del", ifname=self._ending.get())


def _found(pattern: re.Pattern[bytes], body: bytes) -> str:
    found = pattern.search(body, 0, 4096)
    return found[1].decode() if found else ""


def handler(driver: Driver) -> type[BaseHTTPRequestHandler]:
    """Return what answers a request with a driver's answer, and closes the connection, as weft does."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            raw = json.dumps(driver.answer(self.path[1:], body)).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: object) -> None:
            """Say nothing, either."""

    return Handler


def main() -> None:
    """Serve until the end."""
    path = Path(SOCKET)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with socketserver.UnixStreamServer(SOCKET, handler(Driver())) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
