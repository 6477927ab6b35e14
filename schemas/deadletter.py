"""Headers of dead-lettered records: where the record came from and why it was refused.

The record keeps its key, value and headers. It may be there more than once, because a process may
be killed after it wrote it and before it committed; readers count one record per source.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from stepstream.schemas.topics import (
    DEADLETTER_BY,
    DEADLETTER_DETAIL,
    DEADLETTER_OFFSET,
    DEADLETTER_PARTITION,
    DEADLETTER_REASON,
    DEADLETTER_TOPIC,
)

OURS: Final = frozenset(
    {
        DEADLETTER_TOPIC,
        DEADLETTER_PARTITION,
        DEADLETTER_OFFSET,
        DEADLETTER_REASON,
        DEADLETTER_DETAIL,
        DEADLETTER_BY,
    }
)
MAX_DETAIL: Final = 2_000

Source = tuple[str, int, int]
"""Topic (without prefix), partition and offset that a letter came from."""


def letter_headers(
    headers: Iterable[tuple[str, bytes]] | None, source: Source, reason: str, detail: str, by: str
) -> list[tuple[str, bytes]]:
    """The record's headers with ours added."""
    topic, partition, offset = source
    ours = {
        DEADLETTER_TOPIC: topic,
        DEADLETTER_PARTITION: str(partition),
        DEADLETTER_OFFSET: str(offset),
        DEADLETTER_REASON: reason,
        DEADLETTER_DETAIL: detail[:MAX_DETAIL],
        DEADLETTER_BY: by,
    }
    # A record that was replayed and refused again has our headers of the first time.
    kept = [(name, value) for name, value in headers or () if name not in ours]
    return [*kept, *((name, value.encode("utf-8", "replace")) for name, value in ours.items())]


def source_of(ours: Mapping[str, str]) -> Source | None:
    """The source in a letter's headers; None if they have none."""
    partition, offset = (
        number_of(ours.get(DEADLETTER_PARTITION, "")),
        number_of(ours.get(DEADLETTER_OFFSET, "")),
    )
    topic = ours.get(DEADLETTER_TOPIC, "")
    return (topic, partition, offset) if topic and partition >= 0 and offset >= 0 else None


def number_of(text: str) -> int:
    """The non-negative integer in a header; -1 for anything else."""
    # 19 digits are the most that a 64-bit offset has; int() of a huge text takes quadratic time.
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else -1
