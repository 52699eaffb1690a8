"""What is applied is observed, on a real Open vSwitch; and it is what a person would have typed."""

from dataclasses import replace
from typing import Any

import pytest

from drivers.contract import Step
from drivers.converge import Converger, order
from drivers.errors import InvalidRequest
from drivers.ovsdb import OvsdbBackend
from drivers.resources import HOST, OvsBridge, OvsPort, Rank, Resource, Veth, link_key, ovs_bridge_key, ovs_port_key
from tests.drivers.ovs.world import BRIDGE, ENDPOINT, FLOW, MAC, MARKS, NETWORK, device, ip, noticed, port, tunnel, veth
from tests.drivers.steps import applied, create, delete
from tests.lab.ovs import Ovs
from tests.netns import sh

pytestmark = pytest.mark.kernel

PORTS = (
    port("wfg1"),
    port("wfg2", mac="02:00:00:00:00:aa"),
    port("wfg3", mtu=1400),
    port("wfg4", mac="02:00:00:00:00:ab", mtu=9000, scope=HOST, needs=frozenset({BRIDGE.key})),
    tunnel("vxlan"),
    tunnel("gre"),
    tunnel("geneve"),
    port("wft1", type="vxlan", options=(("remote_ip", "192.0.2.2"), ("key", "5"), ("dst_port", "4790"))),
    port("wft2", type="geneve", options=(*FLOW, ("local_ip", "192.0.2.1"), ("dst_port", "6082"), ("tos", "inherit"))),
    device("wfh1"),
    device("wfh2", mtu=1400),
)
MARKED = ("set", "Port", "wfg1", f'external_ids:weft="{MARKS.write(NETWORK)}"')


def typed(ovs: Ovs, line: str) -> None:
    """Type a line."""
    sh("sh", "-c", line.replace("ovs-vsctl", f"ovs-vsctl --timeout=10 --db={ovs.remote}"))


def listed(ovs: Ovs, resource: Resource) -> dict[str, Any]:
    """Return what the database says about a resource, as ovs-vsctl prints it, without marks and numbers."""
    name = resource.key.at[0]
    columns = {"Bridge": "name,datapath_type,fail_mode,other_config"} if isinstance(resource, OvsBridge) else {}
    columns |= {"Interface": "name,type,options,mac,mtu_request,error"}
    found: dict[str, Any] = {
        table: ovs.vsctl("--columns=" + asked, "list", table, name) for table, asked in columns.items()
    }
    bridge = "" if isinstance(resource, OvsBridge) else ovs.vsctl("port-to-br", name)
    return found | {"bridge": bridge}


@pytest.mark.parametrize("mac", ["", MAC])
def test_a_bridge_is_observed_as_applied(backend: OvsdbBackend, ovs: Ovs, mac: str) -> None:
    wanted = replace(BRIDGE, mac=mac)
    applied(backend, wanted)
    assert backend.observe([wanted.key]) == {wanted.key: wanted}
    assert ovs.vsctl("get", "Bridge", "br-int", "external_ids:weft") == f'"{MARKS.write(HOST)}"'
    assert ovs.vsctl("get-fail-mode", "br-int") == "secure"
    assert (mac or "br-int") in ip("link", "show", "dev", "br-int")


def test_ports_are_observed_as_applied(backend: OvsdbBackend, ovs: Ovs) -> None:
    applied(backend, BRIDGE)
    veth("wfh1")
    veth("wfh2")
    keys = [one.key for one in PORTS]
    assert backend.observe(keys) == {}
    applied(backend, *PORTS)
    assert backend.observe(keys) == {one.key: one for one in PORTS}
    assert backend.survey() == {one.key: one for one in (BRIDGE, *PORTS)}
    assert ovs.vsctl("get", "Port", "wfg1", "external_ids:weft") == f'"{MARKS.write(NETWORK)}"'
    assert "02:00:00:00:00:aa" in ip("link", "show", "dev", "wfg2")
    assert "mtu 1400" in ip("link", "show", "dev", "wfg3")
    assert "mtu 1400" in ip("link", "show", "dev", "wfh2")


