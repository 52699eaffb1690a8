"""What cannot be: the create fails, the message says why and what is allowed, and nothing is left behind."""

import json
from collections.abc import Iterator

import pytest

from tests.engine.conftest import look
from tests.lab.engine import Engine
from tests.lab.image import NAME
from tests.lab.matrix import both_engines
from tests.lab.node import Node
from tests.lab.process import CommandFailedError
from tests.lab.snapshot import Snapshot
from tests.lab.talk import start
from tests.lab.wait import await_
from tests.lab.weft import Weft

pytestmark = pytest.mark.engine

BRIDGE = "com.docker.network.bridge."
MTU = "com.docker.network.driver.mtu"

IMPOSSIBLE = {
    "unknown option of ours": (("-o", "weft.bakend=bridge"), ("weft.bakend", "did you mean weft.backend?")),
    "option without a dot": (("-o", "mtu=1400"), ("mtu", f"did you mean {MTU}?")),
    "no such backend": (
        ("-o", "weft.backend=carrier-pigeon"),
        ("weft.backend=", "carrier-pigeon", "allowed is bridge"),
    ),
    "no number": (("-o", f"{MTU}=big"), (f"{MTU}=", "big", "68 to 65535")),
    "number out of range": (("-o", f"{MTU}=67"), (f"{MTU}=", "67", "68 to 65535")),
    "no truth": (
        ("-o", f"{BRIDGE}enable_ip_masquerade=perhaps"),
        (f"{BRIDGE}enable_ip_masquerade=", "perhaps", "true or false"),
    ),
    "no name of a link": (("-o", f"{BRIDGE}name=a/b"), (f"{BRIDGE}name=", "a/b", "1 to 15 letters")),
    "long prefix of names": (
        ("-o", "com.docker.network.container_iface_prefix=fourteen-bytes"),
        ("com.docker.network.container_iface_prefix=", "fourteen-bytes", "at most 13 bytes"),
    ),
    "what weft cannot do": (("-o", "weft.tunnel=stt", "-o", "weft.name=fancy"), ("weft.tunnel=", "STT", "geneve")),
    "no way out closed to it": (("-o", f"{BRIDGE}gateway_mode_ipv4=isolated"), ("gateway_mode_ipv4", "--internal")),
    "two wrong options, both named": (
        ("-o", f"{MTU}=big", "-o", "weft.nonsense=1"),
        (f"{MTU}=", "unknown network option 'weft.nonsense'"),
    ),
    "contradiction": (
        ("-o", f"{MTU}=1279", "--ipv6", "--subnet", "fd60::/64"),
        (f"{MTU}=1279", "contradicts the IPv6 subnet", "1280"),
    ),
    "subnet of the host": (("--subnet", "10.61.7.0/24"), ("10.61.7.0/24", "10.61.0.0/16 on pond0", "--subnet")),
    "IPv6 subnet of the host": (("--ipv6", "--subnet", "fd61::/64"), ("fd61::/64", "fd61::/48 on pond0", "--subnet")),
    "link that is no bridge": (("-o", f"{BRIDGE}name=pond0"), (f"{BRIDGE}name=pond0", "a veth", "Linux bridge")),
    "gateway outside the pool": (("--subnet", "10.62.0.0/24", "--gateway", "10.63.0.1"), ("10.63.0.1",)),
    "subnet taken by another network": (("--subnet", "10.60.0.0/25"), ("overlaps",)),
    "bridge of another network": (("-o", f"{BRIDGE}name=br-held"), (f"{BRIDGE}name", "br-held")),
}


@pytest.fixture
def pond(weft: Weft, engine: Engine) -> Iterator[Node]:
    """Yield the node with a link of the operator's, and a network that holds a subnet and a bridge."""
    node = engine.node
    engine.docker("network", "create", "-d", "weft", "--subnet", "10.60.0.0/24", "-o", f"{BRIDGE}name=br-held", "held")
    node.run("ip", "link", "add", "pond0", "type", "veth", "peer", "pond1")
    try:
        for link in ("pond0", "pond1"):
            node.run("ip", "link", "set", link, "up")
        node.run("ip", "address", "add", "10.61.0.1/16", "dev", "pond0")
        node.run("ip", "address", "add", "fd61::1/48", "dev", "pond0", "nodad")
        await_(lambda: weft.cli("status", check=False).returncode == 0, 10, "the host to be as wanted")
        yield node
    finally:
        node.run("ip", "link", "del", "pond0")


