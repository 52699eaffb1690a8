"""What is the operator's stays as it is."""

import subprocess
from ipaddress import IPv6Interface
from typing import Any

import pytest

from drivers.contract import Step
from drivers.converge import Converger
from drivers.errors import Conflict, NotFound
from drivers.kernel.backend import KernelBackend
from drivers.naming import LINK_GROUP
from drivers.resources import (
    Bridge,
    Foreign,
    Scope,
    address_key,
    link_key,
    scope_of,
)
from tests.drivers.kernel.world import (
    MARKS,
    NETWORK,
    bridge,
    endpoint_of,
    host_address,
    ip,
    link,
    network_of,
    plan,
    settle,
    veth,
)
from tests.drivers.steps import applied

pytestmark = pytest.mark.kernel


OTHERS: dict[str, tuple[tuple[str, ...], str]] = {
    "a tunnel": (("link", "add", "wfb1", "type", "vxlan", "id", "7", "dstport", "4790"), "vxlan"),
    "a bridge": (("link", "add", "wfb1", "type", "bridge"), "something that weft did not make"),
    "a tunnel in our group": (
        ("link", "add", "wfb1", "group", str(LINK_GROUP), "type", "vxlan", "id", "7", "dstport", "4790"),
        "vxlan",
    ),
    "another name": (("link", "add", "eth7", "type", "bridge"), "eth7"),
    "another weft's": (("link", "add", "wfb1", "group", str(LINK_GROUP), "type", "bridge"), "store fedcba"),
}


@pytest.mark.parametrize(("line", "word"), OTHERS.values(), ids=OTHERS.keys())
def test_a_link_of_others_is_a_conflict_and_stays_as_it_is(
    backend: KernelBackend, converger: Converger, line: tuple[str, ...], word: str
) -> None:
    subprocess.run(["ip", *line], check=True)
    if line[2] == "eth7":
        subprocess.run(["ip", "link", "property", "add", "dev", "eth7", "altname", "wfb1"], check=True)
    if word.startswith("store"):
        subprocess.run(["ip", "link", "set", "wfb1", "alias", "weft:fedcba:n1:"], check=True)
    before = ip("address")
    seen = backend.observe([bridge().key])[bridge().key]
    assert isinstance(seen, Foreign)
    assert word in seen.what
    with pytest.raises(ExceptionGroup) as raised:
        converger.converge(NETWORK, [bridge(), bridge("wfb2")])
    assert raised.group_contains(Conflict, match=word)
    assert isinstance(backend.apply([Step(None, bridge())])[bridge().key], Conflict)
    assert [one for one in ip("address") if one["ifname"] != "wfb2"] == before
    assert link("wfb2")["ifalias"] == MARKS.write(NETWORK)
    assert bridge().key not in backend.survey()


def test_a_link_of_another_scope_is_a_conflict(backend: KernelBackend) -> None:
    applied(backend, bridge(scope=scope_of("n2")))
    failure = backend.apply([Step(None, bridge())])[bridge().key]
    assert isinstance(failure, Conflict)
    assert "network n2" in str(failure)


def test_a_taken_name_of_the_other_end_is_told(backend: KernelBackend) -> None:
    subprocess.run(["ip", "link", "add", "wfc1", "type", "bridge"], check=True)
    applied(backend, bridge())
    failure = backend.apply([Step(None, veth())])[veth().key]
    assert isinstance(failure, Conflict)
    assert "wfc1" in str(failure)


def test_on_an_adopted_bridge_nothing_changes_but_our_port_and_address(
    backend: KernelBackend, converger: Converger, owners: dict[str, Scope]
) -> None:
    network = network_of("a" * 64, 1, adopted="br7")
    owners["br7"] = scope_of(network.id)
    subprocess.run(["ip", "link", "add", "br7", "type", "bridge"], check=True)
    subprocess.run(["ip", "link", "add", "nic", "address", "f0:00:00:00:00:07", "type", "veth"], check=True)
    subprocess.run(["ip", "link", "set", "nic", "master", "br7", "up"], check=True)
    subprocess.run(["ip", "link", "set", "br7", "up"], check=True)
    subprocess.run(["ip", "address", "add", "10.9.1.1/24", "dev", "br7"], check=True)
    subprocess.run(["ip", "address", "add", "10.9.1.9/24", "dev", "br7"], check=True)
    before, addresses = link("br7"), _addresses("br7")
    endpoint = endpoint_of(network, "e" * 64)
    plans = plan(network, endpoint)
    settle(converger, plans)
    for scope, wanted in plans.items():
        assert not converger.difference(scope, wanted)
    assert _addresses("br7") == addresses | {"fd09:1::1"}
    assert _settled(link("br7")) == _settled(before)
    assert link("br7")["address"] == "f0:00:00:00:00:07"
    gateway = address_key("br7", IPv6Interface("fd09:1::1/64"))
    assert backend.survey().keys() == {link_key(endpoint.link), gateway}
    assert backend.survey()[gateway].scope == scope_of(network.id)
    for scope, wanted in reversed(plans.items()):
        converger.converge(scope, [], [one.key for one in wanted])
    assert _addresses("br7") == addresses
    assert _settled(link("br7")) == _settled(before)


