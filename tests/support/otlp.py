"""Spans for tests of the gateway: made by hand, read from recorded traces, and encoded by
OpenTelemetry's own messages.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from benchmarks.cases.spans import time_us
from benchmarks.cases.trail_gaia import duration_us
from stepstream.producers.gateway.importers import langfuse
from stepstream.producers.gateway.mapping.mapper import Mapper, Origin, Refused
from stepstream.producers.gateway.mapping.options import Options
from stepstream.producers.gateway.mapping.spans import Resource, Span, SpanEvent
from stepstream.schemas.accept import Limits
from stepstream.schemas.step import AnyStep

NOW_US: Final = 1_790_000_000_000_000
NOW_NS: Final = NOW_US * 1_000
TRACE: Final = "0af7651916cd43dd8448eb211c80319c"
ORIGIN: Final = Origin("shop", NOW_US)
# Recorded traces are older than steps are kept.
OPTIONS: Final = Options(limits=Limits(max_age_us=10_000 * 86_400_000_000))

_STATUS: Final = {"Ok": 1, "Unset": 0, "Error": 2}


def span(number: int = 1, parent: int | str = 0, /, **fields: Any) -> Span:
    """A span of one second, with the id of a number; ``attributes`` may be given as keyword."""
    made: dict[str, Any] = {
        "trace_id": TRACE,
        "span_id": f"{number:016x}",
        "parent_id": parent if isinstance(parent, str) else f"{parent:016x}" if parent else "",
        "name": "work",
        "start_ns": NOW_NS - 2_000_000_000,
        "end_ns": NOW_NS - 1_000_000_000,
        "attributes": {},
    }
    return Span(**(made | fields))


def mapped(one: Span, options: Options = OPTIONS, origin: Origin = ORIGIN) -> list[AnyStep]:
    """The steps of a span. Fails where it is refused."""
    found = Mapper(options).steps(one, origin)
    assert not isinstance(found, Refused), found
    return found


def step_of(attributes: dict[str, Any], **fields: Any) -> AnyStep:
    """The step of a span with these attributes."""
    return mapped(span(attributes=attributes, **fields))[0]


def framework_spans(path: Path) -> list[Span]:
    """The spans of a trace as Langfuse exported it."""
    return list(langfuse.spans(json.loads(path.read_text())))


def gaia_spans(path: Path) -> list[Span]:
    """The spans of a trace of TRAIL."""
    with gzip.open(path) as file:
        trace = json.load(file)
    return [_gaia_span(one) for root in trace["spans"] for one in walk(root)]


def walk(one: dict[str, Any]) -> Iterable[dict[str, Any]]:
    """A nested span and all below it."""
    yield one
    for child in one["child_spans"]:
        yield from walk(child)


def _gaia_span(one: dict[str, Any]) -> Span:
    start = time_us(one["timestamp"])
    parent = one["parent_span_id"]
    return Span(
        one["trace_id"],
        one["span_id"],
        "" if parent in (None, "", "None") else parent,
        one["span_name"],
        start * 1_000,
        (start + duration_us(one["duration"])) * 1_000,
        one["span_attributes"],
        Resource(one["resource_attributes"], one["scope_name"]),
        _STATUS[one["status_code"]],
        one["status_message"],
        kind=1,
        events=[SpanEvent(0, event["Name"], event["Attributes"]) for event in one["events"]],
    )


def any_value(value: Any) -> AnyValue:
    """A Python value as OpenTelemetry's message."""
    made = AnyValue()
    if isinstance(value, bool):
        made.bool_value = value
    elif isinstance(value, int):
        made.int_value = value
    elif isinstance(value, float):
        made.double_value = value
    elif isinstance(value, str):
        made.string_value = value
    elif isinstance(value, bytes):
        made.bytes_value = value
    elif isinstance(value, list):
        made.array_value.SetInParent()
        made.array_value.values.extend(any_value(item) for item in value)
    elif isinstance(value, dict):
        made.kvlist_value.SetInParent()
        made.kvlist_value.values.extend(pairs(value))
    return made


def pairs(attributes: dict[str, Any]) -> list[KeyValue]:
    """Attributes as OpenTelemetry's messages."""
    return [KeyValue(key=key, value=any_value(value)) for key, value in attributes.items()]


def request_of(spans: Iterable[Span]) -> ExportTraceServiceRequest:
    """Spans as one request; each with a resource of its own."""
    request = ExportTraceServiceRequest()
    for one in spans:
        group = request.resource_spans.add()
        group.resource.attributes.extend(pairs(one.resource.attributes))
        scope = group.scope_spans.add()
        scope.scope.name, scope.scope.version = one.resource.scope, one.resource.scope_version
        made = scope.spans.add(
            trace_id=bytes.fromhex(one.trace_id),
            span_id=bytes.fromhex(one.span_id),
            parent_span_id=bytes.fromhex(one.parent_id),
            trace_state=one.trace_state,
            name=one.name,
            kind=one.kind,
            start_time_unix_nano=one.start_ns,
            end_time_unix_nano=one.end_ns,
            attributes=pairs(one.attributes),
            flags=one.flags,
        )
        made.status.code, made.status.message = one.status, one.status_message
        for event in one.events:
            made.events.add(
                time_unix_nano=event.time_ns, name=event.name, attributes=pairs(event.attributes)
            )
    return request


def json_value(value: Any) -> dict[str, Any]:
    """A Python value as OTLP/JSON writes it."""
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [json_value(item) for item in value]}}
    if isinstance(value, dict):
        return {"kvlistValue": {"values": json_pairs(value)}}
    return {"stringValue": value} if value is not None else {}


def json_pairs(attributes: dict[str, Any]) -> list[dict[str, Any]]:
    """Attributes as OTLP/JSON writes them."""
    return [{"key": key, "value": json_value(value)} for key, value in attributes.items()]


def json_span(one: Span) -> dict[str, Any]:
    """A span as OTLP/JSON writes it."""
    return {
        "traceId": one.trace_id,
        "spanId": one.span_id,
        "parentSpanId": one.parent_id,
        "name": one.name,
        "kind": one.kind,
        "startTimeUnixNano": str(one.start_ns),
        "endTimeUnixNano": str(one.end_ns),
        "attributes": json_pairs(one.attributes),
        "status": {"code": one.status, "message": one.status_message},
        "flags": one.flags,
    }


def json_request(spans: Iterable[Any]) -> dict[str, Any]:
    """Spans, or what stands for them, as one OTLP/JSON request."""
    made = [json_span(one) if isinstance(one, Span) else one for one in spans]
    return {"resourceSpans": [{"scopeSpans": [{"spans": made}]}]}