def refused(engine: Engine, *args: str) -> str:
    """Run a docker command that must fail; return what it says."""
    with pytest.raises(CommandFailedError) as failure:
        engine.docker(*args)
    return str(failure.value.done.stderr)


def networks(engine: Engine, weft: Weft) -> tuple[set[str], set[str]]:
    """Return the networks that Docker knows by name, and those that weft knows by id."""
    docker = engine.docker("network", "ls", "--format", "{{.Name}}").split()
    return set(docker), {one["id"] for one in json.loads(weft.cli("network", "ls", "--json").stdout)}


def as_before(node: Node, before: Snapshot) -> None:
    """Wait until nothing is left."""
    await_(lambda: look(node) == before, 10, f"nothing to be left; now:\n{before.difference(look(node))}")


@both_engines
def test_a_network_that_cannot_be_is_refused_with_the_reason(engine: Engine, weft: Weft, pond: Node) -> None:
    before, known = look(pond), networks(engine, weft)
    wrong = {}
    for case, (args, words) in IMPOSSIBLE.items():
        said = refused(engine, "network", "create", "-d", "weft", *args, "fancy")
        missing = [word for word in words if word not in said]
        if missing or networks(engine, weft) != known:
            wrong[case] = f"not said: {missing} in: {said}"
    assert not wrong
    as_before(pond, before)
    assert weft.cli("status").returncode == 0
    # the same name is free afterwards
    engine.docker("network", "create", "-d", "weft", "fancy")


@both_engines
def test_a_container_that_cannot_be_is_refused_with_the_reason(engine: Engine, weft: Weft) -> None:
    engine.docker("network", "create", "-d", "weft", "--subnet", "10.64.0.0/24", "meadow")
    start(engine, "hare", "meadow", "--ip", "10.64.0.7")
    before = look(engine.node)
    for words, args in {
        ("Address already in use",): ("--network", "meadow", "--ip", "10.64.0.7"),
        ("10.65.0.7",): ("--network", "meadow", "--ip", "10.65.0.7"),
        ("weft.nonsense", "unknown endpoint option"): ("--network", "name=meadow,driver-opt=weft.nonsense=1"),
        ("01:00:5e:00:00:01", "allowed is a unicast address"): (
            *("--network", "meadow"),
            *("--mac-address", "01:00:5e:00:00:01"),
        ),
    }.items():
        said = refused(engine, "run", "-d", "--name", "fox", *args, NAME)
        assert not [word for word in words if word.lower() not in said.lower()], said
        assert len(json.loads(weft.cli("endpoint", "ls", "--json").stdout)) == 1
        engine.docker("rm", "-f", "fox", check=False)
    await_(lambda: look(engine.node) == before, 10, "nothing to be left")


def test_an_address_in_use_is_refused_with_its_holder(engine: Engine, weft: Weft) -> None:
    """Docker's IPAM hands an address out once, unless it was told to forget: two networks of one name, a restart."""
    ident = engine.docker("network", "create", "-d", "weft", "--subnet", "10.66.0.0/24", "meadow")
    hare = start(engine, "hare", "meadow", "--ip", "10.66.0.7")
    holder = hare.on("meadow")["EndpointID"]
    before = look(engine.node)
    interface = {"Address": "10.66.0.7/24", "AddressIPv6": "", "MacAddress": ""}
    call = {"NetworkID": ident, "EndpointID": "f" * 64, "Interface": interface, "Options": {}}
    said = weft.call("NetworkDriver.CreateEndpoint", call).json["Err"]
    for word in ("10.66.0.7", "in use", holder[:12], "--ip"):
        assert word in said
    await_(lambda: look(engine.node) == before, 10, "nothing to be left")
    assert hare.links()["eth0"].addresses == {"10.66.0.7/24"}
