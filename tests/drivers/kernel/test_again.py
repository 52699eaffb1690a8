"""What is there already, half made, or changed by others: brought to what is wanted, in place where it can be."""

import subprocess

import pytest

from drivers.contract import Step
from drivers.converge import Converger
from drivers.kernel.backend import KernelBackend
from drivers.naming import LINK_GROUP
from drivers.resources import (
    HALF_MADE,
    Bridge,
    Resource,
    Scope,
    Veth,
)
from tests.drivers.kernel.world import (
    ENDPOINT,
    NETWORK,
    bridge,
    endpoint_of,
    host_address,
    ident,
    ip,
    link,
    network_of,
    plan,
    settle,
    veth,
)
from tests.drivers.steps import applied

pytestmark = pytest.mark.kernel


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
