"""Logging: one event is a constant message plus fields, and biometrics never get into either.

Code that has something to tell calls `structlog.get_logger()` and logs an event whose message is always the same text,
with what varies in fields (`device_id`, `generation`). `configure_logging` decides once per process how events are
written: for people on a terminal, else one JSON object a line. Fields are filtered on the way out: only plain values
pass, so that an image, a feature vector or a key that was handed over by mistake is named by its type and nothing else.
Tracebacks are written without the values of local variables for the same reason.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, timedelta
from enum import Enum
from numbers import Real
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TextIO

import structlog

from tutelage.errors import UsageError

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor, WrappedLogger

__all__ = ["LOG_LEVELS", "configure_logging", "withhold_biometrics"]

LOG_LEVELS = ("debug", "info", "warning", "error", "critical")
"""Names of the levels, most talkative first."""

MAX_ITEMS = 32
"""Longer sequences are withheld: a list of numbers of that length may be a feature, and nobody reads it."""

_PLAIN = (str, int, float, PurePath, Enum, date, timedelta, type(None))
_BYTES = (bytes, bytearray, memoryview)


def configure_logging(level: str, stream: TextIO) -> None:
    """Send events of `level` and above to `stream`: coloured lines on a terminal, JSON lines otherwise.

    Raises:
        UsageError: `level` is none of `LOG_LEVELS`.
    """
    if level not in LOG_LEVELS:
        raise UsageError(f"log level {level!r} is unknown: use one of {', '.join(LOG_LEVELS)}")
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            withhold_biometrics,
            *_renderers(stream.isatty()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )


def withhold_biometrics(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace every field that is not a plain value, however deep, by the name of its type; a structlog processor."""
    return {name: value if name == "exc_info" else _plain(value) for name, value in event.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, Real):  # numpy's scalars
        return float(value)
    if isinstance(value, Mapping) and len(value) <= MAX_ITEMS:
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence | AbstractSet) and not isinstance(value, _BYTES) and len(value) <= MAX_ITEMS:
        return [_plain(item) for item in value]
    return f"<withheld: {type(value).__name__}>"


def _renderers(terminal: bool) -> list[Processor]:
    if terminal:
        return [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
