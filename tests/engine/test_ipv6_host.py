"""IPv6 without harm to the host: it goes on living on router advertisements, and nothing is switched on too early."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.engine import Engine
from tests.lab.matrix import both_engines
from tests.lab.node import Node
from tests.lab.router import Router
from tests.lab.talk import listen, seen_by, start
from tests.lab.wait import await_
from tests.lab.weft import Weft

pytestmark = pytest.mark.engine

SWITCHES = (
    "net/ipv4/ip_forward",
    "net/ipv6/conf/all/forwarding",
    "net/ipv6/conf/all/force_forwarding",
    "net/ipv6/conf/default/force_forwarding",
)
V6 = ("--ipv6", "--subnet", "fd70::/64")


@pytest.fixture
def router(private_engine: Engine, tmp_path: Path) -> Iterator[Router]:
    """Yield the private node's router, which the node has heard of."""
    with Router(private_engine.node) as router:
        listen(router, tmp_path)
        hears(private_engine.node, router)
        yield router


def learnt(node: Node) -> bool:
    """Tell whether the node has a default route by advertisement."""
    return "proto ra" in node.run("ip", "-6", "route", "show", "default").stdout


def hears(node: Node, router: Router) -> None:
    """Wait until an advertisement has given the node its default route."""

    def advertised() -> bool:
        router.advertise()
        return learnt(node)

    await_(advertised, 20, "a default route by advertisement")


def switches(node: Node) -> dict[str, str]:
    """Return the switches that this kernel has."""
    told = node.run("sh", "-c", 'cd /proc/sys; grep -s . "$@"', "sh", *SWITCHES, check=False).stdout
    return dict(line.split(":", 1) for line in told.splitlines())


@both_engines
def test_the_host_goes_on_hearing_its_router(private_engine: Engine, private_weft: Weft, router: Router) -> None:
    engine, node = private_engine, private_engine.node
    found = switches(node)
    engine.docker("network", "create", "-d", "weft", *V6, "meadow")
    hare = start(engine, "hare", "meadow")
    assert learnt(node)
    assert await_(lambda: hare.seen_by(router.outside), 20, "an answer from outside") == router.node_v6
    assert seen_by(node.beside, router.outside) == router.node_v6

    # what was changed is told, with what it was
    said = private_weft.cli("status").stdout
    changed = {knob: was for knob, was in found.items() if switches(node)[knob] != was}
    assert changed
    for knob, was in changed.items():
        assert f"host setting changed: {knob} was {was}" in said

    # the route is not only left: the next advertisement is heard, too
    node.run("ip", "-6", "route", "del", "default")
    assert hare.seen_by(router.outside) is None
    hears(node, router)
    assert await_(lambda: hare.seen_by(router.outside), 20, "an answer from outside") == router.node_v6

    # and so it is by a link that comes later: its answers are forwarded
    router.plug()
    hears(node, router)
    assert await_(lambda: hare.seen_by(router.outside), 20, "an answer by the new link") == router.node_v6

    # the switches stay when the network goes, for others may rely on them by now; so does the host's own way out
    on = switches(node)
    hare.remove()
    engine.docker("network", "rm", "meadow")
    assert switches(node) == on
    assert learnt(node)


def test_a_network_without_ipv6_switches_nothing_of_ipv6(
    private_engine: Engine, private_weft: Weft, router: Router
) -> None:
    node = private_engine.node
    found = switches(node)
    private_engine.docker("network", "create", "-d", "weft", "meadow")
    private_engine.docker("network", "create", "-d", "weft", "--internal", *V6, "cave")
    start(private_engine, "hare", "meadow")
    start(private_engine, "bear", "cave")
    assert switches(node) == found
    assert learnt(node)
    assert "host setting changed" not in private_weft.cli("status").stdout


@both_engines
def test_nothing_is_switched_on_before_docker_calls(private_engine: Engine, private_weft: Weft, router: Router) -> None:
    """A dockerd that finds ip_forward=1 leaves FORWARD open to every neighbour (facts/network.md 3)."""
    engine, weft, node = private_engine, private_weft, private_engine.node
    network = engine.docker("network", "create", "-d", "weft", *V6, "meadow")
    start(engine, "hare", "meadow")
    node.power_off()
    node.up()
    router.plug()
    hears(node, router)
    off = switches(node)
    assert off == {**off, "net/ipv4/ip_forward": "0", "net/ipv6/conf/all/forwarding": "0"}

    weft.start()
    await_(lambda: weft.cli("status", check=False).returncode == 0, 20, "the host to be as wanted")
    assert f"wfb{network[:12]}" in node.run("ls", "/sys/class/net").stdout.split()  # what was promised is there again
    assert switches(node) == off

    engine.start()
    assert "-P FORWARD DROP" in node.run("iptables", "-S", "FORWARD").stdout
    engine.docker("start", "hare")
    assert switches(node)["net/ipv4/ip_forward"] == "1"
    hare = start(engine, "fox", "meadow")
    assert await_(lambda: hare.seen_by(router.outside), 20, "an answer from outside") == router.node_v6
    assert learnt(node)
