"""The managed plugin, as its users meet it: built by `make`, pushed to a registry, installed from there by name.

`Workshop` is the maker's host, with a way out to Debian and PyPI; `PluginHost` a user's, with none.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.lab import base, registry
from tests.lab.engine import CLI, Engine
from tests.lab.names import REPO
from tests.lab.net import NetNs
from tests.lab.node import Node
from tests.lab.process import Process, run
from tests.lab.unixhttp import call
from tests.lab.wait import await_

SOURCES = ("Makefile", "Dockerfile", ".dockerignore", "plugin.json", "pyproject.toml", "constraints.txt")
TREES = ("plugin", "drivers")
TEXTS = ("README.md", "LICENSE")

NAME = "weft"
DRIVER = f"{NAME}:latest"
REPOSITORY = f"{registry.ADDRESS}/{NAME}"
NEWER_SET = "of_a_newer_weft"
STATE, CONTROL = "/var/lib/weft", "/run/weft/control.sock"


class Workshop:
    """Builds versions of the plugin and pushes them into `storage`, the registry's folder, which outlives it.

    The node needs a way out (`WayOut`): the image is made of Debian's packages and of Python's.
    """

    def __init__(self, node: Node, engine: Engine, storage: Path, folder: Path, suite: str = base.SUITE) -> None:
        self.engine = engine
        self._folder = folder
        self._image = base.image(suite)
        engine.docker("import", "-c", 'CMD ["bash"]', str(base.archive(suite)), self._image, timeout=300)
        registry.serve(node, storage)

    def push(self, version: str, tag: str, *, newer_rules: bool = False) -> None:
        """`make plugin-push` of this tree as another version of it; `newer_rules`: its rules differ by `NEWER_SET`."""
        self._take_tree()
        self._edit("plugin/__init__.py", r"(?m)^__version__ = .*$", f'__version__ = "{version}"')
        if newer_rules:
            self._edit(
                "drivers/ruleset.py", r'(?m)^TEXT: Final = f"""$', rf"\g<0>\n    set {NEWER_SET} {{{{ type ifname; }}}}"
            )
        self._make("plugin-push", f"REGISTRY={registry.ADDRESS}", f"TAG={tag}")

    def rootfs(self) -> Path:
        """`make plugin-rootfs` of this tree: return the folder that `docker plugin create` takes."""
        self._take_tree()
        self._make("plugin-rootfs")
        return self._folder / "build/plugin"

    def _take_tree(self) -> None:
        for name in (*SOURCES, *TEXTS):
            shutil.copy(REPO / name, self._folder / name)
        for name in TREES:
            shutil.copytree(REPO / name, self._folder / name, ignore=_caches, dirs_exist_ok=True)

    def _make(self, *words: str) -> None:
        environment = {**self.engine.environment, "DOCKER_BUILDKIT": "0"}
        run(
            ["make", *words, f"BASE_IMAGE={self._image}", f"DOCKER={CLI}"],
            cwd=self._folder,
            timeout=900,
            env=environment,
        )

    def _edit(self, name: str, pattern: str, text: str) -> None:
        file = self._folder / name
        changed, count = re.subn(pattern, text, file.read_text(encoding="utf-8"))
        if count != 1:
            raise RuntimeError(f"{name} has {count} places like {pattern}")
        file.write_text(changed, encoding="utf-8")

    def image_bytes(self) -> int:
        """Return the size of the plugin's root filesystem as Docker says it."""
        return int(self.engine.api("GET", f"/images/{NAME}-rootfs/json")["Size"])


def _caches(_: str, names: list[str]) -> list[str]:
    return [name for name in names if name == "__pycache__"]


