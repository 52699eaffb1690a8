"""How a failure is told: the operator's sentence, and the status of the control API.

To the tree of :mod:`drivers.errors` it adds one leaf:

InvalidRequest
└── LostBody            the call came without its body: the connection broke, and Docker sent it again, empty

Docker's two protocols answer every failure with status 200 and
the sentence in the body: with any other status Docker puts the method's name in front, and two of its methods take a
404 for success (20.10.24 to 28.5.2).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from http import HTTPStatus
from typing import Final

from drivers.errors import (
    Conflict,
    DeadlineExceeded,
    HostFailure,
    InvalidRequest,
    NotFound,
    Refusing,
    Unsupported,
    WeftError,
)


class LostBody(InvalidRequest):
    """The call came without its body, so nobody can know what it was about; nothing was changed by it.

    When a connection breaks after a request was written, dockerd sends it again with Content-Length 0 (20.10.24 to
    28.5.2). What the first one did may have come to stay.
    """


HTTP_STATUS: Final[dict[type[Exception], HTTPStatus]] = {
    InvalidRequest: HTTPStatus.BAD_REQUEST,
    NotFound: HTTPStatus.NOT_FOUND,
    Conflict: HTTPStatus.CONFLICT,
    Unsupported: HTTPStatus.NOT_IMPLEMENTED,
    HostFailure: HTTPStatus.BAD_GATEWAY,
    DeadlineExceeded: HTTPStatus.GATEWAY_TIMEOUT,
    Refusing: HTTPStatus.SERVICE_UNAVAILABLE,
}
"""For the control API only."""

SAID_AT_MOST: Final = 8000  # characters; what is asked for may be of any length, and is quoted

_UNFORESEEN: Final[tuple[tuple[type[Exception], str], ...]] = (
    (sqlite3.Error, "weft's store failed ({}); look at the disk under weft's state directory, then try again"),
    (OSError, "the host failed weft ({}); weft's log says where, then try again"),
    (Exception, "weft failed in a way it did not foresee ({}); its log has the traceback: please report it"),
)


def failures(error: Exception) -> Iterator[Exception]:
    """Return the single failures of an error: those of a group, however deep, or the error itself."""
    if isinstance(error, ExceptionGroup):
        for one in error.exceptions:
            yield from failures(one)
    else:
        yield error


def sentence(error: Exception) -> str:
    """Return what the operator reads: one line per failure, each one once; of a megabyte, the beginning."""
    said = "\n".join(dict.fromkeys(map(_line, failures(error))))
    return said if len(said) <= SAID_AT_MOST else f"{said[:SAID_AT_MOST]}... (and {len(said) - SAID_AT_MOST} more)"


def foreseen(error: Exception) -> bool:
    """Tell whether weft raised all of it on purpose; if not, the traceback belongs in the log."""
    return all(isinstance(one, WeftError) for one in failures(error))


def suspicious(error: Exception) -> bool:
    """Tell whether something may be left that Docker forgot: a call lost its body, or found its place taken."""
    return any(isinstance(one, LostBody | Conflict) for one in failures(error))


def status(error: Exception) -> HTTPStatus:
    """Return the status for the control API: 500 for what was not foreseen, and for failures of several kinds."""
    found = {_status_of(one) for one in failures(error)}
    return found.pop() if len(found) == 1 else HTTPStatus.INTERNAL_SERVER_ERROR


def _status_of(error: Exception) -> HTTPStatus:
    known = (code for kind, code in HTTP_STATUS.items() if isinstance(error, kind))
    return next(known, HTTPStatus.INTERNAL_SERVER_ERROR)


def _line(error: Exception) -> str:
    if isinstance(error, WeftError):
        return str(error) or type(error).__name__
    said = " ".join(str(error).split())
    words = f"{type(error).__name__}: {said}" if said else type(error).__name__
    return next(text for kind, text in _UNFORESEEN if isinstance(error, kind)).format(words)
