"""A plugin so small that its bridges can be seen through, for the tests of the played engine."""

import json
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any

from tests.lab.process import run


class Plugin(ThreadingMixIn, UnixStreamServer):
    """Bridges in a namespace of its own. ``answers`` and ``statuses`` override what a method answers."""

    daemon_threads = True
    block_on_close = True

    def __init__(self, path: Path, netns: str) -> None:
        self.netns = netns
        self.answers: dict[str, dict[str, Any]] = {}
        self.statuses: dict[str, int] = {}
        self.gateways: dict[str, str] = {}
        self.heads: list[str] = []
        super().__init__(str(path), Handler)

    def answer(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        """Do what is asked, unless the test says what to answer."""
        if method in self.answers:
            return self.answers[method]
        network, endpoint = body.get("NetworkID", "")[:8], body.get("EndpointID", "")[:8]
        match method:
            case "GetCapabilities":
                return {"Scope": "local", "GwAllocChecker": True}
            case "CreateNetwork":
                lines = [f"link add b{network} type bridge", f"link set b{network} up"]
                rows = [row for row in (*body["IPv4Data"], *body["IPv6Data"]) if "Gateway" in row]
                lines += [f"address add {row['Gateway']} dev b{network}" for row in rows]
                self.gateways[network] = rows[0]["Gateway"].partition("/")[0] if rows else ""
                self._ip(lines)
            case "DeleteNetwork":
                self._ip([f"link del b{network}"])
            case "CreateEndpoint":
                veth = f"link add h{endpoint} master b{network} up type veth peer name c{endpoint}"
                self._ip([veth])
                return {
                    "Interface": {"MacAddress": "" if body["Interface"]["MacAddress"] else f"02:00:{_pairs(endpoint)}"}
                }
            case "Join":
                name = {"SrcName": f"c{endpoint}", "DstPrefix": "eth"}
                return {"InterfaceName": name, "Gateway": self.gateways.get(network, ""), "DisableGatewayService": True}
            case "DeleteEndpoint":
                self._ip([f"link del h{endpoint}"])
        return {}

    def _ip(self, lines: list[str]) -> None:
        run(["ip", "-n", self.netns, "-batch", "-"], stdin="\n".join(lines) + "\n", check=False)


def _pairs(text: str) -> str:
    return ":".join(text[at : at + 2] for at in range(0, 8, 2))


class Handler(BaseHTTPRequestHandler):
    """One request per connection."""

    server: Plugin

    def address_string(self) -> str:
        """Nobody's: a Unix socket."""
        return "docker"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        """Answer one call."""
        self.server.heads.append(f"{self.requestline}\n{self.headers}")
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        method = self.path.rpartition(".")[2]
        text = json.dumps(self.server.answer(method, json.loads(raw or "{}"))).encode()
        self.send_response(self.server.statuses.get(method, 200))
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
