"""A registry on a node's loopback, by Debian's docker-registry: `docker plugin push` and `install` are really run.

dockerd talks plain HTTP to a registry in 127.0.0.0/8, so it needs to be told nothing. The storage is a folder: what one
node has pushed, another one can install.
"""

from pathlib import Path

from tests.lab.node import Node
from tests.lab.process import Process
from tests.lab.wait import await_

ADDRESS = "127.0.0.1:5000"

CONFIGURATION = """\
version: 0.1
log: {{level: warn}}
storage: {{filesystem: {{rootdirectory: {storage}}}, delete: {{enabled: true}}}}
http: {{addr: {address}}}
"""


def serve(node: Node, storage: Path) -> Process:
    """Start a registry in a node's network, on a folder of this machine's; wait until it answers."""
    storage.mkdir(parents=True, exist_ok=True)
    file = node.disk / "registry.yml"
    file.write_text(CONFIGURATION.format(storage=storage, address=ADDRESS), encoding="utf-8")
    process = node.beside.spawn("docker-registry", "serve", file, log=node.disk / "registry.log")

    def answers() -> bool:
        if not process.alive:
            raise RuntimeError(f"the registry ended with {process.returncode}:\n{process.text()[-2000:]}")
        return node.beside.run("curl", "-fsS", f"http://{ADDRESS}/v2/", check=False).returncode == 0

    await_(answers, 20, "the registry")
    return process
