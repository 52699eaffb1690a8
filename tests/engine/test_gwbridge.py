"""`weft.gwbridge=true`: Docker's own bridge is the way out, so Docker publishes the ports and knows them."""

import json

import pytest

from drivers.errors import InvalidRequest
from plugin.options import network_settings
from tests.lab.engine import Engine
from tests.lab.matrix import both_engines
from tests.lab.net import Neighbour
from tests.lab.talk import PORT, start
from tests.lab.wait import await_
from tests.lab.weft import Weft

pytestmark = pytest.mark.engine


@both_engines
def test_docker_ps_shows_the_ports_and_docker_publishes_them(engine: Engine, weft: Weft, neighbour: Neighbour) -> None:
    engine.docker("network", "create", "-d", "weft", "-o", "weft.gwbridge=true", "shown")
    engine.docker("network", "create", "-d", "weft", "hidden")
    shown = start(engine, "shown1", "shown", "-p", f"8181:{PORT}")
    beside = start(engine, "shown2", "shown")
    start(engine, "hidden1", "hidden", "-p", f"8182:{PORT}")
    ports = dict(line.split("|") for line in engine.docker("ps", "--format", "{{.Names}}|{{.Ports}}").splitlines())
    assert f"0.0.0.0:8181->{PORT}/tcp" in ports["shown1"]
    assert ports["hidden1"] == ""
    assert f"{PORT}/tcp -> 0.0.0.0:8181" in engine.docker("port", "shown1")
    published = json.loads(weft.cli("port", "ls", "--json").stdout)
    assert {one["container"] for one in published} == {"hidden1"}

    url = f"http://{neighbour.node_v4}:8181/cgi-bin/who"
    said = await_(lambda: neighbour.run("curl", "-s", "-m", "5", url, check=False).stdout, 20, "the published port")
    assert str(neighbour.v4) in said  # NAT of Docker's keeps the client's address
    assert set(shown.links()) == {"eth0", "eth1"}
    gateway = shown.default()
    assert gateway is not None
    assert gateway[1] == "eth1"
    assert beside.answered_by("shown1") == {"shown1"}
    remove_gwbridge(engine, "shown1", "shown2", "hidden1")


def remove_gwbridge(engine: Engine, *containers: str) -> None:
    """Leave the host as it was: docker_gwbridge stays by itself once it is there."""
    engine.docker("rm", "-f", *containers)
    engine.docker("network", "rm", "docker_gwbridge")


def test_an_internal_network_has_no_way_out_at_all(engine: Engine, weft: Weft) -> None:
    said = engine.docker("network", "create", "-d", "weft", "--internal", "-o", "weft.gwbridge=1", "no", check=False)
    assert "weft.gwbridge=true contradicts --internal" in said
    assert weft.is_running


def test_it_is_a_truth() -> None:
    assert network_settings({"weft.gwbridge": "true"}).gwbridge
    with pytest.raises(InvalidRequest, match=r"weft\.gwbridge"):
        network_settings({"weft.gwbridge": "bridge"})
