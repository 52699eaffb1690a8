"""What the kernel refuses is told in its own words."""

import subprocess

import pytest

from drivers.contract import Step
from drivers.errors import HostFailure
from drivers.kernel.backend import KernelBackend
from drivers.resources import (
    link_key,
)
from tests.drivers.kernel.world import bridge, host_address, ip, veth
from tests.drivers.steps import applied

pytestmark = pytest.mark.kernel


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
    assert "1023 ports" in str(backend.apply([Step(None, veth())])[veth().key])
