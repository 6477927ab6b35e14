"""Spans that begin during a model call that the SDK records itself.

Those that repeat the call would count it twice; tools, agents and retrievals in it are steps of
their own. Many instrumentations set what a span is only while it is open, so most are decided when
they end.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from opentelemetry.sdk import trace as sdk

from stepstream.producers.gateway.mapping import kinds
from stepstream.producers.gateway.mapping.mapper import kind_of
from stepstream.producers.instruments.calls import inside, model_step_around
from stepstream.producers.otel.spans import SpanReader
from stepstream.producers.tracer import Tracer

# Spans that never end must not fill the memory.
MOST_SPANS: Final = 10_000


class _Place(Enum):
    CLIENT = "made by a client for its own call"
    OPEN = "decided when it ends"
    PARENT = "as OPEN, and a span below it is published"


class InsideCalls:
    """Which of these spans are published. Their ids are kept until they end."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._spans: dict[int, _Place] = {}

    def publishes_start(self, span: sdk.Span) -> bool:
        """Whether the span's start is published. False: ``publishes_end`` decides."""
        if inside.get() is self._tracer:
            # No client runs a tool while it waits for its model.
            self._keep(span, _Place.CLIENT)
            return False
        if model_step_around(self._tracer) is not None and _kind(span) in (kinds.OTHER, kinds.LLM):
            self._keep(span, _Place.OPEN)
            return False
        self._note_parent(span)
        return True

    def publishes_end(self, span: sdk.ReadableSpan) -> bool:
        """Whether the ended span is published."""
        context = span.context
        if not self._spans or context is None:
            return True
        place = self._spans.pop(context.span_id, None)
        if place is None:
            return True
        if place is _Place.CLIENT:
            return False
        kind = _kind(span)
        # A request by HTTP belongs to the call; what surrounds a tool is its parent.
        if kind == kinds.LLM or (kind == kinds.OTHER and place is not _Place.PARENT):
            return False
        self._note_parent(span)
        return True

    def _keep(self, span: sdk.Span, place: _Place) -> None:
        self._spans[span.get_span_context().span_id] = place
        if len(self._spans) > MOST_SPANS:
            self._spans.pop(next(iter(self._spans)), None)

    def _note_parent(self, span: sdk.ReadableSpan) -> None:
        parent = span.parent
        if self._spans and parent is not None and self._spans.get(parent.span_id) is _Place.OPEN:
            self._spans[parent.span_id] = _Place.PARENT


def _kind(span: sdk.ReadableSpan) -> str:
    return kind_of(SpanReader().read(span))