def test_an_adopted_bridge_is_neither_made_nor_deleted(converger: Converger, backend: KernelBackend) -> None:
    with pytest.raises(ExceptionGroup) as raised:
        converger.converge(NETWORK, [bridge("br7", adopted=True)])
    assert raised.group_contains(NotFound)
    subprocess.run(["ip", "link", "add", "br7", "group", str(LINK_GROUP), "type", "bridge"], check=True)
    before = link("br7")
    half = backend.observe([link_key("br7")])[link_key("br7")]
    assert isinstance(half, Bridge)
    assert not backend.apply([Step(half, bridge("br7", adopted=True))])
    assert link("br7") == before


def test_with_our_address_no_other_of_its_subnet_goes(converger: Converger, owners: dict[str, Scope]) -> None:
    owners["br7"] = NETWORK
    subprocess.run(["ip", "link", "add", "br7", "type", "bridge"], check=True)
    ours = host_address("10.9.1.1/24", "br7", shared=True)
    converger.converge(NETWORK, [ours])
    subprocess.run(["ip", "address", "add", "10.9.1.9/24", "dev", "br7", "label", "br7:op"], check=True)
    subprocess.run(
        ["ip", "address", "add", "10.9.1.10/24", "dev", "br7", "valid_lft", "999", "preferred_lft", "9"], check=True
    )
    assert ip("address", "show", "dev", "br7", "secondary")
    converger.converge(NETWORK, [], [ours.key])
    assert _addresses("br7") == {"10.9.1.9", "10.9.1.10"}
    told = {one["local"]: one for one in ip("address", "show", "dev", "br7")[0]["addr_info"]}
    assert told["10.9.1.9"]["label"] == "br7:op"
    assert told["10.9.1.10"]["valid_life_time"] <= 999


def test_an_address_of_the_operators_is_not_ours_to_take(
    backend: KernelBackend, owners: dict[str, Scope], converger: Converger
) -> None:
    owners["br7"] = NETWORK
    subprocess.run(["ip", "link", "add", "br7", "type", "bridge"], check=True)
    subprocess.run(["ip", "address", "add", "10.9.1.1/24", "dev", "br7"], check=True)
    theirs = host_address("10.9.1.1/24", "br7")
    assert isinstance(backend.observe([theirs.key])[theirs.key], Foreign)
    assert isinstance(backend.apply([Step(None, theirs)])[theirs.key], Conflict)
    assert not backend.apply([Step(None, host_address("10.9.1.1/24", "br7", shared=True))])
    converger.converge(NETWORK, [], [theirs.key])
    assert _addresses("br7") == {"10.9.1.1"}
    assert not backend.survey()


def test_an_ipv6_address_of_another_length_is_a_conflict_that_names_both(backend: KernelBackend) -> None:
    applied(backend, bridge(ipv6=True), host_address("fd00::1/80"))
    failure = backend.apply([Step(None, host_address("fd00::1/64"))])[host_address("fd00::1/64").key]
    assert isinstance(failure, Conflict)
    assert "fd00::1/64" in str(failure)
    assert "fd00::1/80" in str(failure)


def _addresses(name: str) -> set[str]:
    return {
        one["local"]
        for told in ip("address", "show", "dev", name)
        for one in told["addr_info"]
        if one["scope"] != "link"
    }


def _settled(told: Any) -> Any:  # noqa: ANN401 - JSON
    timers = {"gc_timer", "hello_timer", "tcn_timer", "topology_change_timer"}
    data = {name: value for name, value in told["linkinfo"]["info_data"].items() if name not in timers}
    carrier = {"operstate", "flags", "linkinfo", "tso_max_size", "tso_max_segs", "gso_max_size", "gso_ipv4_max_size"}
    return {name: value for name, value in told.items() if name not in carrier} | {"data": data}
