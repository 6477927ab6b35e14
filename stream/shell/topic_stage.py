"""A stage of the worker: the assigned partitions of one topic, each with its runner.

A rebalance drops all of them: what a partition needs is loaded again from Kafka before its first
record is processed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from faust.types import TP

from stepstream.stream.shell.batching import SafeOffsets
from stepstream.stream.shell.partition_runner import PartitionRunner, Restored, StageObserver
from stepstream.stream.shell.sender import Sender

log = logging.getLogger("stepstream.worker")

Load = Callable[[int], Awaitable[Restored]]

HasRecords = Callable[[TP, int, int], Awaitable[bool]]
"""Whether the log of a partition has a record from one offset to before another."""


class RecordsMissed(Exception):
    """Records were lost between Kafka and the stage. Nothing is committed: the worker reads them
    again after a restart.
    """


class TopicStage:
    """The partitions of one topic that are assigned to this worker."""

    def __init__(
        self,
        topic: str,
        sender: Sender,
        safe_offsets: SafeOffsets,
        load: Load,
        observer: StageObserver,
        *,
        brokers_failed: Callable[[TP], bool],
        has_records: HasRecords,
        on_sent: Callable[[], None] = lambda: None,
    ) -> None:
        """``brokers_failed`` returns whether the partition's brokers have failed lately, so that
        records may be late. ``on_sent`` is called after the outputs of a batch, or of a tick, were
        sent.
        """
        self.may_send: Callable[[], bool] = lambda: True
        """While it returns False outputs stay where they are."""
        self._on_sent = on_sent
        self._observer = observer
        self._brokers_failed = brokers_failed
        self._has_records = has_records
        self.topic = topic
        self.runners: dict[int, PartitionRunner] = {}
        self._sender = sender
        self._safe_offsets = safe_offsets
        self._load = load
        self._ready: dict[int, asyncio.Task[None]] = {}
        self._is_stopping = False
        self.in_progress: PartitionRunner | None = None
        """The partition whose records or time are being processed."""

    def revoke(self) -> None:
        """Drop every partition: a rebalance reads all of them again."""
        for runner in self.runners.values():
            runner.alive = False
            self._safe_offsets.pop(runner.tp, None)
        for task in self._ready.values():
            task.cancel()
        self.runners.clear()
        self._ready.clear()

    def stop_reading(self) -> None:
        """Process no more records: the worker is about to stop."""
        self._is_stopping = True

    def assign(self, tps: Sequence[TP], generation: int) -> None:
        """Begin to load the partitions of this topic among ``tps``."""
        self.revoke()
        for tp in tps:
            if tp.topic == self.topic:
                runner = self.runners[tp.partition] = PartitionRunner(
                    tp, generation, self._sender, self._safe_offsets, self._observer
                )
                self._ready[tp.partition] = asyncio.create_task(
                    self._restore(runner), name=f"load {tp.topic} {tp.partition}"
                )

    async def handle(self, tp: TP, records: Sequence[Any], generation: int) -> None:
        """Process a batch. Returns early when its assignment is gone."""
        runner = self.runners.get(tp.partition)
        if runner is None or runner.generation != generation:
            return
        await self.wait_ready(tp.partition)
        processor = runner.processor
        if processor is not None and runner.alive:
            first = records[0]
            await self._check_gap(
                tp, processor.offsets.position, getattr(first, "first", first.offset)
            )
        if self._is_stopping:
            await asyncio.Event().wait()  # for ever: the batch is neither processed nor skipped
        if processor is None or not runner.alive or runner.halted:
            return
        self._observer.batch(len(records))
        self.in_progress = runner
        runner.process(records)
        if not runner.halted:
            if self._brokers_failed(tp):
                processor.delay_timers()
            processor.flush()
        self.in_progress = None
        runner.processed()
        if runner.halted:
            return
        self._send_outputs(runner)
        self._on_sent()
        if self._sender.is_full:
            self._observer.waited()
        while self._sender.is_full:
            self._sender.poll()
            await asyncio.sleep(0.001)

    async def _check_gap(self, tp: TP, position: int, first: int) -> None:
        """Raise ``RecordsMissed`` where records between two batches exist in Kafka and did not
        arrive.
        """
        # A log has gaps of its own. The end of each transaction leaves one of a single offset:
        # those are not checked, which would cost a request for each.
        if first > position + 1 and await self._has_records(tp, position, first):
            raise RecordsMissed(
                f"{tp.topic} partition {tp.partition}: {first - position} records before"
                f" offset {first} did not arrive"
            )

    async def wait_ready(self, partition: int) -> None:
        """Wait until a partition's processor is loaded. Raises what loading raised."""
        task = self._ready.get(partition)
        if task is not None and not (task.done() and task.exception() is None):
            await asyncio.wait([task])
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    def failures(self) -> BaseException | None:
        """What loading a partition raised, if anything did."""
        for task in self._ready.values():
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                return error
        return None

    def tick(self, caught_up_at: Callable[[TP, int], int]) -> None:
        """Let time pass. ``caught_up_at(tp, position)`` is the wall time of a fetch that found no
        more, else 0.
        """
        for runner in self.runners.values():
            processor = runner.processor
            if processor is None or runner.halted:
                continue
            time_us = caught_up_at(runner.tp, processor.offsets.position)
            # While too much is unacknowledged time stands still: what became due would only be
            # added to that.
            if time_us and not self._sender.is_full:
                self.in_progress = runner
                processor.tick(time_us)
                runner.passed(time_us)
                if self._brokers_failed(runner.tp):
                    processor.delay_timers()
                processor.flush()
                self.in_progress = None
            self._send_outputs(runner)
        self._on_sent()

    def send_outputs(self) -> None:
        """Send what the acknowledgements of other outputs have led to."""
        for runner in self.runners.values():
            self._send_outputs(runner)

    def _send_outputs(self, runner: PartitionRunner) -> None:
        if self.may_send():
            runner.send_outputs()

    async def _restore(self, runner: PartitionRunner) -> None:
        restored = await self._load(runner.tp.partition)
        if runner.alive:
            runner.loaded(restored)
            position = restored.processor.offsets.position
            log.info(
                "ready: %s partition %d from offset %d",
                runner.tp.topic,
                runner.tp.partition,
                position,
            )
