"""The kernel's backend on the real kernel: what is applied is observed, whatever state the host was in before."""

import json
import subprocess
import threading
from collections.abc import Collection, Iterator
from ipaddress import IPv4Interface, IPv6Interface, ip_interface, ip_network
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.bridge.planner import BridgePlanner
from drivers.contract import Step
from drivers.converge import Converger
from drivers.errors import Conflict, HostFailure, InvalidRequest, NotFound
from drivers.facts import HostFacts
from drivers.kernel.backend import KernelBackend
from drivers.kernel.settings import file_of
from drivers.marks import Marks
from drivers.model import Endpoint, Network, Subnet
from drivers.naming import LINK_GROUP, bridge_mac, endpoint_mac, link_name
from drivers.resources import (
    HALF_MADE,
    HOST,
    Bridge,
    Foreign,
    Forwarding,
    HostAddress,
    Key,
    Resource,
    Scope,
    Setting,
    Veth,
    address_key,
    link_key,
    scope_of,
    setting_key,
)
from tests.netns import private_netns

pytestmark = pytest.mark.kernel

MARKS = Marks("0123456789abcdef")
NETWORK = scope_of("n1")
ENDPOINT = scope_of("n1", "e1")
MAC = "02:00:00:00:00:01"


@pytest.fixture(autouse=True)
def _netns() -> Iterator[None]:
    with private_netns():
        yield


@pytest.fixture
def owners() -> dict[str, Scope]:
    """Which adopted bridge belongs to which network: what the store says."""
    return {}


@pytest.fixture
def backend(_netns: None, owners: dict[str, Scope]) -> Iterator[KernelBackend]:
    one = KernelBackend(MARKS, owners.get)
    yield one
    one.close()


@pytest.fixture
def converger(backend: KernelBackend) -> Converger:
    return Converger({"kernel": backend})


def ip(*args: str) -> Any:  # noqa: ANN401 - JSON
    told = subprocess.run(["ip", "-j", "-d", *args], check=True, capture_output=True, text=True).stdout
    return json.loads(told) if told.strip() else []


def link(name: str) -> Any:  # noqa: ANN401 - JSON
    (one,) = ip("link", "show", "dev", name)
    return one


def bridge(name: str = "wfb1", **wanted: Any) -> Bridge:  # noqa: ANN401 - any field of a bridge
    return Bridge(**{"key": link_key(name), "scope": NETWORK, "mac": MAC, **wanted})


def veth(name: str = "wfh1", **wanted: Any) -> Veth:  # noqa: ANN401 - any field of a veth
    peer = name.replace("wfh", "wfc")
    return Veth(**{"key": link_key(name), "scope": ENDPOINT, "bridge": "wfb1", "peer": peer, **wanted})


def host_address(text: str, on: str = "wfb1", *, shared: bool = False) -> HostAddress:
    return HostAddress(key=address_key(on, ip_interface(text)), scope=NETWORK, shared=shared)


def applied(backend: KernelBackend, *wanted: Resource) -> None:
    failures = backend.apply([Step(None, one) for one in wanted])
    assert not failures, failures


def plan(network: Network, *endpoints: Endpoint) -> dict[Scope, list[Resource]]:
    """Return the kernel's part of the plans, by scope."""
    planner, facts = BridgePlanner(), HostFacts()
    plans = [planner.network(facts, network), *(planner.endpoint(facts, network, one) for one in endpoints)]
    return {part[0].scope: [one for one in part if one.key.backend == "kernel"] for part in plans}


def network_of(ident: str, octet: int, *, ipv6: bool = True, mtu: int | None = None, adopted: str = "") -> Network:
    subnets = [
        Subnet(network=ip_network(f"10.9.{octet}.0/24"), gateway=IPv4Interface(f"10.9.{octet}.1/24")),
        Subnet(network=ip_network(f"fd09:{octet}::/64"), gateway=IPv6Interface(f"fd09:{octet}::1/64")),
    ]
    return Network(
        id=ident,
        link=adopted or link_name("b", ident),
        mac=bridge_mac(ident),
        subnets=tuple(subnets if ipv6 else subnets[:1]),
        mtu=mtu,
        adopted=bool(adopted),
    )


def endpoint_of(network: Network, ident: str) -> Endpoint:
    mac = endpoint_mac(network.id, None, ident)
    return Endpoint(id=ident, network=network.id, link=link_name("h", ident), peer=link_name("c", ident), mac=mac)


def ident(number: int, first: str = "0") -> str:
    """Return an id as Docker makes them: what tells two apart is in the first twelve digits."""
    return f"{first}{number:011x}".ljust(64, "7")


