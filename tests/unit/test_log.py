"""Events are constant messages with plain fields, and nothing biometric leaves through them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import structlog

from tutelage.errors import Code, UsageError
from tutelage.log import LOG_LEVELS, MAX_ITEMS, configure_logging, withhold_biometrics


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def filtered(**fields):
    return withhold_biometrics(None, "info", {"event": "something happened", **fields})


def test_an_event_is_one_json_object_a_line_where_nobody_watches():
    stream = io.StringIO()
    configure_logging("info", stream)
    structlog.get_logger().info("sample kept", device_id="d1", score=np.float32(33.5), path=Path("a.png"))
    (line,) = stream.getvalue().splitlines()
    event = json.loads(line)
    assert event.pop("timestamp").endswith("Z")
    assert event == {"event": "sample kept", "level": "info", "device_id": "d1", "score": 33.5, "path": "a.png"}


def test_an_event_is_a_readable_line_on_a_terminal():
    stream = Terminal()
    configure_logging("info", stream)
    structlog.get_logger().info("sample kept", device_id="d1")
    assert "sample kept" in stream.getvalue()
    assert "{" not in stream.getvalue()


@pytest.mark.parametrize("level", LOG_LEVELS)
def test_only_the_level_and_above_is_written(level: str):
    stream = io.StringIO()
    configure_logging(level, stream)
    for name in LOG_LEVELS:
        getattr(structlog.get_logger(), name)("something happened")
    written = [json.loads(line)["level"] for line in stream.getvalue().splitlines()]
    assert written == list(LOG_LEVELS[LOG_LEVELS.index(level) :])


@pytest.mark.parametrize("level", ["loud", "", "INFO", "30"])
def test_an_unknown_level_is_refused(level: str):
    with pytest.raises(UsageError, match="debug, info, warning, error, critical") as caught:
        configure_logging(level, io.StringIO())
    assert caught.value.code is Code.USAGE


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (np.zeros((8, 8), np.uint8), "ndarray"),
        (b"\x89PNG", "bytes"),
        (bytearray(3), "bytearray"),
        (memoryview(b"key"), "memoryview"),
        ([0.5] * (MAX_ITEMS + 1), "list"),
        (object(), "object"),
    ],
)
def test_what_may_be_biometric_is_named_by_its_type(value: object, kind: str):
    withheld = f"<withheld: {kind}>"
    assert filtered(value=value)["value"] == withheld
    assert filtered(value={"deep": [value]})["value"] == {"deep": [withheld]}


def test_plain_values_pass():
    fields = {"a": "text", "b": 1, "c": 0.5, "d": True, "e": None, "f": [1, 2], "g": {"h": "i"}}
    assert filtered(**fields) == {"event": "something happened", **fields}


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_a_traceback_does_not_show_the_values_of_variables(stream: io.StringIO):
    configure_logging("debug", stream)
    key = "ab" * 8
    try:
        raise ValueError("the reason")
    except ValueError as error:
        structlog.get_logger().error("training failed", exc_info=error)
    assert "the reason" in stream.getvalue()
    assert key not in stream.getvalue()
