"""The application behind weft's sockets: Docker's two protocols, and whatever blueprints the server adds."""

from __future__ import annotations

from typing import Protocol

from flask import Blueprint, Flask, Response
from werkzeug.exceptions import HTTPException

from plugin import wire
from plugin.calls import blueprint, call, reply
from plugin.ipam_api import IpamDriver, ipam_api
from plugin.network_api import NetworkDriver, network_api
from plugin.requests import DriverScope


class Driver(NetworkDriver, IpamDriver, Protocol):
    """Both of Docker's protocols (:class:`plugin.engine.engine.Engine`)."""


def create_app(driver: Driver, *blueprints: Blueprint, scope: DriverScope = "local") -> Flask:
    """Return the application. A path that nobody serves is answered 404, in JSON with both of Docker's keys.

    ``scope`` is what Docker is told of the driver, whatever becomes of the driver itself.
    """
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = wire.BODY_LIMIT
    app.url_map.merge_slashes = False  # an answer, never a redirection

    def activated(_: None) -> wire.Activated:
        driver.greet()
        return wire.Activated()

    handshake = blueprint("plugin", (call(wire.ACTIVATE, activated),), driver.suspect)
    for one in (handshake, network_api(driver, scope), ipam_api(driver), *blueprints):
        app.register_blueprint(one)
    app.register_error_handler(HTTPException, _unserved)
    return app


def _unserved(error: HTTPException) -> Response:
    said = f"weft does not serve this: {error.description}"
    response = reply(wire.Failure(err=said, error=said), error.code or 500)
    response.headers.extend((name, value) for name, value in error.get_headers() if name == "Allow")
    return response
