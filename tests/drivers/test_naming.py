"""Names and MACs: stable, legal, and far enough apart."""

import hashlib
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface

import pytest

from drivers.naming import LINK_NAME_BYTES, PREFIX, Kind, bridge_mac, endpoint_mac, is_link_name, link_name
from drivers.resources import scope_of

DOCKER_ID = "4f8d2a91c07b" + "e" * 52
SWARM_ID = "2xg7zkq9w1mv5t0hs3ybnc8dr"


@pytest.mark.parametrize("ident", [DOCKER_ID, SWARM_ID, "", "x", "Net One", "n" * 300, "ünïcode", "A" * 64, "0" * 12])
def test_a_name_is_15_bytes_that_the_kernel_takes(ident: str) -> None:
    name = link_name("b", ident)
    assert len(name.encode()) == LINK_NAME_BYTES
    assert name.startswith(PREFIX)
    assert is_link_name(name)


def test_names_do_not_change_between_versions() -> None:
    """They are found again after a restart by an upgraded weft: changing one of these orphans every link."""
    assert link_name("b", DOCKER_ID) == "wfb4f8d2a91c07b"
    assert link_name("h", SWARM_ID) == "wfh2xg7zkq9w1mv"
    assert link_name("c", "web.1") == "wfc" + hashlib.blake2s(b"web.1", digest_size=6).hexdigest()
    assert bridge_mac(DOCKER_ID) == "02:" + _hex(f"{DOCKER_ID}/bridge")
    assert endpoint_mac(DOCKER_ID, IPv4Interface("10.1.2.3/24"), "e") == "02:" + _hex(f"{DOCKER_ID}/10.1.2.3")


def _hex(text: str) -> str:
    return hashlib.blake2s(text.encode(), digest_size=5).digest().hex(":")


def test_the_kinds_of_one_id_have_different_names() -> None:
    kinds: tuple[Kind, ...] = ("b", "h", "c")
    assert len({link_name(kind, DOCKER_ID) for kind in kinds}) == 3


@pytest.mark.parametrize("name", ["eth0", "br-lan", "a", "x" * 15, "eth0.100", "wg_0", "0br"])
def test_link_names(name: str) -> None:
    assert is_link_name(name)


@pytest.mark.parametrize(
    "name",
    ["", "x" * 16, ".", "..", "a/b", "a b", "a:b", "-a", "a\n", "ä", "a%d", "a;reboot", 'a"', "a*", "a+", "a{", "a,b"],
)
def test_no_link_names(name: str) -> None:
    assert not is_link_name(name)


def test_200_000_ids_have_200_000_names() -> None:
    idents = {hashlib.sha256(b"%d" % number).hexdigest() for number in range(200_000)}
    assert len({link_name("h", ident) for ident in idents}) == 200_000
    assert len({link_name("h", f"compose_{ident}") for ident in idents}) == 200_000  # the hashed ones
    assert len({scope_of("n", ident) for ident in idents}) == 200_000


def test_20_000_addresses_of_a_network_have_as_many_macs() -> None:
    first = int(IPv4Address("10.0.0.0"))
    macs = {endpoint_mac(DOCKER_ID, IPv4Interface(first + number), "e") for number in range(20_000)}
    assert len(macs) == 20_000


@pytest.mark.parametrize("number", range(64))
def test_a_mac_is_unicast_and_locally_administered(number: int) -> None:
    for mac in (bridge_mac(f"n{number}"), endpoint_mac(f"n{number}", None, "e")):
        octets = bytes.fromhex(mac.replace(":", ""))
        assert mac == octets.hex(":")
        assert len(octets) == 6
        assert octets[0] & 0b11 == 0b10


def test_the_same_address_has_the_same_mac() -> None:
    """Whoever comes next with this address: nobody's neighbour table goes stale."""
    address = IPv4Interface("10.1.2.3/24")
    assert endpoint_mac("n", address, "one") == endpoint_mac("n", address, "two")
    assert endpoint_mac("n", IPv4Interface("10.1.2.3/16"), "one") == endpoint_mac("n", address, "one")


def test_another_address_network_or_endpoint_has_another_mac() -> None:
    macs = [
        endpoint_mac("n", IPv4Interface("10.1.2.3/24"), "e"),
        endpoint_mac("n", IPv4Interface("10.1.2.4/24"), "e"),
        endpoint_mac("n", IPv6Interface("fd00::3/64"), "e"),
        endpoint_mac("m", IPv4Interface("10.1.2.3/24"), "e"),
        endpoint_mac("n", None, "e"),
        endpoint_mac("n", None, "f"),
        bridge_mac("n"),
        bridge_mac("m"),
    ]
    assert len(set(macs)) == len(macs)
