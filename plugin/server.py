"""The composition root: which parts there are, in which order they start, and gunicorn around them.

One worker process with threads. Both sockets were bound before (:mod:`plugin.door`), so that Docker finds them;
requests wait in the queue while the worker opens the store and brings the host to what it says.
"""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from flask import Flask, Response, request
from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger

from drivers import privilege
from drivers.errors import Refusing, WeftError
from drivers.host import Host, OpenVSwitch
from drivers.marks import Marks
from drivers.resources import Scope
from plugin import __version__, memory
from plugin.app import create_app
from plugin.calls import reply
from plugin.control_api import control_blueprint
from plugin.docker import Docker
from plugin.door import Door
from plugin.engine.addresses import Addresses
from plugin.engine.endpoints import Endpoints
from plugin.engine.engine import Engine
from plugin.engine.links import Links
from plugin.engine.networks import Networks
from plugin.engine.nodes import Nodes
from plugin.engine.orphans import Orphans
from plugin.engine.peers import Peers
from plugin.engine.ports import Ports
from plugin.engine.refusal import RefusedDriver, RefusedViews
from plugin.engine.tunnels import Tunnels
from plugin.engine.views import OTHER_STORE, Views
from plugin.errors import sentence
from plugin.runtime import Runtime
from plugin.store import Database, Store
from plugin.storefile.trouble import unreadable
from plugin.wire import Failure

if TYPE_CHECKING:
    from plugin.config import Settings

log = logging.getLogger(__name__)

SETTLE_SECONDS: Final = 5.0  # how long the first answer may wait for the first look at the host
THREADS: Final = 16
GRACE_SECONDS: Final = 8  # dockerd kills a managed plugin 10 s after SIGTERM (facts/docker-wire.md 7)
CONTROL: Final = "control"

BuildHost = Callable[[Marks, Callable[[str], Scope | None], Callable[[], Iterable[Scope]], OpenVSwitch], Host]


def serve_behind(
    door: Door,
    settings: Settings,
    build_host: BuildHost = Host,
    *,
    refused: Refusing | None = None,
    plugin: str | None = None,
) -> int:
    """Run weft behind an open door until SIGTERM; return the exit code.

    ``refused`` is why it answers nothing else; ``plugin`` is the id that Docker gave it as a managed plugin.
    """
    privilege.drop()
    said = {"version": __version__, "socket": settings.socket, "state": settings.database}
    log.info("weft starts", extra=said | ({"plugin": plugin[:12]} if plugin else {}))
    Server(settings, build_host, door, refused=refused, plugin=plugin).run()
    return 0


