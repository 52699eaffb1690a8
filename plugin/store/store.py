"""Networks and endpoints on disk. Every claim (a bridge, a subnet, an address) is made inside the transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import replace
from ipaddress import ip_address
from typing import Final

from pydantic import TypeAdapter

from drivers.errors import Conflict, InvalidRequest, NotFound
from drivers.model import Address, Encapsulation, Endpoint, Interface, IPNetwork, Network, Tunnel, Use
from drivers.resources import Scope
from plugin.requests import EndpointSettings, NetworkSettings, PortRequest
from plugin.store.claims import OVS, claim_slot, claim_subnet, claim_tunnel, claim_vni, ends, spelled, with_zone
from plugin.store.database import Database
from plugin.store.links import Links
from plugin.store.numbers import free_number
from plugin.store.peers import Peers
from plugin.store.peers import insert as insert_peers
from plugin.store.pools import Pools, link_pools
from plugin.store.ports import Ports
from plugin.store.rows import Bridges, EndpointRow, NetworkRow, Phase

_NETWORK: Final = TypeAdapter(tuple[Network, NetworkSettings])
_ENDPOINT: Final = TypeAdapter(tuple[Endpoint, tuple[PortRequest, ...], EndpointSettings])
_KIND: Final[TypeAdapter[Encapsulation]] = TypeAdapter(Encapsulation)
_BRIDGES: Final = TypeAdapter(Bridges)

_SHORT_ID: Final = 4  # characters of an id that a command must at least be given
_LAST: Final = "\x7f"  # sorts behind every character of an id


class Store:
    """What was promised. Reads return values; writes are transactions, durable where a reply depends on them."""

    def __init__(self, database: Database) -> None:
        """Read and write ``database``."""
        self._db = database
        self.id = database.identity()
        self.pools = Pools(database)
        self.ports = Ports(database)
        self.links = Links(database)
        self.peers = Peers(database)

    @property
    def commits(self) -> int:
        """Transactions that wrote since the start."""
        return self._db.commits

    @property
    def trouble(self) -> str:
        """Why nothing can be kept at the moment; "" if it can."""
        return self._db.trouble

    def try_again(self) -> None:
        """Look after the file, and see whether it can be written again, if it could not. Never raises."""
        self._db.try_again()

    @property
    def epoch(self) -> str | None:
        """The boot and namespace in which the endpoints were made."""
        return self._db.meta("epoch")

    @epoch.setter
    def epoch(self, value: str) -> None:
        self._db.set_meta("epoch", value)

    @property
    def swarm_address(self) -> Address | None:
        """The address by which the other nodes of the swarm know this one."""
        text = self._db.meta("swarm_address")
        return ip_address(text) if text else None

    @swarm_address.setter
    def swarm_address(self, value: Address | None) -> None:
        self._db.set_meta("swarm_address", str(value or ""))

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    # -- networks ---------------------------------------------------------------------------------------------------

    def networks(self) -> list[NetworkRow]:
        """Return all networks."""
        return [self._network(row) for row in self._db.read("SELECT * FROM networks ORDER BY id")]

    def network(self, ident: str) -> NetworkRow | None:
        """Return one network, by its whole id."""
        rows = self._db.read("SELECT * FROM networks WHERE id = ?", ident)
        return self._network(rows[0]) if rows else None

    def find_network(self, short: str) -> NetworkRow:
        """Return the network whose id starts with ``short``. Raises :class:`NotFound` or, if several do, Conflict."""
        return self._network(self._find("networks", "network", short))

    def network_of_link(self, link: str) -> NetworkRow | None:
        """Return the network that a bridge belongs to."""
        rows = self._db.read("SELECT * FROM networks WHERE link = ?", link)
        return self._network(rows[0]) if rows else None

    def add_network(self, row: NetworkRow, *, pools: Iterable[tuple[str, IPNetwork]] = ()) -> None:
        """Claim the bridge, the subnets and the VNI, choose a conntrack zone where the network needs one of its own.

        ``pools``, by address space and subnet, are those of weft's own that the network's addresses come from. Raises
        :class:`Conflict` naming the holder.
        """
        with self._db.transaction(durable=False) as db:
            network = with_zone(db, row.network)
            held = db.execute("SELECT id FROM networks WHERE link = ?", (network.link,)).fetchone()
            if held:
                raise Conflict(
                    f"network {network.id[:12]}: the bridge {network.link} belongs to network {held['id'][:12]}; "
                    "a bridge has one network: choose another com.docker.network.bridge.name"
                )
            for subnet in network.subnets:
                claim_subnet(db, network, subnet)
            if network.tunnel:
                claim_vni(db, network, network.tunnel.vni)
                claim_tunnel(db, network, network.tunnel)
            if network.backend == OVS:
                number = free_number(db, "SELECT number FROM networks WHERE number IS NOT NULL")
                network = replace(network, number=number)
            db.execute(
                "INSERT INTO networks (id, phase, link, forwards6, apart, number, vni, tunnel, zone, intent) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    network.id,
                    row.phase,
                    network.link,
                    network.is_forwarded(6),
                    not network.icc,
                    network.number or None,
                    network.tunnel.vni if network.tunnel else None,
                    spelled(network.tunnel) if network.tunnel else None,
                    network.zone,
                    _NETWORK.dump_json((network, row.settings)).decode(),
                ),
            )
            db.executemany(
                "INSERT INTO subnets (network, version, first, last, gateway) VALUES (?, ?, ?, ?, ?)",
                [(network.id, one.version, *ends(one), one.gateway is not None) for one in network.subnets],
            )
            insert_peers(db, network.id, row.settings.peers, "option")
            link_pools(db, network.id, pools)

    def set_tunnel(self, row: NetworkRow, tunnel: Tunnel) -> None:
        """Keep what was decided anew of a network's tunnel; its VNI stays."""
        intent = _NETWORK.dump_json((replace(row.network, tunnel=tunnel), row.settings)).decode()
        with self._db.transaction(durable=True) as db:
            db.execute("UPDATE networks SET intent = ? WHERE id = ?", (intent, row.id))

    def network_ready(self, ident: str) -> None:
        """Keep for good that the network was promised: the commit before the reply."""
        self._set_phase("networks", [ident], Phase.READY, durable=True)

    def withdraw_network(self, ident: str) -> None:
        """Take back the promise of a network and of every endpoint on it."""
        with self._db.transaction(durable=True) as db:
            db.execute("UPDATE endpoints SET phase = ? WHERE network = ?", (Phase.DELETING, ident))
            db.execute("UPDATE networks SET phase = ? WHERE id = ?", (Phase.DELETING, ident))

    def remove_network(self, ident: str) -> None:
        """Forget a network of which nothing is left on the host."""
        with self._db.transaction(durable=False) as db:
            db.execute("DELETE FROM networks WHERE id = ? AND phase = ?", (ident, Phase.DELETING))

    def use(self) -> Use:
        """Return what the networks ask of the host as a whole: counted, never kept."""
        (row,) = self._db.read(
            "SELECT count(*) AS networks, total(forwards6) AS forwards6, total(apart) AS apart, count(number) AS ovs, "
            "count(vni) AS tunnels, group_concat(DISTINCT CASE WHEN number IS NOT NULL THEN tunnel END) AS ovs_tunnels "
            "FROM networks WHERE phase <> 'deleting'"
        )
        return Use(
            networks=row["networks"],
            forwards6=row["forwards6"] > 0,
            apart=row["apart"] > 0,
            ovs=row["ovs"] > 0,
            tunnels=row["tunnels"] > 0,
            ovs_tunnels=_ovs_tunnels(row["ovs_tunnels"]),
        )

    # -- endpoints --------------------------------------------------------------------------------------------------

    def endpoints(self, network: str | None = None) -> list[EndpointRow]:
        """Return all endpoints, or those of one network."""
        if network is None:
            return [self._endpoint(row) for row in self._db.read("SELECT * FROM endpoints ORDER BY network, id")]
        rows = self._db.read("SELECT * FROM endpoints WHERE network = ? ORDER BY id", network)
        return [self._endpoint(row) for row in rows]

    def endpoint(self, ident: str) -> EndpointRow | None:
        """Return one endpoint, by its whole id."""
        rows = self._db.read("SELECT * FROM endpoints WHERE id = ?", ident)
        return self._endpoint(rows[0]) if rows else None

    def find_endpoint(self, short: str) -> EndpointRow:
        """Return the endpoint whose id starts with ``short``. Raises :class:`NotFound` or, if several do, Conflict."""
        return self._endpoint(self._find("endpoints", "endpoint", short))

    def holders(self, network: str, addresses: Iterable[Interface]) -> list[EndpointRow]:
        """Return the endpoints of a network that hold one of ``addresses``: at most one for each."""
        found: list[EndpointRow] = []
        for address in addresses:
            column = f"ipv{address.version}"
            rows = self._db.read(
                f"SELECT * FROM endpoints WHERE network = ? AND {column} = ? AND phase <> 'deleting'",  # noqa: S608
                network,
                address.ip.packed,
            )
            found += [self._endpoint(row) for row in rows]
        return found

    def attached(self, network: str) -> int:
        """Return how many endpoints are on a network, those included that are not quite gone. Counted, never listed."""
        rows = self._db.read("SELECT attached FROM networks WHERE id = ?", network)
        return int(rows[0]["attached"]) if rows else 0

    def add_endpoint(self, row: EndpointRow, *, instead_of: Sequence[EndpointRow] = ()) -> None:
        """Claim the addresses and keep the intent. ``instead_of`` are dead holders, withdrawn in the same transaction.

        Raises :class:`Conflict` if somebody else holds an address by now.
        """
        endpoint = row.endpoint
        with self._db.transaction(durable=False) as db:
            db.executemany(
                "UPDATE endpoints SET phase = ? WHERE id = ?", [(Phase.DELETING, dead.id) for dead in instead_of]
            )
            endpoint = replace(endpoint, slot=claim_slot(db, endpoint.network))
            try:
                db.execute(
                    "INSERT INTO endpoints (id, network, phase, link, ipv4, ipv6, slot, intent) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        endpoint.id,
                        endpoint.network,
                        row.phase,
                        endpoint.link,
                        endpoint.ipv4.ip.packed if endpoint.ipv4 else None,
                        endpoint.ipv6.ip.packed if endpoint.ipv6 else None,
                        endpoint.slot or None,
                        _ENDPOINT.dump_json((endpoint, row.ports, row.settings)).decode(),
                    ),
                )
            except sqlite3.IntegrityError as error:
                raise Conflict(f"endpoint {endpoint.id[:12]}: its id or address is held by another one") from error

    def endpoint_ready(self, ident: str) -> None:
        """Keep for good that the endpoint was promised: the commit before the reply."""
        self._set_phase("endpoints", [ident], Phase.READY, durable=True)

    def set_sandbox(self, ident: str, sandbox: str | None) -> None:
        """Keep where the container's end is; ``None``: nowhere."""
        with self._db.transaction(durable=False) as db:
            db.execute("UPDATE endpoints SET sandbox = ? WHERE id = ?", (sandbox, ident))

    def set_external(self, ident: str, *, external: bool) -> None:
        """Keep whether the container reaches the world by this endpoint."""
        with self._db.transaction(durable=False) as db:
            db.execute("UPDATE endpoints SET external = ? WHERE id = ?", (external, ident))

    def withdraw_endpoints(self, idents: Sequence[str]) -> None:
        """Take back the promise of endpoints."""
        self._set_phase("endpoints", idents, Phase.DELETING, durable=True)

    def remove_endpoint(self, ident: str) -> None:
        """Forget an endpoint of which nothing is left on the host."""
        with self._db.transaction(durable=False) as db:
            db.execute("DELETE FROM endpoints WHERE id = ? AND phase = ?", (ident, Phase.DELETING))

    # -- both -------------------------------------------------------------------------------------------------------

    def row_of(self, scope: Scope) -> NetworkRow | EndpointRow | None:
        """Return what is stored of a scope, or ``None``."""
        table, ident = ("endpoints", scope.endpoint) if scope.endpoint else ("networks", scope.network)
        rows = self._starting(table, ident)
        if len(rows) != 1:
            return None
        return self._endpoint(rows[0]) if scope.endpoint else self._network(rows[0])

    def scopes(self) -> list[Scope]:
        """Return the scopes of all that is stored, endpoints first: so they go before their networks do."""
        return [row.scope for row in self.endpoints()] + [row.scope for row in self.networks()]

    def withdraw_unanswered(self) -> None:
        """Withdraw what Docker never saw a success for (PENDING at a start)."""
        with self._db.transaction(durable=True) as db:
            for table in ("endpoints", "networks"):
                db.execute(f"UPDATE {table} SET phase = 'deleting' WHERE phase = 'pending'")  # noqa: S608 - our names
            db.execute(
                "UPDATE endpoints SET phase = 'deleting' WHERE network IN (SELECT id FROM networks "
                "WHERE phase = 'deleting')"
            )

    # -- the host's switches ----------------------------------------------------------------------------------------

    def host_settings(self) -> dict[str, str]:
        """Return the switches of the host that weft changed, by path, as they were found."""
        return {row["path"]: row["found"] for row in self._db.read("SELECT path, found FROM host_settings")}

    def keep_host_settings(self, found: dict[str, str]) -> None:
        """Keep how switches were found, before they are changed. The first finding stays."""
        with self._db.transaction(durable=True) as db:
            db.executemany("INSERT OR IGNORE INTO host_settings (path, found) VALUES (?, ?)", list(found.items()))

    def bridges(self) -> Bridges:
        """Return what was last known of the host's bridges that are not weft's."""
        kept = self._db.meta("bridges")
        return _BRIDGES.validate_json(kept) if kept else Bridges()

    def keep_bridges(self, bridges: Bridges) -> None:
        """Keep what is known of them, so that a restart opens and closes nothing."""
        self._db.set_meta("bridges", _BRIDGES.dump_json(bridges).decode())

    def _network(self, row: sqlite3.Row) -> NetworkRow:
        try:
            return network_of(row)
        except ValueError as error:
            raise self._db.damaged(f"network {row['id'][:12]}") from error

    def _endpoint(self, row: sqlite3.Row) -> EndpointRow:
        try:
            return endpoint_of(row)
        except ValueError as error:
            raise self._db.damaged(f"endpoint {row['id'][:12]}") from error

    def _set_phase(self, table: str, idents: Sequence[str], phase: Phase, *, durable: bool) -> None:
        with self._db.transaction(durable=durable) as db:
            db.executemany(
                f"UPDATE {table} SET phase = ? WHERE id = ?",  # noqa: S608 - the table is one of ours
                [(phase, ident) for ident in idents],
            )

    def _starting(self, table: str, short: str) -> list[sqlite3.Row]:
        return self._db.read(
            f"SELECT * FROM {table} WHERE id >= ? AND id < ? LIMIT 2",  # noqa: S608 - the table is one of ours
            short,
            short + _LAST,
        )

    def _find(self, table: str, word: str, short: str) -> sqlite3.Row:
        if len(short) < _SHORT_ID or not short.isalnum():
            raise InvalidRequest(f"{short!r} does not begin a {word}'s id: give at least {_SHORT_ID} characters of it")
        rows = self._starting(table, short)
        if not rows:
            raise NotFound(f"no {word} of weft has an id that starts with {short}; see `weft {word} ls`")
        if len(rows) > 1:
            raise Conflict(f"several {word}s have ids that start with {short}; give more of it")
        return rows[0]


def network_of(row: sqlite3.Row) -> NetworkRow:
    """Return the value of a row. Raises ValueError if it is none."""
    network, settings = _NETWORK.validate_json(row["intent"])
    return NetworkRow(network=network, phase=Phase(row["phase"]), settings=settings)


def endpoint_of(row: sqlite3.Row) -> EndpointRow:
    """Return the value of a row. Raises ValueError if it is none."""
    endpoint, ports, settings = _ENDPOINT.validate_json(row["intent"])
    return EndpointRow(
        endpoint=endpoint,
        phase=Phase(row["phase"]),
        sandbox=row["sandbox"],
        external=bool(row["external"]),
        ports=ports,
        settings=settings,
    )


def _ovs_tunnels(listed: str | None) -> frozenset[tuple[Encapsulation, int]]:
    """Return kinds and UDP ports of a list of ``tunnel``."""
    parted = (one.partition("/") for one in (listed.split(",") if listed else ()))
    return frozenset((_KIND.validate_python(kind), int(port)) for kind, _, port in parted)
