"""libnftables by ctypes: its sockets and its errors."""

import pytest

from drivers.errors import HostFailure, Unsupported
from drivers.libnftables import Nft, own_ports
from tests.netns import private_netns

pytestmark = pytest.mark.kernel


def test_the_ports_of_this_process_are_known() -> None:
    with private_netns():
        before = own_ports()
        one = Nft()
        try:
            one.run("add table inet mine")
            assert len(own_ports() - before) == 1
        finally:
            one.close()
        assert own_ports() == before
        with pytest.raises(HostFailure, match="closed"):
            one.run("list tables")


def test_a_missing_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drivers.libnftables._LIBRARY", "libnosuch.so.9")
    with pytest.raises(Unsupported, match="libnftables1"):
        Nft()
