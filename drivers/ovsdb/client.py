"""The one thread that owns the connection to the database, and what others hand to it.

Steps are queued; all that are waiting when the last transaction has been answered go into the next one. A transaction
that is refused is tried again step by step, so that only the guilty one fails. A step is done when nothing is left to
do about it in what ovs-vswitchd has taken (``cur_cfg`` has come up to ``next_cfg``), so what is lost with a connection
is asked for once more, and what OVS says about it is in the rows by then.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from drivers.contract import Step
from drivers.errors import HostFailure
from drivers.marks import Marks
from drivers.ovsdb.ledger import Ledger
from drivers.ovsdb.listeners import Listeners
from drivers.ovsdb.orders import Operation, orders
from drivers.ovsdb.poll import IN, Poller
from drivers.ovsdb.reading import Reader
from drivers.ovsdb.remote import Remote
from drivers.ovsdb.rows import Rows
from drivers.ovsdb.vswitchd import Event, Vswitchd

if TYPE_CHECKING:
    from drivers.ovsdb.library import Database, Sent

log = logging.getLogger(__name__)

STOPPING: Final = "weft is being stopped"

_MOST: Final = 64  # steps in a transaction: ovs-vswitchd forwards nothing while it takes one (1,000 ports: 1.3 s)
_PAUSE: Final = 1.0  # seconds after a failure that nobody thought of
_SHOWN: Final = 3  # steps that the comment of a transaction spells out
_BUMP: Final[Operation] = {
    "op": "mutate",
    "table": "Open_vSwitch",
    "where": [],
    "mutations": [["next_cfg", "+=", 1]],
}


class Silence(enum.Enum):
    """Who did not answer in time."""

    DATABASE = enum.auto()  # ovsdb-server
    DAEMON = enum.auto()  # ovs-vswitchd
    NOBODY = enum.auto()  # has ever set the database up


class Unanswered(Exception):
    """A step had no answer in time from ``who``; ``how_far`` it had come by then, where that can be said."""

    def __init__(self, who: Silence, how_far: str = "") -> None:
        super().__init__(who, how_far)
        self.who, self.how_far = who, how_far


@dataclass(slots=True, eq=False)
class Work:
    """A step that somebody waits for.

    ``deadline``  until when, by the monotonic clock
    ``rounds``    how many transactions it has had; ``alone``: the next one it is to have for itself
    """

    step: Step
    deadline: float
    done: Future[None] = field(default_factory=Future)
    rounds: int = 0
    alone: bool = False

    def fail(self, error: Exception) -> None:
        """Tell whoever waits for it, unless it is settled already."""
        if not self.done.done():
            self.done.set_exception(error)


class Client:
    """The thread, from :meth:`start` until :meth:`close`.

    ``changed``     guards all that is here, and is notified after each change of the rows
    ``synced``      the rows are what the database holds; while it is away they are what it held last
    ``calls``       transactions so far
    ``down_since``  when it went away, or when it was first looked for, by the monotonic clock
    """

    def __init__(self, remote: Remote, marks: Marks, listeners: Listeners) -> None:
        self.reader = Reader(Rows(), marks)
        self.ledger = Ledger(self.reader)
        self.changed = threading.Condition()
        self.synced = False
        self.calls = 0
        self.stopping = False
        self.down_since = time.monotonic()
        self._remote = remote
        self._listeners = listeners
        self._vswitchd = Vswitchd(remote.rundir)
        self._queue: deque[Work] = deque()
        self._sent: tuple[Sent, list[Work]] | None = None
        self._untaken: list[tuple[int, list[Work]]] = []  # by the ``next_cfg`` that ovs-vswitchd has to come up to
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="weft-ovsdb", daemon=True)

    # -- from other threads -----------------------------------------------------------------------------------------

    @property
    def vswitchd_alive(self) -> bool | None:
        """Whether ovs-vswitchd lives; ``None`` if that cannot be told."""
        return self._vswitchd.alive

    def start(self) -> None:
        """Start the thread, which connects as soon as there is something to connect to."""
        self._thread.start()

    def close(self) -> None:
        """End the thread, and fail whatever is still waiting."""
        with self.changed:
            self.stopping = True
            self.changed.notify_all()
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        os.close(self._wake)

    def submit(self, steps: Iterable[Step], patience: float) -> list[Work]:
        """Queue steps, which then are in one transaction as far as they fit."""
        deadline = time.monotonic() + patience
        works = [Work(step, deadline) for step in steps]
        with self.changed:
            self._queue += works
        os.eventfd_write(self._wake, 1)
        return works

    # -- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self.stopping:
            try:
                self._serve()
            except Exception:
                log.exception("the OVSDB client begins anew")
                self._wait(_PAUSE)
        with self.changed:
            for work in self._all():
                work.fail(HostFailure(f"{work.step.key}: {STOPPING}"))

    def _serve(self) -> None:
        from drivers.ovsdb.library import Database  # noqa: PLC0415 - a host without OVS networks pays nothing for it

        database = Database(self._remote.address)
        try:
            while not self.stopping:
                self._take_in(database)
                with self.changed:
                    self._settle()
                    if self.synced and self._sent is None:
                        self._send(database)
                self._wait(None, database)
        finally:
            database.close()
            self._vswitchd.close()
            with self.changed:
                if self.synced:
                    self._lose()
                self._again(self._sent[1] if self._sent else ())
                self._sent = None

    def _wait(self, patience: float | None, database: Database | None = None) -> None:
        """Wait until something is to be done, or for ``patience`` seconds."""
        poller = Poller()
        poller.fd_wait(self._wake, IN)
        with self.changed:
            deadlines = [work.deadline - time.monotonic() for work in self._all() if not work.done.done()]
        for delay in (patience, self._vswitchd.delay, min(deadlines, default=None)):
            if delay is not None:
                poller.timer_wait(delay * 1000 + 1)
        if self._vswitchd.connection is not None:
            poller.fd_wait(self._vswitchd.connection, IN)
        if database is not None:
            database.wait(poller)
        if self._sent is not None:
            self._sent[0].wait(poller)
        poller.block()
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)

    def _take_in(self, database: Database) -> None:
        news = database.run()
        event = self._vswitchd.look()
        with self.changed:
            if self.synced and not database.synced:
                self._lose()
            self.synced = database.synced
            if news.anew:
                self.reader.rows.clear()
            for row in news.dropped:
                self.reader.rows.drop(row)
            for row in news.put:
                self.reader.rows.put(row)
            if news.anew:
                self._begin()
            own = {work.step.key for work in self._sent[1]} if self._sent else frozenset()
            changed = self.ledger.open() if news.anew else self.ledger.enter((*news.dropped, *news.put), own)
            self.changed.notify_all()
        self._listeners.tell(changed, anew=news.anew, restarted=event is Event.STARTED)

    def _begin(self) -> None:
        """Have ovs-vswitchd come up to what is there now; it may be another database, which counts from 0."""
        root = self.reader.rows.root
        self._untaken = [(root.next_cfg if root else 0, works) for _, works in self._untaken]

    def _lose(self) -> None:
        self.synced = False
        self.down_since = time.monotonic()

    def _all(self) -> Iterator[Work]:
        yield from self._queue
        yield from self._sent[1] if self._sent else ()
        yield from self._awaited()

    def _again(self, works: Sequence[Work]) -> None:
        """Have it asked what is left to do about steps, before anything else."""
        self._queue.extendleft(work for work in reversed(works) if not work.done.done())

    def _settle(self) -> None:
        """Look at what was answered, what was taken, and what has waited long enough."""
        self._answer()
        root = self.reader.rows.root
        taken = [one for one in self._untaken if root is not None and root.cur_cfg >= one[0]]
        self._untaken = [one for one in self._untaken if one not in taken]
        for _, works in taken:
            self._again(works)
        now = time.monotonic()
        for work in self._all():
            if work.deadline <= now:
                work.fail(self._unanswered(work))

    def _answer(self) -> None:
        from drivers.ovsdb.library import Outcome  # noqa: PLC0415 - it is imported by now

        if self._sent is None:
            return
        sent, works = self._sent
        outcome, root = sent.outcome(), self.reader.rows.root
        if outcome is Outcome.OPEN:
            return
        self._sent = None
        match outcome:
            case Outcome.DONE if root is not None:
                for work in works:
                    work.rounds += 1
                self._untaken.append((root.next_cfg, works))
            case Outcome.REFUSED if len(works) == 1:
                (work,) = works
                said = f"{work.step.resource.scope}: {work.step.key} was refused by ovsdb-server: {sent.words()}"
                work.fail(HostFailure(f"{said} (by hand: {work.step})"))
            case Outcome.REFUSED:
                for work in works:
                    work.alone = True
                self._again(works)
            case _:  # it may have been taken all the same, so ovs-vswitchd is waited for
                self._untaken.append((root.next_cfg if root else 0, works))

    def _send(self, database: Database) -> None:
        """Put what is waiting into one transaction: no key twice, and none that ovs-vswitchd has not come to yet.

        A port that goes and comes back under its name in what ovs-vswitchd takes at once is dead (facts/ovs.md 6).
        """
        if self.reader.rows.root is None:
            return
        busy = {work.step.key for work in self._awaited()}
        batch: list[Work] = []
        operations: list[Operation] = []
        left: deque[Work] = deque()
        while self._queue and len(batch) < _MOST:
            work = self._queue.popleft()
            if work.done.done():
                continue
            if work.step.key in busy or (work.alone and batch):
                left.append(work)
                continue
            more = self._asked(work, f"{len(batch)}")
            if more is not None:
                busy.add(work.step.key)
                batch.append(work)
                operations += more
                if work.alone:
                    break
        self._queue.extendleft(reversed(left))
        if batch:
            self.calls += 1
            self._sent = database.send([*operations, _BUMP], _comment(batch)), batch

    def _asked(self, work: Work, tag: str) -> Sequence[Operation] | None:
        """Return what is left to do about a step; ``None``: nothing, and whoever waits for it has been told."""
        try:
            more = orders(self.reader, work.step, work.rounds, tag)
        except Exception as error:  # noqa: BLE001 - it is for whoever waits
            work.fail(error)
            return None
        if more is None:
            work.done.set_result(None)
        return more

    def _unanswered(self, work: Work) -> Unanswered:
        rows = self.reader.rows
        if not self.synced or (self._sent is not None and work not in self._awaited()):
            return Unanswered(Silence.DATABASE)
        if rows.root is None:
            return Unanswered(Silence.NOBODY)
        return Unanswered(Silence.DAEMON, f"it has taken configuration {rows.root.cur_cfg} of {rows.root.next_cfg}")

    def _awaited(self) -> list[Work]:
        """Return what ovs-vswitchd has not come to yet."""
        return [work for _, works in self._untaken for work in works]


def _comment(works: Sequence[Work]) -> str:
    """Return what stands beside a transaction in the database's own log."""
    shown = "; ".join(f"{work.step}" for work in works[:_SHOWN])
    return f"weft: {shown}" + (f"; and {len(works) - _SHOWN} more" if len(works) > _SHOWN else "")
