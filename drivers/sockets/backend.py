"""The backend of ``Hold``: which host ports are held. Known to this process only, for sockets end with it.

Three cases are held otherwise than by a socket for each port:

*Long ranges* (``HELD_AT_MOST``) are looked at once, all of the host's sockets in one dump. Who comes later is not told
that the port is taken, and gets no packet: our NAT comes first.

*SCTP* has no sockets here. weft's own store keeps two containers apart, and nobody else is looked for.

*A port that a client's connection uses* cannot be bound while that lasts, and is no conflict: the connection knows its
one peer, and goes on. The port is held as soon as it can be, which every survey tries.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import resource
import socket
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from drivers.contract import Dirty, Step
from drivers.errors import Conflict, HostFailure, InvalidRequest, Unsupported, WeftError
from drivers.holders import HOLDING, USING, Holder, IPAddress, described, holders
from drivers.marks import Marks
from drivers.resources import HELD_AT_MOST, Foreign, Hold, Key, Resource
from drivers.sockets import binding
from drivers.sockets.relay import Limits, Relay

log = logging.getLogger(__name__)

_SERVERS_FILES: Final = 512
"""Files that holds leave to the rest of the process, beside the relay's."""

_TRIES: Final = 64
_LOCAL_PORTS: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")


@dataclass(slots=True)
class _Held:
    """A hold, and its sockets by port. A port that has to wait for a client's connection has none yet."""

    hold: Hold
    sockets: dict[int, socket.socket] = field(default_factory=dict)
    waiting: list[int] = field(default_factory=list)

    @property
    def targets(self) -> dict[socket.socket, tuple[str, int]]:
        """Where the relay takes what comes to each socket; empty: nowhere."""
        if self.hold.relay is None:
            return {}
        address, first = self.hold.relay
        return {sock: (address, first + port - self.hold.ports[0]) for port, sock in self.sockets.items()}


