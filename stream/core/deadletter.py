"""The copy of a rejected record for the dead-letter topic."""

from __future__ import annotations

from typing import Any

from stepstream.schemas.batches import UNREADABLE, batch_finding
from stepstream.schemas.deadletter import letter_headers
from stepstream.stream.core.contained_failures import pipeline_output
from stepstream.stream.core.outputs import Output


def dead_letter(record: Any, topic: str, partition: int, reason: str, detail: str) -> Output:
    """The copy for the dead-letter topic of a record of ``topic`` (its name without prefix).

    A record that stands for a batch which cannot be read is preceded by the finding about that.
    """
    # Only a record in place of an unreadable batch has this attribute.
    why = getattr(record, "unreadable", "")
    if why:
        reason, detail = UNREADABLE, why
    headers = letter_headers(
        record.headers, (topic, partition, record.offset), reason, detail, "worker"
    )
    output = Output(
        "deadletter", record.key, record.value, headers=tuple(headers), through=record.offset
    )
    if why:
        output.preceded_by = pipeline_output(
            batch_finding(
                topic, partition, record.first, record.offset, why, record.timestamp * 1000
            )
        )
    return output
