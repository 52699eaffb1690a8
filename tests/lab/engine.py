"""A real dockerd in a node, and the words to talk to it.

The command line is the engine's own (/usr/bin/docker inside the node): the machine may have another one in
/usr/local/bin, and a newer client refuses what an older engine can do (28's: --mac-address on 20.10).
"""

import json
import signal
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

from tests.lab import image
from tests.lab.node import Node
from tests.lab.process import Environment, Process, exists, family, run
from tests.lab.unixhttp import Reply, call
from tests.lab.wait import await_

SOCKET = "/run/docker.sock"
CLI = "/usr/bin/docker"


class EngineError(Exception):
    """The engine's API answered with an error."""

    def __init__(self, method: str, target: str, reply: Reply) -> None:
        super().__init__(f"{method} {target}: {reply.status} {reply.body.decode(errors='replace').strip()}")
        self.status = reply.status


class Engine:
    """dockerd in a node, on the default socket there; `args` are further flags of dockerd."""

    def __init__(self, node: Node, *args: str, live_restore: bool = False) -> None:
        self.node = node
        self.args = (*args, *(["--live-restore"] if live_restore else []))
        self.log = node.disk / "dockerd.log"
        self._process: Process | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self.node.is_up:
            return
        try:
            if self.is_running:
                self.clean()
        finally:
            self.kill()

    @property
    def socket(self) -> Path:
        """The engine's socket, as the machine sees it."""
        return self.node.path(SOCKET)

    @property
    def environment(self) -> Environment:
        """What makes a client on the machine (docker-compose) talk to this engine."""
        return {"DOCKER_HOST": f"unix://{self.socket}"}

    @property
    def is_running(self) -> bool:
        """Tell whether dockerd lives."""
        return self._process is not None and self._process.alive

    @property
    def version(self) -> str:
        """The engine's version, 20.10.24 or so."""
        return str(self.api("GET", "/version")["Version"]).partition("+")[0]

    def log_text(self) -> str:
        """Return what dockerd has said, over all its starts."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def start(self, bound: float = 60) -> None:
        """Start dockerd (which starts its own containerd) and wait until it answers."""
        group = (
            f"--cgroup-parent=/{self.node.netns}"  # control groups are shared with the machine: `Node` removes its own
        )
        listen = f"--host=unix://{SOCKET}"
        # offline: else every swarm task first looks for a registry
        env = {"DOCKER_SERVICE_PREFER_OFFLINE_IMAGE": "1", "DOCKER_HOST": ""}
        self._process = self.node.spawn("/usr/sbin/dockerd", listen, group, *self.args, log=self.log, env=env)
        process = self._process

        def answers() -> bool:
            if not process.alive:
                raise RuntimeError(f"dockerd ended with {process.returncode}:\n{self.log_text()[-4000:]}")
            return call(self.socket, "GET", "/_ping", timeout=5).status == 200

        await_(answers, bound, f"dockerd in {self.node.netns}")

    def stop(self, bound: float = 60) -> None:
        """SIGTERM: dockerd stops its containers (unless live-restore) and its containerd."""
        if self._process is not None:
            self._process.stop(bound)

    def kill(self) -> None:
        """SIGKILL for dockerd alone: its containerd follows (PR_SET_PDEATHSIG), containers and their shims live on."""
        if self._process is not None and self._process.alive:
            members = family(self._process.pid)
            self._process.signal(signal.SIGKILL)
            self._process.wait()
            await_(lambda: not any(map(exists, members)), 20, "dockerd's containerd and proxies to end")

    def restart(self) -> None:
        """SIGTERM and start."""
        self.stop()
        self.start()

    def docker(self, *args: str, check: bool = True, timeout: float = 60) -> str:
        """Run `docker ARGS` as a person in the node would; return what it prints."""
        env = {"DOCKER_HOST": f"unix://{SOCKET}", "DOCKER_CONFIG": "/run/docker-config"}
        done = self.node.run(CLI, *args, check=check, timeout=timeout, env=env)
        return (done.stdout if check else done.stdout + done.stderr).strip()

    def compose(self, *args: str, cwd: Path, timeout: float = 120) -> str:
        """Run Debian's docker-compose ARGS on the machine against this engine; return all it prints."""
        done = run(["/usr/bin/docker-compose", *args], cwd=cwd, timeout=timeout, env=self.environment)
        return (done.stdout + done.stderr).strip()

    def api(self, method: str, target: str, body: object = None) -> Any:  # noqa: ANN401 - JSON is anything
        """Call the engine's API, where the command line is in the way; return the decoded answer."""
        reply = call(self.socket, method, target, body, timeout=120)
        if reply.status >= 400:
            raise EngineError(method, target, reply)
        return reply.json

    def load_image(self) -> None:
        """Import the test image, if this engine's disk does not have it."""
        if any(image.NAME in (each["RepoTags"] or ()) for each in self.api("GET", "/images/json")):
            return
        repository, _, tag = image.NAME.partition(":")
        changes = f"CMD {json.dumps(image.COMMAND)}"
        query = urlencode({"fromSrc": "-", "repo": repository, "tag": tag, "changes": changes})
        reply = call(self.socket, "POST", f"/images/create?{query}", image.archive(), timeout=120)
        if reply.status != 200 or b'"error"' in reply.body:
            raise EngineError("POST", "/images/create", reply)

    def clean(self) -> None:
        """Remove every container, network and volume but Docker's own."""
        for container in self.api("GET", "/containers/json?all=1"):
            self._delete(f"/containers/{container['Id']}?force=1&v=1")
        for network in self.api("GET", "/networks"):
            if network["Name"] not in {"bridge", "host", "none"}:
                self._delete(f"/networks/{network['Id']}")
        for volume in self.api("GET", "/volumes")["Volumes"] or ():
            self._delete(f"/volumes/{volume['Name']}?force=1")

    def _delete(self, target: str) -> None:
        """Delete; 404 (gone) and 409 (its removal is under way already) are as good."""

        def deleted() -> bool:
            reply = call(self.socket, "DELETE", target, timeout=60)
            return reply.status in {204, 200, 404}

        await_(deleted, 30, f"DELETE {target}")
