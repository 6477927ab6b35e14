"""Contents that instrumentations log apart from their spans, until the spans come."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

from stepstream.producers.gateway.mapping.published_calls import SpanKey
from stepstream.producers.gateway.mapping.spans import SpanEvent

MAX_BYTES: Final = 32 << 20
"""Contents in memory; the oldest are dropped beyond it. They are stored as steps of their own
already, so that dropping them loses nothing.
"""
MAX_SPAN_BYTES: Final = 1 << 20
"""Contents of one span."""
KEPT_US: Final = 600_000_000
"""Time from a log record to its span, which is exported when the call has ended."""
ENTRY_BYTES: Final = 500
"""What an event takes in memory besides its texts."""


class _Contents:
    """The events of one span by the id of their step, so that a repeated record is one event."""

    __slots__ = ("added_us", "events", "size_bytes")

    def __init__(self, added_us: int) -> None:
        self.added_us = added_us
        self.events: dict[str, SpanEvent] = {}
        self.size_bytes = 0


class LoggedContents:
    """Content events by span, bounded in bytes and time. Threads share one."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._spans: OrderedDict[SpanKey, _Contents] = OrderedDict()
        self._lock = threading.Lock()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._spans)

    def add(self, key: SpanKey, step_id: str, event: SpanEvent, size: int, now_us: int) -> None:
        """Keep an event for its span. ``step_id``: the step that the record has become."""
        size += ENTRY_BYTES
        if size > MAX_SPAN_BYTES:
            return
        with self._lock:
            found = self._spans.get(key)
            if found is None:
                found = self._spans[key] = _Contents(now_us)
            if step_id in found.events or found.size_bytes + size > MAX_SPAN_BYTES:
                return
            # A reader may iterate over the events: they are replaced, never changed.
            found.events = {**found.events, step_id: event}
            found.size_bytes += size
            self.size_bytes += size
            self._bound(now_us)

    def _bound(self, now_us: int) -> None:
        spans = self._spans
        while spans:
            oldest = next(iter(spans.values()))
            if self.size_bytes <= self._max_bytes and oldest.added_us >= now_us - KEPT_US:
                return
            spans.popitem(last=False)
            self.size_bytes -= oldest.size_bytes

    def of(self, key: SpanKey) -> list[SpanEvent]:
        """The events of a span, by time. They are kept: a span may be sent again."""
        found = self._spans.get(key)
        if found is None:
            return []
        return sorted(found.events.values(), key=lambda event: event.time_ns)
