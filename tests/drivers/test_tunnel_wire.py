"""What the kernel says of tunnels that the tests' own kernel may lack, read by hand; and what weft says to it."""

import struct

import pytest

from drivers.kernel import requests
from drivers.kernel.tunnel_wire import TunnelData, tunnel_data
from drivers.kernel.wire import Link, Message, attributes, link
from drivers.resources import PeerTunnel, link_key, scope_of
from drivers.resources.tunnels import PeerKind


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def to_peer(kind: PeerKind, remote: str, local: str = "", port: int = 0) -> bytes:
    """Return the request for a tunnel to one peer."""
    key, scope = link_key("wft1"), scope_of("n1")
    return requests.new_peer_tunnel(
        PeerTunnel(key=key, scope=scope, kind=kind, vni=7, port=port, local=local, remote=remote, mtu=1430)
    )


def _inner(request: bytes) -> tuple[str, bytes]:
    """Return the kind and the inner bytes of a request to make a link: what the kernel would tell of it again."""
    info = attributes(attributes(request[16 + 16 :])[18])
    return info[1].rstrip(b"\0").decode(), info[2]


@pytest.mark.parametrize(
    ("request_", "wanted"),
    [
        (
            requests.new_vxlan("wft1", 7, 4789, "192.0.2.1", 1450),
            TunnelData(vni=7, port=4789, local="192.0.2.1", ageing=300),
        ),
        (
            requests.new_vxlan("wft1", (1 << 24) - 1, 4799, "2001:db8::1", 1430),
            TunnelData(vni=(1 << 24) - 1, port=4799, local="2001:db8::1", ageing=300),
        ),
        (
            to_peer("geneve", "192.0.2.2", port=6081),
            TunnelData(vni=7, port=6081, remote="192.0.2.2"),
        ),
        (
            to_peer("geneve", "2001:db8::2", port=6081),
            TunnelData(vni=7, port=6081, remote="2001:db8::2"),
        ),
        (
            to_peer("gretap", "192.0.2.2", "192.0.2.1"),
            TunnelData(vni=7, local="192.0.2.1", remote="192.0.2.2"),
        ),
        (to_peer("gretap", "192.0.2.2"), TunnelData(vni=7, remote="192.0.2.2")),
        (
            to_peer("ip6gretap", "2001:db8::2", "2001:db8::1"),
            TunnelData(vni=7, local="2001:db8::1", remote="2001:db8::2"),
        ),
    ],
)
def test_a_tunnel_is_read_as_it_was_asked_for(request_: bytes, wanted: TunnelData) -> None:
    kind, data = _inner(request_)
    assert tunnel_data(Link(index=1, name="wft1", kind=kind, data=data)) == wanted


def test_a_geneve_device_for_every_vni_is_read_as_one() -> None:
    """Open vSwitch's own, in the kernel: nobody else gets its UDP port."""
    data = _attribute(5, struct.pack("!H", 6081)) + _attribute(6, b"")
    found = tunnel_data(Link(index=1, name="genev_sys_6081", kind="geneve", data=data))
    assert found == TunnelData(port=6081, serves_others=True)


def test_gre_has_its_key_in_both_directions() -> None:
    for asked in (to_peer("gretap", "192.0.2.2"), to_peer("ip6gretap", "2001:db8::2")):
        _, data = _inner(asked)
        said = attributes(data)
        assert (said[2], said[3]) == (b"\x20\x00", b"\x20\x00")  # GRE_KEY, in the wire's order
        assert (said[4], said[5]) == (struct.pack("!I", 7), struct.pack("!I", 7))


def test_an_isolated_port_is_read_as_one() -> None:
    port = _attribute(4, _attribute(33, b"\x01"))
    info = _attribute(18, _attribute(1, b"geneve\0") + _attribute(4, b"bridge\0") + _attribute(5, port[4:]))
    body = struct.pack("=BxHiII", 0, 1, 7, 1, 0) + _attribute(3, b"wft1\0") + info
    found = link(Message(16, 0, 0, body))
    assert found is not None
    assert (found.kind, found.isolated) == ("geneve", True)


@pytest.mark.parametrize(("kind", "master"), [(b"openvswitch\0", 0), (b"bridge\0", 9), (b"bond\0", 9)])
def test_a_port_of_open_vswitchs_kernel_datapath_is_in_no_bridge(kind: bytes, master: int) -> None:
    """Its master is ``ovs-system``, which is Open vSwitch's own affair."""
    info = _attribute(18, _attribute(1, b"veth\0") + _attribute(4, kind))
    body = (
        struct.pack("=BxHiII", 0, 1, 7, 1, 0) + _attribute(3, b"wfh1\0") + _attribute(10, struct.pack("=I", 9)) + info
    )
    found = link(Message(16, 0, 0, body))
    assert found is not None
    assert (found.kind, found.master) == ("veth", master)