def settle(converger: Converger, plans: dict[Scope, list[Resource]], keys: Collection[Key] = ()) -> None:
    for scope, wanted in plans.items():
        converger.converge(scope, wanted, keys)


# -- the first law --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ipv6", [True, False])
@pytest.mark.parametrize("mtu", [None, 1500, 1280, 1279, 68, 1400, 9000, 65535])
def test_a_bridge_is_observed_as_applied(backend: KernelBackend, mtu: int | None, *, ipv6: bool) -> None:
    wanted = bridge(mtu=mtu, ipv6=ipv6 and (mtu or 1500) >= 1280)
    applied(backend, wanted)
    assert backend.observe([wanted.key]) == {wanted.key: wanted}
    made = link("wfb1")
    assert made["ifalias"] == MARKS.write(NETWORK)
    assert made["group"] == str(LINK_GROUP)
    assert made["mtu"] == (mtu or 1500)


@pytest.mark.parametrize("mtu", [None, 1500, 1280, 1400, 9000, 65535])
def test_a_veth_is_observed_as_applied(backend: KernelBackend, mtu: int | None) -> None:
    wanted = veth(mtu=mtu, mac="02:00:00:00:00:aa")
    applied(backend, bridge(mtu=mtu), wanted)
    assert backend.observe([wanted.key]) == {wanted.key: wanted}
    peer, made = link("wfc1"), link("wfh1")
    assert (peer["address"], peer["mtu"], peer["group"]) == ("02:00:00:00:00:aa", mtu or 1500, str(LINK_GROUP))
    assert made["inet6_addr_gen_mode"] == "none"
    subprocess.run(["ip", "link", "set", "wfc1", "up"], check=True)
    assert not ip("-6", "address", "show", "dev", "wfh1")


@pytest.mark.parametrize(
    "text",
    ["10.0.0.1/24", "10.0.0.1/32", "192.0.2.255/8", "fd00::1/64", "fd00::1/128", "2001:db8::ffff/48", "fe80::1/64"],
)
def test_an_address_is_observed_as_applied(backend: KernelBackend, text: str) -> None:
    wanted = host_address(text)
    applied(backend, bridge(ipv6=True), wanted)
    assert backend.observe([wanted.key]) == {wanted.key: wanted}
    assert not backend.observe([host_address("10.0.0.77/24").key])


def test_an_ipv6_address_of_ours_is_never_doubted(backend: KernelBackend) -> None:
    applied(backend, bridge(ipv6=True), host_address("fd00::1/64"))
    told = ip("-6", "address", "show", "dev", "wfb1")[0]["addr_info"]
    (ours,) = [one for one in told if one["local"] == "fd00::1"]
    assert ours["nodad"]
    assert not ours.get("tentative")


@pytest.mark.parametrize(
    ("path", "kind", "before", "after"),
    [
        ("net/ipv6/conf/all/force_forwarding", Forwarding, "0", "1"),
        ("net/ipv6/conf/all/forwarding", Forwarding, "0", "1"),
        ("net/ipv6/conf/lo/accept_ra", Setting, "1", "2"),
        ("net/ipv4/ip_forward", Forwarding, "0", "1"),
    ],
)
def test_a_switch_is_observed_as_applied(
    backend: KernelBackend, path: str, kind: type[Setting], before: str, after: str
) -> None:
    key = setting_key(path)
    for value in (before, after, before):
        wanted = kind(key=key, scope=HOST, adopted=True, value=value)
        applied(backend, wanted)
        assert backend.observe([key]) == {key: wanted}
        told = subprocess.run(["sysctl", "-n", path], check=True, capture_output=True, text=True).stdout
        assert told.strip() == value


def test_a_switch_that_this_host_lacks_is_left_out(backend: KernelBackend) -> None:
    assert not backend.observe([setting_key("net/ipv6/conf/nolink/accept_ra")])


def test_a_switch_is_of_the_namespace_of_the_thread(backend: KernelBackend) -> None:
    key = setting_key("net/ipv4/ip_forward")
    applied(backend, Forwarding(key=key, scope=HOST, adopted=True, value="1"))
    seen: list[object] = []

    def elsewhere() -> None:
        with private_netns():
            applied(backend, Forwarding(key=key, scope=HOST, adopted=True, value="0"))
            seen.append(backend.observe([key])[key])

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert [one.value for one in seen if isinstance(one, Forwarding)] == ["0"]
    assert backend.observe([key])[key] == Forwarding(key=key, scope=HOST, value="1")


