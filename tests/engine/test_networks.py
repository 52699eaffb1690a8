"""Networks as users make them: addresses, names, gateways, the way out, and nothing left when they go."""

import json
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from tests.engine.conftest import look
from tests.lab.engine import Engine
from tests.lab.matrix import both_engines
from tests.lab.net import Neighbour
from tests.lab.talk import Container, listen, seen_by, start
from tests.lab.wait import await_
from tests.lab.weft import Weft

pytestmark = pytest.mark.engine


def create(engine: Engine, name: str, *args: str) -> str:
    """`docker network create -d weft`; return the network's id."""
    return engine.docker("network", "create", "-d", "weft", *args, name)


def endpoint(weft: Weft, container: Container, network: str) -> dict[str, Any]:
    """Return what `weft endpoint inspect` says of a container on a network."""
    ident = container.on(network)["EndpointID"]
    told: dict[str, Any] = json.loads(weft.cli("endpoint", "inspect", ident, "--json").stdout)
    return told


def links(engine: Engine) -> set[str]:
    """Return the links of the host."""
    return set(engine.node.run("ls", "/sys/class/net").stdout.split())


def bridge_mtu(engine: Engine, weft: Weft, network: str) -> str:
    """Return the MTU of a network's bridge."""
    link = json.loads(weft.cli("network", "inspect", network, "--json").stdout)["link"]
    return engine.node.run("cat", f"/sys/class/net/{link}/mtu").stdout.strip()


def listens(*containers: Container) -> None:
    """Wait until containers answer for themselves."""
    for container in containers:
        await_(lambda one=container: one.seen_by("localhost"), 10, f"{container.name} to listen")  # type: ignore[misc]


@both_engines
def test_dual_stack_with_everything_chosen_by_hand(
    engine: Engine, weft: Weft, neighbour: Neighbour, tmp_path: Path
) -> None:
    before = look(engine.node)
    listen(neighbour, tmp_path)
    ident = create(
        engine,
        "meadow",
        *("--subnet", "10.20.0.0/24", "--gateway", "10.20.0.200", "--aux-address", "printer=10.20.0.1"),
        *("--ipv6", "--subnet", "fd20::/64", "--gateway", "fd20::99", "--aux-address", "printer6=fd20::1"),
        *("-o", "com.docker.network.driver.mtu=1400"),
    )
    mac = "02:42:0a:14:00:4d"
    hare = start(engine, "hare", "meadow", "--ip", "10.20.0.77", "--ip6", "fd20::77", "--mac-address", mac)
    fox = start(engine, "fox", "meadow")

    # what docker inspect says is what the container has
    assert hare.links() == {"eth0": (link := hare.links()["eth0"])}
    assert (link.mac, link.mtu) == (mac, 1400)
    assert link.addresses == {"10.20.0.77/24", "fd20::77/64"}
    assert (hare.on("meadow")["MacAddress"], hare.on("meadow")["Gateway"]) == (mac, "10.20.0.200")
    # the printer's addresses are the first of both ranges, and nobody gets them
    assert (str(fox.v4("meadow")), str(fox.v6("meadow"))) == ("10.20.0.2", "fd20::2")
    assert fox.links()["eth0"].addresses == {"10.20.0.2/24", "fd20::2/64"}
    assert fox.links()["eth0"].mac == fox.on("meadow")["MacAddress"] != mac
    for one in (hare, fox):
        assert one.default(4) == ("10.20.0.200", "eth0")
        assert one.default(6) == ("fd20::99", "eth0")
    assert bridge_mtu(engine, weft, ident) == "1400"

    # by name, both families, both ways; whole packets and such as have to be cut
    listens(hare, fox)
    assert "1 packets received" in hare.run("ping", "-c1", "-W5", "fox")
    assert "1 packets received" in fox.run("ping", "-c1", "-W5", "-6", "hare")
    assert "1 packets received" in hare.run("ping", "-c1", "-W5", "-s", "1372", "fox")
    assert "1 packets received" in hare.run("ping", "-c1", "-W5", "-s", "9000", "-6", "fox")
    assert fox.seen_by(ip_address("10.20.0.77")) == fox.v4("meadow")
    assert fox.seen_by(ip_address("fd20::77")) == fox.v6("meadow")

    # out, with the host's address; and not in
    assert await_(lambda: hare.seen_by(neighbour.v4), 10, "an answer by IPv4") == neighbour.node_v4
    assert await_(lambda: hare.seen_by(neighbour.v6), 10, "an answer by IPv6") == neighbour.node_v6
    assert "1 packets received" in hare.run("ping", "-c1", "-W5", "-s", "4000", str(neighbour.v4))

    for one in (hare, fox):
        one.remove()
    engine.docker("network", "rm", "meadow")
    await_(lambda: look(engine.node) == before, 10, "nothing to be left of the network")
    assert json.loads(weft.cli("network", "ls", "--json").stdout) == []


