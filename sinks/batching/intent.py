"""What the sink writes beside a committed offset: the end of the batch that it is about to insert.

Committed offset ``a`` with ``end=b`` says: the records a..b may be in the store already, in one batch, under the batch's own
token. Whoever gets the partition next repeats exactly that batch. Without metadata nothing is in flight.
"""

from __future__ import annotations

import re

VERSION = 2
"""Version 1 had no semicolon at its end."""
_FORM = re.compile(r"stepstream-sink/(?:1 end=([0-9]+)|2 end=([0-9]+);)")


class UnknownIntent(Exception):
    """The group's offsets were written by a newer sink, whose batch in flight this one cannot repeat."""


def encode(end: int) -> str:
    """The metadata of a batch that ends with offset ``end``."""
    return f"stepstream-sink/{VERSION} end={end};"


def decode(metadata: str | None) -> int | None:
    """The end of the batch in flight; None where there is none, or the text is not ours.

    Raises ``UnknownIntent`` for the format of a newer sink.
    """
    if not metadata:
        return None
    found = _FORM.match(metadata)
    if found is not None:
        return int(found[1] or found[2])
    if metadata.startswith("stepstream-sink/"):
        raise UnknownIntent(
            f"metadata of a committed offset: {metadata!r}; this sink reads up to version {VERSION}"
        )
    return None


def token(topic_id: str, partition: int, first: int, last: int, timestamp_ms: int) -> str:
    """The insert deduplication token of a batch: its exact range, and what tells this log from another at the same offsets.

    A topic that was made anew has another id; a log that lost its tail and grew again has other timestamps.
    """
    return f"{topic_id}:{partition}:{first}-{last}:{timestamp_ms}"
