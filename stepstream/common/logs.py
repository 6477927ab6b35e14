"""Logging of the processes: one record a line on stderr, as text or as JSON.

Additional fields of a record (``extra``) are printed as ``name=value`` or as fields of the JSON
object. Control characters are replaced, and further lines of a message are indented, so that no
text of an agent looks like a log record.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final

from stepstream.common.quiet import silence_libraries
from stepstream.schemas.printable import indented
from stepstream.schemas.settings import Settings

LOGGERS: Final = ("stepstream",)

_PLAIN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def configure(settings: Settings) -> None:
    """Apply ``log_level`` and ``log_format`` to this process."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if settings.log_format == "json" else TextLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in LOGGERS:
        logging.getLogger(name).setLevel(settings.log_level.upper())
    silence_libraries()


def _time(record: logging.LogRecord) -> str:
    return (
        datetime.fromtimestamp(record.created, UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )


def _more(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _PLAIN}


class TextLines(logging.Formatter):
    """``2026-01-02T03:04:05.678Z warning stepstream.worker: message name=value``, a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        more = "".join(f" {name}={value}" for name, value in _more(record).items())
        line = (
            f"{_time(record)} {record.levelname.lower()} {record.name}: {record.getMessage()}{more}"
        )
        return indented(
            f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line
        )


class JsonLines(logging.Formatter):
    """One object a line: time, level, logger, message, extra fields, ``error`` with a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        facts: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_more(record),
        }
        if record.exc_info:
            facts["error"] = self.formatException(record.exc_info)
        return json.dumps(facts, default=str)
