"""The application on a real gunicorn, set up as DESIGN says, with a driver that is not there.

python -m tests.plugin.gunicorn_server SOCKET
"""

import sys

from flask import Flask
from gunicorn.app.base import BaseApplication

from plugin.app import create_app
from tests.plugin.fake_driver import FakeDriver


class Server(BaseApplication):  # type: ignore[misc]  # gunicorn is untyped
    """One worker on one Unix socket."""

    def __init__(self, path: str) -> None:
        self._path = path
        super().__init__()

    def load_config(self) -> None:
        """Set what the server is to be."""
        for name, value in {
            "bind": f"unix:{self._path}",
            "workers": 1,
            "worker_class": "gthread",
            "threads": 4,
            "keepalive": 0,
            "timeout": 0,
            "graceful_timeout": 8,
            "umask": 0o177,
            "control_socket_disable": True,
        }.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """Return the application."""
        return create_app(FakeDriver())


if __name__ == "__main__":
    Server(sys.argv[1]).run()
