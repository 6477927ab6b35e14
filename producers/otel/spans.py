"""A span of the OpenTelemetry SDK as the gateway's mapping reads spans."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan

from stepstream.producers.gateway.mapping.spans import (
    REMOTE,
    REMOTE_KNOWN,
    Resource,
    Span,
    SpanEvent,
)


class SpanReader:
    """Converts spans; keeps the converted resource of each instrumentation. Not thread-safe."""

    def __init__(self) -> None:
        self._resources: dict[tuple[int, str], tuple[Any, Resource]] = {}

    def read(self, span: ReadableSpan) -> Span:
        """The span. One that has not ended yet has the end time 0 and no status."""
        context, parent = span.get_span_context(), span.parent
        assert context is not None
        status = span.status
        return Span(
            trace_id=f"{context.trace_id:032x}",
            span_id=f"{context.span_id:016x}",
            parent_id="" if parent is None else f"{parent.span_id:016x}",
            name=span.name,
            start_ns=span.start_time or 0,
            end_ns=span.end_time or 0,
            attributes=_plain(span.attributes),
            resource=self._resource(span),
            status=status.status_code.value,
            status_message=status.description or "",
            flags=REMOTE_KNOWN | (REMOTE if parent is not None and parent.is_remote else 0),
            # OTLP counts from 1, because 0 is "unspecified" there; the SDK counts from 0.
            kind=span.kind.value + 1,
            # The parent's, because the span's own was marked by this process.
            trace_state="" if parent is None else parent.trace_state.to_header(),
            events=[
                SpanEvent(event.timestamp, event.name, _plain(event.attributes))
                for event in span.events
            ],
        )

    def _resource(self, span: ReadableSpan) -> Resource:
        scope = span.instrumentation_scope
        name = "" if scope is None else scope.name
        key = (id(span.resource), name)
        found = self._resources.get(key)
        # The resource is kept with its entry: as long as it lives, no other one has its id.
        if found is not None and found[0] is span.resource:
            return found[1]
        version = "" if scope is None else scope.version or ""
        made = Resource(_plain(span.resource.attributes), name, version)
        if len(self._resources) >= 1_000:
            self._resources.clear()
        self._resources[key] = (span.resource, made)
        return made


def _plain(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    """The attributes with lists instead of tuples, as the wire formats have them."""
    if not attributes:
        return {}
    return {
        name: list(value) if type(value) is tuple else value for name, value in attributes.items()
    }
