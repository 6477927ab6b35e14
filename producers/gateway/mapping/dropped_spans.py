"""Which spans without a known convention may be dropped, so that no step loses its parent."""

from __future__ import annotations

import threading
from typing import Final

from stepstream.producers.gateway.mapping.spans import KIND_CLIENT, Span

MAX_SPANS: Final = 100_000
"""Ids that are remembered of each kind; the oldest are forgotten beyond it."""
MAX_DEPTH: Final = 64
"""Dropped spans above each other that are skipped."""

# Calls to databases over HTTP have spans of the HTTP client below them.
_OVER_HTTP: Final = ("http.", "url.", "rpc.")

_Key = tuple[str, str]
"""Trace id and span id."""


def may_have_no_children(span: Span) -> bool:
    """Whether a span is of a kind that has no spans below it: a call to a database.

    A request by HTTP is not: the service that answers it may have spans below it.
    """
    if span.kind != KIND_CLIENT:
        return False
    names = span.attributes
    return any(name.startswith("db.") for name in names) and not any(
        name.startswith(_OVER_HTTP) for name in names
    )


class DroppedSpans:
    """Remembers dropped spans and the parents that other spans name. Threads share one.

    Children usually end before their parents. A span that another one has named as its parent is
    kept, and a child that comes after its parent was dropped gets that span's parent.
    """

    def __init__(self, max_spans: int = MAX_SPANS) -> None:
        self._max_spans = max_spans
        # By span: the parent of a dropped one.
        self._dropped: dict[_Key, str] = {}
        self._needed: dict[_Key, None] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._dropped) + len(self._needed)

    def drops(self, span: Span) -> bool:
        """Whether the span is dropped; it is then remembered."""
        key = (span.trace_id, span.span_id)
        with self._lock:
            if key in self._needed or not may_have_no_children(span):
                return False
            self._dropped[key] = span.parent_id
            if len(self._dropped) > self._max_spans:
                del self._dropped[next(iter(self._dropped))]
        return True

    def keep(self, span: Span) -> str:
        """Note that the span is kept. Returns its nearest parent that was not dropped."""
        parent = span.parent_id
        with self._lock:
            for _ in range(MAX_DEPTH):
                above = self._dropped.get((span.trace_id, parent))
                if above is None:
                    break
                parent = above
            # The span itself too: its start may be published, and its end must then follow.
            for needed in (span.span_id, parent):
                if needed:
                    self._needed[(span.trace_id, needed)] = None
            while len(self._needed) > self._max_spans:
                del self._needed[next(iter(self._needed))]
        return parent
