"""Addresses as numbers: what can be held, what is free, what a pool is called."""

from __future__ import annotations

from ipaddress import IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.model import IPNetwork
from plugin.pools import DEFAULT, LOCAL, PoolId, next_subnet, own_ula, parse_bases, parse_id, usable


@pytest.mark.parametrize(
    ("subnet", "first", "last"),
    [
        ("10.0.0.0/24", "10.0.0.1", "10.0.0.254"),  # neither network nor broadcast
        ("10.0.0.0/8", "10.0.0.1", "10.255.255.254"),
        ("10.0.0.0/30", "10.0.0.1", "10.0.0.2"),
        ("10.0.0.0/31", "10.0.0.0", "10.0.0.1"),  # RFC 3021
        ("10.0.0.0/32", "10.0.0.0", "10.0.0.0"),
        ("fd00::/64", "fd00::1", "fd00::ffff:ffff:ffff:ffff"),  # not the subnet-router anycast address
        ("fd00::/127", "fd00::", "fd00::1"),  # RFC 6164
    ],
)
def test_the_addresses_that_an_interface_can_have(subnet: str, first: str, last: str) -> None:
    span = usable(ip_network(subnet))
    assert (span.first, span.last) == (int(ip_address(first)), int(ip_address(last)))


@pytest.mark.parametrize(
    ("pool", "text"),
    [
        (PoolId(LOCAL, ip_network("10.20.0.0/16")), "weft-local/10.20.0.0/16"),
        (
            PoolId(LOCAL, ip_network("10.20.0.0/16"), ip_network("10.20.5.0/24"), "blue"),
            "weft-local/10.20.0.0/16?within=10.20.5.0/24&pool=blue",
        ),
        (PoolId("s", ip_network("fd00::/64"), None, "a.b_c-d"), "s/fd00::/64?pool=a.b_c-d"),
    ],
)
def test_a_pool_is_called_by_what_it_is(pool: PoolId, text: str) -> None:
    assert str(pool) == text
    assert parse_id(text) == pool


@pytest.mark.parametrize(
    "text",
    ["", "x", "weft-local/10.0.0.1/24", "weft-local/10.0.0.0/24?", "POOL-reclocal-10.77.1.0/24", "a/10.0.0.0/24?x=y"],
)
def test_other_names_are_no_pools(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of any kind
        parse_id(text)


def test_a_range_limits_what_is_chosen_to_what_can_be_held() -> None:
    span = PoolId(LOCAL, ip_network("10.20.0.0/16"), ip_network("10.20.0.0/30")).choice
    assert span is not None
    assert (span.first, span.size) == (int(ip_address("10.20.0.1")), 3)
    assert PoolId(LOCAL, ip_network("10.20.0.0/16"), ip_network("10.20.0.0/32")).choice is None


@pytest.mark.parametrize(
    "text",
    ["10.0.0.0/8/24", "10.208.0.0/12/22,fd00:1::/48/64", " 172.16.0.0/16/24 , 10.0.0.0/16/16", DEFAULT],
)
def test_bases_are_read_as_they_are_written(text: str) -> None:
    assert str(parse_bases(text)) == text.replace(" ", "")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "BASE/LENGTH/SIZE"),
        ("10.0.0.0/8", "BASE/LENGTH/SIZE"),
        ("10.0.0.1/8/24", "not '10.0.0.1/8/24'"),
        ("10.0.0.0/24/16", "SIZE"),
        ("10.0.0.0/8/31", "SIZE at most 30"),
        ("fd00::/16/64", "24 more than LENGTH"),
        ("fd00::/48/80", "64 for IPv6"),
        ("224.0.0.0/8/24", "not '224.0.0.0/8/24'"),
        ("10.0.0.0/8/24,10.1.0.0/16/24", "10.0.0.0/8 and 10.1.0.0/16 overlap"),
    ],
)
def test_bases_that_cannot_be_are_refused_with_what_is_allowed(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_bases(text)


def test_each_family_has_its_default() -> None:
    only6 = parse_bases("fd00:1::/48/64")
    assert [str(base) for base in only6.of(4, "5a17c0de")] == [DEFAULT]
    assert [str(base) for base in only6.of(6, "5a17c0de")] == ["fd00:1::/48/64"]
    assert parse_bases(DEFAULT).of(6, "5a17c0de") == (own_ula("5a17c0de"),)


def test_a_store_has_its_own_ula_prefix_for_good() -> None:
    base = own_ula("5a17c0de")
    assert str(base) == "fd56:46ab:c54e::/48/64"  # never to change: networks live by it
    assert base.network.network_address in IPv6Network("fd00::/8")
    assert own_ula("5a17c0df") != base


def test_the_default_is_clear_of_docker_s_own() -> None:
    (base,) = parse_bases(DEFAULT).each
    dockers = ["172.17.0.0/16", *(f"172.{n}.0.0/16" for n in range(18, 32)), "192.168.0.0/16", "10.0.0.0/16"]
    assert not any(base.network.overlaps(ip_network(text)) for text in dockers)


SMALL = ip_network("10.0.0.0/26")


@given(st.sets(st.sampled_from([*SMALL.subnets(new_prefix=28), *SMALL.subnets(new_prefix=32), *SMALL.subnets(1)])))
def test_the_next_subnet_is_the_lowest_that_overlaps_nothing(taken: set[IPNetwork]) -> None:
    found = next_subnet(parse_bases("10.0.0.0/26/29").each, taken)
    free = [one for one in SMALL.subnets(new_prefix=29) if not any(one.overlaps(other) for other in taken)]
    assert found == (free[0] if free else None)


def test_the_next_base_is_taken_when_the_first_is_full() -> None:
    bases = parse_bases("10.0.0.0/24/25,10.9.0.0/24/25").each
    assert next_subnet(bases, [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]) is None
    assert next_subnet(bases, [ip_network("10.0.0.0/16")]) == ip_network("10.9.0.0/25")
    assert next_subnet(bases, [ip_network("0.0.0.0/0")]) is None
