"""What python-ovs asks of a poller."""

import threading

from drivers.ovsdb.poll import Poller


def test_a_time_that_has_passed_is_not_waited_for() -> None:
    """To poll(2) a negative time is for ever."""
    poller = Poller()
    poller.timer_wait(-5)
    poller.timer_wait(60_000)
    thread = threading.Thread(target=poller.block, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
