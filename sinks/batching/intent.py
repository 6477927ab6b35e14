"""The deduplication token of a batch."""

from __future__ import annotations


def token(topic_id: str, partition: int, first: int, last: int, timestamp_ms: int) -> str:
    """The insert deduplication token of a batch: its exact range, and what tells this log from another at the same offsets.

    A topic that was made anew has another id; a log that lost its tail and grew again has other timestamps.
    """
    return f"{topic_id}:{partition}:{first}-{last}:{timestamp_ms}"
