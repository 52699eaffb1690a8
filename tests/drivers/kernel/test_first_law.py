"""The kernel's backend on the real kernel: what is applied is observed."""

import subprocess
import threading

import pytest

from drivers.contract import Step
from drivers.errors import InvalidRequest
from drivers.kernel.backend import KernelBackend
from drivers.kernel.settings import file_of
from drivers.naming import LINK_GROUP
from drivers.resources import (
    HOST,
    Forwarding,
    Setting,
    setting_key,
)
from tests.drivers.kernel.world import MARKS, NETWORK, bridge, host_address, ip, link, veth
from tests.drivers.steps import applied
from tests.netns import private_netns

pytestmark = pytest.mark.kernel


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
