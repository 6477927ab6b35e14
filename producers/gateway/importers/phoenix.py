"""Exports of Phoenix: spans as objects, with flat or nested attributes, as a list or one a line."""

from __future__ import annotations

from typing import Any

from stepstream.producers.gateway.importers.ids import span_id_of, trace_id_of
from stepstream.producers.gateway.importers.times import time_ns
from stepstream.producers.gateway.mapping.spans import (
    STATUS_ERROR,
    STATUS_OK,
    STATUS_UNSET,
    Resource,
    Span,
    SpanEvent,
)
from stepstream.producers.gateway.mapping.texts import parsed, text_of

SOURCE = "phoenix"
_STATUS = {"OK": STATUS_OK, "ERROR": STATUS_ERROR}
_LISTS = (
    "llm.input_messages",
    "llm.output_messages",
    "retrieval.documents",
    "reranker.output_documents",
)


def is_span(item: Any) -> bool:
    """Whether an object looks like a span of an export."""
    if not isinstance(item, dict):
        return False
    context = item.get("context")
    nested = isinstance(context, dict) and "trace_id" in context
    return nested or "context.trace_id" in item


def span_of(item: dict[str, Any]) -> Span:
    """One exported span. Raises ``ValueError`` for what is none."""
    if not is_span(item):
        raise ValueError("not a span of Phoenix: it has no context with a trace_id")
    context = item.get("context") or {
        name: item.get(f"context.{name}") for name in ("trace_id", "span_id")
    }
    attributes = _attributes(item)
    kind = item.get("span_kind")
    if kind:
        attributes.setdefault("openinference.span.kind", kind)
    parent = item.get("parent_id")
    start = time_ns(item.get("start_time"))
    return Span(
        trace_id_of(SOURCE, text_of(context.get("trace_id"))),
        span_id_of(SOURCE, text_of(context.get("span_id"))),
        span_id_of(SOURCE, text_of(parent)) if parent else "",
        text_of(item.get("name")),
        start,
        max(start, time_ns(item.get("end_time") or item.get("start_time"))),
        attributes,
        Resource({}, "phoenix"),
        _STATUS.get(text_of(item.get("status_code")).upper(), STATUS_UNSET),
        text_of(item.get("status_message")),
        events=[_event(event, start) for event in _list(item.get("events"))],
    )


def _list(value: Any) -> list[dict[str, Any]]:
    items = parsed(value)
    return [one for one in items if isinstance(one, dict)] if isinstance(items, list) else []


def _event(event: dict[str, Any], start: int) -> SpanEvent:
    when = event.get("timestamp")
    attributes = event.get("attributes")
    return SpanEvent(
        time_ns(when) if isinstance(when, str) else start,
        text_of(event.get("name")),
        attributes if isinstance(attributes, dict) else {},
    )


def _attributes(item: dict[str, Any]) -> dict[str, Any]:
    """Flat attributes, from a nested object or from columns named ``attributes.*``."""
    made: dict[str, Any] = {}
    nested = parsed(item.get("attributes"))
    if isinstance(nested, dict):
        _flatten(nested, "", made, 0)
    for name, value in item.items():
        if name.startswith("attributes.") and value is not None:
            plain = name.removeprefix("attributes.")
            decoded = parsed(value)
            # Columns of a data frame have nested values as JSON text.
            if isinstance(decoded, dict) or plain in _LISTS:
                _flatten({plain: decoded}, "", made, 0)
            else:
                made[plain] = value
    return made


def _flatten(value: dict[str, Any], before: str, made: dict[str, Any], depth: int) -> None:
    for key, item in value.items():
        name = f"{before}{key}"
        # Bounded in depth, because the file may come from anywhere. Metadata and inputs are values
        # of the user, whose nested names are not attributes.
        if isinstance(item, dict) and depth < 8 and name not in ("metadata", "input.value"):
            _flatten(item, f"{name}.", made, depth + 1)
        elif (isinstance(item, list) and name in _LISTS) or (
            isinstance(item, list) and name.endswith(("tool_calls", "message.contents"))
        ):
            for index, one in enumerate(item):
                if isinstance(one, dict):
                    _flatten(one, f"{name}.{index}.", made, depth + 1)
        elif item is not None:
            made[name] = item
