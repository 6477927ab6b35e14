"""OTLP/JSON requests as spans and log records.

Ids are hex, as OTLP specifies in place of protobuf's JSON mapping. Integers are numbers or texts,
enums numbers or names. Unknown members are ignored, and ``null`` is the same as absent.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from stepstream.producers.gateway.mapping.spans import (
    LogRecord,
    Resource,
    Span,
    SpanEvent,
    Unreadable,
)
from stepstream.producers.gateway.otlp.malformed import (
    Groups,
    Malformed,
    check_json,
    has_more_values,
)
from stepstream.producers.gateway.otlp.wire import MAX_DEPTH

Number = int | float | str


class _Value(msgspec.Struct, gc=False):
    stringValue: str | None = None
    boolValue: bool | None = None
    intValue: Number | None = None
    doubleValue: Number | None = None
    arrayValue: Any = None
    kvlistValue: Any = None
    bytesValue: str | None = None


class _Pair(msgspec.Struct, gc=False):
    key: str = ""
    value: _Value | None = None


class _Status(msgspec.Struct, gc=False):
    code: int | str = 0
    message: str = ""


class _Event(msgspec.Struct, gc=False):
    timeUnixNano: Number = 0
    name: str = ""
    attributes: list[_Pair] = []


class _Span(msgspec.Struct, gc=False):
    traceId: str = ""
    spanId: str = ""
    parentSpanId: str | None = ""
    traceState: str | None = ""
    name: str = ""
    kind: int | str = 0
    startTimeUnixNano: Number = 0
    endTimeUnixNano: Number = 0
    attributes: list[_Pair] = []
    events: list[_Event] = []
    status: _Status | None = None
    flags: int | None = 0


class _LogRecord(msgspec.Struct, gc=False):
    timeUnixNano: Number = 0
    observedTimeUnixNano: Number = 0
    body: _Value | None = None
    attributes: list[_Pair] = []
    traceId: str | None = ""
    spanId: str | None = ""
    eventName: str | None = ""


class _Scope(msgspec.Struct, gc=False):
    name: str | None = ""
    version: str | None = ""


class _Resource(msgspec.Struct, gc=False):
    attributes: list[_Pair] = []


class _ScopeSpans(msgspec.Struct, gc=False):
    scope: _Scope | None = None
    spans: list[_Span] = []


class _ScopeLogs(msgspec.Struct, gc=False):
    scope: _Scope | None = None
    logRecords: list[_LogRecord] = []


class _ResourceSpans(msgspec.Struct, gc=False):
    resource: _Resource | None = None
    scopeSpans: list[_ScopeSpans] = []


class _ResourceLogs(msgspec.Struct, gc=False):
    resource: _Resource | None = None
    scopeLogs: list[_ScopeLogs] = []


class _Traces(msgspec.Struct, gc=False):
    resourceSpans: list[_ResourceSpans] = []


class _Logs(msgspec.Struct, gc=False):
    resourceLogs: list[_ResourceLogs] = []


class _Object(msgspec.Struct, gc=False):
    """Any object; nothing of it is kept."""


class _ObjectSpans(msgspec.Struct, gc=False):
    spans: list[_Object] | None = None


class _ObjectLogs(msgspec.Struct, gc=False):
    logRecords: list[_Object] | None = None


class _ObjectResourceSpans(msgspec.Struct, gc=False):
    scopeSpans: list[_ObjectSpans] | None = None


class _ObjectResourceLogs(msgspec.Struct, gc=False):
    scopeLogs: list[_ObjectLogs] | None = None


class _TracesOfObjects(msgspec.Struct, gc=False):
    resourceSpans: list[_ObjectResourceSpans] | None = None


class _LogsOfObjects(msgspec.Struct, gc=False):
    resourceLogs: list[_ObjectResourceLogs] | None = None


class _RawScopeSpans(msgspec.Struct, gc=False):
    scope: msgspec.Raw = msgspec.Raw()
    spans: list[msgspec.Raw] | None = None


class _RawScopeLogs(msgspec.Struct, gc=False):
    scope: msgspec.Raw = msgspec.Raw()
    logRecords: list[msgspec.Raw] | None = None


class _RawResourceSpans(msgspec.Struct, gc=False):
    resource: msgspec.Raw = msgspec.Raw()
    scopeSpans: list[_RawScopeSpans | None] | None = None


class _RawResourceLogs(msgspec.Struct, gc=False):
    resource: msgspec.Raw = msgspec.Raw()
    scopeLogs: list[_RawScopeLogs | None] | None = None


class _RawTraces(msgspec.Struct, gc=False):
    resourceSpans: list[_RawResourceSpans | None] | None = None


class _RawLogs(msgspec.Struct, gc=False):
    resourceLogs: list[_RawResourceLogs | None] | None = None


# Typed decoding of the whole request is the fast path. One malformed item fails it as a whole, so
# the frame of such a request is decoded with its items as bytes of the body, which copies nothing,
# and each item on its own (``_slowly``).
_decode_traces = msgspec.json.Decoder(_Traces).decode
_decode_logs = msgspec.json.Decoder(_Logs).decode
_KINDS: Final = {
    "SPAN_KIND_INTERNAL": 1,
    "SPAN_KIND_SERVER": 2,
    "SPAN_KIND_CLIENT": 3,
    "SPAN_KIND_PRODUCER": 4,
    "SPAN_KIND_CONSUMER": 5,
}
_STATUSES: Final = {"STATUS_CODE_OK": 1, "STATUS_CODE_ERROR": 2}
_MOST_DIGITS: Final = 24
_OBJECT_START: Final = re.compile(rb"[ \t\r\n]*\{")
MAX_ODD_BYTES: Final = 4 << 20
"""The longest item that is read although it does not fit the declaration: reading it takes several
times its size in memory. A step has at most 1 MiB.
"""
MAX_FRAME_VALUES: Final = 2_000_000
"""Values of a request in which only the item that is no object is refused. An undecoded item takes
70 bytes: these are 140 MB.
"""
MAX_NESTED_VALUES: Final = 200_000
"""Values within arrays and maps of one item, its events included, or of a request's resources: each
is read in Python and takes a microsecond.
"""


def spans(body: bytes) -> Iterator[Span | Unreadable]:
    """The spans of a request, with ``Unreadable`` in place of a span that cannot be read. Raises
    ``Malformed`` and ``TooMany`` at the first item.
    """
    check_json(body)
    try:
        request = _decode_traces(body)
    except (ValueError, RecursionError):
        slow_budget, slow_groups = _Budget(), Groups()
        for group in _frame(_TracesOfObjects, _RawTraces, body).resourceSpans or ():
            slow_groups.add()
            if group is None:
                continue
            attributes = _attributes_or_nothing(group.resource, slow_budget)
            for scoped in group.scopeSpans or ():
                slow_groups.add()
                if scoped is None:
                    continue
                resource = _resource(attributes, _scope_or_nothing(scoped.scope))
                for raw in scoped.spans or ():
                    yield _read_slowly(raw, resource, _Span, _span)
        return
    budget, groups = _Budget(), Groups()
    for group in request.resourceSpans:
        groups.add()
        attributes = _resource_attributes(group.resource, budget)
        for scoped in group.scopeSpans:
            groups.add()
            resource = _resource(attributes, scoped.scope)
            for item in scoped.spans:
                yield _read(item, resource, _span)


def log_records(body: bytes) -> Iterator[LogRecord | Unreadable]:
    """The log records of a request, as ``spans``."""
    check_json(body)
    try:
        request = _decode_logs(body)
    except (ValueError, RecursionError):
        slow_budget, slow_groups = _Budget(), Groups()
        for group in _frame(_LogsOfObjects, _RawLogs, body).resourceLogs or ():
            slow_groups.add()
            if group is None:
                continue
            attributes = _attributes_or_nothing(group.resource, slow_budget)
            for scoped in group.scopeLogs or ():
                slow_groups.add()
                if scoped is None:
                    continue
                resource = _resource(attributes, _scope_or_nothing(scoped.scope))
                for raw in scoped.logRecords or ():
                    yield _read_slowly(raw, resource, _LogRecord, _log_record)
        return
    budget, groups = _Budget(), Groups()
    for group in request.resourceLogs:
        groups.add()
        attributes = _resource_attributes(group.resource, budget)
        for scoped in group.scopeLogs:
            groups.add()
            resource = _resource(attributes, scoped.scope)
            for item in scoped.logRecords:
                yield _read(item, resource, _log_record)


def _read(item: Any, resource: Resource, make: Any) -> Any:
    try:
        return make(item, resource, _Budget())
    except (ValueError, RecursionError, OverflowError) as error:
        name = getattr(item, "name", "") or getattr(item, "eventName", "") or ""
        return Unreadable(str(name)[:200], f"a value cannot be read: {error}"[:300])


def _frame(objects: Any, raw: Any, body: bytes) -> Any:
    """A request with its items undecoded. Raises ``Malformed``."""
    hint = ""
    try:
        if has_more_values(body, MAX_FRAME_VALUES):
            # An undecoded item takes 70 bytes, also if it is a single digit. ``check_json`` has
            # bounded the objects, so what is left to exclude is everything else.
            hint = (
                f"; of a request with more than {MAX_FRAME_VALUES:,} values all items are refused "
                "with such an item: send smaller ones"
            )
            msgspec.json.decode(body, type=objects)
            hint = ""
        return msgspec.json.decode(body, type=raw)
    except msgspec.ValidationError as error:
        if _OBJECT_START.match(body) is None:
            raise Malformed("the body is not a JSON object") from None
        what = f"the body does not have the form of OTLP/JSON: {error}{hint}"
        raise Malformed(what) from None
    except (ValueError, RecursionError) as error:
        raise Malformed(f"the body is not valid JSON: {error}") from None


def _read_slowly(data: msgspec.Raw, resource: Resource, kind: Any, make: Any) -> Any:
    """An item of a request that does not fit its declaration."""
    raw: Any = None
    try:
        raw = _loose(data)
        item = msgspec.convert(_without_nulls(raw, 0), kind, strict=False)
    except (ValueError, RecursionError, OverflowError) as error:
        name = raw.get("name", "") if isinstance(raw, dict) else ""
        return Unreadable(str(name)[:200], _explained(raw, error))
    return _read(item, resource, make)


def _loose(data: msgspec.Raw) -> Any:
    """The JSON of a part, of any form. Raises ``ValueError``."""
    size = len(memoryview(data))
    if size > MAX_ODD_BYTES:
        raise ValueError(f"it has {size:,} bytes, and such an item may have {MAX_ODD_BYTES:,}")
    return msgspec.json.decode(data) if size else None


def _explained(raw: Any, error: Exception) -> str:
    # A common mistake of hand-written senders, so the message shows the correct form.
    if isinstance(raw, dict) and isinstance(raw.get("attributes"), dict):
        return (
            "its attributes are an object: OTLP/JSON writes a list of "
            '{"key": ..., "value": {"stringValue": ...}}'
        )
    return f"it does not have the form of OTLP/JSON: {error}"[:300]


def _without_nulls(value: Any, depth: int) -> Any:
    """The same without members that are null, which protobuf's JSON takes for absent."""
    if depth > 64:
        raise ValueError("values lie in each other too deep")
    if isinstance(value, dict):
        return {
            key: _without_nulls(item, depth + 1) for key, item in value.items() if item is not None
        }
    if isinstance(value, list):
        return [_without_nulls(item, depth + 1) for item in value if item is not None]
    return value


