from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Interface, ip_address, ip_network
from multiprocessing import get_context
from pathlib import Path

import pytest

from drivers.errors import Conflict, InvalidRequest, NotFound, Refusing
from drivers.model import Use
from drivers.resources import Scope, scope_of
from plugin.requests import EndpointSettings, NetworkSettings, PortRequest, Route
from plugin.store import Database, EndpointRow, NetworkRow, Phase, Store
from plugin.store.schema import MIGRATIONS
from tests.plugin.samples import endpoint, endpoint_id, network, network_id, subnet


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(Database(tmp_path / "state" / "weft.db"))
    yield store
    store.close()


def test_a_row_comes_back_as_it_went_in(store: Store) -> None:
    both = network(1, subnets=(subnet("10.1.0.0/16"), subnet("fd00:1::/64")), mtu=1400, internal=True)
    route = Route(destination=ip_network("10.8.0.0/16"), gateway=ip_address("10.1.0.9"))
    settings = NetworkSettings(
        interface_prefix="lan", routes=(route,), source4=IPv4Address("192.0.2.1"), announce_count=1
    )
    store.add_network(NetworkRow(network=both, settings=settings))
    attached = EndpointRow(
        endpoint=endpoint(1, ipv6=IPv6Interface("fd00:1::5/64")),
        ports=(PortRequest(transport="udp", container_first=53, host_first=5353, host_last=5353),),
        settings=EndpointSettings(ifname="web0", routes=(route,)),
    )
    store.add_endpoint(attached)
    assert store.network(both.id) == NetworkRow(network=both, phase=Phase.PENDING, settings=settings)
    assert store.endpoint(attached.id) == attached


def test_state_outlives_the_process_that_wrote_it(tmp_path: Path) -> None:
    path = tmp_path / "weft.db"
    writer = get_context("fork").Process(target=_write_and_die, args=(path,))
    writer.start()
    writer.join()
    assert writer.exitcode == -signal.SIGKILL
    store = Store(Database(path))
    assert [row.phase for row in store.networks()] == [Phase.READY]
    assert [row.phase for row in store.endpoints()] == [Phase.PENDING]
    store.close()


def _write_and_die(path: Path) -> None:
    store = Store(Database(path))
    store.add_network(NetworkRow(network=network(1)))
    store.network_ready(network_id(1))
    store.add_endpoint(EndpointRow(endpoint=endpoint(1)))
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_store_keeps_its_id(tmp_path: Path) -> None:
    ids = []
    for _ in range(2):
        store = Store(Database(tmp_path / "weft.db"))
        ids.append(store.id)
        store.close()
    assert ids[0] == ids[1]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("10.1.0.0/16", "10.1.2.0/24"),
        ("10.1.2.0/24", "10.1.0.0/16"),
        ("10.1.0.0/24", "10.1.0.0/24"),
        ("fd00::/48", "fd00:0:0:1::/64"),
    ],
)
def test_overlapping_subnets_are_a_conflict_that_names_the_holder(store: Store, first: str, second: str) -> None:
    store.add_network(NetworkRow(network=network(1, subnets=(subnet(first),))))
    with pytest.raises(Conflict, match=f"{second} overlaps one of network {network_id(1)[:12]}"):
        store.add_network(NetworkRow(network=network(2, subnets=(subnet(second),))))
    assert store.network(network_id(2)) is None


def test_neighbouring_subnets_are_fine(store: Store) -> None:
    for number, text in enumerate(("10.1.1.0/24", "10.1.0.0/24", "10.1.2.0/24", "fd00:1::/64", "fd00::/64")):
        store.add_network(NetworkRow(network=network(number, subnets=(subnet(text),))))
    assert store.use() == Use(networks=5, forwards6=True)


