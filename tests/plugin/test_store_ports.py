from __future__ import annotations

import random
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from drivers.errors import Conflict
from drivers.model import Publication
from plugin.store import Database, EndpointRow, NetworkRow, Store
from tests.plugin.samples import endpoint, endpoint_id, network, network_id

ANN, BOB = endpoint_id(1), endpoint_id(2)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(Database(tmp_path / "weft.db"))
    store.add_network(NetworkRow(network=network(1)))
    for number in range(1, 9):
        store.add_endpoint(EndpointRow(endpoint=endpoint(number)))
    yield store
    store.close()


def of(text: str) -> Publication:
    """Read ``tcp4 192.0.2.1 8080-8089``; ``*`` is every address."""
    kind, host, ports = text.split()
    first, _, last = ports.partition("-")
    return Publication(
        transport=kind[:-1],  # type: ignore[arg-type] # a test says it right
        version=int(kind[-1]),
        host=None if host == "*" else ip_address(host),
        first=int(first),
        last=int(last or first),
        to=80,
    )


@pytest.mark.parametrize(
    ("held", "asked"),
    [
        ("tcp4 * 8080", "tcp4 * 8080"),
        ("tcp4 * 8080", "tcp4 192.0.2.1 8080"),
        ("tcp4 192.0.2.1 8080", "tcp4 * 8080"),
        ("tcp4 192.0.2.1 8080", "tcp4 192.0.2.1 8080"),
        ("tcp6 ::1 8080", "tcp6 * 8080"),
        ("sctp4 * 8080", "sctp4 * 8080"),
        ("udp4 * 1000-1999", "udp4 * 1999"),
        ("udp4 * 1000-1999", "udp4 * 1000"),
        ("udp4 * 1500", "udp4 * 1000-1999"),
        ("udp4 * 1000-1999", "udp4 192.0.2.1 1999-2999"),
        ("udp4 * 1-65535", "udp4 * 65535"),
    ],
)
def test_what_overlaps_is_a_conflict_that_names_the_holder(store: Store, held: str, asked: str) -> None:
    store.ports.claim(ANN, [of(held)])
    assert store.ports.holders([of(asked)]) == {ANN}
    port = asked.split()[2]
    with pytest.raises(Conflict, match=rf"{BOB[:12]}: host port {port}/.* is published by endpoint {ANN[:12]}; see"):
        store.ports.claim(BOB, [of(asked)])
    assert store.ports.of(BOB) == ()


@pytest.mark.parametrize(
    ("held", "asked"),
    [
        ("tcp4 * 8080", "tcp6 * 8080"),
        ("tcp4 * 8080", "udp4 * 8080"),
        ("udp6 * 8080", "sctp6 * 8080"),
        ("tcp4 127.0.0.1 8080", "tcp4 192.0.2.1 8080"),
        ("udp4 * 1000-1999", "udp4 * 2000-2999"),
        ("udp4 * 1000-1999", "udp4 * 999"),
    ],
)
def test_what_does_not_overlap_is_fine(store: Store, held: str, asked: str) -> None:
    store.ports.claim(ANN, [of(held)])
    assert store.ports.holders([of(asked)]) == set()
    store.ports.claim(BOB, [of(asked)])
    assert store.ports.of(BOB) == (of(asked),)


def test_all_is_claimed_or_nothing(store: Store) -> None:
    store.ports.claim(ANN, [of("tcp4 * 8082")])
    with pytest.raises(Conflict):
        store.ports.claim(BOB, [of("tcp4 * 8080"), of("tcp4 * 8081"), of("tcp4 * 8082")])
    assert store.ports.of(BOB) == ()
    assert store.ports.holders([of("tcp4 * 8080-8081")]) == set()


def test_an_endpoint_is_in_its_own_way(store: Store) -> None:
    with pytest.raises(Conflict):
        store.ports.claim(ANN, [of("tcp4 * 8080"), of("tcp4 127.0.0.1 8080")])
    assert store.ports.of(ANN) == ()


