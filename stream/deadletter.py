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
from stepstream.stream.outputs import Headers, Output


def dead_letter(record: Any, topic: str, partition: int, reason: str, detail: str) -> Output:
    """The copy for the dead-letter topic of a record of ``topic`` (its name without prefix)."""
    headers = _headers(record, topic, partition, reason, detail)
    return Output("deadletter", record.key, record.value, headers=headers)


def _headers(record: Any, topic: str, partition: int, reason: str, detail: str) -> Headers:
    ours = {
        DEADLETTER_TOPIC: topic,
        DEADLETTER_PARTITION: str(partition),
        DEADLETTER_OFFSET: str(record.offset),
        DEADLETTER_REASON: reason,
        DEADLETTER_DETAIL: detail[:2_000],
        DEADLETTER_BY: "worker",
    }
    kept = [(name, value) for name, value in record.headers if name not in ours]
    return tuple(kept) + tuple((name, value.encode()) for name, value in ours.items())
