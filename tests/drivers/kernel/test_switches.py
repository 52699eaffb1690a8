"""What publishing ports asks of links: a bridge that routes 127.0.0.0/8, and a port that gives back what it sent."""

import json
import subprocess
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from drivers.contract import Step
from drivers.converge import Converger
from drivers.errors import HostFailure
from drivers.kernel import settings
from drivers.kernel.backend import KernelBackend
from drivers.resources import Veth
from tests.drivers.kernel.world import ENDPOINT, NETWORK, bridge, ip, link, veth
from tests.drivers.steps import applied
from tests.lab.wait import await_
from tests.netns import Netns, sh, sysctl

pytestmark = pytest.mark.kernel


def hairpin(name: str = "wfh1") -> bool:
    told: Any = json.loads(sh("bridge", "-j", "-d", "link", "show", "dev", name))
    return bool(told[0]["hairpin"])


def route_localnet(name: str = "wfb1") -> str:
    return Path(f"/proc/sys/net/ipv4/conf/{name}/route_localnet").read_text().strip()


@pytest.mark.parametrize("default", ["0", "1"])
@pytest.mark.parametrize("wanted", [True, False])
def test_route_localnet_is_observed_as_applied(backend: KernelBackend, default: str, *, wanted: bool) -> None:
    sysctl("ipv4/conf/default/route_localnet", default)
    one = bridge(route_localnet=wanted)
    applied(backend, one)
    assert backend.observe([one.key]) == {one.key: one}
    assert backend.survey() == {one.key: one}
    assert route_localnet() == f"{int(wanted)}"


@pytest.mark.parametrize("wanted", [True, False])
def test_hairpin_mode_is_observed_as_applied(backend: KernelBackend, *, wanted: bool) -> None:
    one = veth(hairpin=wanted)
    applied(backend, bridge(), one)
    assert backend.observe([one.key]) == {one.key: one}
    assert backend.survey()[one.key] == one
    assert hairpin() is wanted


def test_both_are_changed_in_place_and_back(converger: Converger) -> None:
    converger.converge(NETWORK, [bridge()])
    converger.converge(ENDPOINT, [veth()])
    indexes = [link("wfb1")["ifindex"], link("wfh1")["ifindex"]]
    for wanted in (True, False, True):
        converger.converge(NETWORK, [bridge(route_localnet=wanted)])
        converger.converge(ENDPOINT, [veth(hairpin=wanted)])
        assert (hairpin(), route_localnet()) == (wanted, f"{int(wanted)}")
        assert not converger.difference(NETWORK, [bridge(route_localnet=wanted)])
        assert not converger.difference(ENDPOINT, [veth(hairpin=wanted)])
    assert [link("wfb1")["ifindex"], link("wfh1")["ifindex"]] == indexes


@pytest.mark.parametrize("line", ["hairpin off", "nomaster", "master br9"])
def test_hairpin_mode_that_others_took_is_given_back(converger: Converger, line: str) -> None:
    subprocess.run(["ip", "link", "add", "br9", "type", "bridge"], check=True)
    converger.converge(NETWORK, [bridge()])
    converger.converge(ENDPOINT, [veth(hairpin=True)])
    kind = ("type", "bridge_slave") if line.startswith("hairpin") else ()
    subprocess.run(["ip", "link", "set", "wfh1", *kind, *line.split()], check=True)
    assert converger.difference(ENDPOINT, [veth(hairpin=True)])
    converger.converge(ENDPOINT, [veth(hairpin=True)])
    assert not converger.difference(ENDPOINT, [veth(hairpin=True)])
    assert hairpin()


@pytest.mark.parametrize("wanted", [True, False])
def test_a_switch_that_others_turned_is_turned_back(converger: Converger, *, wanted: bool) -> None:
    one = bridge(route_localnet=wanted)
    converger.converge(NETWORK, [one])
    sysctl("ipv4/conf/wfb1/route_localnet", f"{int(not wanted)}")
    assert converger.difference(NETWORK, [one])
    converger.converge(NETWORK, [one])
    assert not converger.difference(NETWORK, [one])


def test_a_host_without_the_switch_says_so(backend: KernelBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    read = settings.read
    monkeypatch.setattr(settings, "read", lambda path: None if path.endswith("route_localnet") else read(path))
    applied(backend, bridge())
    one = bridge("wfb2", route_localnet=True)
    failure = backend.apply([Step(None, one)])[one.key]
    assert isinstance(failure, HostFailure)
    assert "127.0.0.1" in str(failure)


def test_hairpin_mode_costs_one_request_when_it_is_wanted_or_changed(
    backend: KernelBackend, converger: Converger
) -> None:
    converger.converge(NETWORK, [bridge()])
    marks = [backend.calls]
    for wanted in (veth(), veth(hairpin=True), veth(hairpin=True), veth(), replace(veth(), mtu=1400)):
        converger.converge(ENDPOINT, [wanted])
        marks.append(backend.calls)
    assert [after - before for before, after in pairwise(marks)] == [3, 3, 1, 3, 2]
    converger.converge(ENDPOINT, [], [veth().key])
    before = backend.calls
    converger.converge(ENDPOINT, [veth(hairpin=True)])
    assert backend.calls - before == 4


@pytest.mark.parametrize("enhanced", ["1", "0"])
def test_what_hairpin_mode_does_to_duplicate_address_detection(backend: KernelBackend, enhanced: str) -> None:
    """A container's own probe comes back to it; it knows it by its nonce, unless it sends none (RFC 7527).

    ``enhanced_dad`` is 1 by default since Linux 4.10. Docker's own addresses are set without detection.
    """
    with ExitStack() as stack:
        container = stack.enter_context(Netns())
        one: Veth = veth(hairpin=True, mac="02:00:00:00:00:aa")
        applied(backend, bridge(ipv6=True), one)
        with container.entered():
            sysctl("ipv6/conf/default/enhanced_dad", enhanced)
            sysctl("ipv6/conf/all/enhanced_dad", enhanced)
        subprocess.run(["ip", "link", "set", "wfc1", "netns", container.path], check=True)
        with container.entered():
            subprocess.run(["ip", "address", "add", "fd00::2/64", "dev", "wfc1"], check=True)
            subprocess.run(["ip", "link", "set", "wfc1", "up"], check=True)

            def states() -> list[dict[str, Any]]:
                return [one for told in ip("-6", "address", "show", "dev", "wfc1") for one in told["addr_info"]]

            await_(
                lambda: (
                    len(states()) == 2 and all(not one.get("tentative") or one.get("dadfailed") for one in states())
                ),
                10,
                "the end of the detection",
            )
            assert [bool(one.get("dadfailed")) for one in states()] == [enhanced == "0"] * 2