def test_a_claim_that_is_closing_is_wanted_no_longer_and_still_there(store: Store) -> None:
    store.ports.claim(ANN, [of("tcp4 * 8080"), of("tcp4 * 8081")], live=True)
    (first, second) = store.ports.rows(ANN)
    assert first.live
    store.ports.close([first])
    assert store.ports.rows() == [second]
    assert store.ports.holders([first.publication]) == {ANN}
    store.ports.release_closed(ANN)
    assert store.ports.holders([first.publication]) == set()
    assert store.ports.of(ANN) == (second.publication,)


def test_claims_go_with_their_endpoint(store: Store) -> None:
    store.ports.claim(ANN, [of("tcp4 * 8080")])
    store.withdraw_endpoints([ANN])
    assert store.ports.holders([of("tcp4 * 8080")]) == {ANN}  # the host may still have it
    store.remove_endpoint(ANN)
    assert store.ports.holders([of("tcp4 * 8080")]) == set()


def test_idle_claims_are_let_go_of(store: Store) -> None:
    store.ports.claim(ANN, [of("tcp4 * 8080"), of("tcp4 * 8081")])
    store.ports.claim(BOB, [of("tcp4 * 8082")])
    store.set_external(ANN, external=True)
    store.ports.close(store.ports.rows(ANN)[:1])
    store.ports.release_idle()
    assert store.ports.of(ANN) == (of("tcp4 * 8081"),)
    assert store.ports.holders([of("tcp4 * 8080"), of("tcp4 * 8082")]) == set()


def test_a_network_publishes_to_loopback_while_one_of_its_endpoints_does(store: Store) -> None:
    ports, ident = store.ports, network_id(1)
    store.set_external(ANN, external=True)
    store.set_external(BOB, external=True)
    ports.claim(ANN, [of("tcp4 192.0.2.1 8080"), of("tcp6 * 8080"), of("tcp6 ::1 8081")])
    assert not ports.to_loopback(ident)
    ports.claim(ANN, [of("tcp4 127.0.0.1 8080")])
    ports.claim(BOB, [of("tcp4 * 8081")])
    assert ports.to_loopback(ident)
    assert not ports.to_loopback(network_id(2))
    ports.release(BOB)
    assert ports.to_loopback(ident)
    ports.close([row for row in ports.rows(ANN) if str(row.publication.host) == "127.0.0.1"])
    assert not ports.to_loopback(ident)
    ports.release(ANN)
    ports.claim(BOB, [of("tcp4 * 8081")])
    assert ports.to_loopback(ident)
    store.set_external(BOB, external=False)
    assert not ports.to_loopback(ident)


def test_two_thousand_claims_against_a_model(store: Store) -> None:
    dice = random.Random(2026)  # noqa: S311 - the same every time
    model: dict[tuple[str, int, int], dict[str, str]] = {}  # transport, version, port -> host's address -> endpoint
    outcomes = []
    for _ in range(2000):
        who = endpoint_id(dice.randint(1, 8))
        if dice.random() < 0.1:
            store.ports.release(who)
            for held in model.values():
                for host in [host for host, holder in held.items() if holder == who]:
                    del held[host]
            continue
        transport, version = dice.choice(["tcp", "udp", "sctp"]), dice.choice([4, 6])
        host = dice.choice(["*", *{4: ["127.0.0.1", "192.0.2.1"], 6: ["::1", "2001:db8::1"]}[version]])
        first = dice.randint(1, 300)
        last = first + dice.choice([0, 0, 0, 1, 10, 60])
        cells = [model.setdefault((transport, version, port), {}) for port in range(first, last + 1)]
        holders = {holder for held in cells for at, holder in held.items() if host == "*" or at in ("*", host)}
        one = of(f"{transport}{version} {host} {first}-{last}")
        assert store.ports.holders([one]) == holders
        if holders:
            with pytest.raises(Conflict, match="|".join(holder[:12] for holder in holders)):
                store.ports.claim(who, [one])
        else:
            store.ports.claim(who, [one])
            for held in cells:
                held[host] = who
        outcomes.append(bool(holders))
    assert min(outcomes.count(True), outcomes.count(False)) > 300  # it was worth trying
    claimed = {
        (row.publication.transport, row.publication.version, port, str(row.publication.host or "*"), row.endpoint)
        for row in store.ports.rows()
        for port in range(row.publication.first, row.publication.last + 1)
    }
    assert claimed == {(*at, host, who) for at, held in model.items() for host, who in held.items()}
