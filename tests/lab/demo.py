"""`make demo`: weft with a real Docker Engine, step by step, with the commands a person would type.

With the engine that runs on this machine, if there is one and no weft beside it; else with an engine in namespaces of
its own, which this machine's network does not notice. Either way everything is cleaned up.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.lab import image
from tests.lab.engine import SOCKET as DOCKER_SOCKET
from tests.lab.engine import Engine
from tests.lab.net import Neighbour
from tests.lab.node import Node
from tests.lab.process import Place, run
from tests.lab.unixhttp import call
from tests.lab.wait import await_
from tests.lab.weft import CONTROL, SOCKET, STATE, Weft

NETWORK, ANN, BOB, CAT, WEB = "weft-demo", "weft-demo-ann", "weft-demo-bob", "weft-demo-cat", "weft-demo-web"
PORT = 18080
RANGE = "10000-19999"
PINGS = 40
STATE_FILES = ("weft.db", "weft.db-wal", "weft.db-shm", "serve.lock", "worker.lock")
BOLD, DIM, PLAIN = ("\033[1m", "\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "", "")


class Here(Node):
    """This machine itself as a Docker host, with what is running on it."""

    forks = False

    def __init__(self) -> None:
        super().__init__("here")
        self.disk = Path(tempfile.mkdtemp(prefix="weft-demo-"))
        self._attached = False

    @property
    def pid(self) -> int:
        """A process of this machine: ours."""
        return os.getpid()

    @property
    def is_up(self) -> bool:
        """Tell whether its network has a name."""
        return self._attached

    def path(self, inside: str) -> Path:
        """Return the path itself."""
        return Path(inside)

    def door(self) -> tuple[str, ...]:
        """Return nothing: we are here."""
        return ()

    def up(self) -> None:
        """Give its network a name, so that a wire can be drawn to it."""
        run(["ip", "netns", "attach", self.netns, str(os.getpid())])
        self._attached = True

    def power_off(self) -> None:
        """End what was started here, and take the name and weft's own files away: none was there before."""
        self.end_spawned()
        if self._attached:
            run(["ip", "netns", "del", self.netns])
            self._attached = False
        for left in (SOCKET, CONTROL, *(f"{STATE}/{name}" for name in STATE_FILES)):
            Path(left).unlink(missing_ok=True)
        for folder in (Path(CONTROL).parent, Path(STATE)):
            with suppress(OSError):  # not empty: somebody else's; or gone
                folder.rmdir()

    def down(self) -> None:
        """Leave this machine as it was."""
        self.power_off()
        shutil.rmtree(self.disk, ignore_errors=True)


@dataclass(frozen=True)
class Demo:
    """The play: an engine, weft, and a world outside to reach."""

    place: Place
    engine: Engine
    weft: Weft
    world: Neighbour
    docker: str

    def play(self) -> None:
        """Show what weft does; raise if it does not."""
        step("A network. The driver is weft; everything else is as with Docker's own bridge.")
        self.type("docker", "network", "create", "-d", "weft", NETWORK)
        step("Two containers on it talk to each other by name.")
        self.start(ANN)
        self.start(BOB)
        self.type("docker", "exec", ANN, "ping", "-c", "2", BOB)
        step(
            f"They reach out through NAT. {self.world.v4} is a host of its own, next door; it sees this host's address."
        )
        self.reach_out()
        step(
            "A published port answers the host and the neighbour; a range of 10,000 is one element, without a process."
        )
        self.publish()
        step("What weft holds, and whether the host is as wanted.")
        self.type("weft", "network", "ls")
        self.type("weft", "endpoint", "ls")
        self.type("weft", "status")
        step("Now weft is killed with SIGKILL, while the two go on talking.")
        self.survive()
        step("It knows what it knew. A third container joins, and talks to both.")
        self.start(CAT)
        self.type("docker", "exec", CAT, "ping", "-c", "1", ANN)
        self.type("docker", "exec", CAT, "ping", "-c", "1", BOB)
        self.type("weft", "status")
        step("When the last network goes, nothing of weft is left on the host.")
        self.type("docker", "rm", "-f", ANN, BOB, CAT, WEB)
        self.type("docker", "network", "rm", NETWORK)
        self.nothing_left()

    def start(self, name: str) -> None:
        """Start a container on the network."""
        self.type("docker", "run", "-d", "--name", name, "--network", NETWORK, image.NAME)

    def reach_out(self) -> None:
        """Fetch a page from the world outside, which tells whom it saw."""
        log = self.engine.node.disk / "world.log"
        server = self.world.spawn(sys.executable, "-c", PAGE, str(self.world.v4), log=log)
        await_(lambda: "ready" in server.text(), 20, "the world's web server")
        said = self.type("docker", "exec", ANN, "wget", "-T", "5", "-qO-", f"http://{self.world.v4}:8000/")
        if str(self.world.node_v4) not in said:
            raise SystemExit(f"the world saw somebody else than {self.world.node_v4}")

    def publish(self) -> None:
        """Publish a web server and a long range; ask for them from the host and from next door."""
        ports = ("-p", f"{PORT}:80", "-p", f"{RANGE}:{RANGE}/udp")
        serve = ("httpd", "-f", "-p", "80", "-h", "/www")
        self.type("docker", "run", "-d", "--name", WEB, "--network", NETWORK, *ports, image.NAME, *serve)
        self.type("weft", "port", "ls")
        for client, address in ((self.place, "127.0.0.1"), (self.place, "[::1]"), (self.world, self.world.node_v4)):
            where = "here" if client is self.place else "next door"
            show(["curl", f"http://{address}:{PORT}/", f"  # from {where}"])
            page = await_(partial(fetch, client, f"http://{address}:{PORT}/"), 20, f"the page, {where}")
            say(page)
        self.type("nft", "list", "map", "inet", "weft", "range4")

    def survive(self) -> None:
        """Kill weft between two pings of many, start it again, and count what was lost."""
        log = self.engine.node.disk / "ping.log"
        typed = ["docker", "exec", ANN, "ping", "-i", "0.1", "-c", str(PINGS), BOB]
        show([*typed, "&"])
        ping = self.place.spawn(self.docker, *typed[1:], log=log, env=self.environment)
        await_(lambda: "seq=5 " in ping.text(), 20, "the first pings")
        show(["kill", "-9", str(self.weft.pid), "   # and its worker"])
        self.weft.kill()
        seen = ping.text().count("seq=")
        await_(lambda: ping.text().count("seq=") >= seen + 5, 20, "five more pings without weft")
        say(f"{ping.text().count('seq=') - seen} pings went through while there was no weft")
        show(["weft", "serve", "&"])
        self.weft.start()
        ping.wait(60)
        summary = next(line for line in ping.text().splitlines() if "packets transmitted" in line)
        say(summary)
        if f"{PINGS} packets received" not in summary:
            raise SystemExit("packets were lost")

    def nothing_left(self) -> None:
        """Show that the host is free of weft."""
        self.type("ip", "-br", "link", "show", "group", "22511")
        self.type("nft", "list", "tables")
        if "weft" in self.place.run("nft", "list", "tables").stdout:
            raise SystemExit("the table inet weft is still there")

    @property
    def environment(self) -> dict[str, str]:
        """What the docker command is to know."""
        return {"DOCKER_HOST": f"unix://{DOCKER_SOCKET}", "DOCKER_CONFIG": "/run/weft-demo-docker-config"}

    def type(self, program: str, *args: str) -> str:
        """Show a command as a person would type it, run it, and show and return what it said."""
        show([program, *args])
        if program == "weft":
            done = self.weft.cli(*args)
        else:
            done = self.place.run(self.docker if program == "docker" else program, *args, env=self.environment)
        for line in done.stdout.splitlines():
            say(line)
        return done.stdout

    def clean_up(self) -> None:
        """Remove what the play has made, however far it came."""
        if self.weft.is_running:
            for argv in (
                ["rm", "-f", ANN, BOB, CAT, WEB],
                ["network", "rm", NETWORK],
                ["image", "rm", "-f", image.NAME],
            ):
                self.place.run(self.docker, *argv, check=False, env=self.environment)


