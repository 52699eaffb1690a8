"""The commands' side of the process: readers and ``reconcile``, over the control socket only."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Protocol

from flask import Blueprint, Response, request

import plugin
from plugin.errors import sentence, status

View = dict[str, Any]


class Shows(Protocol):
    """What the commands can ask (:class:`plugin.engine.views.Views`)."""

    def status(self) -> View:
        """Return weft's health."""
        ...

    def networks(self) -> list[View]:
        """Return all networks."""
        ...

    def network(self, short: str) -> View:
        """Return one network."""
        ...

    def endpoints(self) -> list[View]:
        """Return all endpoints."""
        ...

    def endpoint(self, short: str) -> View:
        """Return one endpoint."""
        ...

    def pools(self) -> list[View]:
        """Return all pools."""
        ...

    def pool(self, which: str) -> View:
        """Return one pool."""
        ...

    def ports(self) -> list[View]:
        """Return all published ports."""
        ...

    def add_port(self, which: str, text: str) -> list[View]:
        """Publish a run of ports on a running container."""
        ...

    def remove_port(self, which: str, text: str) -> list[View]:
        """Publish a run of ports no longer."""
        ...

    def peers(self) -> list[View]:
        """Return the other hosts to which networks go on."""
        ...

    def add_peer(self, peer: str, network: str) -> list[View]:
        """Let the networks, or (``network`` not empty) one of them, go on at another host."""
        ...

    def remove_peer(self, peer: str, network: str) -> list[View]:
        """Let them go on there no longer."""
        ...

    def reconcile(self, *, dry_run: bool) -> list[View]:
        """Bring the host to what is wanted, or say what that would take."""
        ...


def control_blueprint(shows: Shows) -> Blueprint:
    """Return the blueprint, at ``/v1``."""
    blueprint = Blueprint("control", __name__, url_prefix="/v1")

    def reader(path: str, read: Callable[..., object]) -> None:
        def answer(**named: str) -> Response:
            return _json(read(**named))

        blueprint.add_url_rule(path, endpoint=path.strip("/").replace("/", "-"), view_func=answer, methods=["GET"])

    reader("/version", lambda: {"version": plugin.__version__})
    reader("/status", shows.status)
    reader("/networks", shows.networks)
    reader("/networks/<short>", shows.network)
    reader("/endpoints", shows.endpoints)
    reader("/endpoints/<short>", shows.endpoint)
    reader("/pools", shows.pools)
    reader("/pools/<path:which>", shows.pool)

    reader("/ports", shows.ports)

    @blueprint.post("/endpoints/<which>/ports")
    def add_port(which: str) -> Response:
        return _json(shows.add_port(which, request.args.get("port", "")))

    @blueprint.delete("/endpoints/<which>/ports")
    def remove_port(which: str) -> Response:
        return _json(shows.remove_port(which, request.args.get("port", "")))

    reader("/peers", shows.peers)

    @blueprint.post("/peers")
    def add_peer() -> Response:
        return _json(shows.add_peer(request.args.get("peer", ""), request.args.get("network", "")))

    @blueprint.delete("/peers")
    def remove_peer() -> Response:
        return _json(shows.remove_peer(request.args.get("peer", ""), request.args.get("network", "")))

    @blueprint.post("/reconcile")
    def reconcile() -> Response:
        return _json(shows.reconcile(dry_run=request.args.get("dry_run") == "1"))

    @blueprint.errorhandler(Exception)
    def refused(error: Exception) -> Response:
        return _json({"error": sentence(error)}, status(error))

    return blueprint


def _json(body: object, code: int = 200) -> Response:
    return Response(json.dumps(body), status=code, mimetype="application/json")
