"""A network on the operator's own bridge: its containers are on his LAN, and nothing of his is changed.

node      br-lan 10.77.0.254/24 ---- pc  10.77.0.9 (a machine on the LAN, its default route by 10.77.0.254)
            lan0 192.0.2.1           mac 10.77.0.10 (another one)
              |
neighbour   lan0 192.0.2.2
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from tests.lab.engine import Engine
from tests.lab.matrix import both_engines
from tests.lab.net import Neighbour, NetNs
from tests.lab.node import Node
from tests.lab.process import CommandFailedError
from tests.lab.talk import listen, seen_by, start
from tests.lab.wait import await_
from tests.lab.weft import Weft

pytestmark = pytest.mark.engine

LAN = "br-lan"
HOST = IPv4Address("10.77.0.254")
PC = IPv4Address("10.77.0.9")
MAC = IPv4Address("10.77.0.10")
ADOPT = ("--subnet", "10.77.0.0/24", "-o", f"com.docker.network.bridge.name={LAN}")


@dataclass(frozen=True, slots=True)
class Lan:
    """The operator's bridge on a node, and two machines on it that answer."""

    node: Node
    pc: NetNs
    mac: NetNs

    def bridge(self) -> Any:  # noqa: ANN401 - JSON is anything
        """Return what can be set on the bridge, and its switches under /proc/sys."""
        (told,) = json.loads(self.node.run("ip", "-json", "-details", "link", "show", LAN).stdout)
        counts = ("timer", "fdb_n_learned")
        data = {key: value for key, value in told["linkinfo"]["info_data"].items() if not key.endswith(counts)}
        ours = ("address", "mtu", "group", "ifalias", "flags", "txqlen", "inet6_addr_gen_mode", "promiscuity")
        switches = self.node.run(
            "sh", "-c", f"grep -s . /proc/sys/net/ipv4/conf/{LAN}/* /proc/sys/net/ipv6/conf/{LAN}/*", check=False
        ).stdout
        return {key: told.get(key) for key in ours} | {"data": data, "switches": switches.splitlines()}

    def addresses(self) -> set[str]:
        """Return the bridge's IPv4 addresses."""
        (told,) = json.loads(self.node.run("ip", "-json", "-4", "address", "show", LAN).stdout)
        return {f"{one['local']}/{one['prefixlen']}" for one in told["addr_info"]}


@pytest.fixture
def lan(node: Node, tmp_path: Path) -> Iterator[Lan]:
    """Yield a LAN on the shared node; its bridge takes MAC and MTU from its ports, as a bridge does by default."""
    with ExitStack() as stack:
        stack.callback(node.run, "ip", "link", "del", LAN)
        node.run("ip", "link", "add", LAN, "type", "bridge")
        machines = []
        for name, address in (("pc", PC), ("mac", MAC)):
            netns = stack.enter_context(NetNs(name))
            machines.append(netns)
            stack.callback(node.run, "ip", "link", "del", name)
            node.beside.run(
                "ip", "link", "add", name, "mtu", "9000", "type", "veth", "peer", "eth0", "netns", netns.netns
            )
            node.run("ip", "link", "set", name, "master", LAN, "up")
            netns.ip("link", "set", "eth0", "mtu", "9000", "up")
            netns.ip("address", "add", f"{address}/24", "dev", "eth0")
            netns.ip("route", "add", "default", "via", str(HOST))
            listen(netns, tmp_path / name)
        node.run("ip", "address", "add", f"{HOST}/24", "dev", LAN)
        node.run("ip", "link", "set", LAN, "up")
        yield Lan(node, *machines)


@pytest.fixture(params=["0", "1"], ids=["br_netfilter=0", "br_netfilter=1"])
def bridged_frames(node: Node, request: pytest.FixtureRequest) -> Iterator[None]:
    """Show bridged frames to iptables, or not: with 1, FORWARD DROP holds inside a bridge, too."""
    knob = "/proc/sys/net/bridge/bridge-nf-call-iptables"
    found = node.run("cat", knob).stdout.strip()
    node.run("sh", "-c", f"echo {request.param} >{knob}")
    yield
    node.run("sh", "-c", f"echo {found} >{knob}")