@both_engines
def test_ipv6_beside_the_ipv4_that_docker_chooses(
    engine: Engine, weft: Weft, neighbour: Neighbour, tmp_path: Path
) -> None:
    listen(neighbour, tmp_path)
    create(engine, "meadow", "--ipv6", "--subnet", "fd21::/64")
    hare, fox = (start(engine, name, "meadow") for name in ("hare", "fox"))
    assert hare.default(6) == ("fd21::1", "eth0")
    assert hare.default(4) == (hare.on("meadow")["Gateway"], "eth0")
    assert "1 packets received" in hare.run("ping", "-c1", "-W5", "-6", "fox")
    assert "1 packets received" in hare.run("ping", "-c1", "-W5", "fox")
    assert await_(lambda: fox.seen_by(neighbour.v6), 10, "an answer by IPv6") == neighbour.node_v6
    assert await_(lambda: fox.seen_by(neighbour.v4), 10, "an answer by IPv4") == neighbour.node_v4


@pytest.mark.engine28
def test_ipv6_alone(engine: Engine, weft: Weft, neighbour: Neighbour, tmp_path: Path) -> None:
    listen(neighbour, tmp_path)
    create(engine, "meadow", "--ipv6", "--ipv4=false", "--subnet", "fd22::/64")
    hare, fox = (start(engine, name, "meadow") for name in ("hare", "fox"))
    assert hare.links()["eth0"].addresses == {f"{hare.v6('meadow')}/64"}
    assert hare.on("meadow")["IPAddress"] == ""
    assert (hare.default(4), hare.default(6)) == (None, ("fd22::1", "eth0"))
    assert "1 packets received" in hare.run("ping", "-c1", "-W5", "-6", "fox")
    assert await_(lambda: fox.seen_by(neighbour.v6), 10, "an answer by IPv6") == neighbour.node_v6
    assert fox.seen_by(neighbour.v4) is None
    assert set(hare.links()) == {"eth0"}
    assert "docker_gwbridge" not in links(engine)


@both_engines
def test_ipv4_alone_gives_no_ipv6_to_anybody(engine: Engine, weft: Weft) -> None:
    ident = create(engine, "meadow")
    hare = start(engine, "hare", "meadow")
    assert {address.partition("/")[0] for address in hare.links()["eth0"].addresses} == {f"{hare.v4('meadow')}"}
    assert hare.default(6) is None
    # nor to the host, by the bridge: a container could talk to it past every rule for IPv4
    link = json.loads(weft.cli("network", "inspect", ident, "--json").stdout)["link"]
    assert "inet6" not in engine.node.run("ip", "address", "show", link).stdout


def test_several_subnets_on_one_network(engine: Engine, weft: Weft, neighbour: Neighbour, tmp_path: Path) -> None:
    """Docker 20.10 takes several for a driver that is not its own; the second is had with --ip."""
    listen(neighbour, tmp_path)
    ranges = ("--subnet", "10.23.0.0/24", "--subnet", "10.24.0.0/24")
    create(engine, "meadow", *ranges, "--gateway", "10.23.0.1", "--gateway", "10.24.0.1")
    hare = start(engine, "hare", "meadow", "--ip", "10.23.0.7")
    fox = start(engine, "fox", "meadow", "--ip", "10.24.0.7")
    assert (hare.default(), fox.default()) == (("10.23.0.1", "eth0"), ("10.24.0.1", "eth0"))
    assert "1 packets received" in hare.run("ping", "-c1", "-W5", "fox")
    for one in (hare, fox):
        assert await_(lambda one=one: one.seen_by(neighbour.v4), 10, "an answer") == neighbour.node_v4  # type: ignore[misc]


