"""OTLP protobuf requests as spans and log records."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from stepstream.producers.gateway.mapping.spans import (
    LogRecord,
    Resource,
    Span,
    SpanEvent,
    Unreadable,
)
from stepstream.producers.gateway.otlp import wire
from stepstream.producers.gateway.otlp.malformed import MAX_ITEMS, Groups, Malformed, TooMany

Pairs = Callable[[Any, wire.NestedBytesLeft], dict[str, Any]]

LARGE_BYTES: Final = 4 << 20
"""A larger body is decoded item by item: an empty span or event takes two bytes in a body and a
hundred in memory, so decoding 64 MiB at once could take 5 GB.
"""
MAX_FIELDS: Final = 100_000
"""The most attributes and events together in an item of more than ``LARGE_BYTES``; one with more is
``Unreadable``.
"""
# Numbers of fields in ResourceSpans, ScopeSpans and the messages of logs, and the wire type of
# messages.
_GROUPS: Final = 1
_SHARED: Final = 1
_MEMBERS: Final = 2
_LENGTH_DELIMITED: Final = 2


def spans(body: bytes) -> Iterator[Span | Unreadable]:
    """The spans of an ``ExportTraceServiceRequest``.

    A span that cannot be read is returned as ``Unreadable``; the others are not affected. Raises
    ``Malformed`` for a body that is no such request (for one of more than ``LARGE_BYTES`` possibly
    after some items), and ``TooMany``.
    """
    if len(body) > LARGE_BYTES:
        yield from _items_of_large_body(body, "Span", _span)
        return
    try:
        # One malformed item fails the decoding of the whole request: it is then decoded again with
        # its items as bytes, each on its own.
        request = wire.TRACES.FromString(body)
    except wire.DecodeError:
        yield from _items_separately(body, "Traces", "Span", _span)
        return
    budget, groups = wire.NestedBytesLeft(), Groups()
    for group in request.resources:
        groups.add()
        for scope in group.scopes:
            groups.add()
            resource = _resource(group.resource, scope.scope, budget)
            for item in scope.items:
                yield _read(item, resource, wire.attributes_of, _span)


def log_records(body: bytes) -> Iterator[LogRecord | Unreadable]:
    """The records of an ``ExportLogsServiceRequest``, as ``spans``."""
    if len(body) > LARGE_BYTES:
        yield from _items_of_large_body(body, "LogRecord", _log_record)
        return
    try:
        request = wire.LOGS.FromString(body)
    except wire.DecodeError:
        yield from _items_separately(body, "Logs", "LogRecord", _log_record)
        return
    budget, groups = wire.NestedBytesLeft(), Groups()
    for group in request.resources:
        groups.add()
        for scope in group.scopes:
            groups.add()
            resource = _resource(group.resource, scope.scope, budget)
            for item in scope.items:
                yield _read(item, resource, wire.attributes_of, _log_record)


def _read(item: Any, resource: Resource, pairs: Pairs, make: Callable[..., Any]) -> Any:
    try:
        return make(item, resource, pairs, wire.NestedBytesLeft())
    except (ValueError, RecursionError) as error:
        name = wire.text(getattr(item, "name", b"") or getattr(item, "event_name", b""))
        return Unreadable(name[:200], f"an attribute cannot be read: {error}")


def _items_of_large_body(body: bytes, kind: str, make: Callable[..., Any]) -> Iterator[Any]:
    """The items of a large request; only one decoded item is in memory at a time."""
    budget, groups = wire.NestedBytesLeft(), Groups()
    try:
        for group in wire.parts(body, _GROUPS):
            groups.add()
            about = _first_part(group)
            for scoped in wire.parts(group, _MEMBERS):
                groups.add()
                resource = _resource_with_faults(about, _first_part(scoped), budget)
                for data in wire.parts(scoped, _MEMBERS):
                    yield _decoded(data, resource, kind, make)
    except ValueError:
        raise Malformed from None


def _first_part(group: bytes) -> bytes:
    """What a group's items have in common: its resource or its scope; empty where it has none."""
    # Encoders write the resource or scope first, so usually only the first field is read.
    for place, (number, kind, raw) in enumerate(wire.fields(group)):
        if number == _SHARED and kind == _LENGTH_DELIMITED:
            return bytes(raw)
        if place > MAX_ITEMS:
            raise TooMany
    return b""


