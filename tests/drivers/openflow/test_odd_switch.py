"""Switches that are old, busy or broken: played, because the real one is not when a test wants it."""

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from drivers.contract import Step
from drivers.errors import HostFailure, Unsupported
from drivers.openflow import messages
from drivers.openflow.backend import OpenFlowBackend
from drivers.openflow.messages import Bundle, Event, Garbled, Message, Part, Type
from drivers.resources import Scope
from tests.drivers.openflow.fake_switch import (
    FakeSwitch,
    about,
    controls,
    error,
    header,
    monitor,
    plain,
    short_update,
)
from tests.drivers.openflow.world import ENDPOINT, MARKS, NETWORK, one
from tests.drivers.steps import applied
from tests.lab.wait import await_

BOUND = 10  # seconds
FLOW = one(30, "reg0=0x1")
OTHER = one(30, "reg0=0x2")


@contextmanager
def _backend(switch: FakeSwitch) -> Iterator[OpenFlowBackend]:
    backend = OpenFlowBackend(MARKS, lambda: (NETWORK, ENDPOINT), lambda _: 1, rundir=switch.rundir)
    try:
        yield backend
    finally:
        backend.close()


def _failure(backend: OpenFlowBackend) -> Exception:
    return backend.apply([Step(None, FLOW)])[FLOW.key]


@pytest.mark.parametrize(
    ("greeting", "kind", "words"),
    [
        (messages.message(Type.BARRIER_REPLY, 1), HostFailure, "greeted with a message of type 21"),
        (header(Type.HELLO, 4), Garbled, "a message of 4 bytes"),
        (messages.message(Type.HELLO, 1, b"\0\1"), Garbled, "was cut short"),
        (b"\1\0\0\10\0\0\0\1", Unsupported, "may not speak OpenFlow 1.4"),
        (messages.message(Type.HELLO, 1, struct.pack("!HHI", 1, 8, 0b1010)), Unsupported, "protocols OpenFlow14"),
    ],
)
def test_a_strange_greeting_is_told(greeting: bytes, kind: type[Exception], words: str) -> None:
    with FakeSwitch(greeting=greeting) as switch, _backend(switch) as backend:
        failure = _failure(backend)
        assert type(failure) is kind
        assert words in str(failure)


def test_one_that_hangs_up_at_once_is_nobody() -> None:
    with FakeSwitch(greeting=b"") as switch, _backend(switch) as backend:
        switch.hangs_up = True
        assert backend.observe([FLOW.key]) == {}
        assert "nobody listens" in str(_failure(backend))


def test_a_switch_that_cannot_tell_of_changes_is_used_all_the_same() -> None:
    """Open vSwitch before 2.17: what others change is noticed at the next survey."""

    def answer(asked: Message) -> Iterator[bytes]:
        if about(asked, Part.MONITOR):
            yield error(asked.xid, 1, 2)

    with FakeSwitch(answer) as switch, _backend(switch) as backend:
        applied(backend, FLOW)
        assert backend.observe([FLOW.key]) == {FLOW.key: FLOW}
        assert backend.survey() == {}


def test_an_echo_is_answered() -> None:
    with FakeSwitch() as switch, _backend(switch) as backend:
        applied(backend, FLOW)
        switch.say(messages.message(Type.ECHO_REQUEST, 77, b"still there?"))
        await_(lambda: Message(5, Type.ECHO_REPLY, 77, b"still there?") in switch.heard, BOUND, "the echo")


def test_after_a_pause_of_the_monitor_everything_is_read_anew() -> None:
    told: list[Scope | None] = []
    with FakeSwitch() as switch, _backend(switch) as backend:
        stop = backend.watch(told.append)
        await_(lambda: None in told, BOUND, "the watch to connect")
        applied(backend, FLOW)
        told.clear()
        dumps = sum(about(asked, Part.FLOWS) for asked in switch.heard)
        switch.say(monitor(short_update(Event.ABBREVIATED), short_update(Event.PAUSED)))
        await_(lambda: None in told, BOUND, "all to be dirty")
        assert backend.observe([FLOW.key]) == {}
        assert sum(about(asked, Part.FLOWS) for asked in switch.heard) == dumps + 1
        stop()


@pytest.mark.parametrize(
    "noise",
    [
        header(Type.MULTIPART_REPLY, 4),
        monitor(struct.pack("!HH", 4, Event.ADDED)),
        monitor(struct.pack("!HH", 400, Event.ADDED)),
        monitor(struct.pack("!HHBBHHH4xQHH4x", 32, 1, 0, 0, 0, 0, 0, 0, 7, 8)),
        messages.message(Type.MULTIPART_REPLY, 0),
    ],
)
def test_one_that_babbles_is_left_and_called_again(noise: bytes) -> None:
    with FakeSwitch() as switch, _backend(switch) as backend:
        applied(backend, FLOW)
        switch.say(noise)
        await_(lambda: not backend._switches["br-int"]._session.alive, BOUND, "the session to end")  # type: ignore[union-attr]
        assert backend.observe([FLOW.key]) == {}
        assert switch.connections == 2