@both_engines
def test_networks_come_and_go_at_a_running_container(
    engine: Engine, engine_version: str, weft: Weft, neighbour: Neighbour, tmp_path: Path
) -> None:
    listen(neighbour, tmp_path)
    for name, second in (("barn", 31), ("acre", 30)):
        create(engine, name, "--subnet", f"10.{second}.0.0/24", "--gateway", f"10.{second}.0.1")
    hare = start(engine, "hare", "barn")
    start(engine, "fox", "acre", "--ip", "10.30.0.7")

    def way_out() -> set[str]:
        on = hare.inspected["NetworkSettings"]["Networks"]
        return {network for network in on if endpoint(weft, hare, network)["way_out"]}

    assert hare.default() == ("10.31.0.1", "eth0")
    assert way_out() == {"barn"}
    assert hare.answered_by("10.30.0.7") == set()  # networks are apart

    engine.docker("network", "connect", "acre", "hare")  # which comes first by name, and so is the gateway
    assert hare.default() == ("10.30.0.1", "eth1")
    assert way_out() == {"acre"}
    assert "1 packets received" in hare.run("ping", "-c1", "-W5", "fox")
    assert await_(lambda: hare.seen_by(neighbour.v4), 10, "an answer") == neighbour.node_v4

    engine.docker("network", "disconnect", "acre", "hare")
    assert set(hare.links()) == {"eth0"}
    assert hare.default() == ("10.31.0.1", "eth0")
    assert way_out() == {"barn"}
    assert await_(lambda: hare.seen_by(neighbour.v4), 10, "an answer") == neighbour.node_v4
    assert hare.answered_by("10.30.0.7") == set()

    engine.docker("network", "connect", "--ip", "10.30.0.99", "acre", "hare")
    again = "eth1" if engine_version == "28" else "eth2"  # 20.10 uses no number twice
    assert set(hare.links()) == {"eth0", again}
    assert hare.links()[again].addresses == {"10.30.0.99/24"}
    assert way_out() == {"acre"}
    engine.docker("network", "disconnect", "barn", "hare")
    assert hare.default() == ("10.30.0.1", again)
    assert way_out() == {"acre"}
    assert "1 packets received" in hare.run("ping", "-c1", "-W5", "fox")
    assert "docker_gwbridge" not in links(engine)


@both_engines
def test_without_masquerade_the_neighbour_sees_the_container(
    engine: Engine, weft: Weft, neighbour: Neighbour, tmp_path: Path
) -> None:
    listen(neighbour, tmp_path)
    neighbour.ip("route", "add", "10.32.0.0/24", "via", str(neighbour.node_v4))
    neighbour.ip("-6", "route", "add", "fd32::/64", "via", str(neighbour.node_v6))
    ranges = ("--subnet", "10.32.0.0/24", "--ipv6", "--subnet", "fd32::/64")
    create(engine, "meadow", *ranges, "-o", "com.docker.network.bridge.enable_ip_masquerade=false")
    hare = start(engine, "hare", "meadow")
    assert await_(lambda: hare.seen_by(neighbour.v4), 10, "an answer by IPv4") == hare.v4("meadow")
    assert await_(lambda: hare.seen_by(neighbour.v6), 10, "an answer by IPv6") == hare.v6("meadow")
    # which opens nothing the other way round
    listens(hare)
    assert seen_by(neighbour, hare.v4("meadow")) is None
    assert seen_by(neighbour, hare.v6("meadow")) is None