def _decoded(data: bytes, resource: Resource, kind: str, make: Callable[..., Any]) -> Any:
    if len(data) > LARGE_BYTES and wire.has_more_fields(data, MAX_FIELDS):
        return Unreadable("", f"it has more than {MAX_FIELDS:,} attributes and events")
    try:
        return _read(wire.MESSAGES[kind].FromString(data), resource, wire.attributes_of, make)
    except wire.DecodeError:
        return _decoded_with_faults(data, resource, kind, make)


def _decoded_with_faults(
    data: bytes, resource: Resource, kind: str, make: Callable[..., Any]
) -> Any:
    """An item of which something cannot be decoded: its attributes are read one by one."""
    try:
        item = wire.SEPARATE_MESSAGES[kind].FromString(data)
    except wire.DecodeError:
        return Unreadable("", "it is not valid protobuf")
    return _read(item, resource, wire.pairs_of, make)


def _items_separately(
    body: bytes, request: str, kind: str, make: Callable[..., Any]
) -> Iterator[Any]:
    """The items of a request of which something cannot be decoded, each decoded separately."""
    classes = wire.SEPARATE_MESSAGES
    try:
        decoded = classes[request].FromString(body)
    except wire.DecodeError:
        raise Malformed from None
    budget, groups = wire.NestedBytesLeft(), Groups()
    for group in decoded.resources:
        groups.add()
        for scope in group.scopes:
            groups.add()
            resource = _resource_with_faults(group.resource, scope.scope, budget)
            for data in scope.items:
                yield _decoded_with_faults(data, resource, kind, make)


def _resource(resource: Any, scope: Any, budget: wire.NestedBytesLeft) -> Resource:
    try:
        attributes = wire.attributes_of(resource.attributes, budget)
    except (ValueError, RecursionError):
        attributes = {}
    return Resource(attributes, wire.text(scope.name), wire.text(scope.version))


def _resource_with_faults(resource: bytes, scope: bytes, budget: wire.NestedBytesLeft) -> Resource:
    """What can be read of a resource and its scope; what cannot is left out."""
    attributes: dict[str, Any] = {}
    classes = wire.SEPARATE_MESSAGES
    try:
        encoded = classes["Resource"].FromString(resource).attributes
    except wire.DecodeError:
        encoded = ()
    for data in encoded:
        try:
            attributes |= wire.pairs_of([classes["KeyValue"].FromString(data)], budget)
        except (wire.DecodeError, ValueError, RecursionError):
            continue
    try:
        decoded = classes["Scope"].FromString(scope)
    except wire.DecodeError:
        return Resource(attributes)
    return Resource(attributes, wire.text(decoded.name), wire.text(decoded.version))


def _span(item: Any, resource: Resource, pairs: Pairs, budget: wire.NestedBytesLeft) -> Span:
    status = item.status
    events = item.events
    return Span(
        item.trace_id.hex(),
        item.span_id.hex(),
        item.parent_span_id.hex(),
        wire.text(item.name),
        item.start,
        item.end,
        pairs(item.attributes, budget),
        resource,
        status.code,
        wire.text(status.message),
        item.flags,
        item.kind,
        wire.text(item.trace_state),
        [SpanEvent(e.time, wire.text(e.name), pairs(e.attributes, budget)) for e in events]
        if events
        else [],
    )


def _log_record(
    item: Any, resource: Resource, pairs: Pairs, budget: wire.NestedBytesLeft
) -> LogRecord:
    return LogRecord(
        item.trace_id.hex(),
        item.span_id.hex(),
        wire.text(item.event_name),
        item.time or item.observed,
        pairs(item.attributes, budget),
        wire.value_of(item.body, budget),
        resource,
    )
