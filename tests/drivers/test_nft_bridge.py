"""Table ``bridge weft`` on the real kernel: its elements are read back, and what is counted is told."""

import json
import socket
from collections.abc import Iterator

import pytest

from drivers import ruleset, ruleset_bridge
from drivers.clashes import Clash, Clashes
from drivers.contract import Step
from drivers.marks import Marks
from drivers.nft import NftBackend
from drivers.nft_text import kinds_of, parse
from drivers.resources import BRIDGE_TABLE_KEY, HOST, Fence, Resource, Table, bridge_element_key, scope_of
from tests.lab.wait import await_
from tests.netns import private_netns, sh

pytestmark = pytest.mark.kernel

NET, ENDPOINT = scope_of("n1"), scope_of("n1", "e1")
TABLE = Table(key=BRIDGE_TABLE_KEY, scope=HOST, text=ruleset_bridge.TEXT)
GATEWAY6 = "0xfd000000000000000000000000000001"


def _fence(name: str, *at: str, value: tuple[str, ...] = ()) -> Fence:
    return Fence(
        key=bridge_element_key(name, *at), scope=ENDPOINT if name in ruleset_bridge.COUNTED else NET, value=value
    )


EVERY: tuple[Resource, ...] = (
    TABLE,
    _fence(ruleset_bridge.HANDED, "wfh1", value=("02:00:00:00:00:01",)),
    _fence(ruleset_bridge.APART_PORTS, "wfh1"),
    _fence(ruleset_bridge.TUNNELS, "wft1"),
    _fence(ruleset_bridge.GATEWAY_MACS, "wft1", "02:00:00:00:00:01"),
    _fence(ruleset_bridge.GATEWAYS[4], "wft1", "10.0.0.1"),
    _fence(ruleset_bridge.GATEWAYS[6], "wft1", GATEWAY6),
    _fence(ruleset_bridge.GATEWAYS[6], "wft1", "7"),
    _fence(ruleset_bridge.OWN_MACS, "wft1", "02:00:00:00:00:05"),
    _fence(ruleset_bridge.OWN[4], "wft1", "10.0.0.5"),
    _fence(ruleset_bridge.OWN[6], "wft1", "fd00::5"),
)


@pytest.fixture
def backend() -> Iterator[NftBackend]:
    with private_netns():
        backend = NftBackend(Marks("a"), table=BRIDGE_TABLE_KEY)
        yield backend
        backend.close()


def test_first_law_for_every_set_of_the_table(backend: NftBackend) -> None:
    assert {one.key.kind for one in EVERY} - {"table"} == set(kinds_of(ruleset_bridge.TEXT))
    assert backend.apply([Step(None, one) for one in EVERY]) == {}
    assert dict(backend.observe([one.key for one in EVERY])) == {one.key: one for one in EVERY}
    assert backend.survey() == {one.key: one for one in EVERY}
    assert backend.apply([Step(one, None) for one in EVERY]) == {}
    assert backend.survey() == {}


def test_the_declared_kinds_are_those_that_are_read_back(backend: NftBackend) -> None:
    backend.apply([Step(None, TABLE)])
    assert parse(sh("nft", "-j", "list", "table", "bridge", "weft")).kinds == kinds_of(ruleset_bridge.TEXT)


def test_an_expression_that_a_newer_nft_tells_is_the_same_kind() -> None:
    """From nft 1.1.2 on a set that was declared by ``typeof`` is listed with the expression."""
    expressions = [{"meta": {"key": "iifname"}}, {"payload": {"base": "th", "offset": 64, "len": 128}}]
    told = {"name": "gateways6", "type": {"typeof": {"concat": expressions}}}
    zones = {"name": "zones", "type": {"typeof": expressions[0]}, "map": {"typeof": {"ct": {"key": "zone"}}}}
    peers = {
        "name": "peers4",
        "type": {
            "typeof": {
                "concat": [
                    {"payload": {"protocol": "udp", "field": "dport"}},
                    {"payload": {"base": "th", "offset": 96, "len": 24}},
                    {"payload": {"protocol": "ip", "field": "saddr"}},
                ]
            }
        },
    }
    ports = {"name": "publish4", "type": ["inet_proto", "inet_service"], "map": ["ipv4_addr", "inet_service"]}
    listing = json.dumps({"nftables": [{"set": told}, {"map": zones}, {"map": ports}, {"set": peers}]})
    kinds = parse(listing).kinds
    assert kinds["publish4"] == kinds_of(ruleset.TEXT)["publish4"]
    assert kinds["gateways6"].fields == ("ifname", "integer")
    assert (kinds["zones"].fields, kinds["zones"].value) == (("ifname",), ("integer",))
    assert kinds["peers4"].fields == ("inet_service", "integer", "ipv4_addr")


def test_what_comes_out_of_a_tunnel_and_is_a_containers_own_is_told(backend: NftBackend) -> None:
    backend.apply([Step(None, one) for one in EVERY])
    clashes = Clashes(Marks("a"))
    assert clashes.seen() == ()
    for line in ("link add wfb1 type bridge", "link add wft1 type veth peer name far", "link set wft1 master wfb1"):
        sh("ip", *line.split())
    for name in ("wfb1", "wft1", "far"):
        sh("ip", "link", "set", name, "up")
    await_(lambda: "state forwarding" in sh("bridge", "link", "show", "dev", "wft1"), 10, "the port")
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind(("far", 0))
        sock.send(_arp("02:00:00:00:00:99", "10.0.0.5"))
        assert await_(clashes.seen, 10, "the address to be counted") == (Clash(ENDPOINT, "10.0.0.5"),)
        sock.send(_arp("02:00:00:00:00:05", "10.0.0.7"))
        both = (Clash(ENDPOINT, "02:00:00:00:00:05"), Clash(ENDPOINT, "10.0.0.5"))
        await_(lambda: clashes.seen() == both, 10, "the MAC to be counted as well")
    clashes.close()
    with private_netns():
        assert Clashes(Marks("a")).seen() == ()


def _arp(mac: str, sender: str) -> bytes:
    own, ip = bytes.fromhex(mac.replace(":", "")), socket.inet_aton(sender)
    return (
        b"\xff" * 6 + own + bytes.fromhex("0806000108000604 0001") + own + ip + bytes(6) + socket.inet_aton("10.0.0.9")
    )