def test_a_bridge_has_one_network(store: Store) -> None:
    store.add_network(NetworkRow(network=network(1, link="br0", adopted=True)))
    with pytest.raises(Conflict, match=f"br0 belongs to network {network_id(1)[:12]}"):
        store.add_network(NetworkRow(network=network(2, link="br0", adopted=True)))


def test_an_address_has_one_holder_until_it_is_withdrawn(store: Store) -> None:
    store.add_network(NetworkRow(network=network(1)))
    first = EndpointRow(endpoint=endpoint(1))
    second = EndpointRow(endpoint=endpoint(2, ipv4=endpoint(1).ipv4))
    store.add_endpoint(first)
    assert store.holders(network_id(1), second.endpoint.addresses) == [first]
    with pytest.raises(Conflict):
        store.add_endpoint(second)
    store.add_endpoint(second, instead_of=[first])
    assert store.holders(network_id(1), second.endpoint.addresses) == [second]
    assert [row.phase for row in store.endpoints()] == [Phase.DELETING, Phase.PENDING]


def test_the_host_is_used_by_what_is_not_being_withdrawn(store: Store) -> None:
    store.add_network(NetworkRow(network=network(1, subnets=(subnet("fd00:1::/64"),))))
    store.add_network(NetworkRow(network=network(2, subnets=(subnet("fd00:2::/64"),), internal=True)))
    assert store.use() == Use(networks=2, forwards6=True)
    store.withdraw_network(network_id(1))
    assert store.use() == Use(networks=1, forwards6=False)


def test_a_network_is_withdrawn_with_its_endpoints(store: Store) -> None:
    store.add_network(NetworkRow(network=network(1)))
    store.add_endpoint(EndpointRow(endpoint=endpoint(1)))
    store.withdraw_network(network_id(1))
    assert [row.phase for row in store.endpoints()] == [Phase.DELETING]
    store.remove_endpoint(endpoint_id(1))
    store.remove_network(network_id(1))
    assert (store.networks(), store.endpoints()) == ([], [])
    store.add_network(NetworkRow(network=network(3, subnets=network(1).subnets)))  # its claims went with it


def test_only_what_is_being_withdrawn_can_be_forgotten(store: Store) -> None:
    store.add_network(NetworkRow(network=network(1)))
    store.remove_network(network_id(1))
    assert store.network(network_id(1)) is not None


def test_a_start_withdraws_what_was_never_answered(store: Store) -> None:
    for number in (1, 2):
        store.add_network(NetworkRow(network=network(number)))
        store.add_endpoint(EndpointRow(endpoint=endpoint(number, on=number)))
    store.network_ready(network_id(1))
    store.withdraw_unanswered()
    assert [row.phase for row in store.networks()] == [Phase.READY, Phase.DELETING]
    assert [row.phase for row in store.endpoints()] == [Phase.DELETING, Phase.DELETING]


def test_joining_and_leaving(store: Store) -> None:
    store.add_network(NetworkRow(network=network(1)))
    store.add_endpoint(EndpointRow(endpoint=endpoint(1)))
    store.set_sandbox(endpoint_id(1), "/var/run/docker/netns/0123")
    store.set_external(endpoint_id(1), external=True)
    joined = store.endpoint(endpoint_id(1))
    assert joined is not None
    assert (joined.sandbox, joined.external) == ("/var/run/docker/netns/0123", True)
    store.set_sandbox(endpoint_id(1), None)
    left = store.endpoint(endpoint_id(1))
    assert left is not None
    assert (left.sandbox, left.external) == (None, True)  # a Revoke tells of that


def test_short_ids(store: Store) -> None:
    store.add_network(NetworkRow(network=network(1)))
    store.add_network(NetworkRow(network=network(2)))
    assert store.find_network(network_id(1)).id == network_id(1)
    assert store.find_network(network_id(1)[:12]).id == network_id(1)
    with pytest.raises(Conflict, match="several networks"):
        store.find_network("0000")
    with pytest.raises(NotFound, match="weft network ls"):
        store.find_network("ffff")
    with pytest.raises(NotFound, match="weft endpoint ls"):
        store.find_endpoint("ffff")
    for nonsense in ("", "abc", "0000%", "' OR 1"):
        with pytest.raises(InvalidRequest):
            store.find_network(nonsense)