class Server(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn, with weft in its one worker."""

    def __init__(
        self, settings: Settings, build_host: BuildHost, door: Door, *, refused: Refusing | None, plugin: str | None
    ) -> None:
        """Serve with ``settings``; the lock of ``door`` is the master's alone."""
        self._settings = settings
        self._build_host = build_host
        self._door = door
        self._refused = refused
        self._plugin = plugin
        self._parts = ExitStack()
        super().__init__()

    def load_config(self) -> None:
        """Tell gunicorn what DESIGN fixes."""
        for name, value in {
            "bind": [f"fd://{listener}" for listener in self._door.listeners] or [f"unix:{self._settings.socket}"],
            "workers": 1,
            "worker_class": "gthread",
            "threads": THREADS,
            "keepalive": 0,  # "Connection: close" on every answer, or dockerd repeats calls without their bodies
            "timeout": 0,  # a worker killed in the middle of a request is a broken connection
            "graceful_timeout": GRACE_SECONDS,
            "umask": 0o177,  # both sockets 0600
            "control_socket_disable": True,
            "logger_class": GunicornLogger,
            "pre_fork": lambda _, __: memory.share_with_worker(),
            "post_fork": lambda _, __: self._door.lock and self._door.lock.close(),
            "worker_exit": lambda _, __: self._parts.close(),
        }.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """Build the application in the worker. Never raises: what cannot start refuses, and says why."""
        if self._refused is not None:
            return self._refusing(self._refused)
        try:
            return self._compose()
        except Exception as error:  # noqa: BLE001 - it is the answer to every call
            self._parts.close()
            why = error if isinstance(error, Refusing) else Refusing(f"weft could not start: {sentence(error)}")
            return self._refusing(why, exception=not isinstance(error, WeftError))

    def _refusing(self, why: Refusing, *, exception: bool = False) -> Flask:
        log.critical("refusing", extra={"why": str(why)}, exc_info=exception)
        app = create_app(RefusedDriver(why), control_blueprint(RefusedViews(why)), scope=self._settings.scope)
        return _guarded(app, self._settings)

    def _compose(self) -> Flask:
        settings, parts = self._settings, self._parts
        memory.use_one_arena()
        self._wait_for_predecessor()
        store = Store(Database(settings.database))
        parts.callback(store.close)
        ovs = OpenVSwitch(remote=settings.remote, datapath=settings.ovs_datapath)
        host = self._build_host(Marks(store.id), _owner_in(store), store.scopes, ovs)
        parts.callback(host.close)
        runtime = Runtime(store, host, interval=settings.reconcile_interval)
        tunnels = Tunnels(store, host, advertise=settings.advertise, port=settings.tunnel_port)
        networks = Networks(store, runtime, host, tunnels, backend=settings.backend)
        peers = Peers(store, runtime, tunnels, setting=settings.peers)
        endpoints = Endpoints(store, runtime, host)
        ports = Ports(store, runtime, host, endpoints)
        addresses = Addresses(store, host, bases=settings.pools)
        docker = Docker(settings.docker, self._plugin)
        orphans = Orphans(
            store,
            docker,
            addresses,
            delete_network=networks.delete,
            delete_endpoint=endpoints.delete,
            is_plugged=host.is_plugged,
            tell_bridges=runtime.judge_bridges,
            interval=settings.reconcile_interval,
        )
        links = Links(store, runtime, docker)
        nodes = Nodes(docker, peers, is_own=host.is_own, interval=settings.reconcile_interval)
        swarm = settings.scope == "global"
        _settle(store, host.epoch(), host.is_plugged)
        _tell_other_stores(store, host.other_stores())
        peers.settle()
        if not swarm:
            peers.forget_docker()
        tunnels.settle()
        parts.callback(runtime.stop)
        runtime.start(bridges_changed=orphans.look_soon)
        if not runtime.settled(SETTLE_SECONDS):
            log.warning("still bringing the host to what is wanted", extra={"waited_seconds": SETTLE_SECONDS})
        parts.callback(orphans.stop)
        orphans.start()
        parts.callback(links.stop)
        links.start()
        parts.callback(nodes.stop)
        if swarm:
            nodes.start()
        log.info("weft is ready", extra={"networks": len(store.networks()), "endpoints": len(store.endpoints())})
        engine = Engine(
            *(networks, endpoints, ports, addresses, runtime),
            peers=peers,
            look_soon=orphans.look_soon,
            joined=links.joined,
            nodes=nodes,
        )
        views = Views(store, runtime, ports, docker, host, peers=peers)
        app = create_app(engine, control_blueprint(views), scope=settings.scope)
        return _lean(_guarded(app, settings))

    def _wait_for_predecessor(self) -> None:
        """Wait until the worker before this one (SIGHUP, or a killed master's) has let go of the host and the store."""
        try:
            lock = (self._settings.state_dir / "worker.lock").open("w", encoding="ascii")
        except OSError as error:
            raise unreadable(self._settings.database, error) from error
        self._parts.callback(lock.close)
        fcntl.flock(lock, fcntl.LOCK_EX)


class GunicornLogger(Logger):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's own lines, in weft's format, from warnings up: its greetings are of no use to an operator."""

    def setup(self, cfg: Any) -> None:  # noqa: ANN401, ARG002 - gunicorn's signature
        """Send what gunicorn says to weft's log."""
        self.error_log.propagate = True
        self.error_log.setLevel(logging.WARNING)
        self.access_log.disabled = True


def _settle(store: Store, epoch: str, is_plugged: Callable[[str], bool]) -> None:
    """Withdraw what was never answered, and after a power-off every endpoint: their containers are gone.

    Those whose containers are there all the same stay: then the store is an older copy, that was put back while they
    ran.
    """
    store.withdraw_unanswered()
    store.ports.release_idle()
    if store.epoch != epoch:
        gone = [row.id for row in store.endpoints() if not is_plugged(row.endpoint.link)]
        if gone:
            log.info("the host was off: endpoints are withdrawn, networks rebuilt", extra={"endpoints": len(gone)})
            store.withdraw_endpoints(gone)
        store.epoch = epoch


def _tell_other_stores(store: Store, others: Mapping[str, int]) -> None:
    """Say whose networks are on this host that this store knows nothing of: perhaps it is not the one it should be."""
    for other, links in others.items():
        log.error(
            "this host has links of another store's: they are left alone",
            extra={"store": store.id, "other": other, "links": links, "why": OTHER_STORE},
        )


def _owner_in(store: Store) -> Callable[[str], Scope | None]:
    def owner(link: str) -> Scope | None:
        row = store.network_of_link(link)
        return row.scope if row else None

    return owner


def _guarded(app: Flask, settings: Settings) -> Flask:
    """Serve the commands by the control socket only, and Docker by its own only."""

    @app.before_request
    def by_its_own_socket() -> Response | None:
        name = request.environ["gunicorn.socket"].getsockname()
        by_control = name == str(settings.control)
        if by_control == (request.blueprint == CONTROL):
            return None
        said = f"{request.path} is not served on {name}"
        return reply(Failure(err=said, error=said), HTTPStatus.NOT_FOUND)

    return app


def _lean(app: Flask) -> Flask:
    """Give the memory of large bodies back when they have been answered."""

    @app.teardown_request
    def after_a_large_body(_: BaseException | None) -> None:
        if (request.content_length or 0) > memory.LARGE_BODY:
            memory.give_back()

    return app
