"""Log lines: message, fields and exceptions, as text and as JSON."""

import json
import logging
import sys

import pytest

from mesh.telemetry.log_format import JsonFormatter, TextFormatter

pytestmark = pytest.mark.unit


def _record(**extra: object) -> logging.LogRecord:
    record = logging.makeLogRecord({"name": "room", "levelname": "INFO", "msg": "started %s", "args": ("up",)})
    record.created, record.msecs = 1_700_000_000.25, 250.0
    vars(record).update(extra)
    return record


def test_text_puts_fields_behind_the_message() -> None:
    line = TextFormatter().format(_record(part="api", error="two words", none=""))
    assert line == '2023-11-14T22:13:20.250Z INFO room started up part=api error="two words" none=""'


def test_json_is_one_object_with_the_fields_and_cannot_be_overwritten_by_them() -> None:
    entry = json.loads(JsonFormatter().format(_record(part="api", level="forged", path=object())))
    assert entry["time"] == "2023-11-14T22:13:20.250Z"
    assert (entry["level"], entry["logger"], entry["message"], entry["part"]) == ("INFO", "room", "started up", "api")
    assert entry["path"].startswith("<object")


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_exceptions_are_shown(formatter: logging.Formatter) -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        record = _record(exc_info=sys.exc_info())
    assert "ValueError: broken" in formatter.format(record)
