"""What the partitions of steps tell the windows: how far they are. Pure.

A progress record goes to every partition of the usage topic, after all usage records of what was appended before its time.
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


class Telling(Protocol):
    """The assemble stage of a partition of steps."""

    partition: int
    clock: PartitionClock
    publisher: PublishSchedule


class ProgressReporter:
    """Remembers what each partition told last."""

    def __init__(self, usage_partitions: int, limits: AssembleLimits) -> None:
        self._usage_partitions = usage_partitions
        self._behind_us = max(limits.revision_interval_us, limits.usage_interval_us) + MARGIN_US
        self._told: dict[int, int] = {}

    def forget(self) -> None:
        """Partitions have come or gone."""
        self._told.clear()

    def due(self, logic: Telling) -> list[Output]:
        """What to send for a partition of steps all of whose outputs so far were sent.

        What a record led to may wait for an interval until it is published, so progress keeps as far behind. While timers
        are held back nothing is told, because what they would publish is not out yet.
        """
        partition, clock = logic.partition, logic.clock
        time_us = min(
            clock.now_us - self._behind_us,
            logic.publisher.usage_complete_until_us(clock.now_us) - MARGIN_US,
        )
        if not clock.timers_may_fire or time_us < self._told.get(partition, 0) + EVERY_US:
            return []
        self._told[partition] = time_us
        value = _encode(ProgressStruct(kind="progress", partition=partition, time=time_us))
        key = f"!progress|{partition}".encode()
        return [
            Output("usage", key, value, partition=to, owner=OffsetHold())
            for to in range(self._usage_partitions)
        ]
