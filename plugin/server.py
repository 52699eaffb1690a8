"""The composition root: which parts there are, in which order they start, and gunicorn around them.

One worker process with threads. Both sockets are bound early, so that Docker finds them; requests wait in the queue
while the worker opens the store and brings the host to what it says.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from flask import Flask, Response, request
from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger

from drivers.errors import Refusing, WeftError
from drivers.host import Host, OpenVSwitch
from drivers.marks import Marks
from drivers.ovsdb.remote import parse as parse_remote
from drivers.resources import Scope
from plugin import __version__, logs, memory
from plugin.app import create_app
from plugin.calls import reply
from plugin.control_api import control_blueprint
from plugin.docker import Docker
from plugin.engine.addresses import Addresses
from plugin.engine.endpoints import Endpoints
from plugin.engine.engine import Engine
from plugin.engine.links import Links
from plugin.engine.networks import Networks
from plugin.engine.orphans import Orphans
from plugin.engine.peers import Peers
from plugin.engine.ports import Ports
from plugin.engine.refusal import RefusedDriver, RefusedViews
from plugin.engine.tunnels import Tunnels
from plugin.engine.views import Views
from plugin.errors import sentence
from plugin.runtime import Runtime
from plugin.store import Database, Store
from plugin.wire import Failure

if TYPE_CHECKING:
    from plugin.config import Settings

log = logging.getLogger(__name__)

SETTLE_SECONDS: Final = 5.0  # how long the first answer may wait for the first look at the host
THREADS: Final = 16
GRACE_SECONDS: Final = 8  # dockerd kills a managed plugin 10 s after SIGTERM (facts/docker-wire.md 7)
CONTROL: Final = "control"

BuildHost = Callable[[Marks, Callable[[str], Scope | None], Callable[[], Iterable[Scope]], OpenVSwitch], Host]


def serve(settings: Settings, build_host: BuildHost = Host) -> int:
    """Run weft until SIGTERM; return the exit code. Says "already running, pid N" and binds nothing if it is."""
    logs.setup(settings.log_level, settings.log_format)
    os.umask(0o077)  # what weft keeps is root's alone, wherever it is kept
    for directory in (settings.state_dir, settings.control.parent):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings.socket.parent.mkdir(parents=True, exist_ok=True)
    lock = _only_one(settings.state_dir / "serve.lock")
    if lock is None:
        return 2
    log.info("weft starts", extra={"version": __version__, "socket": settings.socket, "state": settings.database})
    Server(settings, build_host, lock).run()
    return 0


def _only_one(path: Path) -> TextIO | None:
    """Take the lock of a state directory and leave our pid in it, or say who has it."""
    lock = path.open("a+", encoding="ascii")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        sys.stderr.write(f"weft: already running, pid {lock.read().strip()} ({path})\n")
        lock.close()
        return None
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


class Server(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn, with weft in its one worker."""

    def __init__(self, settings: Settings, build_host: BuildHost, lock: TextIO) -> None:
        """Serve with ``settings``; ``lock`` is the master's alone."""
        self._settings = settings
        self._build_host = build_host
        self._lock = lock
        self._parts = ExitStack()
        super().__init__()

    def load_config(self) -> None:
        """Tell gunicorn what DESIGN fixes."""
        for name, value in {
            "bind": [f"unix:{self._settings.socket}", f"unix:{self._settings.control}"],
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
            "post_fork": lambda _, __: self._lock.close(),
            "worker_exit": lambda _, __: self._parts.close(),
        }.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """Build the application in the worker. Never raises: what cannot start refuses, and says why."""
        try:
            return self._compose()
        except Exception as error:
            self._parts.close()
            why = error if isinstance(error, Refusing) else Refusing(f"weft could not start: {sentence(error)}")
            log.critical("refusing", extra={"why": str(why)}, exc_info=not isinstance(error, WeftError))
            return _guarded(create_app(RefusedDriver(why), control_blueprint(RefusedViews(why))), self._settings)

    def _compose(self) -> Flask:
        settings, parts = self._settings, self._parts
        memory.use_one_arena()
        self._wait_for_predecessor()
        store = Store(Database(settings.database))
        parts.callback(store.close)
        ovs = OpenVSwitch(
            remote=parse_remote(settings.ovsdb or f"unix:{settings.ovs_rundir}/db.sock", settings.ovs_rundir),
            datapath=settings.ovs_datapath,
        )
        host = self._build_host(Marks(store.id), _owner_in(store), store.scopes, ovs)
        parts.callback(host.close)
        runtime = Runtime(store, host, interval=settings.reconcile_interval)
        tunnels = Tunnels(store, host, advertise=settings.advertise, port=settings.tunnel_port)
        networks = Networks(store, runtime, host, tunnels, backend=settings.backend)
        peers = Peers(store, runtime, tunnels, setting=settings.peers)
        endpoints = Endpoints(store, runtime, host)
        ports = Ports(store, runtime, host, endpoints)
        addresses = Addresses(store, host, bases=settings.pools)
        docker = Docker(settings.docker)
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
        _settle(store, host.epoch())
        peers.settle()
        tunnels.settle()
        parts.callback(runtime.stop)
        runtime.start(bridges_changed=orphans.look_soon)
        if not runtime.settled(SETTLE_SECONDS):
            log.warning("still bringing the host to what is wanted", extra={"waited_seconds": SETTLE_SECONDS})
        parts.callback(orphans.stop)
        orphans.start()
        parts.callback(links.stop)
        links.start()
        log.info("weft is ready", extra={"networks": len(store.networks()), "endpoints": len(store.endpoints())})
        engine = Engine(
            *(networks, endpoints, ports, addresses, runtime),
            peers=peers,
            look_soon=orphans.look_soon,
            joined=links.joined,
        )
        views = Views(store, runtime, ports, docker, host, peers=peers)
        return _lean(_guarded(create_app(engine, control_blueprint(views)), settings))

    def _wait_for_predecessor(self) -> None:
        """Wait until the worker before this one (SIGHUP, or a killed master's) has let go of the host and the store."""
        lock = (self._settings.state_dir / "worker.lock").open("w", encoding="ascii")
        self._parts.callback(lock.close)
        fcntl.flock(lock, fcntl.LOCK_EX)


class GunicornLogger(Logger):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's own lines, in weft's format, from warnings up: its greetings are of no use to an operator."""

    def setup(self, cfg: Any) -> None:  # noqa: ANN401, ARG002 - gunicorn's signature
        """Send what gunicorn says to weft's log."""
        self.error_log.propagate = True
        self.error_log.setLevel(logging.WARNING)
        self.access_log.disabled = True


def _settle(store: Store, epoch: str) -> None:
    """Withdraw what was never answered, and after a power-off every endpoint: their containers are gone."""
    store.withdraw_unanswered()
    store.ports.release_idle()
    if store.epoch != epoch:
        gone = [row.id for row in store.endpoints()]
        if gone:
            log.info("the host was off: endpoints are withdrawn, networks rebuilt", extra={"endpoints": len(gone)})
            store.withdraw_endpoints(gone)
        store.epoch = epoch


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
