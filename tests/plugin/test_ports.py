from __future__ import annotations

import random
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.errors import InvalidRequest
from drivers.model import Publication
from plugin.ports import Row, parse, publication, runs, shown, spelled, versions
from plugin.requests import PortRequest

BOTH = frozenset({4, 6})


def test_a_range_is_one_run_however_many_rows_docker_sends() -> None:
    rows: list[Row] = [("udp", "", 10000 + n, 10000 + n, 10000 + n) for n in range(10000)]
    random.Random(7).shuffle(rows)  # noqa: S311 - an order, not a secret
    assert runs(rows) == (
        PortRequest(transport="udp", container_first=10000, count=10000, host_first=10000, host_last=19999),
    )


def test_a_shifted_range_keeps_each_ports_partner() -> None:
    rows: list[Row] = [("tcp", "192.0.2.1", 30000 + n, 20000 + n, 20000 + n) for n in range(1000)]
    (run,) = runs(rows)
    assert (run.container_first, run.host_first, run.host_last, run.count) == (30000, 20000, 20999, 1000)


def test_what_is_not_in_step_is_not_one_run() -> None:
    rows: list[Row] = [
        ("tcp", "", 80, 8080, 8080),
        ("tcp", "", 81, 8082, 8082),  # the host port skips one
        ("tcp", "", 83, 8083, 8083),  # the container port does
        ("udp", "", 84, 8084, 8084),
        ("tcp", "127.0.0.1", 84, 8084, 8084),
    ]
    assert [run.count for run in runs(rows)] == [1] * 5


def test_choices_stay_single() -> None:
    rows: list[Row] = [("tcp", "", 80, 0, 0), ("tcp", "", 81, 0, 0), ("tcp", "", 82, 6000, 6002)]
    assert [(run.container_first, run.host_first, run.host_last) for run in runs(rows)] == [
        (80, 0, 0),
        (81, 0, 0),
        (82, 6000, 6002),
    ]


ROWS = st.lists(
    st.tuples(
        st.sampled_from(["tcp", "udp", "sctp"]),
        st.sampled_from(["", "127.0.0.1", "::1"]),
        st.integers(1, 40),
        st.integers(0, 40),
    ).map(lambda row: (row[0], row[1], row[2], row[3], row[3])),
    max_size=60,
)


@given(ROWS)
def test_runs_say_what_the_rows_said(rows: list[Row]) -> None:
    said = {
        (run.transport, str(run.host or ""), run.container_first + n, run.host_first and run.host_first + n)
        for run in runs(rows)
        for n in range(run.count)
    }
    assert said == {row[:4] for row in rows}
    assert runs(reversed(rows)) == runs(rows)


def test_nat_and_the_relay_share_the_clients() -> None:
    single = PortRequest(transport="tcp", container_first=80, host_first=8080, host_last=8080)
    assert versions(single, has=BOTH, relay=False) == (4, 6)
    assert versions(single, has=frozenset({4}), relay=True) == (4, 6)
    assert versions(single, has=frozenset({4}), relay=False) == (4,)
    long = PortRequest(transport="tcp", container_first=1, count=101, host_first=1, host_last=101)
    assert versions(long, has=frozenset({6}), relay=True) == (6,)
    sctp = PortRequest(transport="sctp", container_first=80, host_first=8080, host_last=8080)
    assert versions(sctp, has=frozenset({6}), relay=True) == (6,)


def test_an_address_that_nothing_serves_is_refused() -> None:
    request = PortRequest(transport="sctp", container_first=9, host=ip_address("::1"), host_first=9, host_last=9)
    with pytest.raises(InvalidRequest, match=r"\[::1\]:9:9/sctp: the container has no IPv6 address"):
        versions(request, has=frozenset({4}), relay=True)


def test_an_unspecified_host_address_means_every_one_of_its_version() -> None:
    request = PortRequest(transport="tcp", container_first=80, host=ip_address(0), host_first=1, host_last=1)
    assert versions(request, has=BOTH, relay=True) == (4,)
    assert publication(request, 4, 1).host is None


@pytest.mark.parametrize(
    "text",
    [
        "8080:80/tcp",
        "80/udp",
        "127.0.0.1:8080:80/tcp",
        "127.0.0.1::80/tcp",
        "[::1]:53:53/udp",
        "20000-20999:30000-30999/sctp",
    ],
)
def test_what_is_read_is_spelled_the_same(text: str) -> None:
    assert spelled(parse(text)) == text


def test_tcp_goes_without_saying() -> None:
    assert parse("8080:80") == parse("8080:80/tcp")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is no published port"),
        ("80/icmp", "'icmp' is not tcp, udp or sctp"),
        ("0:80", "is not 1 to 65535"),
        ("70000:80", "is not 1 to 65535"),
        ("90-80:90-80", "is not 1 to 65535, upwards"),
        ("1-5:1-4", "5 host ports for 4 container ports"),
        ("80-90", "a range needs its host ports"),
        ("localhost:80:80", "is no published port"),
        ("80:http", "is no published port"),
        ("::1:80:80", "is no published port"),
    ],
)
def test_what_cannot_be_read_says_how_to_write_it(text: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=r"write \[ADDRESS:\]") as refused:
        parse(text)
    assert words in str(refused.value)


def test_what_is_published_is_shown_as_docker_does() -> None:
    one = Publication(transport="tcp", version=4, first=8080, last=8080, to=80)
    assert shown(one) == "0.0.0.0:8080"
    assert shown(Publication(transport="udp", version=6, host=ip_address("::1"), first=1, last=5, to=1)) == "[::1]:1-5"