def test_rows_are_found_by_scope(store: Store) -> None:
    store.add_network(NetworkRow(network=network(1)))
    store.add_endpoint(EndpointRow(endpoint=endpoint(1)))
    assert store.scopes() == [scope_of(network_id(1), endpoint_id(1)), scope_of(network_id(1))]
    assert [row.id for scope in store.scopes() if (row := store.row_of(scope))] == [endpoint_id(1), network_id(1)]
    assert store.row_of(Scope("f" * 32)) is None


def test_the_first_finding_of_a_host_switch_stays(store: Store) -> None:
    store.keep_host_settings({"net/ipv6/conf/all/forwarding": "0"})
    store.keep_host_settings({"net/ipv6/conf/all/forwarding": "1"})
    assert store.host_settings() == {"net/ipv6/conf/all/forwarding": "0"}


def test_a_failed_transaction_leaves_nothing(store: Store) -> None:
    commits = store.commits
    store.add_network(NetworkRow(network=network(1)))
    with pytest.raises(sqlite3.IntegrityError):
        store.add_network(NetworkRow(network=network(1, link="other", subnets=())))
    assert store.commits == commits + 1
    assert [row.network for row in store.networks()] == [network(1)]


@pytest.mark.parametrize(
    "content", [b"not a database, but long enough to look at " * 40, b"SQLite format 3\0" + b"\7" * 5000]
)
def test_an_unreadable_store_is_refused_with_its_path(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weft.db"
    path.write_bytes(content)
    with pytest.raises(Refusing, match=r"weft\.db cannot be read"):
        Store(Database(path))
    assert path.read_bytes() == content


def test_a_store_of_a_newer_weft_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weft.db"
    Store(Database(path)).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(Refusing, match="newer weft"):
        Database(path)


def test_a_store_of_schema_3_is_brought_to_this_one(tmp_path: Path) -> None:
    """Its rows as that version wrote them."""
    path = tmp_path / "weft.db"
    old = sqlite3.connect(path)
    for migration in MIGRATIONS[:3]:
        old.executescript(migration)
    old.execute("PRAGMA user_version = 3")
    of_network = json.dumps([{"id": network_id(1), "link": "wfb1", "mac": "02:00:00:00:00:01", "mtu": 1400}, "lan"])
    of_endpoint = json.dumps(
        [
            {
                "id": endpoint_id(1),
                "network": network_id(1),
                "link": "wfh1",
                "peer": "wfc1",
                "mac": "02:00:00:00:00:02",
            },
            [{"transport": "tcp", "container_first": 80, "host_first": 8080, "host_last": 8080}],
        ]
    )
    old.execute("INSERT INTO networks VALUES (?, 'ready', 'wfb1', 0, ?)", (network_id(1), of_network))
    old.execute(
        "INSERT INTO endpoints (id, network, phase, link, intent) VALUES (?, ?, 'ready', 'wfh1', ?)",
        (endpoint_id(1), network_id(1), of_endpoint),
    )
    old.commit()
    old.close()
    store = Store(Database(path))
    (row,), (attached,) = store.networks(), store.endpoints()
    assert (row.network.mtu, row.network.icc, row.settings) == (1400, True, NetworkSettings(interface_prefix="lan"))
    assert attached.ports == (PortRequest(transport="tcp", container_first=80, host_first=8080, host_last=8080),)
    assert attached.settings == EndpointSettings()
    assert store.attached(network_id(1)) == 1
    store.withdraw_endpoints([endpoint_id(1)])
    store.remove_endpoint(endpoint_id(1))
    assert store.attached(network_id(1)) == 0
    store.close()
