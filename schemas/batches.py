"""Batches of records that a client cannot read: how large one may unpack, and what is said of one that is passed over.

Worker, sink and notifier read with different clients. They are given the same bound, so that they pass over the same batches.
"""

from __future__ import annotations

from typing import Final

from stepstream.schemas.alert import FindingStruct
from stepstream.schemas.findings import pipeline_finding

MAX_BATCH_BYTES: Final = 160 * 1_048_576
"""What the records of one batch may take, unpacked. Producers send a megabyte or two, packed."""

RECEIVE_BYTES: Final = 2 * MAX_BATCH_BYTES
"""The bound that librdkafka is given: it doubles its room until a batch fits, and gives up where
the next would exceed this.

So it reads all batches within ``MAX_BATCH_BYTES``, and some of those that are up to twice as large.
"""

UNREADABLE_BATCH: Final = "unreadable-batch"
UNREADABLE: Final = "unreadable_batch"
"""Why a dead letter without a value is there: it stands for all records of a batch."""


def describe(first: int, last: int, why: str) -> str:
    """What the dead letter says of a batch that was passed over."""
    return f"offsets {first} to {last}: a batch that cannot be read ({why})"


def batch_finding(
    topic: str, partition: int, first: int, last: int, why: str, time_us: int
) -> FindingStruct:
    """The finding about a batch that was passed over; the same one, by its id, from whoever meets the batch."""
    return pipeline_finding(
        UNREADABLE_BATCH,
        UNREADABLE,
        f"{topic}/{partition}",
        f"offsets {first} to {last} of {topic}/{partition} cannot be read and were passed over: {why}",
        time_us,
        names=(UNREADABLE_BATCH, f"{topic}/{partition}", topic, partition, last),
    )
