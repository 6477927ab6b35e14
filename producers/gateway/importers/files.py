"""The spans of a file's contents, whatever wrote it: recognised by their form."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from stepstream.producers.gateway.importers import langfuse, messages, phoenix
from stepstream.producers.gateway.mapping.spans import Span, Unreadable
from stepstream.producers.gateway.otlp import otlp_json

FORMATS: Final = ("otlp", "langfuse", "phoenix", "messages")


def items_of(data: bytes) -> Iterator[Any]:
    """The JSON values of a file: one, the items of a list, or one a line. Raises ``ValueError``."""
    try:
        whole = msgspec.json.decode(data)
    except (ValueError, RecursionError):
        lines = [line for line in data.splitlines() if line.strip()]
        if len(lines) < 2:
            raise ValueError("it is neither JSON nor one JSON value a line") from None
        for number, line in enumerate(lines, 1):
            try:
                yield msgspec.json.decode(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"line {number} is not JSON: {error}") from None
        return
    # A page of Langfuse's or Phoenix's API has its items in "data".
    if isinstance(whole, dict) and isinstance(whole.get("data"), list):
        whole = whole["data"]
    # A list of messages is one conversation, any other list has one item per entry.
    if isinstance(whole, list) and messages.messages_in(whole) is None:
        yield from whole
    else:
        yield whole


def format_of(item: Any) -> str:
    """The name of an item's format; empty where it is none that is known."""
    if isinstance(item, dict) and ("resourceSpans" in item or "scopeSpans" in item):
        return "otlp"
    if langfuse.is_trace(item) or langfuse.is_observation(item):
        return "langfuse"
    if phoenix.is_span(item):
        return "phoenix"
    return "messages" if messages.messages_in(item) is not None else ""


def spans_of(item: Any, start_ns: int) -> Iterator[Span | Unreadable]:
    """The spans of one item. ``start_ns`` is when a conversation without times began.

    Raises ``ValueError`` for an item of no known format.
    """
    match format_of(item):
        case "otlp":
            # Encoded again, because the decoder of OTLP reads bytes. An import is not a hot path.
            yield from otlp_json.spans(msgspec.json.encode(item))
        case "langfuse" if langfuse.is_observation(item):
            yield langfuse.span_of(item, {})
        case "langfuse":
            yield from langfuse.spans(item)
        case "phoenix":
            yield phoenix.span_of(item)
        case "messages":
            yield from messages.spans(messages.messages_in(item) or [], start_ns)
        case _:
            raise ValueError(
                "it is no OTLP request, no export of Langfuse or Phoenix, and no list of messages"
            )