def test_a_dump_that_is_cut_short_is_told() -> None:
    def answer(asked: Message) -> Iterator[bytes]:
        if about(asked, Part.FLOWS):
            yield messages.message(Type.MULTIPART_REPLY, asked.xid, struct.pack("!HH4x", Part.FLOWS, 0) + bytes(60))

    with FakeSwitch(answer) as switch, _backend(switch) as backend:
        assert isinstance(_failure(backend), Garbled)
        with pytest.raises(Garbled):
            backend.survey()


def _refusing(*which: int) -> Callable[[Message], Iterator[bytes]]:
    """Refuse to commit because of the first flow of a bundle, while there are more than so many."""
    seen: list[int] = []

    def answer(asked: Message) -> Iterator[bytes]:
        if asked.type == Type.BUNDLE_ADD:
            seen.append(asked.xid)
        elif controls(asked, Bundle.COMMIT):
            added, seen[:] = list(seen), []
            if len(added) in which:
                yield error(added[0], 5, 1)
                yield error(asked.xid, 17, 10)

    return answer


def test_a_commit_that_fails_for_one_flow_is_tried_without_it() -> None:
    with FakeSwitch(_refusing(2)) as switch, _backend(switch) as backend:
        failures = backend.apply([Step(None, FLOW), Step(None, OTHER)])
        assert failures.keys() == {FLOW.key}
        assert "its table is full (OpenFlow error 5, 1)" in str(failures[FLOW.key])
        assert backend.observe([FLOW.key, OTHER.key]) == {OTHER.key: OTHER}
        assert sum(controls(asked, Bundle.COMMIT) for asked in switch.heard) == 2


def test_a_commit_that_fails_for_each_flow_ends() -> None:
    with FakeSwitch(_refusing(1, 2)) as switch, _backend(switch) as backend:
        failures = backend.apply([Step(None, FLOW), Step(None, OTHER)])
        assert failures.keys() == {FLOW.key, OTHER.key}
        assert backend.observe([FLOW.key, OTHER.key]) == {}


def test_a_commit_that_fails_for_no_flow_in_particular_fails_for_all() -> None:
    def answer(asked: Message) -> Iterator[bytes]:
        if controls(asked, Bundle.COMMIT):
            yield error(asked.xid, 17, 14)

    with FakeSwitch(answer) as switch, _backend(switch) as backend:
        failures = backend.apply([Step(None, FLOW), Step(None, OTHER)])
        assert failures.keys() == {FLOW.key, OTHER.key}
        assert "took none of 2 flows: the bundle was forgotten" in str(failures[OTHER.key])


def test_a_connection_that_is_lost_in_the_middle_fails_what_was_asked_and_is_made_anew() -> None:
    lost: list[Message] = []

    def answer(asked: Message) -> Iterator[bytes]:
        if controls(asked, Bundle.COMMIT) and not lost:
            lost.append(asked)
            switch.hang_up()
        yield plain(asked)

    with FakeSwitch(answer) as switch, _backend(switch) as backend:
        assert "closed the connection" in str(_failure(backend))
        applied(backend, FLOW)
        assert backend.observe([FLOW.key]) == {FLOW.key: FLOW}


def test_a_connection_that_is_lost_while_flows_are_read_anew_fails_what_was_asked() -> None:
    lost: list[Message] = []

    def answer(asked: Message) -> Iterator[bytes]:
        if doubtful and about(asked, Part.FLOWS) and not lost:
            lost.append(asked)
            switch.hang_up()
        yield plain(asked)

    doubtful = False
    with FakeSwitch(answer) as switch, _backend(switch) as backend:
        applied(backend, FLOW)
        doubtful = True
        switch.say(monitor(short_update(Event.PAUSED)))
        failures = await_(lambda: backend.apply([Step(None, FLOW), Step(None, OTHER)]), BOUND, "the news to be read")
        assert failures.keys() == {FLOW.key, OTHER.key}
        applied(backend, FLOW, OTHER)


def test_a_bridge_that_is_given_our_version_is_found_by_the_watch() -> None:
    told: list[Scope | None] = []
    with FakeSwitch(greeting=b"\1\0\0\10\0\0\0\1") as switch, _backend(switch) as backend:
        stop = backend.watch(told.append)
        await_(lambda: switch.connections > 1, BOUND, "the watch to be refused and to try again")
        switch.greeting = messages.hello(0)
        await_(lambda: None in told, BOUND, "the watch to connect")
        stop()
