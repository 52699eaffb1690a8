"""Open vSwitch's database as one side of the host: bridges and ports, read back and changed. Nothing runs ovs-vsctl."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import TimeoutError as NoAnswer
from dataclasses import dataclass
from typing import Final

from drivers.contract import Dirty, Step
from drivers.errors import HostFailure, WeftError
from drivers.marks import Marks
from drivers.ovsdb.client import STOPPING, Client, Silence, Unanswered, Work
from drivers.ovsdb.listeners import Listener, Listeners
from drivers.ovsdb.orders import UdpPortTaken
from drivers.ovsdb.remote import RUNDIR, Remote
from drivers.resources import Foreign, Key, Resource

PATIENCE: Final = 10.0  # seconds for OVS to answer; Docker waits 30, and a request of it has 20
_MARGIN: Final = 5.0  # seconds more for the thread to say that nobody answered

_HELP: Final[Mapping[Silence, str]] = {
    Silence.DATABASE: "is Open vSwitch installed and running (systemctl status openvswitch-switch)? "
    "WEFT_OVSDB or OVS_RUNDIR say where its database is",
    Silence.DAEMON: "is it running (systemctl status ovs-vswitchd; its log is in /var/log/openvswitch)?",
    Silence.NOBODY: "start Open vSwitch by its service, or type: ovs-vsctl --no-wait init",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How Open vSwitch is doing, for ``weft status``.

    ``connected``           ovsdb-server answers, and what it holds is known; ``why`` says why not
    ``next_cfg``,``cur_cfg``  what ovs-vswitchd was told, and how far it has come: apart for long, it hangs
    ``vswitchd``            its process lives; ``None`` if that cannot be told (it is on another machine)
    """

    remote: str
    connected: bool
    why: str = ""
    next_cfg: int = 0
    cur_cfg: int = 0
    vswitchd: bool | None = None


