"""python-ovs: the only file that imports it. Import this one late: it costs some 15 ms.

Of python-ovs only the replica of the database (``Idl``) and the transport of transactions are used. Operations are
spelled by :mod:`drivers.ovsdb.orders`, not by its rows, which drop a value of the wrong type with no more than a line
in a log that nobody has. None of this is thread-safe: all of it belongs to one thread.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast
from uuid import UUID

from ovs.db import idl as library

from drivers.ovsdb.orders import Operation
from drivers.ovsdb.poll import Poller
from drivers.ovsdb.rows import SCHEMA, BridgeRow, InterfaceRow, PortRow, RootRow, Row

_BACKOFF: Final = (100, 1000)  # ms, least and most between two attempts to connect; python-ovs has 1 s and 8 s
_PROBE: Final = 5000  # ms without a word before a TCP connection is asked whether it lives; unix sockets need none


class _Table(Protocol):
    name: str
    rows: Mapping[UUID, _Row]


class _Row(Protocol):
    uuid: UUID
    _table: _Table

    def __getattr__(self, column: str) -> Any: ...  # noqa: ANN401 - what it is depends on the column


class _Reconnect(Protocol):
    def set_backoff(self, least: int, most: int) -> None: ...


class _Session(Protocol):
    reconnect: _Reconnect

    def is_connected(self) -> bool: ...


class _Idl(Protocol):
    IDL_S_MONITORING: int
    state: int
    tables: Mapping[str, _Table]
    notify: Callable[[str, _Row, _Row | None], None]
    _session: _Session

    def run(self) -> bool: ...
    def wait(self, poller: Poller) -> None: ...
    def close(self) -> None: ...


class _Transaction(Protocol):
    def add_op(self, operation: Operation) -> None: ...
    def add_comment(self, comment: str) -> None: ...
    def commit(self) -> str: ...
    def get_error(self) -> str: ...


class Outcome(enum.Enum):
    """What became of a transaction."""

    OPEN = enum.auto()  # no answer yet
    DONE = enum.auto()
    AGAIN = enum.auto()  # lost with the connection, perhaps after it was taken: it must be asked for once more
    REFUSED = enum.auto()


_OUTCOMES: Final = {
    library.Transaction.INCOMPLETE: Outcome.OPEN,
    library.Transaction.SUCCESS: Outcome.DONE,
    library.Transaction.UNCHANGED: Outcome.DONE,
    library.Transaction.TRY_AGAIN: Outcome.AGAIN,
}


class Sent:
    """A transaction on its way."""

    def __init__(self, transaction: _Transaction) -> None:
        self._transaction = transaction

    def outcome(self) -> Outcome:
        """Return what has become of it by now."""
        return _OUTCOMES.get(self._transaction.commit(), Outcome.REFUSED)

    def wait(self, poller: Poller) -> None:
        """Make the poller wake up if that is known already."""
        if self.outcome() is not Outcome.OPEN:
            poller.immediate_wake()

    def words(self) -> str:
        """Return why it was refused, in the words of ovsdb-server."""
        said = self._transaction.get_error()
        try:
            told = json.loads(said)
            return str(told.get("details") or told["error"])
        except (ValueError, AttributeError, KeyError):
            return said


@dataclass(frozen=True, slots=True)
class News:
    """What has changed. ``anew``: a connection was made, and ``put`` is all there is."""

    put: Sequence[Row] = ()
    dropped: Sequence[Row] = ()
    anew: bool = False


class Database:
    """The replica, kept up to date by :meth:`run`, and the way for transactions."""

    def __init__(self, address: str) -> None:
        schema = library.SchemaHelper(schema_json=SCHEMA)
        schema.register_all()
        made = library.Idl(address, schema, probe_interval=_PROBE, leader_only=False)
        self._idl = cast("_Idl", made)
        self._idl.notify = self._heard
        self._idl._session.reconnect.set_backoff(*_BACKOFF)  # noqa: SLF001 - there is no other way
        self._put: list[Row] = []
        self._dropped: list[Row] = []
        self.synced = False

    def run(self) -> News:
        """Deal with what has come in, without waiting; ``synced`` then tells whether the replica is up to date."""
        self._put, self._dropped = [], []
        self._idl.run()
        before, self.synced = self.synced, self._is_synced()
        if self.synced and not before:
            return News([_row(row) for table in self._idl.tables.values() for row in table.rows.values()], anew=True)
        return News(self._put, self._dropped) if self.synced else News()

    def wait(self, poller: Poller) -> None:
        """Make the poller wake up when :meth:`run` has something to do."""
        self._idl.wait(poller)

    def send(self, operations: Sequence[Operation], comment: str) -> Sent:
        """Send a transaction, with a comment for the database's own log (``ovsdb-tool show-log``)."""
        transaction = cast("_Transaction", library.Transaction(self._idl))
        for operation in operations:
            transaction.add_op(operation)
        transaction.add_comment(comment)
        transaction.commit()
        return Sent(transaction)

    def close(self) -> None:
        """Close the connection."""
        self._idl.close()

    def _is_synced(self) -> bool:
        connected = self._idl._session.is_connected()  # noqa: SLF001 - an Idl tells only that it was, once
        return connected and self._idl.state == self._idl.IDL_S_MONITORING

    def _heard(self, event: str, row: _Row, _: _Row | None = None) -> None:
        (self._dropped if event == library.ROW_DELETE else self._put).append(_row(row))


def _row(row: _Row) -> Row:
    return _MAKERS[row._table.name](row)  # noqa: SLF001 - a row does not say of which table it is


def _root(row: _Row) -> Row:
    return RootRow(
        uuid=row.uuid,
        next_cfg=row.next_cfg,
        cur_cfg=row.cur_cfg,
        datapath_types=frozenset(row.datapath_types),
        iface_types=frozenset(row.iface_types),
    )


def _bridge(row: _Row) -> Row:
    return BridgeRow(
        uuid=row.uuid,
        name=row.name,
        ports=frozenset(row.ports),
        datapath_type=row.datapath_type,
        datapath_id=_maybe(row.datapath_id, ""),
        fail_mode=_maybe(row.fail_mode, ""),
        other_config=row.other_config,
        external_ids=row.external_ids,
    )


def _port(row: _Row) -> Row:
    return PortRow(uuid=row.uuid, name=row.name, interfaces=frozenset(row.interfaces), external_ids=row.external_ids)


def _interface(row: _Row) -> Row:
    return InterfaceRow(
        uuid=row.uuid,
        name=row.name,
        type=row.type,
        options=row.options,
        mac=_maybe(row.mac, ""),
        mtu_request=_maybe(row.mtu_request, None),
        ofport=_maybe(row.ofport, None),
        error="; ".join(_maybe(row.error, "").splitlines()),
        ifindex=_maybe(row.ifindex, None),
    )


_MAKERS: Final = {"Open_vSwitch": _root, "Bridge": _bridge, "Port": _port, "Interface": _interface}


def _maybe(values: Sequence[Any], absent: Any) -> Any:  # noqa: ANN401 - a column of at most one value
    return values[0] if values else absent