@pytest.mark.parametrize("path", ["net/../kernel/panic", "/etc/passwd", "kernel/panic", "net", "net//x", "net/./x", ""])
def test_only_switches_of_the_network_are_touched(backend: KernelBackend, path: str) -> None:
    with pytest.raises(InvalidRequest):
        file_of(path)
    failures = backend.apply([Step(None, Setting(key=setting_key(path), scope=HOST, adopted=True, value="0"))])
    assert isinstance(failures[setting_key(path)], InvalidRequest)


# -- again and again ------------------------------------------------------------------------------------------------


def test_a_second_converge_has_no_step(converger: Converger) -> None:
    network = network_of("a" * 64, 1, mtu=1400)
    plans = plan(network, *(endpoint_of(network, ident(n)) for n in range(3)))
    settle(converger, plans)
    for scope, wanted in plans.items():
        assert not converger.difference(scope, wanted)


def test_a_step_taken_again_does_nothing(backend: KernelBackend) -> None:
    wanted = [bridge(ipv6=True), veth(), host_address("10.0.0.1/24"), host_address("fd00::1/64")]
    applied(backend, *wanted)
    before = [link("wfb1")["ifindex"], link("wfh1")["ifindex"]]
    applied(backend, *wanted)
    assert [link("wfb1")["ifindex"], link("wfh1")["ifindex"]] == before
    gone = [Step(one, None) for one in reversed(wanted)]
    assert not backend.apply(gone)
    assert not backend.apply(gone)
    assert [one["ifname"] for one in ip("link")] == ["lo"]


def test_what_others_delete_first_is_deleted(backend: KernelBackend) -> None:
    applied(backend, bridge(), veth(), host_address("10.0.0.1/24"))
    subprocess.run(["ip", "link", "del", "wfc1"], check=True)
    assert not backend.apply([Step(veth(), None)])
    subprocess.run(["ip", "address", "flush", "dev", "wfb1"], check=True)
    assert not backend.apply([Step(host_address("10.0.0.1/24"), None)])
    subprocess.run(["ip", "link", "del", "wfb1"], check=True)
    assert not backend.apply([Step(host_address("10.0.0.1/24"), None), Step(bridge(), None)])


DISTURBED: dict[str, tuple[str, ...]] = {
    "bridge down": ("link", "set", "wfb1", "down"),
    "bridge mtu": ("link", "set", "wfb1", "mtu", "1300"),
    "bridge mac": ("link", "set", "wfb1", "address", "02:00:00:00:00:99"),
    "bridge group": ("link", "set", "wfb1", "group", "default"),
    "veth down": ("link", "set", "wfh1", "down"),
    "veth mtu": ("link", "set", "wfh1", "mtu", "1300"),
    "veth group": ("link", "set", "wfh1", "group", "7"),
    "veth out of the bridge": ("link", "set", "wfh1", "nomaster"),
    "veth in another bridge": ("link", "set", "wfh1", "master", "br9"),
    "veth with an address of its own": ("link", "set", "wfh1", "addrgenmode", "eui64"),
    "address lost": ("address", "flush", "dev", "wfb1", "scope", "global"),
}


@pytest.mark.parametrize("line", DISTURBED.values(), ids=DISTURBED.keys())
def test_what_others_changed_is_put_right_in_place(
    backend: KernelBackend, converger: Converger, line: tuple[str, ...]
) -> None:
    subprocess.run(["ip", "link", "add", "br9", "type", "bridge"], check=True)
    plans: dict[Scope, list[Resource]] = {
        NETWORK: [bridge(ipv6=True), host_address("10.0.0.1/24"), host_address("fd00::1/64")],
        ENDPOINT: [veth()],
    }
    settle(converger, plans)
    indexes = [link("wfb1")["ifindex"], link("wfh1")["ifindex"]]
    subprocess.run(["ip", *line], check=True)
    assert any(converger.difference(scope, wanted) for scope, wanted in plans.items())
    settle(converger, plans)
    assert not any(converger.difference(scope, wanted) for scope, wanted in plans.items())
    assert [link("wfb1")["ifindex"], link("wfh1")["ifindex"]] == indexes


@pytest.mark.parametrize("switch", ["disable_ipv6=1", "accept_ra=1"])
def test_an_ipv6_switch_that_others_turned_is_turned_back(converger: Converger, switch: str) -> None:
    converger.converge(NETWORK, [bridge(ipv6=True)])
    subprocess.run(["sysctl", "-qw", f"net/ipv6/conf/wfb1/{switch}"], check=True)
    assert converger.difference(NETWORK, [bridge(ipv6=True)])
    converger.converge(NETWORK, [bridge(ipv6=True)])
    assert not converger.difference(NETWORK, [bridge(ipv6=True)])


