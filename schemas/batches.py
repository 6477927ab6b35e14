"""Batches that a client cannot read: the size limit, and the report of a skipped batch."""

from __future__ import annotations

from typing import Final

from stepstream.schemas.alert import FindingStruct
from stepstream.schemas.findings import pipeline_finding

# Worker, sink and notifier read with different clients: one limit for all, so that they skip the
# same batches.
MAX_BATCH_BYTES: Final = 160 * 1_048_576
"""Maximum size of the records of one batch, unpacked. Producers send a megabyte or two, packed."""

RECEIVE_BYTES: Final = 2 * MAX_BATCH_BYTES
"""The bound that librdkafka is given: it doubles its room until a batch fits, and gives up where
the next would exceed this.

So it reads all batches within ``MAX_BATCH_BYTES``, and some of those that are up to twice as large.
"""

UNREADABLE_BATCH: Final = "unreadable-batch"
UNREADABLE: Final = "unreadable_batch"
"""Why a dead letter without a value is there: it stands for all records of a batch."""


def describe(first: int, last: int, why: str) -> str:
    """The detail of the dead letter about a skipped batch."""
    return f"offsets {first} to {last}: a batch that cannot be read ({why})"


def batch_finding(
    topic: str, partition: int, first: int, last: int, why: str, time_us: int
) -> FindingStruct:
    """The finding about a skipped batch. Every process that skips it makes the same id."""
    return pipeline_finding(
        UNREADABLE_BATCH,
        UNREADABLE,
        f"{topic}/{partition}",
        f"offsets {first} to {last} of {topic}/{partition} cannot be read and were passed over: "
        f"{why}",
        time_us,
        names=(UNREADABLE_BATCH, f"{topic}/{partition}", topic, partition, last),
    )