class PluginHost:
    """A Docker host whose weft is the plugin, from a registry on its own loopback."""

    def __init__(self, node: Node, engine: Engine, storage: Path, command: Path) -> None:
        self.node = node
        self.engine = engine
        self._storage = storage
        self._command = command

    @property
    def state(self) -> Path:
        """The folder of the store, as the command sees it.

        On a host with the machine's root it is a folder as any, not the lab's own mount. A host with another root has
        no Python: there the command is the machine's, and the lab's mount is where both can see it (SQLite would follow
        /proc/PID/root as a symbolic link, and land in the machine's own root).
        """
        return Path(STATE) if self.node.root is None else self.node.disk / STATE[1:] / NAME

    def boot(self) -> None:
        """Give it power and start what a host starts."""
        if not self.node.is_up:
            self.node.up()
        if self.node.root is None:
            self.node.run("umount", STATE)
        registry.serve(self.node, self._storage)

    def install(self, tag: str, *settings: str, alias: str = NAME, enabled: bool = True) -> str:
        """`docker plugin install`, as a person would who has read what it asks for."""
        grant = ("--grant-all-permissions", "--alias", alias, *(() if enabled else ("--disable",)))
        if self.node.root is not None:
            settings = (*settings, f"state.source={STATE}")
        return self.engine.docker("plugin", "install", *grant, f"{REPOSITORY}:{tag}", *settings, timeout=180)

    def docker_plugin(self, *args: str, check: bool = True) -> str:
        """`docker plugin ARGS`."""
        return self.engine.docker("plugin", *args, check=check, timeout=180)

    def upgrade(self, tag: str) -> None:
        """`docker plugin upgrade`, which wants it disabled.

        Where the state is elsewhere Docker would mount the default place again, though `inspect` shows the other one
        (28.5.2): there it is removed and installed, with its settings, as docs/install.md says.
        """
        if self.node.root is None:
            self.docker_plugin("upgrade", "--grant-all-permissions", "--skip-remote-check", NAME, f"{REPOSITORY}:{tag}")
            return
        settings = [one for one in self.inspect()["Settings"]["Env"] if not one.endswith("=")]
        self.docker_plugin("rm", "-f", NAME)
        self.install(tag, *settings, enabled=False)

    def inspect(self, name: str = NAME) -> dict[str, Any]:
        """Return what Docker says of the plugin."""
        found: dict[str, Any] = self.engine.api("GET", f"/plugins/{name}:latest/json")
        return found

    def is_enabled(self) -> bool:
        """Tell whether the plugin is there and runs."""
        return any(one["Name"] == DRIVER and one["Enabled"] for one in self.engine.api("GET", "/plugins"))

    def weft(self, *args: str, check: bool = True, control: str = CONTROL) -> subprocess.CompletedProcess[str]:
        """Run the command, the one file, on that host: `weft ARGS`."""
        if self.node.root is None:
            env = {"WEFT_CONTROL": control, "WEFT_STATE_DIR": STATE}
            return self.node.run("/usr/bin/python3", self._command, *args, check=check, env=env)
        env = {"WEFT_CONTROL": str(self.node.path(control)), "WEFT_STATE_DIR": str(self.state)}
        env["WEFT_SOCKET"] = str(self.node.path("/run/docker/plugins/weft.sock"))
        return self.node.beside.run("/usr/bin/python3", self._command, *args, check=check, env=env)

    def call(self, method: str, name: str = NAME) -> Any:  # noqa: ANN401 - JSON is anything
        """Send the plugin a request as Docker does, and return the answer."""
        path = self.node.path(f"/run/docker/plugins/{self.inspect(name)['Id']}/weft.sock")
        return call(path, "POST", f"/{method}", timeout=30).json

    def log_lines(self, plugin: str) -> list[str]:
        """Return the lines of dockerd's log that are the plugin's own."""
        return [line for line in self.engine.log_text().splitlines() if f"plugin={plugin}" in line]


ASK = """
import http.client, signal, sys, time
host, port, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
going, good, failed = True, 0, []
def stop(*_):
    global going
    going = False
signal.signal(signal.SIGTERM, stop)
while going:
    try:
        line = http.client.HTTPConnection(host, port, timeout=5)
        line.request("GET", path)
        answer = line.getresponse()
        answer.read()
        line.close()
        if answer.status != 200: raise OSError(answer.status)
        good += 1
    except (OSError, http.client.HTTPException) as error:
        failed.append(repr(error))
    if good == 1: print("first", flush=True)
    time.sleep(0.01)
print("good", good, "failed", len(failed), failed[:3], flush=True)
"""


class Requests:
    """A client that asks for a page again and again, each time by a new connection, and counts what fails."""

    def __init__(self, place: NetNs, log: Path, address: object, port: int, page: str) -> None:
        argv = (sys.executable, "-c", ASK, str(address), str(port), page)
        self._process: Process = place.spawn(*argv, log=log)
        await_(lambda: "first" in self._process.text(), 20, "the first answer")

    def stop(self) -> tuple[int, int, str]:
        """End it; return how many answers there were, how many failed, and its own words."""
        self._process.stop()
        said = self._process.text().splitlines()[-1]
        _, good, _, failed, *_ = said.split()
        return int(good), int(failed), said


def zipapp(folder: Path) -> Path:
    """`make zipapp` of this tree, in a folder of the test's; return the file it makes."""
    file = folder / "weft.pyz"
    run(["make", "zipapp", f"ZIPAPP={file}"], cwd=REPO, timeout=300)
    return file