class SocketsBackend:
    """Holds ports in the network namespace of the thread that asks for them. Thread-safe.

    ``calls`` counts the sockets bound and the looks at the host's sockets, for tests that bound the work of an
    operation. The process may have as many files open from now on as its hard limit says.
    """

    def __init__(self, marks: Marks, limits: Limits | None = None) -> None:  # noqa: ARG002 - a socket bears no mark
        self.calls = 0
        self._lock = threading.Lock()
        self._held: dict[Key, _Held] = {}
        self._open = 0
        self._files = _raise_file_limit()
        limits = (limits or Limits()).within(self._files)
        self._room = self._files - limits.files - _SERVERS_FILES
        self._relay = Relay(limits)

    # -- what is there ----------------------------------------------------------------------------------------------

    def observe(self, keys: Collection[Key]) -> Mapping[Key, Resource | Foreign]:
        """Return what is held at ``keys``."""
        with self._lock:
            return {key: self._held[key].hold for key in keys if key in self._held}

    def survey(self) -> Mapping[Key, Resource]:
        """Return all that is held, after another try at what could not be bound yet."""
        with self._lock:
            for held in self._held.values():
                if held.waiting:
                    self._try_again(held)
            return {key: held.hold for key, held in self._held.items()}

    def watch(self, dirty: Dirty) -> Callable[[], None]:  # noqa: ARG002 - the contract's
        """Watch nothing: nobody can take a socket from us."""
        return lambda: None

    # -- changes ----------------------------------------------------------------------------------------------------

    def apply(self, steps: Sequence[Step]) -> Mapping[Key, Exception]:
        """Hold, let go, or relay otherwise without letting go. What cannot be held whole is not held at all."""
        failed: dict[Key, Exception] = {}
        for step in steps:
            with self._lock:
                try:
                    self._take(step)
                except OSError as error:
                    failed[step.key] = self._explained(error, *step.key.at)
                except WeftError as error:
                    failed[step.key] = error
        return failed

    def close(self) -> None:
        """Let go of every port and end the relay."""
        with self._lock:
            for held in list(self._held.values()):
                self._let_go(held)
            self._relay.close()

    def free_port(self, transport: str, addresses: Sequence[str], candidates: range | None = None) -> int:
        """Return a port that can be bound at all ``addresses`` now and is not ours without a socket.

        It is of the kernel's choice, or the first of ``candidates``; for SCTP, where the kernel has no choice, the
        first of ``net.ipv4.ip_local_port_range``. It is free, not held: whoever is quicker may have it. Raises
        :class:`Conflict` if there is none.
        """
        at = [ip_address(address) for address in addresses]
        asked: Iterable[int] = [0] * _TRIES if transport in binding.TYPES else _local_ports()
        if candidates is not None:
            asked = candidates
        with self._lock:
            for port in asked:
                if found := self._bindable(transport, at, port):
                    return found
        among = f" of {candidates[0]}-{candidates[-1]}" if candidates else ""
        raise Conflict(
            f"no {transport} port{among} is free at {' and '.join(addresses)}: `ss -{transport[0]}anp` on the host "
            f"shows who uses them, `weft port ls` what is published"
        )

    def _take(self, step: Step) -> None:
        held, hold = self._held.get(step.key), step.new
        if not isinstance(hold, Hold):
            if held is not None and step.old is not None and held.hold.scope == step.old.scope:
                self._let_go(held)
        elif held is None:
            self._create(hold)
        elif held.hold != hold:
            self._change(held, hold)

    def _create(self, hold: Hold) -> None:
        held = _Held(hold)
        try:
            if hold.transport in binding.TYPES and len(hold.ports) <= HELD_AT_MOST:
                self._bind(held)
            else:
                self._look(hold)
            self._serve(held)
        except BaseException:
            _close(held.sockets.values())
            raise
        self._held[hold.key] = held
        self._open += len(held.sockets)
        if held.waiting:
            log.warning("clients use published ports, which are held when they end", extra=_said(held))

    def _let_go(self, held: _Held) -> None:
        if held.hold.relay is not None:
            self._relay.withdraw(held.hold.transport, held.targets)
        _close(held.sockets.values())
        self._open -= len(held.sockets)
        del self._held[held.hold.key]

    def _change(self, held: _Held, hold: Hold) -> None:
        """Relay otherwise, and keep the sockets."""
        new = _Held(hold, held.sockets, held.waiting)
        if hold.relay is not None:
            self._serve(new, listening=held.hold.relay is not None)
        elif held.hold.relay is not None:
            self._relay.withdraw(hold.transport, held.targets)
            _unlisten(hold, held.sockets.values())
        self._held[hold.key] = new

    def _serve(self, held: _Held, *, listening: bool = False) -> None:
        hold = held.hold
        if hold.relay is None or not held.sockets:
            return
        try:
            if hold.transport == "tcp" and not listening:
                for sock in held.sockets.values():
                    binding.listen(sock)
            self._relay.serve(hold.transport, held.targets, hold.allow)
        except BaseException:
            self._relay.withdraw(hold.transport, held.targets)
            _unlisten(hold, held.sockets.values())
            raise

    # -- sockets ----------------------------------------------------------------------------------------------------

    def _bind(self, held: _Held) -> None:
        """Bind each port of a hold; those that nobody but clients uses are left waiting."""
        hold = held.hold
        if self._open + len(hold.ports) > self._room:
            raise OSError(errno.EMFILE, "")
        stuck = self._bind_each(held, hold.ports)
        if not stuck:
            return
        if found := self._in_the_way(hold, stuck):
            raise _taken(hold, described(found))
        used = {holder.port for holder in self._in_the_way(hold, stuck, USING)}
        held.waiting = [port for port in stuck if port in used]
        if unseen := self._bind_each(held, [port for port in stuck if port not in used]):
            raise _taken(hold, f"port {unseen[0]} is bound by a socket that this kernel does not show (Linux 6.8 does)")

    def _bind_each(self, held: _Held, ports: Iterable[int]) -> list[int]:
        """Bind what can be bound, and return what is in use."""
        hold, address = held.hold, ip_address(held.hold.address)
        stuck: list[int] = []
        for port in ports:
            self.calls += 1
            try:
                held.sockets[port] = binding.bound(hold.transport, address, port)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                stuck.append(port)
        return stuck

    def _try_again(self, held: _Held) -> None:
        more = _Held(held.hold)
        try:
            more.waiting = self._bind_each(more, held.waiting)
            self._serve(more)
        except (OSError, WeftError) as error:
            _close(more.sockets.values())
            log.warning("published ports are not held", extra={**_said(held), "why": str(error)})
            return
        held.sockets |= more.sockets
        held.waiting = more.waiting
        self._open += len(more.sockets)
        if held.waiting and (found := self._in_the_way(held.hold, held.waiting)):
            log.warning("published ports are taken by somebody else", extra={**_said(held), "by": described(found)})

    def _in_the_way(self, hold: Hold, ports: Sequence[int], states: Mapping[str, int] = HOLDING) -> list[Holder]:
        self.calls += 1
        run = range(ports[0], ports[-1] + 1)
        found = holders(hold.transport, ip_address(hold.address), run, states)
        return [holder for holder in found if holder.port in ports]

    def _look(self, hold: Hold) -> None:
        """Look once at what is not held."""
        address = ip_address(hold.address)
        self.calls += 2
        if not binding.is_there(address):
            raise OSError(errno.EADDRNOTAVAIL, "")
        if hold.transport in binding.TYPES and (found := holders(hold.transport, address, hold.ports)):
            raise _taken(hold, described(found))

    def _bindable(self, transport: str, addresses: Sequence[IPAddress], port: int) -> int:
        """Return the port (for 0: one of the kernel's choice) if it can be bound everywhere; else 0."""
        found: list[socket.socket] = []
        try:
            for address in addresses if transport in binding.TYPES else ():
                self.calls += 1
                try:
                    found.append(binding.bound(transport, address, port))
                except OSError as error:
                    if error.errno == errno.EADDRINUSE:
                        return 0
                    raise self._explained(error, transport, f"{address}", f"{port}") from error
                port = found[0].getsockname()[1]
        finally:
            _close(found)
        return 0 if self._is_ours(transport, addresses, port) else port

    def _is_ours(self, transport: str, addresses: Sequence[IPAddress], port: int) -> bool:
        """Tell whether a port is published without a socket that would say so."""
        return any(
            port in held.hold.ports and held.hold.transport == transport and _meet(held.hold, addresses)
            for held in self._held.values()
            if len(held.sockets) < len(held.hold.ports)
        )

    def _explained(self, error: OSError, transport: str, address: str, ports: str) -> WeftError:
        """Tell the operator what the kernel's errno means here."""
        what = f"{transport} port {ports} of {address}"
        match error.errno:
            case errno.EADDRINUSE:  # by listen(): bind() has told who
                return Conflict(f"{what} is taken: `ss -lnp` on the host tells by whom")
            case errno.EADDRNOTAVAIL:
                return InvalidRequest(
                    f"{what} cannot be published: the host has no such address, or not yet; give one that "
                    f"`ip address` shows, or none for all of them"
                )
            case errno.EINVAL if ip_address(address).is_link_local:
                return InvalidRequest(
                    f"{what} cannot be published: a link-local address needs its link, too; give another one"
                )
            case errno.EAFNOSUPPORT:
                return Unsupported(f"{what} cannot be published: this kernel has no IPv6")
            case errno.EMFILE | errno.ENFILE:
                return HostFailure(
                    f"{what} cannot be held: weft holds {self._open} ports and may have {self._files} files open; "
                    f"raise LimitNOFILE of its service, or publish more than {HELD_AT_MOST} in a run: that is not held"
                )
            case _:
                return HostFailure(f"{what} cannot be held: {error}")


