"""What the tests of flows share."""

from ipaddress import ip_address

from drivers.marks import Marks
from drivers.ovs.model import Attachment, Gateway, Peer, Segment, Switch, Tunnel
from drivers.resources import Flow, Scope, flow, flow_key, scope_of
from tests.drivers.openflow.ovs import BRIDGE

MARKS = Marks("0123456789abcdef")
NETWORK = scope_of("n1")
ENDPOINT = scope_of("n1", "e1")

GATEWAY_PORT, PORT, OTHER_PORT, TUNNEL_PORT = PORTS = ("wfg0a1b2c3d4e5f", "wfh0e1d2c3b4a59", "wfh111111111111", "wft")

SWITCH = Switch()
GATEWAY = Gateway(port=GATEWAY_PORT, mac="02:00:00:00:00:01", addresses=(ip_address("10.1.0.1"), ip_address("fd01::1")))
TUNNEL = Tunnel(
    port=TUNNEL_PORT,
    vni=0x100005,
    peers=(Peer(address=ip_address("192.0.2.2"), slot=0), Peer(address=ip_address("192.0.2.3"), slot=33)),
)
SEGMENT = Segment(id="n1", number=5, gateway=GATEWAY, tunnel=TUNNEL)
HERE = Attachment(
    id="e1",
    port=PORT,
    mac="02:00:00:00:00:11",
    slot=0,
    addresses=(ip_address("10.1.0.11"), ip_address("fd01::11")),
)


def one(table: int, match: str, actions: str = "drop", *, priority: int = 7, scope: Scope = ENDPOINT) -> Flow:
    return flow(flow_key(BRIDGE, table, priority, match), scope, actions)
