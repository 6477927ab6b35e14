"""A span and a log record as every decoder returns them, whatever format they came in."""

from __future__ import annotations

from typing import Any, Final

import msgspec

Value = str | int | float | bool | bytes | list[Any] | dict[str, Any] | None
"""An attribute's value. Arrays and maps are plain lists and dictionaries."""
Attributes = dict[str, Any]

REMOTE_KNOWN: Final = 0x100
REMOTE: Final = 0x200
"""Bits of a span's flags: whether its parent is remote is known, and it is."""

STATUS_UNSET: Final = 0
STATUS_OK: Final = 1
STATUS_ERROR: Final = 2

KIND_SERVER: Final = 2
KIND_CLIENT: Final = 3
KIND_CONSUMER: Final = 5


class Resource(msgspec.Struct, gc=False):
    """Attributes of the process that made a span, and name and version of its instrumentation."""

    attributes: Attributes = {}
    scope: str = ""
    scope_version: str = ""


class SpanEvent(msgspec.Struct, gc=False):
    """An event of a span."""

    time_ns: int
    name: str
    attributes: Attributes


class Span(msgspec.Struct, gc=False):
    """A span. Ids are lower-case hex, empty where there is none; times are nanoseconds."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    start_ns: int
    end_ns: int
    attributes: Attributes
    resource: Resource = msgspec.field(default_factory=Resource)
    status: int = STATUS_UNSET
    status_message: str = ""
    flags: int = 0
    kind: int = 0
    trace_state: str = ""
    events: list[SpanEvent] = []


class LogRecord(msgspec.Struct, gc=False):
    """A log record. ``body`` is what was logged: a text or a map."""

    trace_id: str
    span_id: str
    event_name: str
    time_ns: int
    attributes: Attributes
    body: Any = None
    resource: Resource = msgspec.field(default_factory=Resource)


class Unreadable(msgspec.Struct, gc=False):
    """A span or log record that cannot be decoded: its name, as far as it is known, and why."""

    name: str
    why: str
