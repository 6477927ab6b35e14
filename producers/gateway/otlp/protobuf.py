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

Pairs = Callable[[Any, wire.Budget], dict[str, Any]]

LARGE_BYTES: Final = 4 << 20
"""A larger body is decoded item by item: an empty span or event takes two bytes in a body and a
hundred in memory, so decoding 64 MiB at once could take 5 GB.
"""
MAX_FIELDS: Final = 100_000
"""Fields of an item of more than ``LARGE_BYTES``: attributes and events."""


def spans(body: bytes) -> Iterator[Span | Unreadable]:
    """The spans of an ``ExportTraceServiceRequest``; what cannot be read in one span costs that
    span.

    Raises ``Malformed``, at the first item at the latest, for a body that is no such request, and
    ``TooMany``.
    """
    if len(body) > LARGE_BYTES:
        yield from _one_by_one(body, "Span", _span)
        return
    try:
        # One malformed item fails the decoding of the whole request: it is then decoded again with
        # its items as bytes, each on its own.
        request = wire.TRACES.FromString(body)
    except wire.DecodeError:
        yield from _slowly(body, "Traces", "Span", _span)
        return
    budget, groups = wire.Budget(), Groups()
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
        yield from _one_by_one(body, "LogRecord", _log_record)
        return
    try:
        request = wire.LOGS.FromString(body)
    except wire.DecodeError:
        yield from _slowly(body, "Logs", "LogRecord", _log_record)
        return
    budget, groups = wire.Budget(), Groups()
    for group in request.resources:
        groups.add()
        for scope in group.scopes:
            groups.add()
            resource = _resource(group.resource, scope.scope, budget)
            for item in scope.items:
                yield _read(item, resource, wire.attributes_of, _log_record)


def _read(item: Any, resource: Resource, pairs: Pairs, make: Callable[..., Any]) -> Any:
    try:
        return make(item, resource, pairs, wire.Budget())
    except (ValueError, RecursionError) as error:
        name = wire.text(getattr(item, "name", b"") or getattr(item, "event_name", b""))
        return Unreadable(name[:200], f"an attribute cannot be read: {error}")


def _one_by_one(body: bytes, kind: str, make: Callable[..., Any]) -> Iterator[Any]:
    """The items of a large request; none of the others is in memory in its decoded form."""
    budget, groups = wire.Budget(), Groups()
    try:
        for group in wire.parts(body, 1):
            groups.add()
            about = _first_part(group)
            for scoped in wire.parts(group, 2):
                groups.add()
                resource = _resource_slowly(about, _first_part(scoped), budget)
                for data in wire.parts(scoped, 2):
                    yield _decoded(data, resource, kind, make)
    except ValueError:
        raise Malformed from None


def _first_part(group: bytes) -> bytes:
    """What a group's items have in common: its resource or its scope; empty where it has none."""
    # It is written before the items; only a group without one is read further than its start.
    for place, (number, kind, raw) in enumerate(wire.fields(group)):
        if number == 1 and kind == 2:
            return bytes(raw)
        if place > MAX_ITEMS:
            raise TooMany
    return b""


def _decoded(data: bytes, resource: Resource, kind: str, make: Callable[..., Any]) -> Any:
    if len(data) > LARGE_BYTES and wire.has_more_fields(data, MAX_FIELDS):
        return Unreadable("", f"it has more than {MAX_FIELDS:,} attributes and events")
    try:
        return _read(wire.QUICK[kind].FromString(data), resource, wire.attributes_of, make)
    except wire.DecodeError:
        return _decoded_slowly(data, resource, kind, make)


def _decoded_slowly(data: bytes, resource: Resource, kind: str, make: Callable[..., Any]) -> Any:
    """An item with attributes that cannot be decoded; each is read on its own."""
    try:
        item = wire.TRACES_SLOWLY[kind].FromString(data)
    except wire.DecodeError:
        return Unreadable("", "it is not valid protobuf")
    return _read(item, resource, wire.pairs_of, make)


def _slowly(body: bytes, request: str, kind: str, make: Callable[..., Any]) -> Iterator[Any]:
    """The items of a request that holds something that cannot be decoded, one by one."""
    classes = wire.TRACES_SLOWLY
    try:
        decoded = classes[request].FromString(body)
    except wire.DecodeError:
        raise Malformed from None
    budget, groups = wire.Budget(), Groups()
    for group in decoded.resources:
        groups.add()
        for scope in group.scopes:
            groups.add()
            resource = _resource_slowly(group.resource, scope.scope, budget)
            for data in scope.items:
                yield _decoded_slowly(data, resource, kind, make)


def _resource(resource: Any, scope: Any, budget: wire.Budget) -> Resource:
    try:
        attributes = wire.attributes_of(resource.attributes, budget)
    except (ValueError, RecursionError):
        attributes = {}
    return Resource(attributes, wire.text(scope.name), wire.text(scope.version))


def _resource_slowly(resource: bytes, scope: bytes, budget: wire.Budget) -> Resource:
    """What can be read of a resource and its scope: their faults cost no span."""
    attributes: dict[str, Any] = {}
    classes = wire.TRACES_SLOWLY
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


def _span(item: Any, resource: Resource, pairs: Pairs, budget: wire.Budget) -> Span:
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


def _log_record(item: Any, resource: Resource, pairs: Pairs, budget: wire.Budget) -> LogRecord:
    return LogRecord(
        item.trace_id.hex(),
        item.span_id.hex(),
        wire.text(item.event_name),
        item.time or item.observed,
        pairs(item.attributes, budget),
        wire.value_of(item.body, budget),
        resource,
    )
