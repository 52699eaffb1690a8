"""A call of Docker's: the body is decoded, the engine asked, its answer encoded; a failure becomes a sentence.

Both of Docker's protocols are tables of such calls. The status is 200 also for a failure (see :mod:`plugin.errors`).
No Content-Type is needed, for Docker sends none.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from flask import Blueprint, Response, request
from pydantic import BaseModel, ValidationError
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from drivers.errors import InvalidRequest
from plugin import errors, wire
from plugin.wire import Method, Q, R

LOG: Final = logging.getLogger(__name__)
REFUSED: Final = "call refused"
FAILED: Final = "call failed"

_SHOWN_PROBLEMS: Final = 3
_SHOWN_INPUT: Final = 60


@dataclass(frozen=True, slots=True)
class Call:
    """A method and what answers it."""

    path: str
    view: Callable[[], Response]


def call(method: Method[Q, R], handle: Callable[[Q], R]) -> Call:
    """Return the call of ``method``, answered by ``handle``."""

    def view() -> Response:
        return reply(handle(_decoded(method)))

    return Call(method.path, view)


def blueprint(name: str, calls: Iterable[Call], suspect: Callable[[], None]) -> Blueprint:
    """Return a blueprint of calls.

    ``suspect`` is called where a failure says that something Docker has forgotten may be left on this host.
    """

    def fail(error: Exception) -> Response:
        failure = _foreseen(error)
        if errors.suspicious(failure):
            suspect()
        said = errors.sentence(failure)
        if errors.foreseen(failure):
            LOG.warning(REFUSED, extra={"method": request.path, "error": said})
        else:
            LOG.error(FAILED, exc_info=error, extra={"method": request.path, "error": said})
        return reply(wire.Failure(err=said, error=said))

    made = Blueprint(name, __name__)
    for one in calls:
        made.add_url_rule(
            one.path,
            endpoint=one.path.rpartition(".")[2],
            view_func=one.view,
            methods=["POST"],
            provide_automatic_options=False,
        )
    made.register_error_handler(Exception, fail)
    return made


def reply(model: BaseModel, status: int = HTTPStatus.OK) -> Response:
    """Return a model as an answer in JSON."""
    return Response(model.model_dump_json(), status, mimetype="application/json")


def _decoded(method: Method[Q, R]) -> Q:
    """Return what Docker asks. The body is read to its end even if nothing in it matters."""
    if method.request is wire.NOTHING:
        with suppress(HTTPException):
            request.get_data(cache=False)
        return method.decode(b"")
    raw = request.get_data(cache=False)
    if not raw:
        raise errors.LostBody(
            f"{method.name} came without its body: the connection to weft broke, and Docker sent the call again without"
            " it. Nothing was changed by this: give the docker command again; what the first call left, weft removes"
        )
    try:
        return method.decode(raw)
    except ValidationError as error:
        raise InvalidRequest(_unreadable(method.name, error)) from error


def _unreadable(name: str, error: ValidationError) -> str:
    problems = error.errors(include_url=False, include_context=False)
    told = "; ".join(
        f"{'.'.join(map(str, one['loc'])) or 'the body'}: {one['msg']}, not {repr(one['input'])[:_SHOWN_INPUT]}"
        for one in problems[:_SHOWN_PROBLEMS]
    )
    more = f"; and {len(problems) - _SHOWN_PROBLEMS} more" if len(problems) > _SHOWN_PROBLEMS else ""
    return (
        f"{name}: weft cannot read this request, and changed nothing: {told}{more}. If a Docker Engine sent it, weft"
        " does not know that version: please report it"
    )


def _foreseen(error: Exception) -> Exception:
    """Return what a failure of HTTP itself means for Docker's call."""
    match error:
        case RequestEntityTooLarge():
            limit = wire.BODY_LIMIT // 1024**2
            return InvalidRequest(
                f"{request.path[1:]}: the body is larger than {limit} MiB, and nothing was changed; publish fewer ports"
            )
        case HTTPException():
            return InvalidRequest(f"{request.path[1:]}: the request cannot be read: {error.description}")
        case _:
            return error
