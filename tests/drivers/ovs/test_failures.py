"""What OVS cannot do, in its own words, and only for the step that asked for it."""

import re
from dataclasses import replace
from types import SimpleNamespace

import pytest

from drivers.contract import Step
from drivers.converge import Converger
from drivers.errors import HostFailure
from drivers.ovsdb import OvsdbBackend
from drivers.ovsdb.client import Work
from drivers.ovsdb.datapath import kernel_has_datapath
from drivers.ovsdb.orders import UdpPortTaken
from drivers.resources import HOST, OvsPort
from tests.drivers.ovs.world import BRIDGE, ENDPOINT, FLOW, MARKS, device, port, tunnel, veth
from tests.drivers.steps import applied, create, delete

pytestmark = pytest.mark.kernel


def refusal(backend: OvsdbBackend, wanted: OvsPort) -> str:
    error = backend.apply(create(wanted))[wanted.key]
    assert isinstance(error, HostFailure)
    return str(error)


def test_a_link_that_is_missing_is_told_in_ovss_own_words_and_healed_by_making_it(
    backend: OvsdbBackend, converger: Converger
) -> None:
    applied(backend, BRIDGE)
    with pytest.raises(ExceptionGroup) as caught:
        converger.converge(ENDPOINT, [device()])
    words = (
        r"network n1 endpoint e1: port wfh1 .*could not open network device wfh1 \(No such device\): there is no such"
    )
    assert caught.group_contains(HostFailure, match=words)
    assert caught.group_contains(HostFailure, match=r"by hand: ovs-vsctl add-port br-int wfh1")
    assert backend.observe([device().key]) == {device().key: replace(device(), sound=False)}
    assert "No such device" in refusal(backend, device()), "as often as it is tried"
    veth("wfh1")
    assert len(converger.converge(ENDPOINT, [device()]).taken) == 1
    assert converger.converge(ENDPOINT, [device()]).taken == ()
    assert backend.ofports(["wfh1"])


def test_what_was_never_made_is_withdrawn_like_anything_else(backend: OvsdbBackend) -> None:
    applied(backend, BRIDGE)
    refusal(backend, device())
    assert backend.apply(delete(device())) == {}
    assert backend.survey() == {BRIDGE.key: BRIDGE}


def test_a_tunnel_that_is_there_already_under_another_name_is_refused(backend: OvsdbBackend) -> None:
    applied(backend, BRIDGE)
    applied(backend, tunnel())
    assert "File exists" in refusal(backend, port("wft2", type="vxlan", options=FLOW))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (port("wft1", type="vxlan", options=(("remote_ip", "nonsense"),)), "bad vxlan 'remote_ip'; "),
        (port("wft1", type="vxlan", options=()), "Open vSwitch says: wft1: vxlan type requires valid 'remote_ip'"),
        (port("wfg1", mtu=-5), "refused by ovsdb-server: -5 is less than minimum allowed value 1"),
    ],
    ids=str,
)
def test_a_value_that_nobody_takes_is_refused(backend: OvsdbBackend, wrong: OvsPort, words: str) -> None:
    applied(backend, BRIDGE)
    said = refusal(backend, wrong)
    assert words in said
    assert "\n" not in said
    assert f"by hand: {wrong}" in said


def test_who_has_the_udp_port_of_a_tunnel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Open vSwitch in the kernel says that somebody has it, and not who; `make test-vm` has the real one say so."""
    wanted = tunnel(options=(("key", "flow"), ("remote_ip", "flow"), ("dst_port", "4901")))
    work = Work(Step(None, wanted), 0)
    work.fail(UdpPortTaken("it does not work: (Address already in use)", 4901))
    holders = {4901: ["foreign"]}
    for known, words in (
        (holders, r"in use\); UDP port 4901 is held by link foreign: choose another"),
        ({}, r"in use\)$"),
    ):
        backend = OvsdbBackend(MARKS, links_on=lambda port, known=known: known.get(port, []))  # type: ignore[misc]
        monkeypatch.setattr(backend, "_promising", lambda: SimpleNamespace(submit=lambda *_: [work]))
        assert re.search(words, refusal(backend, wanted))


def test_a_port_needs_its_bridge(backend: OvsdbBackend) -> None:
    assert "Open vSwitch has no bridge br-int" in refusal(backend, tunnel())
    assert backend.calls == 0


def test_only_the_guilty_step_of_a_batch_fails(backend: OvsdbBackend) -> None:
    veth("wfh1")
    applied(backend, BRIDGE)
    good = [port("wfg1"), device(), tunnel(), port("wfg2")]
    refused, dead, homeless = port("wfg3", mtu=-5), device("wfh9"), port("wfg4", bridge="nosuch")
    failures = backend.apply(create(good[0], refused, good[1], dead, good[2], homeless, good[3]))
    assert failures.keys() == {refused.key, dead.key, homeless.key}
    assert backend.observe([one.key for one in good]) == {one.key: one for one in good}
    assert backend.observe([refused.key, homeless.key]) == {}


@pytest.mark.skipif(kernel_has_datapath(), reason="this kernel has Open vSwitch's datapath")
def test_a_datapath_that_this_kernel_lacks_is_a_failure(backend: OvsdbBackend, converger: Converger) -> None:
    """OVS itself takes such a bridge without an error, and forwards nothing."""
    wanted = replace(BRIDGE, datapath_type="system")
    with pytest.raises(ExceptionGroup) as caught:
        converger.converge(HOST, [wanted])
    assert caught.group_contains(HostFailure, match="has no datapath: .*needs the kernel module openvswitch")
    assert backend.observe([wanted.key]) == {wanted.key: replace(wanted, sound=False)}
    assert len(converger.converge(HOST, [BRIDGE]).taken) == 1, "the other one is there"
    assert backend.observe([BRIDGE.key]) == {BRIDGE.key: BRIDGE}
