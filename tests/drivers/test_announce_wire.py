"""The bytes of an announcement, against a reader of its own."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.announce_wire import announcement
from tests.drivers.announced import Told, read

MACS = st.binary(min_size=6, max_size=6).map(lambda raw: raw.hex(":"))
ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))


@given(MACS, ADDRESSES)
def test_it_is_what_the_rfcs_say_and_says_what_it_is_told(mac: str, address: IPv4Address | IPv6Address) -> None:
    frame = announcement(mac, address)
    assert read(frame.data) == Told(address, mac)
    assert frame.protocol == int.from_bytes(frame.data[12:14], "big")


ARP = "ffffffffffff 02aabbccdd02 0806  0001 0800 06 04 0001  02aabbccdd02 0a090002 000000000000 0a090002"
ADVERTISEMENT = (
    "333300000001 02aabbccdd02 86dd  60000000 0020 3a ff"
    " fd09 0000 0000 0000 0000 0000 0000 0002  ff02 0000 0000 0000 0000 0000 0000 0001"
    " 88 00 c10e 20000000  fd09 0000 0000 0000 0000 0000 0000 0002  0201 02aabbccdd02"
)


@pytest.mark.parametrize(("address", "data"), [(IPv4Address("10.9.0.2"), ARP), (IPv6Address("fd09::2"), ADVERTISEMENT)])
def test_every_byte_has_its_place(address: IPv4Address | IPv6Address, data: str) -> None:
    assert announcement("02:aa:bb:cc:dd:02", address).data == bytes.fromhex(data)
