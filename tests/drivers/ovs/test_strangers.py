"""What has no mark of ours is not touched, whatever we want."""

from dataclasses import replace

import pytest

from drivers.converge import Converger
from drivers.errors import Conflict
from drivers.ovsdb import OvsdbBackend
from drivers.resources import HOST, Foreign, OvsPort, Resource
from tests.drivers.ovs.world import BRIDGE, NETWORK, OTHER, SOON, backend_of, device, port, tunnel, veth
from tests.drivers.steps import applied, create, delete
from tests.lab.ovs import Ovs
from tests.lab.wait import await_

pytestmark = pytest.mark.kernel

NETDEV = ("datapath_type=netdev",)


def everything(ovs: Ovs) -> str:
    """Return all that is written in the database; not what ovs-vswitchd notes, nor the count of transactions."""
    columns = {
        "Bridge": "name,datapath_type,fail_mode,other_config,external_ids,ports",
        "Port": "_uuid,name,external_ids,interfaces",
        "Interface": "_uuid,name,type,options,mac,mtu_request,external_ids",
    }
    return "\n".join(ovs.vsctl(f"--columns={asked}", "list", table) for table, asked in columns.items())


def foreign(backend: OvsdbBackend, resource: Resource) -> Foreign:
    """Wait until the backend has heard of a stranger at the resource's key, and return it."""
    await_(lambda: backend.observe([resource.key]), SOON, "the word of the stranger")
    found = backend.observe([resource.key])[resource.key]
    assert isinstance(found, Foreign)
    return found


def test_a_bridge_of_somebody_else_is_left_alone_and_named(
    backend: OvsdbBackend, converger: Converger, ovs: Ovs
) -> None:
    ovs.vsctl("add-br", "br-int", "--", "set", "Bridge", "br-int", *NETDEV, "--", "add-port", "br-int", "theirs")
    before = everything(ovs)
    found = foreign(backend, BRIDGE)
    assert "with 2 ports, something that weft did not make" in found.what
    assert "OVN and Neutron" in found.what
    assert "another name" in found.what
    with pytest.raises(ExceptionGroup) as caught:
        converger.converge(HOST, [BRIDGE])
    assert caught.group_contains(Conflict, match="bridge br-int is taken by a bridge of Open vSwitch")
    calls = backend.calls
    assert isinstance(backend.apply(create(BRIDGE))[BRIDGE.key], Conflict)
    assert isinstance(backend.apply(create(tunnel()))[tunnel().key], Conflict)
    assert backend.apply(delete(BRIDGE)) == {}
    assert backend.calls == calls
    assert backend.survey() == {}
    assert everything(ovs) == before


def test_a_port_of_somebody_else_is_left_alone_and_named(backend: OvsdbBackend, converger: Converger, ovs: Ovs) -> None:
    applied(backend, BRIDGE)
    ovs.vsctl("add-port", "br-int", "wfg1", "--", "set", "Interface", "wfg1", "type=internal")
    before = everything(ovs)
    assert (
        "port of Open vSwitch's bridge br-int, something that weft did not make" in foreign(backend, port("wfg1")).what
    )
    with pytest.raises(ExceptionGroup) as caught:
        converger.converge(NETWORK, [port("wfg1")])
    assert caught.group_contains(Conflict, match="ovs-vsctl del-port br-int wfg1")
    assert isinstance(backend.apply(create(port("wfg1")))[port("wfg1").key], Conflict)
    assert backend.apply(delete(port("wfg1"))) == {}
    assert backend.survey() == {BRIDGE.key: BRIDGE}
    assert everything(ovs) == before


def test_a_bridge_with_ports_of_somebody_else_is_not_deleted(backend: OvsdbBackend, ovs: Ovs) -> None:
    applied(backend, BRIDGE)
    applied(backend, tunnel())
    ovs.vsctl("add-port", "br-int", "theirs", "--", "set", "Interface", "theirs", "type=internal")
    foreign(backend, port("theirs"))
    error = backend.apply(delete(BRIDGE))[BRIDGE.key]
    assert isinstance(error, Conflict)
    assert "theirs" in str(error)
    assert tunnel().name not in str(error)
    ovs.vsctl("del-port", "theirs")
    await_(lambda: backend.apply(delete(BRIDGE)) == {}, SOON, "the bridge to be deleted")
    assert ovs.vsctl("list-br") == ""


def test_what_another_store_has_is_a_strangers(backend: OvsdbBackend, ovs: Ovs) -> None:
    with backend_of(ovs, "b") as other:
        applied(other, BRIDGE)
        applied(other, tunnel())
    assert "another weft (store b)" in foreign(backend, tunnel()).what
    assert "another weft (store b)" in foreign(backend, BRIDGE).what
    before = everything(ovs)
    assert backend.apply(delete(tunnel(), BRIDGE)) == {}
    assert backend.survey() == {}
    assert everything(ovs) == before


@pytest.mark.parametrize("one", [tunnel(), port("wfg1"), device()], ids=str)
def test_what_another_scope_has_is_a_conflict_and_stays(backend: OvsdbBackend, ovs: Ovs, one: OvsPort) -> None:
    veth("wfh1")
    applied(backend, BRIDGE)
    applied(backend, one)
    before = everything(ovs)
    theirs = replace(one, scope=OTHER, mtu=1300)
    error = backend.apply(create(theirs))[one.key]
    assert isinstance(error, Conflict)
    assert f"is taken by {one.scope}" in str(error)
    assert backend.apply(delete(theirs)) == {}, "a late clean-up leaves the successor's port"
    assert everything(ovs) == before


def test_a_name_that_a_stranger_takes_in_that_moment_is_a_conflict(backend: OvsdbBackend, ovs: Ovs) -> None:
    """As if the word of it were still on its way: the server refuses, and the next look tells why."""
    applied(backend, BRIDGE)
    ovs.vsctl("add-port", "br-int", "wfg1", "--", "set", "Interface", "wfg1", "type=internal")
    foreign(backend, port("wfg1"))
    client = backend._client()
    with client.changed:
        row, interface = client.reader.rows.ports.pop("wfg1"), client.reader.rows.interfaces.pop("wfg1")
    error = backend.apply(create(port("wfg1")))[port("wfg1").key]
    assert "identical values" in str(error)
    with client.changed:
        client.reader.rows.put(row)
        client.reader.rows.put(interface)
    assert isinstance(backend.apply(create(port("wfg1")))[port("wfg1").key], Conflict)
