"""What the managed plugin costs: the time from `docker plugin enable` to its first answer, its memory, its size.

    .venv/bin/python -m bench.plugin [--rounds N] [--quick] [--write]

The plugin is built, pushed to a registry on loopback and installed from there. Its memory is compared with an empty
application behind the same gunicorn, with the same imports, from the same files and at the same time.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from bench.common import Figure, Target, arguments, headline, load, pss, publish, table, targets
from tests.lab.engine import Engine
from tests.lab.names import DISKS, unique
from tests.lab.node import Node, remove_disk
from tests.lab.plugin import NAME, PluginHost, Workshop
from tests.lab.process import family
from tests.lab.unixhttp import call
from tests.lab.wait import await_
from tests.lab.way_out import WayOut

ENABLE_SECONDS: Final = 2.0
TIMES_EMPTY: Final = 1.25
IMAGE_MB: Final = 180.0
CALLS: Final = 200  # answers before memory is looked at

EMPTY: Final = """
import sys
from flask import Flask
from gunicorn.app.base import BaseApplication
from plugin import memory, server

class Empty(BaseApplication):
    def load_config(self):
        for name, value in {
            "bind": f"unix:{sys.argv[1]}", "workers": 1, "worker_class": "gthread", "threads": server.THREADS,
            "keepalive": 0, "timeout": 0, "control_socket_disable": True,
            "pre_fork": lambda _, __: memory.share_with_worker(),
        }.items():
            self.cfg.set(name, value)

    def load(self):
        memory.use_one_arena()
        app = Flask("empty")
        app.add_url_rule("/NetworkDriver.GetCapabilities", view_func=lambda: "{}", methods=["POST"])
        return app

Empty().run()
"""
SOCKET: Final = "/tmp/empty.sock"  # noqa: S108 - in the plugin's own root


def main() -> None:
    """Measure, and print the tables."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, help="of disabling and enabling (11; with --quick 2)")
    options = parser.parse_args()
    before, storage = load(), unique("registry")
    with ExitStack() as stack:
        stack.callback(remove_disk, storage)
        size = build(DISKS / storage)
        node = stack.enter_context(Node("bench"))
        stack.callback(node.power_off)
        on = PluginHost(node, Engine(node), DISKS / storage, Path("unused"))
        on.boot()
        on.engine.start()
        on.install("bench")
        enable = [enabled(on) for _ in range(options.rounds or (2 if options.quick else 11))]
        weft, empty = memory(on)
        said = headline(on.engine.version, before)
    publish("bench.plugin", told(said, enable, weft, empty, size), write=options.write)


def build(storage: Path) -> float:
    """Build and push the plugin; return the size of its root filesystem, in MB."""
    with tempfile.TemporaryDirectory() as folder, Node("workshop") as node, Engine(node) as engine, WayOut(node):
        workshop = Workshop(node, engine, storage, Path(folder))
        workshop.push("0", "bench")
        return workshop.image_bytes() / 10**6


def enabled(on: PluginHost) -> float:
    """Disable and enable the plugin; return the seconds from the command to its first answer to us."""
    on.engine.api("POST", f"/plugins/{NAME}/disable")
    begin = time.perf_counter()
    on.engine.api("POST", f"/plugins/{NAME}/enable?timeout=30")
    on.call("NetworkDriver.GetCapabilities")
    return time.perf_counter() - begin


def memory(on: PluginHost) -> tuple[float, float]:
    """Return the PSS of the plugin and of an empty application beside it, in MB, after the same number of answers."""
    plugin = on.inspect()["Id"]
    root = f"/var/lib/docker/plugins/{plugin}/rootfs"
    argv = ("chroot", root, "/opt/weft/bin/python", "-c", EMPTY, SOCKET)
    empty = on.node.spawn(*argv, log=on.node.disk / "empty.log")
    sockets = (on.node.path(f"/run/docker/plugins/{plugin}/weft.sock"), on.node.path(f"{root}{SOCKET}"))
    await_(lambda: all(_answers(path) for path in sockets), 30, "both to answer")
    for path in sockets:
        for _ in range(CALLS):
            call(path, "POST", "/NetworkDriver.GetCapabilities")
    masters = [pid for pid in family(on.node.pid) if _is_plugin(pid)]
    return pss(masters), pss(family(empty.pid))


def _answers(path: Path) -> bool:
    return call(path, "POST", "/NetworkDriver.GetCapabilities").status == 200


def _is_plugin(pid: int) -> bool:
    """Tell whether a process is the plugin's own, master or worker."""
    try:
        return b"--managed" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:  # it has ended
        return False


def told(said: str, enable: Sequence[float], weft: float, empty: float, size: float) -> str:
    """Return the tables."""
    rows = [
        ("`docker plugin enable` to the first answer, s", Figure(enable).shown()),
        ("memory of the plugin (PSS of master and worker), MB", f"{weft:.1f}"),
        ("memory of an empty application with the same imports, MB", f"{empty:.1f}"),
        ("root filesystem, MB", f"{size:.0f}"),
    ]
    wanted = [
        Target("enable to the first answer, s", ENABLE_SECONDS, Figure(enable).median),
        Target("memory, times an empty application's", TIMES_EMPTY, weft / empty),
        Target("root filesystem, MB", IMAGE_MB, size),
    ]
    return "\n\n".join((f"{said}; {len(enable)} rounds.", table(("managed plugin", ""), rows), targets(wanted)))


if __name__ == "__main__":
    main()