def _taken(hold: Hold, by: str) -> Conflict:
    return Conflict(f"{hold.transport} port {hold.key.at[2]} of {hold.address} is taken: {by}")


def _said(held: _Held) -> dict[str, object]:
    """Return the fields of a log line about ports that wait."""
    hold, ports = held.hold, " ".join(f"{port}" for port in held.waiting)
    return {"transport": hold.transport, "address": hold.address, "ports": ports, "scope": str(hold.scope)}


def _meet(hold: Hold, addresses: Iterable[IPAddress]) -> bool:
    held = ip_address(hold.address)
    return any(
        held.version == address.version and (held == address or held.is_unspecified or address.is_unspecified)
        for address in addresses
    )


def _close(socks: Iterable[socket.socket]) -> None:
    for sock in socks:
        with contextlib.suppress(OSError):
            sock.close()


def _unlisten(hold: Hold, socks: Iterable[socket.socket]) -> None:
    for sock in socks if hold.transport == "tcp" else ():
        with contextlib.suppress(OSError):  # it does not listen
            binding.unlisten(sock)


def _local_ports() -> range:
    first, last = _LOCAL_PORTS.read_text().split()
    return range(int(first), int(last) + 1)


def _raise_file_limit() -> int:
    """Take as many files as the process may have, and return how many that is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
