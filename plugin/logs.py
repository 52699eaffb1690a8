"""Log lines for the one who is woken at night: a constant event, then fields.

Text is logfmt, the house style of Docker's own log (``level=info msg="network created" network=3f2a91c0d4e5``), so that
both read alike in one journal; ``json`` has the same fields.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Final

_RESERVED: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_PLAIN: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:/@+,%")


def setup(level: str, style: str, *, managed: bool = False) -> None:
    """Send everything from ``level`` up to standard error, as ``text`` or ``json``.

    ``managed``: only errors, and the rest to standard output. dockerd writes a plugin's words into its own log and
    knows two levels: what came from the one is ``level=error``, from the other ``level=info`` (20.10.24 to 28.5.2).
    """
    handlers = [logging.StreamHandler(sys.stderr)]
    if managed:
        handlers[0].setLevel(logging.ERROR)
        handlers.append(logging.StreamHandler(sys.stdout))
        handlers[1].addFilter(lambda record: record.levelno < logging.ERROR)
    for handler in handlers:
        handler.setFormatter(JsonFormatter() if style == "json" else LogfmtFormatter())
    logging.basicConfig(level=level.upper(), handlers=handlers, force=True)


def fields(record: logging.LogRecord) -> dict[str, object]:
    """Return what a record says, in order: time, level, event, its own fields, and the exception if there is one."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    said: dict[str, object] = {
        "time": f"{stamp}.{int(record.msecs):03d}Z",
        "level": record.levelname.lower(),
        "msg": record.getMessage(),
    }
    said |= {key: value for key, value in record.__dict__.items() if key not in _RESERVED}
    if record.exc_info:
        said["exception"] = logging.Formatter().formatException(record.exc_info)
    return said


class LogfmtFormatter(logging.Formatter):
    """``key=value`` pairs; a value with anything but plain characters is quoted as a JSON string."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return " ".join(f"{key}={_quoted(str(value))}" for key, value in fields(record).items())


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return json.dumps(fields(record), default=str, ensure_ascii=False)


def _quoted(text: str) -> str:
    return text if text and _PLAIN.issuperset(text) else json.dumps(text, ensure_ascii=False)