@both_engines
@pytest.mark.usefixtures("bridged_frames")
def test_containers_join_the_lan_of_the_operator(
    engine: Engine, weft: Weft, neighbour: Neighbour, lan: Lan, tmp_path: Path
) -> None:
    listen(neighbour, tmp_path / "neighbour")
    neighbour.ip("route", "add", "10.77.0.0/24", "via", str(neighbour.node_v4))
    assert "-P FORWARD DROP" in engine.node.run("iptables", "-S", "FORWARD").stdout

    def between_machines() -> dict[str, object]:
        """Tell what the LAN's machines reach of each other, of the host, and of the world."""
        return {
            "pc to mac": seen_by(lan.pc, MAC),
            "pc to the host": "1"
            in lan.pc.run("bash", "-c", f"exec 3<>/dev/tcp/{HOST}/1 2>/dev/null; echo $?", check=False).stdout,
            "pc to the world": seen_by(lan.pc, neighbour.v4),
            "the world to pc": seen_by(neighbour, PC),
        }

    bridge, reached = lan.bridge(), between_machines()
    assert reached["pc to the world"] is None  # FORWARD DROP
    assert reached["the world to pc"] is None

    engine.docker("network", "create", "-d", "weft", *ADOPT, "--gateway", "10.77.0.1", "home")
    assert lan.addresses() == {"10.77.0.254/24", "10.77.0.1/24"}  # the second one was missing
    assert bridge["mtu"] == 9000
    hare = start(engine, "hare", "home", "--ip", "10.77.0.50")
    fox = start(engine, "fox", "home", "--ip", "10.77.0.51")
    assert hare.links()["eth0"].mtu == 9000
    assert lan.bridge() == bridge

    # on the LAN, both ways, as what they are
    assert await_(lambda: hare.seen_by(PC), 10, "an answer of the machine") == IPv4Address("10.77.0.50")
    assert await_(lambda: seen_by(lan.pc, IPv4Address("10.77.0.50")), 10, "an answer of the container") == PC
    assert "1 packets received" in hare.run("ping", "-c1", "-W5", "fox")
    # out through the host, as the host; not in
    assert await_(lambda: hare.seen_by(neighbour.v4), 10, "an answer of the neighbour") == neighbour.node_v4
    assert seen_by(neighbour, IPv4Address("10.77.0.50")) is None
    # and nothing is different between those that are no containers
    assert between_machines() == reached

    fox.remove()
    hare.remove()
    engine.docker("network", "rm", "home")
    await_(lambda: lan.addresses() == {"10.77.0.254/24"}, 10, "the gateway address to be gone")
    assert lan.bridge() == bridge
    assert between_machines() == reached
    ports = engine.node.run("ls", f"/sys/class/net/{LAN}/brif").stdout.split()
    assert sorted(ports) == ["mac", "pc"]


@both_engines
def test_a_gateway_address_that_is_there_stays(engine: Engine, weft: Weft, lan: Lan) -> None:
    bridge = lan.bridge()
    with pytest.raises(CommandFailedError, match=r"driver\.mtu=1400.*9000"):  # one port with less would lower his
        engine.docker("network", "create", "-d", "weft", *ADOPT, "-o", "com.docker.network.driver.mtu=1400", "home")
    engine.docker("network", "create", "-d", "weft", *ADOPT, "--gateway", str(HOST), "home")
    hare = start(engine, "hare", "home")
    assert hare.default() == (str(HOST), "eth0")
    assert lan.addresses() == {"10.77.0.254/24"}
    assert lan.bridge() == bridge
    hare.remove()
    engine.docker("network", "rm", "home")
    assert lan.addresses() == {"10.77.0.254/24"}
    assert lan.bridge() == bridge


@pytest.mark.usefixtures("bridged_frames")
def test_an_internal_network_keeps_its_containers_on_the_lan(
    engine: Engine, weft: Weft, neighbour: Neighbour, lan: Lan, tmp_path: Path
) -> None:
    listen(neighbour, tmp_path / "neighbour")
    engine.docker("network", "create", "-d", "weft", "--internal", *ADOPT, "--gateway", str(HOST), "home")
    hare = start(engine, "hare", "home", "--cap-add", "NET_ADMIN")
    assert hare.default() is None
    assert await_(lambda: hare.seen_by(PC), 10, "an answer of the machine") == hare.v4("home")
    hare.run("ip", "route", "add", "default", "via", str(HOST))
    assert hare.seen_by(neighbour.v4) is None


@both_engines
def test_a_name_that_is_not_taken_is_given_to_a_new_bridge(
    engine: Engine, weft: Weft, neighbour: Neighbour, tmp_path: Path
) -> None:
    """Also one that is called as Docker calls its own, but cannot be one of these."""
    listen(neighbour, tmp_path)
    ident = engine.docker("network", "create", "-d", "weft", "-o", "com.docker.network.bridge.name=br-new", "home")
    kind = json.loads(engine.node.run("ip", "-json", "-details", "link", "show", "br-new").stdout)[0]
    assert kind["linkinfo"]["info_kind"] == "bridge"
    assert json.loads(weft.cli("network", "inspect", ident, "--json").stdout)["adopted"] is False
    hare, fox = (start(engine, name, "home") for name in ("hare", "fox"))
    assert "1 packets received" in hare.run("ping", "-c1", "-W5", "fox")
    assert await_(lambda: hare.seen_by(neighbour.v4), 10, "an answer of the neighbour") == neighbour.node_v4
    hare.remove()
    fox.remove()
    engine.docker("network", "rm", "home")
    assert "br-new" not in engine.node.run("ls", "/sys/class/net").stdout.split()