def test_a_bridge_without_ipv6_has_no_address_by_which_containers_reach_the_host(converger: Converger) -> None:
    converger.converge(NETWORK, [bridge(ipv6=False)])
    converger.converge(ENDPOINT, [veth()])
    subprocess.run(["ip", "link", "set", "wfc1", "up"], check=True)
    assert not ip("-6", "address", "show", "dev", "wfb1")


@pytest.mark.parametrize(("mtu", "small"), [(None, 1300), (1400, 1280), (9000, 1500)])
def test_a_port_with_a_smaller_mtu_does_not_change_the_bridge(
    converger: Converger, mtu: int | None, small: int
) -> None:
    converger.converge(NETWORK, [bridge(mtu=mtu)])
    converger.converge(ENDPOINT, [veth(mtu=small)])
    assert link("wfb1")["mtu"] == (mtu or 1500)
    assert not converger.difference(NETWORK, [bridge(mtu=mtu)])
    converger.converge(ENDPOINT, [], [veth().key])
    assert link("wfb1")["mtu"] == (mtu or 1500)


def test_a_link_of_the_other_kind_is_made_anew(converger: Converger) -> None:
    converger.converge(NETWORK, [bridge(), bridge("wfx1")])
    other = veth("wfx1", scope=NETWORK, peer="wfc9")
    converger.converge(NETWORK, [other])
    assert not converger.difference(NETWORK, [other])
    assert link("wfx1")["linkinfo"]["info_kind"] == "veth"


# -- half made ------------------------------------------------------------------------------------------------------


def half_made(kind: str) -> Bridge | Veth:
    group = str(LINK_GROUP)
    if kind == "bridge":
        subprocess.run(["ip", "link", "add", "wfb1", "group", group, "type", "bridge"], check=True)
        return bridge()
    subprocess.run(["ip", "link", "add", "wfb1", "type", "bridge"], check=True)
    peer = ("peer", "name", "wfc1", "group", group)
    subprocess.run(["ip", "link", "add", "wfh1", "group", group, "type", "veth", *peer], check=True)
    return veth()


@pytest.mark.parametrize("kind", ["bridge", "veth"])
def test_a_half_made_link_is_healed(converger: Converger, backend: KernelBackend, kind: str) -> None:
    wanted = half_made(kind)
    seen = backend.observe([wanted.key])[wanted.key]
    assert isinstance(seen, Resource)
    assert seen.scope == HALF_MADE
    assert wanted.key not in backend.survey()
    before = link(wanted.name)["ifindex"]
    converger.converge(wanted.scope, [wanted])
    assert backend.observe([wanted.key]) == {wanted.key: wanted}
    assert link(wanted.name)["ifindex"] != before


@pytest.mark.parametrize("kind", ["bridge", "veth"])
def test_a_half_made_link_is_withdrawn(converger: Converger, kind: str) -> None:
    wanted = half_made(kind)
    converger.converge(wanted.scope, [], [wanted.key])
    assert wanted.name not in [one["ifname"] for one in ip("link")]


@pytest.mark.parametrize("kind", ["bridge", "veth"])
def test_a_half_made_link_that_is_met_at_the_making_is_healed(backend: KernelBackend, kind: str) -> None:
    wanted = half_made(kind)
    applied(backend, wanted)
    assert backend.observe([wanted.key]) == {wanted.key: wanted}


# -- the operator's -------------------------------------------------------------------------------------------------

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


# -- failures -------------------------------------------------------------------------------------------------------


def test_a_port_of_a_bridge_that_is_gone_is_not_begun(backend: KernelBackend) -> None:
    wanted = [veth(bridge="nobridge"), veth("wfh2")]
    applied(backend, bridge())
    failures = backend.apply([Step(None, one) for one in wanted])
    assert failures.keys() == {wanted[0].key}
    assert isinstance(failures[wanted[0].key], HostFailure)
    assert "nobridge" in str(failures[wanted[0].key])
    assert {one["ifname"] for one in ip("link")} == {"lo", "wfb1", "wfh2", "wfc2"}


def test_a_failure_says_what_failed_in_the_kernels_words_and_how_to_try_it(backend: KernelBackend) -> None:
    applied(backend, bridge(ipv6=False))
    wanted = host_address("fd00::1/64")
    text = str(backend.apply([Step(None, wanted)])[wanted.key])
    assert text.startswith("address wfb1 fd00::1/64 could not be made: ")
    assert "disabled" in text
    assert f"(by hand: {wanted})" in text
    failure = backend.apply([Step(None, bridge("wfb2", mtu=70000))])[link_key("wfb2")]
    assert "mtu" in str(failure).split(" (by hand", maxsplit=1)[0]


