"""Batches that cannot be read (wrong checksum, unknown compression): noted in the dead letter, then
skipped.

The client reports where such a batch begins, not where it ends, and asks for it again and again.
Finding the end takes several requests, so it is done in a thread of its own while other partitions
go on.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Generic

from confluent_kafka import KafkaException, Message

from stepstream.common.consumer.partition import P
from stepstream.common.kafka import BadBatch, BadBatches, KafkaUnreachable, measured
from stepstream.common.letters import refuse_batch
from stepstream.common.retry import Cancelled, OutageLog, retry
from stepstream.schemas.settings import Settings

PASSING: Final = (KafkaException, KafkaUnreachable)


@dataclass(frozen=True, slots=True)
class SkippedBatch(Generic[P]):
    """A batch that was noted in the dead letter; reading continues after it."""

    partition: P
    batch: BadBatch


class UnreadableBatches(Generic[P]):
    """Measures and notes batches that several attempts could not read.

    Used by the thread that reads.
    """

    def __init__(self, settings: Settings, process: str, outage: OutageLog) -> None:
        self._settings = settings
        self._process = process
        self._outage = outage
        self._attempts = BadBatches()
        self._done: queue.SimpleQueue[SkippedBatch[P] | Exception] = queue.SimpleQueue()

    def met(self, partition: P, message: Message) -> None:
        """A message reported that a batch of the partition cannot be read."""
        if self._attempts.is_hopeless(message):
            threading.Thread(
                target=self._note, args=(partition, message), name="unreadable", daemon=True
            ).start()

    def noted(self) -> Iterator[SkippedBatch[P]]:
        """The batches that have been noted since the last call. Raises what cannot be retried."""
        while True:
            try:
                done = self._done.get_nowait()
            except queue.Empty:
                return
            if isinstance(done, Exception):
                raise done
            self._attempts.passed(done.batch)
            yield done

    def _note(self, partition: P, message: Message) -> None:
        def measure() -> BadBatch:
            batch = measured(self._settings, message)
            refuse_batch(self._settings, batch, partition.name, self._process)
            return batch

        try:
            batch = retry(measure, PASSING, self._outage, stop=partition.cancelled)
        except Cancelled:
            return
        except Exception as error:
            self._done.put(error)
        else:
            self._done.put(SkippedBatch(partition, batch))
