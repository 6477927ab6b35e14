"""A dead-lettered record keeps its key, value and headers; more headers say where it came from and why."""

from __future__ import annotations

from typing import Any

from stepstream.schemas.topics import (
    DEADLETTER_BY,
    DEADLETTER_DETAIL,
    DEADLETTER_OFFSET,
    DEADLETTER_PARTITION,
    DEADLETTER_REASON,
    DEADLETTER_TOPIC,
)
from stepstream.stream.outputs import Headers


def dead_letter_headers(record: Any, topic: str, partition: int, reason: str, detail: str, *, by: str = "worker") -> Headers:
    """The headers of the copy on the dead-letter topic; ``topic`` is the name without prefix."""
    ours = {
        DEADLETTER_TOPIC: topic,
        DEADLETTER_PARTITION: str(partition),
        DEADLETTER_OFFSET: str(record.offset),
        DEADLETTER_REASON: reason,
        DEADLETTER_DETAIL: detail[:2_000],
        DEADLETTER_BY: by,
    }
    kept = [(name, value) for name, value in record.headers if name not in ours]
    return tuple(kept) + tuple((name, value.encode()) for name, value in ours.items())
