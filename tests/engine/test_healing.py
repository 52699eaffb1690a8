"""What others break is put back by itself, fence first, and what does not concern weft costs nothing."""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.lab.engine import Engine
from tests.lab.matrix import both_engines
from tests.lab.names import REPO
from tests.lab.net import Neighbour
from tests.lab.node import Node
from tests.lab.wait import await_
from tests.lab.weft import Weft
from tests.libnetwork import Libnetwork
from tests.matrix.docker import party, run, serving
from tests.matrix.traffic import OPEN, SILENT, Knock, Traffic

pytestmark = pytest.mark.engine

SUBNETS = ("--subnet", "10.7.1.0/24", "--ipv6", "--subnet", "fd07:1::/64")
SOON = 10.0
"""Seconds that healing may take on a slow machine. Here it takes a tenth of one."""


@pytest.fixture
def host_of_its_own(private_engine: Engine, private_weft: Weft) -> Iterator[Engine]:
    """Yield the private engine, and clean up while there is a weft to be told."""
    yield private_engine
    private_engine.clean()


@pytest.fixture
def traffic() -> Iterator[Traffic]:
    with Traffic() as traffic:
        yield traffic


def rules(node: Node) -> tuple[list[str], ...]:
    """Return all rules of ours, as iptables and nft list them; elements in order."""
    user, chain = (node.run("iptables", "-S", name, check=False).stdout for name in ("DOCKER-USER", "WEFT"))
    table = node.run("nft", "--stateless", "list", "table", "inet", "weft", check=False).stdout
    return (
        [line for line in user.splitlines() if line.endswith("-j WEFT")],
        chain.splitlines(),
        sorted(re.split(r"[\n,]\s*", table)),
    )


def network(engine: Engine, *args: str) -> str:
    """Create the network ``one`` and return its link."""
    ident = engine.docker("network", "create", "-d", "weft", *SUBNETS, *args, "one")
    return f"wfb{ident[:12]}"


def generation(node: Node) -> int:
    """Return how many transactions nftables has seen in the node, iptables-nft's included, whoever made them."""
    ask = f"import sys; sys.path.insert(0, {str(REPO)!r}); from drivers.nft_monitor import generation as g; print(g())"
    return int(node.beside.run(sys.executable, "-c", ask).stdout)


def healed_lines(weft: Weft, after: int) -> list[str]:
    """Return what weft's log says it has put back, since it was ``after`` characters long."""
    return re.findall(r'msg="host changed" .*?step="?(.*)', weft.log_text()[after:])


BREAKS = {
    "iptables -F DOCKER-USER": "iptables -F DOCKER-USER",
    "iptables -F WEFT": "iptables -F WEFT",
    "the jump above the operator's rules": "iptables -I DOCKER-USER -j RETURN",
    "nft delete table": "nft delete table inet weft",
    "nft flush table": "nft flush table inet weft",
    "nft flush chain": "nft flush chain inet weft forward",
    "nft flush set": "nft flush set inet weft same",
    "nft delete element": "nft delete element inet weft masquerade4 { {link} }",
    "nft add rule": "nft insert rule inet weft forward accept",
    "a fence": "nft delete element inet weft internal { {inside} }",
}


@both_engines
@pytest.mark.parametrize("command", BREAKS.values(), ids=BREAKS)
def test_what_somebody_broke_is_put_back(engine: Engine, weft: Weft, command: str) -> None:
    node = engine.node
    link = network(engine)
    inside = engine.docker("network", "create", "-d", "weft", "--internal", "inside")
    before, after = rules(node), len(weft.log_text())
    assert all(before)
    user = node.run("iptables-save", "-t", "filter").stdout
    try:
        node.run("sh", "-c", command.replace("{link}", link).replace("{inside}", f"wfb{inside[:12]}"))
        await_(lambda: rules(node) == before, SOON, f"the rules as before {command}")
        await_(lambda: healed_lines(weft, after), SOON, "weft's word on it")
    finally:
        closing = re.findall(r"^-A DOCKER-USER -j RETURN$", user, re.MULTILINE)
        node.run("iptables", "-D", "DOCKER-USER", "-j", "RETURN", check=False)
        for _ in closing:
            node.run("iptables", "-D", "DOCKER-USER", "-j", "RETURN", check=False)
            node.run("iptables", "-A", "DOCKER-USER", "-j", "RETURN")


