"""dockerd, played, where weft dies in the middle of its calls, and dockerd perhaps with it.

What comes next is what real engines send (facts/docker-wire.md 1, 2 and 6). An engine that lives finds the connection
broken and repeats the call without its body, then rolls back; a call that found nobody listening comes again whole. An
engine that died with weft sends nothing until it is started again: then Revoke, Leave, DeleteEndpoint for each endpoint
that it had joined, and nothing for what was pending.
"""

import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from threading import Thread
from typing import Any

from tests.libnetwork import Endpoint, Libnetwork, Network


class DockerDied(Exception):
    """The engine died with weft."""


class Docker(Libnetwork):
    """An engine whose plugin dies.

    ``recover``   starts weft again; ``dies_too``: when weft breaks a call, so does this engine
    ``networks``  what it knows, by id; ``joined``: the endpoints that it knows in a container, by id;
                  ``programmed``: those that it was told are published; ``unanswered``: those it got no answer for
    """

    def __init__(self, socket: Path, *, netns: str, engine: str, recover: Callable[[], None]) -> None:
        super().__init__(socket, netns=netns, engine=engine)
        self.recover = recover
        self.dies_too = False
        self.dead = False
        self.networks: dict[str, Network] = {}
        self.joined: dict[str, Endpoint] = {}
        self.programmed: set[str] = set()
        self.unanswered: set[str] = set()
        self._leaving = ""

    # -- the wire

    def call(self, method: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Make one call; raises :class:`DockerDied` also for all that an engine that is dead would have called."""
        if self.dead:
            raise DockerDied(method)
        try:
            answer = super().call(method, body)
        except (OSError, http.client.HTTPException) as broken:
            if self.dies_too:
                self.dead = True
                raise DockerDied(method) from broken
            if method == "NetworkDriver.ProgramExternalConnectivity" and body is not None:
                self.unanswered.add(body["EndpointID"])
            self.recover()
            whole = isinstance(broken, ConnectionRefusedError | FileNotFoundError)  # nothing had been written
            answer = super().call(method, body if whole else None)
        if method == "NetworkDriver.Join" and body is not None:
            ident = body["EndpointID"]
            self.joined[ident] = self.made[ident]
        if method == "NetworkDriver.ProgramExternalConnectivity" and body is not None:
            self.programmed.add(body["EndpointID"])
            self.unanswered.discard(body["EndpointID"])
        return answer

    def tell(self, method: str, body: dict[str, Any]) -> None:
        """Make a call whose failure is ignored; an endpoint whose deletion was asked for is forgotten."""
        super().tell(method, body)
        self.take_note(method, body)

    def take_note(self, method: str, body: dict[str, Any]) -> None:
        """Know what is the case once a call was made, or ought to have been."""
        if method == "NetworkDriver.RevokeExternalConnectivity":
            self.programmed.discard(body["EndpointID"])
            self.unanswered.discard(body["EndpointID"])
        if method == "NetworkDriver.DeleteEndpoint":
            self.joined.pop(body["EndpointID"], None)

    # -- what it knows

    def create(self, name: str, **wishes: Any) -> None:  # noqa: ANN401 - of create_network
        """``docker network create``."""
        network = self.create_network(name=name, **wishes)
        self.networks[network.id] = network

    def remove(self, name: str) -> None:
        """``docker network rm``."""
        network = self.named(name)
        self._leaving = network.id
        self.remove_network(network)
        del self.networks[network.id]

    def named(self, name: str) -> Network:
        """Return a network by its name."""
        return next(network for network in self.networks.values() if network.name == name)

    def revive(self) -> None:
        """Start again after a SIGKILL: what is left of containers is killed, what was joined is cleaned up.

        A network whose removal had begun is removed, without a word to a plugin that is not activated yet.
        """
        self.networks.pop(self._leaving, None)
        for container in list(self.containers):
            container.abandon()
        for endpoint in self.made.values():  # Docker's own IPAM begins with what is written down: no container has any
            endpoint.network.taken -= {address.ip for address in endpoint.addresses}
            endpoint.network.endpoints = 0
        self.made = dict(self.joined)
        self.dead = False
        for method in self.dialect.first_use:
            self.call(method)
        for endpoint in list(self.joined.values()):
            for method in ("RevokeExternalConnectivity", "Leave", "DeleteEndpoint"):
                self.tell(f"NetworkDriver.{method}", endpoint.ids)
            self.release(endpoint)

    def listed(self, ident: str = "") -> Any:  # noqa: ANN401 - JSON
        """Return what ``GET /networks`` answers, or ``GET /networks/ID``."""
        if ident:
            return self._row(self.networks[ident])
        return [self._row(network) for network in self.networks.values()]

    def _row(self, network: Network) -> dict[str, Any]:
        there = [one for one in self.joined.values() if one.network is network]
        gateways = iter(network.reserved.values())
        return {
            "Id": network.id,
            "Name": network.name,
            "Driver": "weft",
            "Options": {},
            "IPAM": {
                "Driver": network.ipam,
                "Options": {},
                "Config": [{"Subnet": str(pool), "Gateway": next(gateways, "")} for pool in network.pools],
            },
            "Containers": {
                one.id: {"EndpointID": one.id, "Name": "c"}
                | {f"IPv{address.version}Address": str(address) for address in one.addresses}
                for one in there
            },
        }


class _Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True
    docker: Docker


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, _Server)
        kind, _, ident = self.path.removeprefix("/").partition("/")
        if kind != "networks" or server.docker.dead:
            self.send_error(503)
            return
        try:
            body = json.dumps(server.docker.listed(ident)).encode()
        except KeyError:  # removed since it was listed
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "weft"

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def listing(docker: Docker, path: Path) -> Iterator[None]:
    """Answer on an engine's socket with the networks that it knows."""
    with _Server(str(path), _Handler) as server:
        server.docker = docker
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