def test_what_is_removed_is_gone_and_again_is_no_transaction(backend: OvsdbBackend, ovs: Ovs) -> None:
    every = (BRIDGE, *PORTS)
    veth("wfh1")
    veth("wfh2")
    applied(backend, BRIDGE)
    applied(backend, *PORTS)
    assert backend.apply(delete(*PORTS)) == {}
    assert ovs.vsctl("list-ports", "br-int") == ""
    assert backend.apply(delete(BRIDGE)) == {}
    assert ovs.vsctl("list-br") == ""
    calls = backend.calls
    assert backend.apply(delete(*every)) == {}
    assert backend.calls == calls
    assert backend.survey() == {}


def test_a_second_converge_has_no_step_and_taking_steps_again_is_no_transaction(
    backend: OvsdbBackend, converger: Converger
) -> None:
    veth("wfh1")
    host = [one for one in (BRIDGE, *PORTS) if one.scope == HOST]
    assert set(converger.converge(HOST, host).taken) == set(create(*host))
    assert len(converger.converge(ENDPOINT, [device()]).taken) == 1
    calls = backend.calls
    assert calls == 3, "a bridge, its tunnels, a port"
    assert converger.converge(HOST, host).taken == ()
    assert converger.converge(ENDPOINT, [device()]).taken == ()
    assert backend.apply(create(*host, device())) == {}
    assert backend.calls == calls


def test_it_is_what_a_person_would_have_typed(backend: OvsdbBackend, ovs: Ovs) -> None:
    veth("wfh1")
    veth("wfh2")
    two = replace(BRIDGE, key=ovs_bridge_key("br-two"), mac="")
    applied(backend, BRIDGE, two)
    applied(backend, *PORTS)
    for resource in (PORTS[3], tunnel("gre"), PORTS[8], device("wfh2", mtu=1400), two, BRIDGE):
        ours = listed(ovs, resource)
        typed(ovs, resource.undo())
        assert f": {resource.name}" not in ovs.vsctl("--columns=name", "list", "Port")
        typed(ovs, f"{resource}")
        assert listed(ovs, resource) == ours
        typed(ovs, resource.undo())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (port("wfg1"), port("wfg1", mac="02:00:00:00:00:aa", mtu=1400)),
        (port("wfg1", mac="02:00:00:00:00:aa", mtu=1400), port("wfg1")),
        (tunnel(), tunnel(options=(*FLOW, ("dst_port", "4790")))),
        (tunnel(options=(*FLOW, ("local_ip", "192.0.2.1"))), tunnel()),
        (port("wft", type="vxlan", options=FLOW), port("wft", type="geneve", options=FLOW)),
        (port("wft", type="vxlan", options=FLOW), port("wft")),
        (device("wfh1"), device("wfh1", mtu=1300)),
    ],
    ids=str,
)
def test_a_port_is_changed_to_what_is_wanted(backend: OvsdbBackend, before: OvsPort, after: OvsPort) -> None:
    veth("wfh1")
    applied(backend, BRIDGE)
    applied(backend, before)
    assert backend.apply([Step(before, after)]) == {}
    assert backend.observe([after.key]) == {after.key: after}
    assert backend.ofports([after.name])


def test_a_port_goes_to_another_bridge_of_ours(backend: OvsdbBackend, ovs: Ovs) -> None:
    other = replace(BRIDGE, key=ovs_bridge_key("br-two"), mac="")
    applied(backend, BRIDGE, other)
    applied(backend, tunnel())
    moved = tunnel(bridge="br-two")
    assert backend.apply([Step(tunnel(), moved)]) == {}
    assert backend.observe([moved.key]) == {moved.key: moved}
    assert ovs.vsctl("list-ports", "br-two") == moved.name