@both_engines
def test_all_rules_flushed_come_back_fence_first(host_of_its_own: Engine, private_weft: Weft, traffic: Traffic) -> None:
    engine, weft, node = host_of_its_own, private_weft, host_of_its_own.node
    with Neighbour(node) as neighbour:
        lan = serving(traffic, neighbour, "lan")
        network(engine)
        link_inside = f"wfb{engine.docker('network', 'create', '-d', 'weft', '--internal', 'inside')[:12]}"
        ann = run(engine, traffic, "ann", "one")
        neighbour.ip("route", "add", "10.7.1.0/24", "via", str(neighbour.node_v4))
        knocks = [
            Knock(lan, ann.addresses[4], "tcp", wanted=SILENT),
            Knock(ann.spot, str(neighbour.v4), "tcp", wanted=f"{OPEN} from {neighbour.node_v4}"),
        ]
        assert traffic.surprises(knocks) == []
        (_, _, table), after = rules(node), len(weft.log_text())
        node.run("nft", "flush", "ruleset")
        await_(lambda: rules(node)[2] == table, SOON, "table inet weft")
        assert traffic.surprises(knocks) == []
        steps = healed_lines(weft, after)
        assert "table inet weft" in steps[0]  # the drops, and only then what opens
        inside = [step for step in steps if link_inside in step]
        assert ["internal" in step for step in inside] == [True] + [False] * (len(inside) - 1)
        engine.restart()
        await_(lambda: all(rules(node)), SOON, "the jump, now that there is a DOCKER-USER again")
        engine.docker("start", "ann")
        again = party(engine, traffic, "ann")
        knocks = [replace(knocks[0], address=again.addresses[4]), replace(knocks[1], source=again.spot)]
        assert traffic.surprises(knocks) == []


def count(weft: Weft) -> dict[str, int]:
    """Return how often weft has run nft and iptables, and written to its store."""
    operations = json.loads(weft.cli("status", "--json", check=False).stdout)["operations"]
    return {name: operations[name] for name in ("nft", "xtables", "store")}


@both_engines
def test_what_does_not_concern_weft_costs_no_write(engine: Engine, weft: Weft) -> None:
    """A later event that does concern weft marks the end: what came before it has been dealt with by then."""
    node = engine.node
    link = network(engine)

    def mark() -> None:
        """Break and await something of the kernel's, which costs no rule."""
        after = len(weft.log_text())
        node.run("ip", "address", "del", "10.7.1.1/24", "dev", link)
        await_(lambda: healed_lines(weft, after), SOON, "the address to be back")

    def cost(*commands: str) -> tuple[int, list[str], dict[str, int]]:
        """Return nftables' transactions, what weft says it has changed, and its own count of runs and commits."""
        operations, before, after = count(weft), generation(node), len(weft.log_text())
        for command in commands:
            node.run("sh", "-c", command)
        mark()
        spent = {name: number - operations[name] for name, number in count(weft).items()}
        return generation(node) - before, healed_lines(weft, after), spent

    mark()
    plain = cost()
    assert plain[0] == 0
    assert len(plain[1]) == 1
    unrelated = (
        "nft 'add table inet other; add chain inet other c; add rule inet other c accept'",
        "nft delete table inet other",
        "iptables -A INPUT -s 192.0.2.9 -j ACCEPT",
        "iptables -D INPUT -s 192.0.2.9 -j ACCEPT",
    )
    four_more = (len(unrelated), *plain[1:])
    # a look that falls due in between, once a minute, is not these commands' doing
    assert any(cost(*unrelated) == four_more for _ in range(3)), (cost(*unrelated), four_more)


@both_engines
def test_a_host_whose_uplink_is_called_like_dockers_bridges_has_a_way_out(
    engine: Engine, weft: Weft, neighbour: Neighbour, traffic: Traffic
) -> None:
    node = engine.node
    serving(traffic, neighbour, "lan")
    network(engine)
    ann = run(engine, traffic, "ann", "one")
    knocks = [
        Knock(ann.spot, str(far), "tcp", wanted=f"{OPEN} from {near}")
        for far, near in ((neighbour.v4, neighbour.node_v4), (neighbour.v6, neighbour.node_v6))
    ]
    assert traffic.surprises(knocks) == []
    after = len(weft.log_text())
    bridge = ("link add br-lan up type bridge", "link set lan0 master br-lan", "address flush dev lan0 scope global")
    addresses = (
        f"address add {neighbour.node_v4}/24 dev br-lan",
        f"address add {neighbour.node_v6}/64 dev br-lan nodad",
    )
    routes = (f"route replace default via {neighbour.v4}", f"-6 route replace default via {neighbour.v6}")
    try:
        for line in (*bridge, *addresses, *routes):
            node.run("ip", *line.split())
        await_(lambda: "operator_links" in "".join(healed_lines(weft, after)), SOON, "weft to see br-lan")
        await_(lambda: not traffic.surprises(knocks), SOON, "the way out by a br-lan made while weft runs")
        weft.stop()
        weft.start()
        assert traffic.surprises(knocks) == []
    finally:
        node.run("ip", "link", "del", "br-lan")


@both_engines
def test_weft_before_dockerd_finds_docker_user_by_itself(private_node: Node, traffic: Traffic) -> None:
    """And Docker keeps its FORWARD DROP, for weft has not switched forwarding on before it."""
    node = private_node
    with Weft(node) as weft, Libnetwork(weft.socket, netns=node.netns) as player:
        player.create_network()  # dockerd will know nothing of it, so it makes no call
        assert not rules(node)[0]
        assert rules(node)[2]
        with Engine(node):
            await_(lambda: all(rules(node)), SOON, "the jump")
            assert "-P FORWARD DROP" in node.run("iptables", "-S", "FORWARD").stdout