PAGE = """
import http.server, sys
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
        self.wfile.write(b"hello from next door, I see you as " + self.client_address[0].encode() + b"\\n")
server = http.server.HTTPServer((sys.argv[1], 8000), Page)
print("ready", flush=True)
server.serve_forever()
"""


FETCH = """
import sys, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
print(opener.open(sys.argv[1], timeout=5).read().decode().strip())
"""


def fetch(client: Place, url: str) -> str:
    """Return a page as a client gets it; empty if it does not."""
    return client.run(sys.executable, "-c", FETCH, url, check=False).stdout.strip()


def step(text: str) -> None:
    """Say what comes next."""
    sys.stdout.write(f"\n{BOLD}{text}{PLAIN}\n")
    sys.stdout.flush()


def show(argv: Sequence[str]) -> None:
    """Show what is typed."""
    sys.stdout.write(f"  $ {' '.join(argv)}\n")
    sys.stdout.flush()


def say(line: str) -> None:
    """Show what was said."""
    sys.stdout.write(f"{DIM}    {line}{PLAIN}\n")
    sys.stdout.flush()


def _runs(socket: str) -> bool:
    try:
        return call(Path(socket), "GET", "/_ping", timeout=5).status == 200
    except OSError:
        return False


def _engine_of_this_machine() -> str | None:
    """Return the docker command, if this machine's engine can be used without touching a weft that is in use."""
    docker = shutil.which("docker")
    if docker is None or not _runs(DOCKER_SOCKET):
        return None
    if any(Path(one).exists() for one in (SOCKET, f"{STATE}/weft.db")):
        say(f"this machine has a weft already ({SOCKET}, {STATE}), which is left alone")
        return None
    return docker


@contextmanager
def _stage() -> Iterator[Demo]:
    with ExitStack() as stack:
        docker = _engine_of_this_machine()
        if docker is None:
            step("Docker Engine is started in namespaces of its own: this machine's network does not notice.")
            node = stack.enter_context(Node("demo"))
            engine = stack.enter_context(Engine(node))
            world = stack.enter_context(Neighbour(node))
            demo = Demo(node, engine, Weft(node), world, "/usr/bin/docker")
        else:
            step("The Docker Engine of this machine is used.")
            here = stack.enter_context(Here())
            engine = Engine(here)
            world = stack.enter_context(Neighbour(here, way_out=False))
            demo = Demo(here, engine, Weft(here), world, docker)
        engine.load_image()
        show(["weft", "serve", "&"])
        stack.enter_context(demo.weft)
        stack.callback(demo.clean_up)
        version = demo.weft.cli("--version").stdout.strip()
        say(f"{version} beside Docker Engine {engine.version}")
        yield demo


def main() -> int:
    """Play, and clean up."""
    with _stage() as demo:
        demo.play()
    step("All of it is cleaned up.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
