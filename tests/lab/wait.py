"""The only waiting there is: for a condition, with a bound, and with a name for what did not come."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

INTERVAL = 0.02


class WaitedInVainError(AssertionError):
    """What was waited for did not come within its bound."""


def await_(condition: Callable[[], T | None], bound: float, what: str) -> T:
    """Call `condition` until its value is true, and return that value.

    An OSError (no such socket, connection refused, no such process) means "not yet". `bound` is in seconds, and
    generous: what a slow machine may take, not what this one takes. `what` ends the sentence "waited 20 s for".
    """
    end = time.monotonic() + bound
    last: object = "nothing"
    while True:
        try:
            value = condition()
        except OSError as error:
            last = error
        else:
            if value:
                return value
            last = value
        if time.monotonic() > end:
            raise WaitedInVainError(f"waited {bound:g} s for {what}; last seen: {last}")
        time.sleep(INTERVAL)
