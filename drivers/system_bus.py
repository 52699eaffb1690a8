"""The system bus (D-Bus): method calls that end in time, and signals. The only file that knows jeepney.

Whoever is asked may hang while a container's start waits, so every call is bounded. No call starts a service that is
not running: a firewall that was switched off stays off. jeepney is imported when there is a bus to be spoken to.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final, Protocol, Self

SOCKET: Final = Path("/var/run/dbus/system_bus_socket")  # the D-Bus specification, "System message bus"
PATIENCE: Final = 2.0  # seconds that an answer may take

_ADDRESS: Final = "DBUS_SYSTEM_BUS_ADDRESS"
_BUS: Final = "org.freedesktop.DBus"
_RECEIVE_BYTES: Final = 65536

Body = tuple[Any, ...]


class Refused(Exception):
    """The one who was asked answered with an error: ``name`` is its kind, ``str()`` his own words."""

    def __init__(self, name: str, words: str) -> None:
        super().__init__(words)
        self.name = name


@dataclass(frozen=True, slots=True)
class Method:
    """What can be called, and whose it is. ``signature`` is of its arguments, as D-Bus writes it: ``sa{sv}``."""

    destination: str
    path: str
    interface: str
    member: str
    signature: str = ""


@dataclass(frozen=True, slots=True)
class Signal:
    """Something that somebody told everybody."""

    interface: str
    member: str
    body: Body


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to what was sent with this serial number; ``error`` is its kind if it is one."""

    serial: int
    body: Body
    error: str | None = None


HELLO: Final = Method(_BUS, "/org/freedesktop/DBus", _BUS, "Hello")
ADD_MATCH: Final = Method(_BUS, "/org/freedesktop/DBus", _BUS, "AddMatch", "s")


class _Parser(Protocol):
    """What is used of ``jeepney.Parser``."""

    def add_data(self, data: bytes) -> None: ...

    def get_next_message(self) -> Any: ...  # noqa: ANN401 - a jeepney.Message, or None


def exists() -> bool:
    """Tell whether this host may have a system bus, at the price of looking at a file."""
    return bool(os.environ.get(_ADDRESS)) or SOCKET.exists()


class SystemBus:
    """One connection to the bus, for one thread at a time. Everything raises ``OSError`` once it is lost."""

    def __init__(self, patience: float = PATIENCE) -> None:
        """Connect to ``DBUS_SYSTEM_BUS_ADDRESS``, or to the usual place, within ``patience`` seconds."""
        self._socket, self._parser = _connect(patience)
        self._serials = count(1)
        self._heard: deque[Signal | Answer] = deque()
        try:
            self.ask(HELLO, patience=patience)
        except Refused as refused:
            self.close()
            raise OSError(errno.EACCES, f"the system bus: {refused}") from refused
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up. A second time is fine."""
        self._socket.close()

    def fileno(self) -> int:
        """Return what a selector waits for before :meth:`heard`."""
        return self._socket.fileno()

    def send(self, method: Method, *arguments: object) -> int:
        """Call a method and do not wait; return the serial number that its :class:`Answer` will have."""
        from jeepney import DBusAddress, MessageFlag, new_method_call  # noqa: PLC0415 - see _connect

        address = DBusAddress(method.path, bus_name=method.destination, interface=method.interface)
        message = new_method_call(address, method.member, method.signature or None, arguments)
        message.header.flags |= MessageFlag.no_auto_start
        serial = next(self._serials)
        self._socket.settimeout(PATIENCE)
        self._socket.sendall(message.serialise(serial=serial))
        return serial

    def ask(self, method: Method, *arguments: object, patience: float = PATIENCE) -> Body:
        """Call a method and return its answer. Raises :class:`Refused`, or ``TimeoutError`` after ``patience``."""
        end = time.monotonic() + patience
        serial = self.send(method, *arguments)
        while True:
            told = self._next(end)
            match told:
                case Answer(serial=other) if other == serial:
                    if told.error is not None:
                        raise Refused(told.error, str(told.body[0]) if told.body else told.error)
                    return told.body
                case Signal():
                    self._heard.append(told)
                case _:
                    pass

    def subscribe(self, rule: str) -> None:
        """Hear the signals that match a rule, as D-Bus writes it: ``type='signal',member='Reloaded'``."""
        self.ask(ADD_MATCH, rule)

    def heard(self) -> Iterator[Signal | Answer]:
        """Yield what has come, without waiting for more."""
        while self._heard:
            yield self._heard.popleft()
        while True:
            try:
                yield self._next(0.0)
            except TimeoutError:
                return

    def _next(self, end: float) -> Signal | Answer:
        """Return the next thing told, by ``end`` of the monotonic clock at the latest."""
        while True:
            message = self._parser.get_next_message()
            if message is None:
                self._parser.add_data(self._receive(end - time.monotonic()))
            elif (told := _read(message)) is not None:
                return told

    def _receive(self, seconds: float) -> bytes:
        self._socket.settimeout(max(0.0, seconds))
        try:
            data = self._socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            raise TimeoutError(errno.ETIMEDOUT, "nothing more has come") from None
        if not data:
            raise ConnectionResetError(errno.ECONNRESET, "the system bus has hung up")
        return data


def _connect(patience: float) -> tuple[socket.socket, _Parser]:
    # 10 ms and half a megabyte, which a host without a bus does not pay
    from jeepney import Parser  # noqa: PLC0415
    from jeepney.bus import find_system_bus  # noqa: PLC0415
    from jeepney.io.blocking import prep_socket  # noqa: PLC0415

    try:
        address = find_system_bus()
    except (RuntimeError, ValueError, KeyError) as unreadable:
        raise OSError(errno.EINVAL, f"{_ADDRESS} is no address of a bus: {unreadable}") from unreadable
    try:
        return prep_socket(address, timeout=patience), Parser()
    except ValueError as refused:  # jeepney.auth.AuthenticationError
        raise OSError(errno.EACCES, f"the system bus does not let us in: {refused}") from refused


def _read(message: Any) -> Signal | Answer | None:  # noqa: ANN401 - a jeepney.Message
    """Return what a message tells, ``None`` if it is a call, which nobody has a reason to send us."""
    from jeepney import HeaderFields, MessageType  # noqa: PLC0415 - see _connect

    fields = message.header.fields
    match message.header.message_type:
        case MessageType.signal:
            return Signal(fields[HeaderFields.interface], fields[HeaderFields.member], message.body)
        case MessageType.method_return:
            return Answer(fields[HeaderFields.reply_serial], message.body)
        case MessageType.error:
            return Answer(fields[HeaderFields.reply_serial], message.body, fields[HeaderFields.error_name])
        case _:
            return None
