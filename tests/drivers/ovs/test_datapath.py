"""Which datapath is taken, and that weft asks the kernel what OVS asks it."""

import pytest

from drivers.errors import Unsupported
from drivers.ovsdb.datapath import choose, kernel_has_datapath
from tests.lab.ovs import Ovs

BOTH = ("netdev", "system")


@pytest.mark.parametrize(
    ("wanted", "offered", "kernel", "taken"),
    [
        ("auto", BOTH, True, "system"),
        ("auto", BOTH, False, "netdev"),
        ("auto", ("netdev",), True, "netdev"),
        ("auto", ("system",), True, "system"),
        ("system", BOTH, True, "system"),
        ("netdev", BOTH, True, "netdev"),
        ("netdev", BOTH, False, "netdev"),
    ],
)
def test_the_kernels_datapath_is_taken_where_it_is(
    wanted: str, offered: tuple[str, ...], taken: str, *, kernel: bool
) -> None:
    assert choose(wanted, offered, lambda: kernel) == taken


@pytest.mark.parametrize(
    ("wanted", "offered", "kernel", "words"),
    [
        ("system", BOTH, False, r"modprobe openvswitch.*WEFT_OVS_DATAPATH=netdev"),
        ("system", ("netdev",), True, "built with the datapaths netdev, and not system"),
        ("netdev", ("system",), True, "built with the datapaths system, and not netdev"),
        ("auto", ("system",), False, "modprobe openvswitch"),
        ("auto", (), True, "built with the datapaths none, and not auto"),
    ],
)
def test_what_is_not_there_is_unsupported(wanted: str, offered: tuple[str, ...], words: str, *, kernel: bool) -> None:
    with pytest.raises(Unsupported, match=words):
        choose(wanted, offered, lambda: kernel)


@pytest.mark.kernel
def test_the_kernel_tells_us_what_it_tells_ovs(ovs: Ovs) -> None:
    """In a network namespace of its own, as every other one."""
    lacks = "Generic Netlink family 'ovs_datapath' does not exist" in ovs.log_text()
    assert kernel_has_datapath() is not lacks