class OvsdbBackend:
    """Implements :class:`drivers.contract.Backend` for the keys whose backend is ``ovsdb``. Thread-safe.

    The thread behind it starts at the first use, in the network namespace of whoever that is: when something is asked
    for, or looked for where there is an OVS. Then it connects whenever there is something to connect to. A restart of
    OVS is waited for, ``patience`` seconds at most; one that has been away for longer is not waited for again.
    ``links_on`` returns the tunnel links of the host that have a UDP port: Open vSwitch does not say who is in its way.
    """

    def __init__(
        self,
        marks: Marks,
        remote: Remote | None = None,
        *,
        patience: float = PATIENCE,
        links_on: Callable[[int], Sequence[str]] = lambda _: (),
    ) -> None:
        self._marks = marks
        self._remote = remote or Remote(f"unix:{RUNDIR}/db.sock")
        self._patience = patience
        self._links_on = links_on
        self._lock = threading.Lock()
        self._started: Client | None = None
        self._listeners = Listeners()
        self._closed = False

    @property
    def calls(self) -> int:
        """How many transactions were sent: the measure of an operation's work."""
        return self._started.calls if self._started else 0

    def close(self) -> None:
        """End the thread and close the connection. Nothing on the host changes."""
        with self._lock:
            client, self._started, self._closed = self._started, None, True
        if client is not None:
            client.close()

    # -- the contract -----------------------------------------------------------------------------------------------

    def observe(self, keys: Collection[Key]) -> Mapping[Key, Resource | Foreign]:
        """Return what is at the keys, from the replica. Raises :class:`HostFailure` while there is none to believe."""
        client = self._synced()
        with client.changed:
            found = ((key, client.reader.seen(key)) for key in keys)
            return {key: resource for key, resource in found if resource is not None}

    def survey(self) -> Mapping[Key, Resource]:
        """Return all that carries our mark. Where no OVS answers there is nothing: when it does, all is dirty."""
        if self.absence():
            return {}
        client = self._synced()
        with client.changed:
            return {resource.key: resource for resource in client.reader.survey()}

    def apply(self, steps: Sequence[Step]) -> Mapping[Key, Exception]:
        """Take the steps in as few transactions as can be, and wait until ovs-vswitchd has made what they are for."""
        try:
            client = self._promising()
        except WeftError as error:
            return {step.key: error for step in steps}
        failures: dict[Key, Exception] = {}
        for work in client.submit(steps, self._patience):
            try:
                work.done.result(self._patience + _MARGIN)
            except Unanswered as silence:
                failures[work.step.key] = self._explained(work, silence)
            except UdpPortTaken as taken:
                failures[work.step.key] = self._by_name(taken)
            except NoAnswer:
                failures[work.step.key] = HostFailure(f"{work.step.key}: weft's own OVSDB thread hangs; restart weft")
            except Exception as error:  # noqa: BLE001 - the contract wants it returned
                failures[work.step.key] = error
        return failures

    def watch(self, dirty: Dirty) -> Callable[[], None]:
        """Call ``dirty`` when somebody else changes a row of ours, and with ``None`` after each (re)connect."""
        return self._listen(Listener(dirty=dirty))

    # -- for flows, and for people ----------------------------------------------------------------------------------

    def ofports(self, names: Collection[str] = ()) -> Mapping[str, int]:
        """Return the numbers that flows have for ports, once all ``names`` have one; without names, for all there are.

        Raises :class:`HostFailure` with OVS's own words if one cannot have one.
        """
        client = self._synced()
        with client.changed:
            ledger = client.ledger
            if not names:
                return dict(ledger.ofports)
            self._wait(client, lambda: all(name in ledger.ofports or ledger.is_hopeless(name) for name in names))
            if missing := sorted(name for name in names if name not in ledger.ofports):
                raise HostFailure(f"port {missing[0]} has no number: {ledger.said_about(missing[0])}")
            return {name: ledger.ofports[name] for name in names}

    def ofport(self, name: str) -> int | None:
        """Return the number that flows have for a port, once it has one; ``None`` if there is no such port, or OVS."""
        try:
            client = self._synced()
        except HostFailure:
            return None
        with client.changed:
            ledger, there = client.ledger, client.reader.rows.interfaces
            self._wait(client, lambda: name in ledger.ofports or name not in there or ledger.is_hopeless(name))
            return ledger.ofports.get(name)

    def subscribe(self, ports: Callable[[frozenset[str]], None], restarted: Callable[[], None]) -> Callable[[], None]:
        """Tell of ports that got a number, another one, or lost theirs, and of starts of ovs-vswitchd: it has no flows.

        Both are called in the thread, and must not wait. The function that is returned ends it. Starts are not told
        where the daemon is on another machine; there only the end of an OpenFlow connection tells.
        """
        return self._listen(Listener(ports=ports, restarted=restarted))

    def datapath_types(self) -> frozenset[str]:
        """Return the datapath types that this build of ovs-vswitchd knows, whether the kernel has its part or not."""
        client = self._synced()
        with client.changed:
            return client.reader.rows.root.datapath_types if client.reader.rows.root else frozenset()

    def iface_types(self) -> frozenset[str]:
        """Return the types of ports that this build of ovs-vswitchd knows."""
        client = self._synced()
        with client.changed:
            return client.reader.rows.root.iface_types if client.reader.rows.root else frozenset()

    def internal_ports(self) -> frozenset[str]:
        """Return the links that Open vSwitch makes itself: internal ports of all bridges, whoever made them."""
        client = self._synced()
        with client.changed:
            return frozenset(row.name for row in client.reader.rows.interfaces.values() if row.type == "internal")

    def health(self) -> Health:
        """Return how OVS is doing, without waiting for it."""
        client, remote = self._started, f"{self._remote}"
        if client is None:
            return Health(remote=remote, connected=False, why=self._remote.refusal() or "nothing has asked for it yet")
        why = "" if client.synced else self._remote.refusal() or "connecting"
        with client.changed:
            root = client.reader.rows.root
            return Health(
                remote=remote,
                connected=client.synced,
                why="" if client.synced else why,
                next_cfg=root.next_cfg if root else 0,
                cur_cfg=root.cur_cfg if root else 0,
                vswitchd=client.vswitchd_alive,
            )

    def absence(self) -> str:
        """Return why nobody answers, without waiting; "" if somebody does, or accepts a connection at least.

        A host that never has an OVS pays for no thread, and no python-ovs.
        """
        client = self._started
        words = self._remote.refusal() if client is None or not client.synced else ""
        return str(self._no_database(words)) if words else ""

    # -- the thread behind it ---------------------------------------------------------------------------------------

    def _client(self) -> Client:
        with self._lock:
            if self._closed:
                raise HostFailure(STOPPING)
            if self._started is None:
                self._started = Client(self._remote, self._marks, self._listeners)
                self._started.start()
            return self._started

    def _listen(self, listener: Listener) -> Callable[[], None]:
        stop = self._listeners.add(listener)
        if not self.absence():
            self._client()
        return stop

    def _promising(self) -> Client:
        """Return the client, unless OVS has been away for long and still is: a request need not wait for it, too."""
        client = self._client()
        if not client.synced and time.monotonic() - client.down_since > self._patience:
            words = self._remote.refusal()
            if words:
                raise self._no_database(words)
        return client

    def _synced(self) -> Client:
        """Return the client once what it knows is what the database holds."""
        client = self._promising()
        self._wait(client, lambda: client.synced)
        if not client.synced:
            raise self._no_database(self._remote.refusal() or "it accepts a connection, and says nothing")
        return client

    def _wait(self, client: Client, condition: Callable[[], bool]) -> None:
        """Wait until something is so, or patience ends. Raises :class:`HostFailure` if weft does."""
        with client.changed:
            client.changed.wait_for(lambda: client.stopping or condition(), self._patience)
        if client.stopping:
            raise HostFailure(STOPPING)

    def _by_name(self, taken: UdpPortTaken) -> HostFailure:
        """Name the links that have the UDP port; of a process `ss` tells."""
        links = self._links_on(taken.port) if taken.port else ()
        if not links:
            return taken
        other = "choose another weft.tunnel.port (WEFT_TUNNEL_PORT), the same on every host"
        return HostFailure(f"{taken}; UDP port {taken.port} is held by link {', '.join(links)}: {other}")

    def _no_database(self, words: str) -> HostFailure:
        return HostFailure(f"ovsdb-server does not answer at {self._remote}: {words}; {_HELP[Silence.DATABASE]}")

    def _explained(self, work: Work, silence: Unanswered) -> HostFailure:
        step = work.step
        if silence.who is Silence.DAEMON:
            told = (
                f"it is in the database, but ovs-vswitchd has not made it so in {self._patience:g} s: {silence.how_far}"
            )
        elif silence.who is Silence.DATABASE:
            words = self._remote.refusal() or "it accepts a connection, and says nothing"
            told = f"ovsdb-server does not answer at {self._remote}: {words}"
        else:
            told = f"the database at {self._remote} is empty"
        return HostFailure(f"{step.resource.scope}: {step.key}: {told}; {_HELP[silence.who]} (by hand: {step})")
