"""An assigned partition with its batcher, and the limit on what all partitions together keep in
memory.
"""

from __future__ import annotations

from typing import Final

from stepstream.common.consumer import AssignedPartition, Assignment, GroupConsumer
from stepstream.sinks.batching.batcher import BatchPolicy, PartitionBatcher
from stepstream.sinks.batching.records import Source
from stepstream.sinks.batching.writer import TopicHandler

STALL_S: Final = 1.0
"""Reading stops as a whole at first; a partition whose records wait for longer than this is paused
instead.

A paused partition waits for the fetch in progress when it is resumed, so short waits are cheaper
without.
"""

MEMORY_BATCHES: Final = 3
"""Records of all partitions together take about as many bytes as this many of the largest batches.
"""


class SinkPartition(AssignedPartition):
    """A partition of a topic on its way into the store."""

    def __init__(
        self, assignment: Assignment, policy: BatchPolicy, handler: TopicHandler, source: Source
    ) -> None:
        super().__init__(assignment)
        self.batcher = PartitionBatcher(
            self.name, self.partition, policy.for_topic(assignment.name)
        )
        self.handler = handler
        self.source = source
        self.range_committed_at = 0.0
        """When the range of the pending batch was committed last."""
        self.full_since: float | None = None


class Backpressure:
    """Keeps what is in memory bounded while the store is slower than Kafka."""

    def __init__(self, consumer: GroupConsumer[SinkPartition], policy: BatchPolicy) -> None:
        self._consumer = consumer
        self._limit_bytes = MEMORY_BATCHES * policy.bytes

    def must_wait(self, now: float) -> bool:
        """Whether to read nothing for now, because records of some partition wait for the store."""
        wait = False
        partitions = [p for p in self._consumer.partitions.values() if p.start is not None]
        in_memory = sum(partition.batcher.memory_bytes for partition in partitions)
        crowded = in_memory >= self._limit_bytes
        for partition in partitions:
            batcher = partition.batcher
            # A partition that needs records to continue is read even when memory is full: a batch
            # to be repeated cannot be stored, and its memory released, before it is complete.
            if not (batcher.has_read_ahead or (crowded and not batcher.needs_records)):
                partition.full_since = None
                self._consumer.resume(partition)
            elif partition.full_since is None:
                partition.full_since = now
                wait = True
            elif not partition.paused and now - partition.full_since < STALL_S:
                wait = True
            else:
                self._consumer.pause(partition)
        return wait
