"""A host whose weft has a small disk of its own under its state, and containers on it that go on talking."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.faults import chatter
from tests.lab.node import Node
from tests.lab.process import Process
from tests.lab.wait import await_
from tests.lab.weft import STATE, Weft
from tests.libnetwork import CallRefusedError, Container, Libnetwork, Network

DISK_KB = 1024


class Talk:
    """Two containers on a network, one of which asks the other all the time."""

    def __init__(self, docker: Libnetwork, network: Network, folder: Path, stack: ExitStack) -> None:
        self.one, self.two = docker.start_container(network), docker.start_container(network)
        self._log = folder / f"talk-{self.one.netns}.log"
        address = str(self.two.address(network))
        for container, words in ((self.two, ("echo",)), (self.one, ("talk", address))):
            argv = (*container.door(), sys.executable, chatter.__file__, *words)
            log = self._log if words[0] == "talk" else self._log.with_suffix(".echo")
            stack.enter_context(Process(argv, log, None, forks=False))
        await_(lambda: "+++" in self._log.read_text(encoding="ascii"), 20, "the first answers")
        self._from = len(self._log.read_text(encoding="ascii"))

    def goes_on(self) -> bool:
        """Tell whether nothing was lost so far, once more is said; the first before ARP are not counted."""
        before = len(self._said())
        await_(lambda: len(self._said()) > before + 20, 60, "more to be said")
        return "-" not in self._said()

    def _said(self) -> str:
        return self._log.read_text(encoding="ascii")[self._from :]


class DiskHost:
    """A node with weft on a small disk, a network, and two containers that talk."""

    def __init__(self, node: Node, weft: Weft, docker: Libnetwork, stack: ExitStack) -> None:
        self.node = node
        self.weft = weft
        self.docker = docker
        self._stack = stack
        self.network = docker.create_network(subnet="10.9.0.0/24", name="meadow")
        self.talk = self.pair(self.network)

    def pair(self, network: Network) -> Talk:
        """Start two containers that talk."""
        return Talk(self.docker, network, self.node.disk, self._stack)

    @property
    def store(self) -> Path:
        """The store, as the machine sees it."""
        return self.node.path(f"{STATE}/weft.db")

    def mount(self, options: str) -> None:
        """Mount weft's disk again with these options."""
        self.node.run("mount", "-o", f"remount,{options}", STATE)

    def fill(self) -> None:
        """Leave no byte free on weft's disk."""
        self.node.run("dd", "if=/dev/zero", f"of={STATE}/full", "bs=1k", check=False)
        free = os.statvfs(self.store.parent).f_bavail
        assert free == 0, free

    def make_room(self) -> None:
        """Take away what filled it."""
        self.node.run("rm", f"{STATE}/full")

    def links(self) -> list[str]:
        """Return the links of weft's on the host."""
        shown = json.loads(self.node.run("ip", "-j", "link", "show", "group", "22511").stdout)
        return sorted(one["ifname"] for one in shown if one)

    def refusal(self) -> str:
        """Have a network be refused; return why."""
        with pytest.raises(CallRefusedError) as refused:
            self.docker.create_network(subnet="10.99.0.0/24")
        return refused.value.said

    def refuses_all(self, *words: str) -> None:
        """See that every call that promises something is refused with these words, and the handshake is not."""
        ids = {"NetworkID": self.network.id, "EndpointID": "ab" * 32}
        interface = {"Address": "10.9.0.200/24", "AddressIPv6": "", "MacAddress": ""}
        for method, body in (
            ("NetworkDriver.CreateNetwork", {"NetworkID": "cd" * 32, "Options": {}, "IPv4Data": [], "IPv6Data": []}),
            ("NetworkDriver.CreateEndpoint", {**ids, "Interface": interface, "Options": {}}),
            ("NetworkDriver.Join", {**self.talk.one.endpoints[0].ids, "SandboxKey": self.talk.one.key}),
            ("NetworkDriver.DeleteNetwork", {"NetworkID": self.network.id}),
            ("IpamDriver.RequestPool", {"AddressSpace": "weft-local"}),
        ):
            said = self.weft.call(method, body).json
            assert all(word in said.get("Err", "") and word in said.get("Error", "") for word in words), (method, said)
        for method in ("Plugin.Activate", "NetworkDriver.GetCapabilities", "IpamDriver.GetCapabilities"):
            assert "Err" not in self.weft.call(method).json

    def status(self) -> dict[str, Any]:
        """Return what `weft status` says."""
        said: dict[str, Any] = json.loads(self.weft.cli("status", "--json", check=False).stdout)
        return said

    def is_well(self) -> bool:
        """Tell whether `weft status` finds nothing wrong."""
        return self.weft.cli("status", check=False).returncode == 0

    def await_well(self) -> None:
        """Wait until it does."""
        await_(self.is_well, 30, f"health; {self.weft.cli('status', check=False).stdout}")

    def ids(self) -> set[str]:
        """Return the ids of the networks that weft knows."""
        return {one["id"] for one in json.loads(self.weft.cli("network", "ls", "--json").stdout)}

    def joins(self) -> Container:
        """Start one more container on the network, which must work, and have it answered by one that is there."""
        container = self.docker.start_container(self.network)
        self.asks(container)
        return container

    def asks(self, container: Container) -> None:
        """Have a container on the network be answered by one that was there from the beginning."""
        container.run(sys.executable, chatter.__file__, "ask", str(self.talk.two.address(self.network)))


@contextmanager
def disk_host() -> Iterator[DiskHost]:
    """Yield such a host; all of it goes."""
    with ExitStack() as stack:
        node = stack.enter_context(Node("disk"))
        node.run("mkdir", "-p", STATE)
        node.run("mount", "-t", "tmpfs", "-o", f"size={DISK_KB}k,mode=700", "tmpfs", STATE)
        weft = stack.enter_context(Weft(node, settings={"WEFT_RECONCILE_INTERVAL": "5"}))
        docker = stack.enter_context(Libnetwork(weft.socket, netns=node.netns))
        yield DiskHost(node, weft, docker, stack)
