from __future__ import annotations

import json
import logging
import sys

import pytest

from plugin.logs import JsonFormatter, LogfmtFormatter, setup


def _record(message: str, **fields: object) -> logging.LogRecord:
    return logging.getLogger("test").makeRecord(
        "test", logging.WARNING, __file__, 1, message, (), None, extra=dict(fields)
    )


def test_text_is_logfmt() -> None:
    line = LogfmtFormatter().format(_record("network created", network="3f2a91c0d4e5", link="wfb3f2a", subnets=""))
    assert line.endswith('level=warning msg="network created" network=3f2a91c0d4e5 link=wfb3f2a subnets=""')
    assert line.startswith("time=20")


def test_a_line_stays_one_line() -> None:
    line = LogfmtFormatter().format(_record("call refused", why='two\nlines "quoted"'))
    assert "\n" not in line
    assert r'why="two\nlines \"quoted\""' in line


def test_json_has_the_same_fields() -> None:
    said = json.loads(JsonFormatter().format(_record("network created", network="3f2a91c0d4e5")))
    assert {key: said[key] for key in ("level", "msg", "network")} == {
        "level": "warning",
        "msg": "network created",
        "network": "3f2a91c0d4e5",
    }


def test_an_exception_is_a_field() -> None:
    record = _record("call failed")
    try:
        raise ValueError("no")
    except ValueError:
        record.exc_info = sys.exc_info()
    assert "ValueError: no" in json.loads(JsonFormatter().format(record))["exception"]


def test_a_managed_plugins_errors_alone_are_errors_to_docker(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        setup("info", "text", managed=True)
        for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
            root.log(level, "an event")
        out, err = capsys.readouterr()
    finally:
        root.handlers[:], root.level = before
    assert [line.split()[1] for line in out.splitlines()] == ["level=info", "level=warning"]
    assert [line.split()[1] for line in err.splitlines()] == ["level=error", "level=critical"]
