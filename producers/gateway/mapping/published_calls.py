"""Model calls that were published without contents, until these come as log records."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final, NamedTuple

MAX_BYTES: Final = 32 << 20
KEPT_US: Final = 600_000_000
"""Log records are exported within seconds after their span."""
ENTRY_BYTES: Final = 500
"""What a call takes in memory besides its record."""

SpanKey = tuple[str, str, str]
"""Project, trace id, span id."""


class _Call(NamedTuple):
    record: bytes
    added_us: int


class PublishedCalls:
    """Records of steps by span, bounded in bytes and time. Threads share one."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._calls: OrderedDict[SpanKey, _Call] = OrderedDict()
        self._lock = threading.Lock()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, key: SpanKey, record: bytes, now_us: int) -> None:
        """Keep a step's record."""
        with self._lock:
            before = self._calls.pop(key, None)
            if before is not None:
                self.size_bytes -= len(before.record) + ENTRY_BYTES
            self._calls[key] = _Call(record, now_us)
            self.size_bytes += len(record) + ENTRY_BYTES
            self._bound(now_us)

    def _bound(self, now_us: int) -> None:
        calls = self._calls
        while calls:
            oldest = next(iter(calls.values()))
            if self.size_bytes <= self._max_bytes and oldest.added_us >= now_us - KEPT_US:
                return
            calls.popitem(last=False)
            self.size_bytes -= len(oldest.record) + ENTRY_BYTES

    def get(self, key: SpanKey) -> bytes | None:
        """The step's record; it is kept, because more contents may come."""
        found = self._calls.get(key)
        return None if found is None else found.record