@both_engines
def test_an_internal_network_is_closed_both_ways(
    engine: Engine, weft: Weft, neighbour: Neighbour, tmp_path: Path
) -> None:
    listen(neighbour, tmp_path)
    neighbour.ip("route", "add", "10.33.0.0/24", "via", str(neighbour.node_v4))
    neighbour.ip("-6", "route", "add", "fd33::/64", "via", str(neighbour.node_v6))
    create(engine, "cave", "--internal", "--subnet", "10.33.0.0/24", "--ipv6", "--subnet", "fd33::/64")
    create(engine, "meadow", "--subnet", "10.34.0.0/24", "--ipv6", "--subnet", "fd34::/64")  # forwarding is on
    bear, bat = (start(engine, name, "cave", "--cap-add", "NET_ADMIN") for name in ("bear", "bat"))
    hare = start(engine, "hare", "meadow")
    assert set(bear.links()) == {"eth0"}
    assert (bear.default(4), bear.default(6)) == (None, None)
    assert "docker_gwbridge" not in links(engine)
    listens(bear, bat)
    assert "1 packets received" in bear.run("ping", "-c1", "-W5", "bat")
    assert "1 packets received" in bear.run("ping", "-c1", "-W5", "-6", "bat")
    # nor if a container helps itself to a route
    bear.run("ip", "route", "add", "default", "via", "10.33.0.1")
    bear.run("ip", "-6", "route", "add", "default", "via", "fd33::1")
    strangers = (neighbour.v4, neighbour.v6, hare.v4("meadow"), hare.v6("meadow"))
    assert bear.answered_by(*strangers) == set()
    assert await_(lambda: hare.seen_by(neighbour.v4), 10, "an answer to another network") == neighbour.node_v4
    assert hare.answered_by(bear.v4("cave"), bear.v6("cave")) == set()
    assert seen_by(neighbour, bear.v4("cave")) is None
    assert seen_by(neighbour, bear.v6("cave")) is None


@both_engines
def test_the_links_are_called_as_the_network_says(engine: Engine, weft: Weft) -> None:
    create(engine, "meadow", "-o", "com.docker.network.container_iface_prefix=lan")
    create(engine, "yard")
    hare = start(engine, "hare", "meadow")
    assert set(hare.links()) == {"lan0"}
    engine.docker("network", "connect", "yard", "hare")
    assert set(hare.links()) == {"lan0", "eth0"}


@both_engines
def test_without_ipam_a_network_is_a_wire_and_no_more(engine: Engine, weft: Weft, neighbour: Neighbour) -> None:
    create(engine, "wire", "--ipam-driver", "null")
    hare, fox = (start(engine, name, "wire", "--cap-add", "NET_ADMIN") for name in ("hare", "fox"))
    for last, one in enumerate((hare, fox), 1):
        assert {name: link.addresses for name, link in one.links().items()} == {"eth0": frozenset()}
        assert one.default() is None
        one.run("ip", "address", "add", f"10.35.0.{last}/24", "dev", "eth0")
    assert hare.links()["eth0"].mac != fox.links()["eth0"].mac
    assert "1 packets received" in hare.run("ping", "-c1", "-W5", "10.35.0.2")
    assert "docker_gwbridge" not in links(engine)
    # nobody is at the other end of a way out
    hare.run("ip", "route", "add", "default", "via", "10.35.0.254")
    assert hare.answered_by(neighbour.v4) == set()


@both_engines
def test_the_same_address_comes_with_the_same_mac(engine: Engine, weft: Weft) -> None:
    create(engine, "meadow", "--subnet", "10.36.0.0/24", "--ipv6", "--subnet", "fd36::/64")
    hare = start(engine, "hare", "meadow", "--ip", "10.36.0.7")
    fox = start(engine, "fox", "meadow")
    mac = hare.links()["eth0"].mac
    assert hare.on("meadow")["MacAddress"] == mac
    assert "1 packets received" in fox.run("ping", "-c1", "-W5", "hare")  # who remembers the MAC now
    hare.remove()
    heron = start(engine, "heron", "meadow", "--ip", "10.36.0.7")
    assert heron.links()["eth0"].mac == mac
    engine.docker("restart", "-t", "0", "heron")
    assert heron.links()["eth0"].mac == mac
    assert fox.answered_by("10.36.0.7") == {"10.36.0.7"}
    assert fox.links()["eth0"].mac != mac