def _attributes_or_nothing(data: msgspec.Raw, budget: _Budget) -> dict[str, Any]:
    try:
        raw = _without_nulls(_loose(data) or {}, 0)
        return _resource_attributes(msgspec.convert(raw, _Resource, strict=False), budget)
    except (ValueError, RecursionError, OverflowError):
        return {}


def _scope_or_nothing(data: msgspec.Raw) -> _Scope | None:
    try:
        raw = _without_nulls(_loose(data) or {}, 0)
        return msgspec.convert(raw, _Scope, strict=False)
    except (ValueError, RecursionError):
        return None


def _resource_attributes(resource: _Resource | None, budget: _Budget) -> dict[str, Any]:
    try:
        return {} if resource is None else _attributes(resource.attributes, budget)
    except (ValueError, RecursionError, OverflowError):
        return {}


def _resource(attributes: dict[str, Any], scope: _Scope | None) -> Resource:
    if scope is None:
        return Resource(attributes)
    return Resource(attributes, scope.name or "", scope.version or "")


class _Budget:
    """Nested values still to be decoded: of one item, or of a request's resources."""

    def __init__(self) -> None:
        self.left = MAX_NESTED_VALUES

    def spend(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise ValueError(f"its arrays and maps have more than {MAX_NESTED_VALUES:,} values")


def _attributes(pairs: list[_Pair], budget: _Budget) -> dict[str, Any]:
    return {
        pair.key: None
        if (value := pair.value) is None
        else value.stringValue or _value(value, budget)
        for pair in pairs
    }


def _value(value: _Value, budget: _Budget) -> Any:
    """A value of any type. Raises ``ValueError``."""
    if value.stringValue is not None:
        return value.stringValue
    if value.intValue is not None:
        return _whole(value.intValue)
    if value.doubleValue is not None:
        return float(value.doubleValue)
    if value.boolValue is not None:
        return value.boolValue
    if value.bytesValue is not None:
        try:
            return base64.b64decode(value.bytesValue, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("bytesValue is not base64") from None
    # Nested values are converted one level at a time, which bounds their depth.
    nested = value.arrayValue if value.arrayValue is not None else value.kvlistValue
    return None if nested is None else _nested(value.arrayValue is not None, nested, 1, budget)


def _nested(is_array: bool, raw: Any, depth: int, budget: _Budget) -> Any:
    if depth > MAX_DEPTH:
        raise ValueError(f"values lie in each other more than {MAX_DEPTH} deep")
    items = raw.get("values") if isinstance(raw, dict) else None
    if items is None:
        return [] if is_array else {}
    if not isinstance(items, list):
        raise ValueError("the values of an array or a map are not a list")
    budget.spend(len(items))
    if is_array:
        return [_plain(item, depth, budget) for item in items]
    found: dict[str, Any] = {}
    for item in items:
        if isinstance(item, dict):
            found[str(item.get("key", ""))] = _plain(item.get("value"), depth, budget)
    return found


def _plain(raw: Any, depth: int, budget: _Budget) -> Any:
    if not isinstance(raw, dict):
        return None
    for name, is_array in (("arrayValue", True), ("kvlistValue", False)):
        if raw.get(name) is not None:
            return _nested(is_array, raw[name], depth + 1, budget)
    return _value(msgspec.convert(_without_nulls(raw, 0), _Value, strict=False), budget)


def _whole(value: Number) -> int:
    """A whole number, which may be written as text. Raises ``ValueError``."""
    if value.__class__ is int:
        return int(value)
    if isinstance(value, str):
        # int() of a long text takes quadratic time.
        if len(value) > _MOST_DIGITS:
            raise ValueError("a whole number has too many digits")
        try:
            return int(value)
        except ValueError:
            value = float(value)
    number = float(value)
    if not number.is_integer():
        raise ValueError(f"{value!r} is not a whole number")
    return int(number)


def _time(value: Number) -> int:
    found = _whole(value)
    if not 0 <= found < 1 << 64:
        raise ValueError(f"{value!r} is no time in nanoseconds since 1970")
    return found


def _enum(value: int | str, names: dict[str, int]) -> int:
    if isinstance(value, str):
        return names.get(value, 0) if not value.isdigit() else int(value[:_MOST_DIGITS])
    return value


def _span(item: _Span, resource: Resource, budget: _Budget) -> Span:
    status = item.status
    return Span(
        item.traceId.lower(),
        item.spanId.lower(),
        (item.parentSpanId or "").lower(),
        item.name,
        _time(item.startTimeUnixNano),
        _time(item.endTimeUnixNano),
        _attributes(item.attributes, budget),
        resource,
        0 if status is None else _enum(status.code, _STATUSES),
        "" if status is None else status.message,
        item.flags or 0,
        _enum(item.kind, _KINDS),
        item.traceState or "",
        [
            SpanEvent(_time(e.timeUnixNano), e.name, _attributes(e.attributes, budget))
            for e in item.events
        ],
    )


def _log_record(item: _LogRecord, resource: Resource, budget: _Budget) -> LogRecord:
    return LogRecord(
        (item.traceId or "").lower(),
        (item.spanId or "").lower(),
        item.eventName or "",
        _time(item.timeUnixNano) or _time(item.observedTimeUnixNano),
        _attributes(item.attributes, budget),
        None if item.body is None else _value(item.body, budget),
        resource,
    )
