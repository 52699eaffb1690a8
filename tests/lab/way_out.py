"""A node's way to Debian and PyPI: for `docker build`, and only where a test builds something.

slirp4netns passes on what the node sends as if this machine's own programs had sent it; no link, rule or route of the
machine's own is needed. What listens on the machine's loopback stays out of reach.
"""

from types import TracebackType
from typing import Self

from tests.lab.node import Node
from tests.lab.process import Process
from tests.lab.wait import await_

LINK = "tap0"


class WayOut:
    """`slirp4netns` for one node, while the block runs."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._process: Process | None = None

    def __enter__(self) -> Self:
        argv = ("slirp4netns", "--configure", "--mtu=65520", "--disable-host-loopback", str(self._node.pid), LINK)
        self._process = Process(argv, self._node.disk / "slirp4netns.log", None, forks=False)
        await_(lambda: "default" in self._node.run("ip", "route").stdout, 10, "the node's way out")
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        if self._process is not None:
            self._process.kill()