@pytest.mark.parametrize(
    "meddling",
    [
        ("set", "Bridge", "br-int", "fail_mode=standalone"),
        ("clear", "Bridge", "br-int", "fail_mode"),
        ("remove", "Bridge", "br-int", "other_config", "disable-in-band"),
        ("set", "Bridge", "br-int", "other_config:disable-in-band=false"),
        ("set", "Bridge", "br-int", 'other_config:hwaddr="02:00:00:00:00:77"'),
        ("set", "Bridge", "br-int", "datapath_type=dummy"),
        ("del-br", "br-int"),
    ],
    ids=" ".join,
)
def test_a_bridge_is_put_right_and_the_operators_own_settings_stay(
    backend: OvsdbBackend, converger: Converger, ovs: Ovs, meddling: tuple[str, ...]
) -> None:
    applied(backend, BRIDGE)
    ovs.vsctl("set", "Bridge", "br-int", "other_config:mac-table-size=4096")
    ovs.vsctl("--no-wait", *meddling)
    noticed(backend, BRIDGE)
    assert len(converger.converge(HOST, [BRIDGE]).taken) == 1
    assert backend.observe([BRIDGE.key]) == {BRIDGE.key: BRIDGE}
    if meddling[0] != "del-br":
        assert ovs.vsctl("get", "Bridge", "br-int", "other_config:mac-table-size") == '"4096"'


@pytest.mark.parametrize(
    "meddling",
    [
        ("set", "Interface", "wfg1", "type=vxlan", "options:remote_ip=192.0.2.9"),
        ("set", "Interface", "wfg1", "mtu_request=1300"),
        ("set", "Interface", "wfg1", 'mac="02:00:00:00:00:77"'),
        ("set", "Interface", "wfg1", "options:key=7"),
        ("del-port", "wfg1"),
        ("add-br", "br-two", "--", "del-port", "wfg1", "--", "add-port", "br-two", "wfg1", "--", *MARKED),
        ("set", "Interface", "wfh1", "type=internal"),
        ("remove", "Port", "wfh1", "external_ids", "weft-ifindex"),
        ("set", "Port", "wfh1", "external_ids:weft-ifindex=99999"),
        (
            "--id=@i",
            "create",
            "Interface",
            "name=wfx",
            "type=internal",
            "--",
            "add",
            "Port",
            "wfh1",
            "interfaces",
            "@i",
        ),
    ],
    ids=" ".join,
)
def test_a_port_is_put_right(backend: OvsdbBackend, converger: Converger, ovs: Ovs, meddling: tuple[str, ...]) -> None:
    veth("wfh1")
    gateway = port("wfg1", mac="02:00:00:00:00:aa", mtu=1400)
    applied(backend, BRIDGE)
    applied(backend, gateway, device())
    ovs.vsctl("--no-wait", *meddling)
    noticed(backend, gateway, device())
    taken = *converger.converge(NETWORK, [gateway]).taken, *converger.converge(ENDPOINT, [device()]).taken
    assert len(taken) == 1
    assert backend.observe([gateway.key, device().key]) == {gateway.key: gateway, device().key: device()}


def test_a_port_for_a_link_comes_after_it_and_goes_before_it() -> None:
    link = Veth(key=link_key("wfh1"), scope=ENDPOINT)
    plug = device(needs=frozenset({link.key}))
    made = [Step(None, one) for one in (plug, link, port("wfg1"), BRIDGE)]
    assert [step.key.at[0] for step in order(made)] == ["br-int", "wfg1", "wfh1", "wfh1"]
    assert [step.rank for step in order(made)] == [Rank.DEVICE, Rank.DEVICE, Rank.LINK, Rank.ADDRESS]
    gone = [Step(one.new, None) for one in made]
    assert [step.key.backend for step in order(gone)] == ["ovsdb", "kernel", "ovsdb", "ovsdb"]


@pytest.mark.parametrize("kind", ["stt", "lisp", "patch", "dpdk", "nonsense"])
def test_a_port_that_nothing_would_pass_is_refused(backend: OvsdbBackend, kind: str) -> None:
    applied(backend, BRIDGE)
    wrong = port("wft", type=kind)
    assert isinstance(backend.apply(create(wrong))[wrong.key], InvalidRequest)
    assert backend.observe([wrong.key]) == {}


def test_what_is_no_key_of_ours_is_left_out(backend: OvsdbBackend) -> None:
    assert backend.observe([ovs_port_key("nosuch"), link_key("br-int"), replace(BRIDGE.key, at=())]) == {}
