"""Progress records: how far a partition of steps is, for the windows of the usage stage. Pure.

A progress record goes to every partition of the usage topic, after all usage records of steps that
were appended before its time.
"""

from __future__ import annotations

from typing import Final, Protocol

import msgspec

from stepstream.schemas.trajectory import ProgressStruct
from stepstream.stream.assemble.publish_schedule import PublishSchedule
from stepstream.stream.core.clock import PartitionClock
from stepstream.stream.core.outputs import OffsetHold, Output
from stepstream.stream.run.limits import AssembleLimits

EVERY_US: Final = 5_000_000
MARGIN_US: Final = 1_000_000
_encode = msgspec.json.Encoder().encode


class ProgressSource(Protocol):
    """The assemble stage of a partition of steps."""

    partition: int
    clock: PartitionClock
    publisher: PublishSchedule


class ProgressReporter:
    """Makes progress records and remembers the last time of each partition."""

    def __init__(self, usage_partitions: int, limits: AssembleLimits) -> None:
        self._usage_partitions = usage_partitions
        self._behind_us = max(limits.revision_interval_us, limits.usage_interval_us) + MARGIN_US
        self._reported: dict[int, int] = {}

    def forget(self) -> None:
        """Partitions have come or gone."""
        self._reported.clear()

    def due(self, processor: ProgressSource) -> list[Output]:
        """The progress records to send now. Every output of the partition so far must have been
        sent.

        The usage of a step may wait for an interval before it is published, so progress stays that
        far behind. While timers are delayed there is no progress, because what they would publish
        is not sent yet.
        """
        partition, clock = processor.partition, processor.clock
        time_us = min(
            clock.now_us - self._behind_us,
            processor.publisher.usage_complete_until_us(clock.now_us) - MARGIN_US,
        )
        if not clock.timers_may_fire or time_us < self._reported.get(partition, 0) + EVERY_US:
            return []
        self._reported[partition] = time_us
        value = _encode(ProgressStruct(kind="progress", partition=partition, time=time_us))
        key = f"!progress|{partition}".encode()
        return [
            Output("usage", key, value, partition=to, owner=OffsetHold())
            for to in range(self._usage_partitions)
        ]
