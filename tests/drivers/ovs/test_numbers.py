"""The numbers that flows have for ports, and when they have to be looked at again."""

import threading

import pytest

from drivers.errors import HostFailure
from drivers.ovsdb import OvsdbBackend
from tests.drivers.ovs.world import BRIDGE, SOON, backend_of, device, port, tunnel, veth
from tests.drivers.steps import applied, create, delete
from tests.lab.ovs import Ovs
from tests.lab.wait import await_

pytestmark = pytest.mark.kernel


def numbers(ovs: Ovs) -> dict[str, int]:
    """Return the numbers as OVS prints them."""
    names = ["br-int", *ovs.vsctl("list-ports", "br-int").split()]
    return {name: int(ovs.vsctl("get", "Interface", name, "ofport")) for name in names}


def test_ports_have_the_numbers_that_flows_have_for_them(backend: OvsdbBackend, ovs: Ovs) -> None:
    veth("wfh1")
    applied(backend, BRIDGE)
    assert backend.ofports() == {"br-int": 65534}
    applied(backend, device(), port("wfg1"), tunnel())
    assert backend.ofports() == numbers(ovs)
    assert backend.ofports(["wfh1", "wftvxlan"]).keys() == {"wfh1", "wftvxlan"}
    assert backend.apply(delete(device())) == {}
    assert "wfh1" not in backend.ofports()


def test_a_number_is_waited_for(backend: OvsdbBackend, ovs: Ovs) -> None:
    applied(backend, BRIDGE)
    found: list[object] = []
    waiting = threading.Thread(target=lambda: found.append(backend.ofports(["wfg1"])))
    waiting.start()
    applied(backend, port("wfg1"))
    waiting.join(SOON)
    assert found == [{"wfg1": numbers(ovs)["wfg1"]}]


def test_a_port_that_cannot_have_a_number_is_told_at_once(backend: OvsdbBackend) -> None:
    applied(backend, BRIDGE)
    backend.apply(create(device("wfh9")))
    with pytest.raises(HostFailure, match=r"port wfh9 has no number: could not open network device wfh9 \(No such"):
        backend.ofports(["br-int", "wfh9"])


def test_a_port_that_is_not_there_is_not_waited_for_for_ever(ovs: Ovs) -> None:
    with backend_of(ovs, patience=0.5) as backend:
        applied(backend, BRIDGE)
        with pytest.raises(HostFailure, match="port nosuch has no number: there is no such port"):
            backend.ofports(["nosuch"])


def test_changes_of_numbers_and_starts_of_the_daemon_are_told(backend: OvsdbBackend, ovs: Ovs) -> None:
    veth("wfh1")
    applied(backend, BRIDGE)
    applied(backend, device())
    told: list[frozenset[str]] = []
    starts: list[int] = []
    stop = backend.subscribe(told.append, lambda: starts.append(1))
    try:
        applied(backend, port("wfg1"))
        await_(lambda: told == [{"wfg1"}], SOON, f"the new port, of {told}")
        assert backend.apply(delete(device())) == {}
        await_(lambda: told == [{"wfg1"}, {"wfh1"}], SOON, f"the port that went, of {told}")
        before = numbers(ovs)
        ovs.kill_vswitchd()
        await_(lambda: backend.health().vswitchd is False, SOON, "the end of ovs-vswitchd to be seen")
        assert starts == []
        ovs.start_vswitchd()
        await_(lambda: starts == [1], SOON, "the start of ovs-vswitchd to be told")
        assert backend.health().vswitchd is True
        assert backend.ofports() == before == numbers(ovs)
        ovs.vsctl("add-port", "br-int", "theirs", "--", "set", "Interface", "theirs", "type=internal")
        await_(lambda: told[-1] == {"theirs"}, SOON, f"a stranger's port, of {told}")
        assert "theirs" in backend.ofports()
    finally:
        stop()
    applied(backend, tunnel())
    assert told[-1] == {"theirs"}


def test_the_daemon_says_what_it_was_built_with(backend: OvsdbBackend) -> None:
    assert {"system", "netdev"} <= backend.datapath_types()
    assert {"internal", "vxlan", "gre", "geneve"} <= backend.iface_types()
