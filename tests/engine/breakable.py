"""Hosts to be broken, traffic that must go on all the same, and a weft that can be held in the middle of a call."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.engine.conftest import Host
from tests.lab.engine import Engine
from tests.lab.image import NAME
from tests.lab.names import BIN
from tests.lab.node import Node
from tests.lab.process import CommandFailedError
from tests.lab.wait import await_
from tests.lab.weft import Weft

HELD = '''\
#!{python}
"""weft, but calls are held while a file says so, and orphans are swept after a second."""
import pathlib, sys, time
from flask import request
from plugin import server
from plugin.cli.main import main
from plugin.engine import endpoints, networks, orphans

gate = pathlib.Path({gate!r})

def wait(label):
    if (gate / label).exists():
        (gate / (label + ".reached")).touch()
        while (gate / label).exists():
            time.sleep(0.01)

def hold(kind, name):
    act = getattr(kind, name)

    def held(self, *args):
        wait(kind.__name__ + "." + name)
        return act(self, *args)

    setattr(kind, name, held)

make = server.create_app

def create_app(*args, **kwargs):
    app = make(*args, **kwargs)
    app.before_request(lambda: wait(request.path.strip("/").replace("/", "-")))
    return app

server.create_app = create_app
for kind, name in ((endpoints.Endpoints, "create"), (endpoints.Endpoints, "join"), (networks.Networks, "create")):
    hold(kind, name)
orphans.APART_SECONDS = 1.0
sys.exit(main())
'''


class Gate:
    """Holds calls of the weft whose program is `program`.

    Those of Docker's before anything is done (`NetworkDriver.Leave`), or of the engine's, when their deadline runs:
    `Endpoints.create`, `Endpoints.join`, `Networks.create`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = folder / "weft"
        self.program.write_text(HELD.format(python=BIN / "python", gate=str(folder)), encoding="utf-8")
        self.program.chmod(0o755)

    def hold(self, call: str) -> None:
        """Hold the next calls of this kind."""
        (self.folder / f"{call}.reached").unlink(missing_ok=True)
        (self.folder / call).touch()

    def await_reached(self, call: str) -> None:
        """Wait until one is being held."""
        await_((self.folder / f"{call}.reached").exists, 30, f"{call} to be asked for")

    def release(self, call: str) -> None:
        """Let them go on."""
        (self.folder / call).unlink()


@contextmanager
def breakable_host(node: Node, *flags: str, program: Path = BIN / "weft") -> Iterator[Host]:
    """Yield dockerd (with further `flags`) and weft in a node; its plug is pulled after, as it is.

    Tidying up by `docker rm` would take 45 s for each container once weft is gone.
    """
    host = Host(node, Engine(node, *flags), Weft(node, program=program))
    try:
        host.weft.start()
        host.engine.start()
        host.engine.load_image()
        yield host
    finally:
        node.power_off()


def run_container(engine: Engine, name: str, *flags: str, network: str = "meadow") -> None:
    """Start a container that does nothing."""
    engine.docker("run", "-d", "--name", name, "--network", network, *flags, NAME)


def reaches(engine: Engine, source: str, target: str) -> bool:
    """Tell whether a container gets an answer from another one."""
    try:
        return "1 packets received" in engine.docker("exec", source, "ping", "-c1", "-W2", target)
    except CommandFailedError:
        return False


def listed(weft: Weft, noun: str) -> list[dict[str, Any]]:
    """Return what weft knows: `network` or `endpoint`."""
    found: list[dict[str, Any]] = json.loads(weft.cli(noun, "ls", "--json").stdout)
    return found


def await_healthy(weft: Weft) -> None:
    """Wait until nothing differs from what is wanted."""
    await_(lambda: weft.cli("status", check=False).returncode == 0, 20, "a healthy weft")


def look(weft: Weft) -> None:
    """Make weft compare with Docker's list at once: a call that lost its body is reason enough."""
    assert "without its body" in weft.call("NetworkDriver.Leave").json["Err"]


def await_swept(weft: Weft, noun: str, ident: str) -> None:
    """Wait until what Docker forgot is swept: two looks as far apart as `HELD` says, or 20 s after the start."""

    def swept() -> bool:
        look(weft)
        return ident not in {row["id"] for row in listed(weft, noun)}

    await_(swept, 60, f"{noun} {ident[:12]} to be swept")


class Talk:
    """Two containers that talk: a ping five times a second, and one TCP connection."""

    def __init__(self, engine: Engine, source: str, target: str) -> None:
        self.engine = engine
        self.source, self.target = source, target
        engine.docker("exec", "-d", target, "sh", "-c", "tail -f /dev/null | nc -l -p 7000 >/tmp/got")
        listens = "grep -q :1B58 /proc/net/tcp /proc/net/tcp6"
        await_(lambda: self._says(target, listens) is not None, 10, "the listener")
        engine.docker("exec", "-d", source, "sh", "-c", f"ping -i 0.2 {target} >/tmp/ping 2>&1")
        send = f"while echo word; do usleep 50000; done | nc {target} 7000"
        engine.docker("exec", "-d", source, "sh", "-c", send)
        self.await_more()

    def _says(self, container: str, script: str) -> str | None:
        try:
            return self.engine.docker("exec", container, "sh", "-c", script)
        except CommandFailedError:
            return None

    def heard(self) -> int:
        """Return the bytes that came over the connection so far."""
        return int(self._says(self.target, "wc -c </tmp/got") or 0)

    def await_more(self) -> None:
        """Wait until more has come over the same connection."""
        before = self.heard()
        await_(lambda: self.heard() > before + 20, 10, "the connection to carry more")

    def stop(self) -> None:
        """End it, and be sure that no ping was lost and that the connection held."""
        self.await_more()
        self._says(self.source, "killall -INT ping; killall nc; true")
        said = await_(lambda: self._says(self.source, "grep received /tmp/ping"), 10, "what ping counted")
        sent, received = (int(part.split()[0]) for part in said.split(",")[:2])
        assert sent - received <= 1, said  # one may have been under way when it was told to end
        assert received > 3, said


@contextmanager
def beside(engine: Engine, *args: str) -> Iterator[None]:
    """Run `docker ARGS` in the background while the block runs, whatever becomes of it."""
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(engine.docker, *args, check=False, timeout=120)
        yield
        running.result()