def test_a_full_bridge_is_told_as_such(backend: KernelBackend) -> None:
    applied(backend, bridge())
    lines = "".join(f"link add a{n} master wfb1 type veth peer b{n}\n" for n in range(1023))
    subprocess.run(["ip", "-batch", "-"], input=lines, check=True, text=True)
    assert "1,023 ports" in str(backend.apply([Step(None, veth())])[veth().key])


# -- the survey, the walk, and the cost -----------------------------------------------------------------------------


def test_the_survey_is_the_union_of_the_plans(backend: KernelBackend, converger: Converger) -> None:
    networks = [network_of("a" * 64, 1), network_of("b" * 64, 2, ipv6=False, mtu=1400)]
    plans: dict[Scope, list[Resource]] = {}
    for network in networks:
        plans |= plan(network, *(endpoint_of(network, ident(n, network.id[0])) for n in range(3)))
    settle(converger, plans)
    subprocess.run(["ip", "link", "add", "br9", "type", "bridge"], check=True)
    subprocess.run(["ip", "address", "add", "10.99.0.1/24", "dev", "br9"], check=True)
    for name in [link_name("c", ident(n, network.id[0])) for network in networks for n in range(3)]:
        subprocess.run(["ip", "link", "set", name, "up"], check=True)
    before = backend.calls
    survey = backend.survey()
    assert backend.calls - before == 2
    assert len([one for one in survey.values() if isinstance(one, Veth)]) == 6
    assert survey == {one.key: one for wanted in plans.values() for one in wanted}


_WALK = network_of("a" * 64, 1)
_WALKERS = [endpoint_of(_WALK, ident(n)) for n in range(3)]
_PLANS = plan(_WALK, *_WALKERS)
_LINES = st.sampled_from(
    [
        f"link {line}"
        for name in (_WALK.link, *(one.link for one in _WALKERS))
        for line in (f"set {name} down", f"set {name} mtu 1300", f"set {name} group 0", f"del {name}")
    ]
    + [f"link set {one.link} nomaster" for one in _WALKERS]
    + [f"address flush dev {_WALK.link}", f"address add 10.9.1.77/24 dev {_WALK.link}"]
)
_SCOPES = st.frozensets(st.sampled_from(sorted(_PLANS)))


@settings(max_examples=25, deadline=None)
@given(walk=st.lists(st.tuples(_SCOPES, st.lists(_LINES, max_size=3)), min_size=1, max_size=4))
def test_from_any_state_any_state_is_reached(walk: list[tuple[frozenset[Scope], list[str]]]) -> None:
    backend = KernelBackend(MARKS, lambda _: None)
    converger = Converger({"kernel": backend})
    try:
        for scopes, lines in walk:
            network = scope_of(_WALK.id)
            wanted = {scope: part for scope, part in _PLANS.items() if scope in scopes and network in scopes}
            seen = converger.survey()
            for scope in sorted({*seen, *wanted}):
                converger.converge(scope, wanted.get(scope, []), seen.get(scope, {}).keys())
            assert backend.survey() == {one.key: one for part in wanted.values() for one in part}
            for line in lines:
                subprocess.run(["ip", *line.split()], check=False, capture_output=True)
    finally:
        subprocess.run(["ip", "link", "del", _WALK.link], check=False, capture_output=True)
        for one in _WALKERS:
            subprocess.run(["ip", "link", "del", one.link], check=False, capture_output=True)
        backend.close()


def test_an_endpoint_costs_the_same_among_10_and_among_300(backend: KernelBackend, converger: Converger) -> None:
    network = network_of("a" * 64, 1)
    settle(converger, plan(network))
    cost: dict[int, list[int]] = {}
    present = 0
    for crowd in (10, 300):
        crowded = [endpoint_of(network, ident(n)) for n in range(present, crowd)]
        settle(converger, {scope: part for scope, part in plan(network, *crowded).items() if scope.endpoint})
        present = crowd
        new = endpoint_of(network, "e" * 64)
        scope = scope_of(network.id, new.id)
        (wanted,) = plan(network, new)[scope]
        marks = [backend.calls]
        converger.converge(scope, [wanted])
        marks.append(backend.calls)
        converger.converge(scope, [wanted])
        marks.append(backend.calls)
        converger.converge(scope, [], [wanted.key])
        marks.append(backend.calls)
        cost[crowd] = [after - before for before, after in pairwise(marks)]
        assert len(backend.survey()) == crowd + len(plan(network)[scope_of(network.id)])
    assert cost == {10: [3, 1, 2], 300: [3, 1, 2]}
