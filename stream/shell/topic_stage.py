"""A stage of the worker: one piece of pure logic per assigned partition, fed with batches, its outputs sent, its floor kept.

A rebalance drops everything: what a partition needs is loaded again from Kafka before its first record is handled.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from faust.types import TP

from stepstream.stream.core.fuse import Fuse
from stepstream.stream.core.offsets import OffsetTracker
from stepstream.stream.core.outputs import Output
from stepstream.stream.core.poison import SKIP_WINDOW_US, Note, PoisonLedger, ProcessingFailed
from stepstream.stream.shell.progress_marker import Mark
from stepstream.stream.shell.sender import Sender
from stepstream.stream.shell.state_index import StateIndex
from stepstream.stream.shell.transport import SafeOffsets

log = logging.getLogger("stepstream.worker")


class PartitionProcessor(Protocol):
    """What a stage does with one partition. Pure."""

    offsets: OffsetTracker

    def feed(self, record: Any) -> None:
        """Process one record."""

    def flush(self) -> None:
        """After a batch, or after a tick."""

    def tick(self, time_us: int) -> None:
        """Everything up to the high watermark was fed, and this is the wall time of the fetch that said so."""

    def delay_timers(self) -> None:
        """Brokers are in trouble: silence says nothing for a while."""

    def skip(self, record: Any, detail: str) -> None:
        """Dead-letter a record that ``feed`` has failed on."""

    def drain(self) -> list[Output]:
        """What is to be sent."""

    def acknowledged(self, output: Output) -> None:
        """Kafka has it."""

    @property
    def offset_at_work(self) -> int:
        """Offset of the record that is processed now, or the last one; called by the watchdog while ``feed`` hangs."""


@dataclass(frozen=True, slots=True)
class Restored:
    """A partition's logic as it was left, where its state lies, and the records it has failed on."""

    logic: PartitionProcessor
    ledger: PoisonLedger
    index: StateIndex | None = None
    fuse: Fuse | None = None
    mark: Mark | None = None
    lettered: frozenset[int] = frozenset()
    """Offsets of records that lie in the dead letter already: whoever had the partition before may have sent them."""


Load = Callable[[int], Awaitable[Restored]]

IsMissed = Callable[[TP, int, int], Awaitable[bool]]
"""Whether the log of a partition holds a record from one offset to before another."""


class RecordsMissed(Exception):
    """Records were passed over on their way to us. Nothing is committed: the worker starts again from its floor."""


class Watch(Protocol):
    """Who is told of batches, waits and deliveries."""

    def batch(self, records: int) -> None:
        """A batch is about to be processed."""

    def waited(self) -> None:
        """Processing waits for acknowledgements."""

    def delivered(self, output: Output) -> None:
        """An output was acknowledged."""

    def tally(self, what: str) -> None:
        """One more of a counter's: ``halts``, ``fuses`` or ``poison_skipped``."""


class PartitionRunner:
    """A partition's logic under one assignment; dead once the assignment is gone."""

    def __init__(
        self, tp: TP, generation: int, sender: Sender, floors: SafeOffsets, watch: Watch
    ) -> None:
        self._watch = watch
        self.tp = tp
        self.generation = generation
        self.alive = True
        self.halted = False
        self.logic: PartitionProcessor | None = None
        self.ledger: PoisonLedger | None = None
        self.fuse: Fuse | None = None
        self._index: StateIndex | None = None
        self._mark: Mark | None = None
        self._careful_until = -1
        self._lettered: frozenset[int] = frozenset()
        self._time_us = 0
        self._started_at = 0
        self._skipped_at_us = 0
        self._sender = sender
        self._floors = floors

    def loaded(self, restored: Restored) -> None:
        """The logic is restored and may be fed."""
        self.logic, self.ledger, self._index = restored.logic, restored.ledger, restored.index
        self.fuse, self._mark, self._lettered = restored.fuse, restored.mark, restored.lettered
        self._started_at = restored.logic.offsets.safe
        mark = self._mark
        if mark is None or mark.left is None or mark.left.last < restored.logic.offsets.position:
            return
        left = mark.left
        self._careful_until = left.last
        if mark.is_blamed and left.offset >= restored.logic.offsets.position:
            why = (
                "a worker hung, so that nothing could run beside it, while it processed this record"
            )
            log.error(
                "%s partition %d offset %d: %s", self.tp.topic, self.tp.partition, left.offset, why
            )
            self._sender.send(
                restored.ledger.failed(left.offset, left.time_ms * 1000, why), _ignore
            )

    def hung(self, why: str) -> Output | None:
        """The note of a try at the record that is being processed, for who ends the process because it hangs there."""
        if self.logic is None or self.ledger is None:
            return None
        if self._mark is not None:
            self._mark.clear()  # the note tells more
        offset = self.logic.offset_at_work
        return self.ledger.failed(offset, self._time_us, why) if offset >= 0 else None

    def feed(self, records: Sequence[Any]) -> None:
        """Process records in order. Raises ``ProcessingFailed`` where one cannot be processed; skips what failed three times."""
        logic, ledger = self.logic, self.ledger
        if logic is None or ledger is None:
            return
        self.passed(records[-1].timestamp * 1000)
        mark, first, last = self._mark, records[0].offset, records[-1].offset
        if mark is not None:
            mark.begin(first, last, records[0].timestamp)
        is_careful = mark is not None and first <= self._careful_until
        for record in records:
            if is_careful and mark is not None:
                mark.record(first, last, record.offset, record.timestamp)
            note = ledger.verdict(record.offset) if ledger else None
            if note is not None:
                if note.skipped_at_us or not ledger.too_many(record.timestamp * 1000):
                    self._skip(record, note, logic, ledger)
                elif not self._try_again(record, logic, ledger):
                    return
                continue
            try:
                logic.feed(record)
            except Exception as error:
                where = f"{self.tp.topic} partition {self.tp.partition} offset {record.offset}"
                self.processed()
                raise ProcessingFailed(
                    f"processing {where} failed: {error!r}",
                    ledger.failed(record.offset, record.timestamp * 1000, traceback.format_exc()),
                ) from error

    def _skip(
        self, record: Any, note: Note, logic: PartitionProcessor, ledger: PoisonLedger
    ) -> None:
        """Dead-letter a record that has failed three times."""
        now_us = record.timestamp * 1000
        if ledger.is_pardoned and not note.skipped_at_us:
            self._sender.send(ledger.resumed(record.offset, now_us), _ignore)
        self._skipped_at_us = now_us
        self._watch.tally("poison_skipped")
        self._sender.send(ledger.skipped(record.offset, now_us), self._noted)
        logic.skip(record, note.traceback)

    def _try_again(self, record: Any, logic: PartitionProcessor, ledger: PoisonLedger) -> bool:
        """Where too many were skipped: a mended worker can process the record, any other halts here. False: halted."""
        now_us = record.timestamp * 1000
        logic.flush()
        self.pump()
        try:
            logic.feed(record)
        except Exception:
            self.halted, self.alive = (
                True,
                False,
            )  # what the failure has left of the logic moves no floor
            log.error(
                "%s partition %d halts at offset %d",
                self.tp.topic,
                self.tp.partition,
                record.offset,
                exc_info=True,
            )
            self._watch.tally("halts")
            self._sender.send(ledger.halted(record.offset, now_us), _ignore)
            return False
        log.warning(
            "%s partition %d goes on at offset %d", self.tp.topic, self.tp.partition, record.offset
        )
        for output in (ledger.recovered(record.offset), ledger.resumed(record.offset, now_us)):
            self._sender.send(output, _ignore)
        return True

    def _noted(self, output: Output, offset: int) -> None:
        if self._index is not None:
            self._index.pin(offset, self._skipped_at_us + SKIP_WINDOW_US)

    def processed(self) -> None:
        """The chunk that was fed is done with."""
        if self._mark is not None:
            self._mark.clear()

    def pump(self) -> None:
        """Send what the logic wants sent, and note the floor."""
        if self.logic is None or self.halted:
            return
        refused = 0
        for output in self.logic.drain():
            if output.topic == "deadletter":
                if output.through in self._lettered:
                    self.logic.acknowledged(output)
                    continue
                refused += 1
                if output.preceded_by is not None:
                    self._sender.send(output.preceded_by, _ignore)
            self._sender.send(output, self._acknowledged)
        if self.fuse is not None:
            self._tell_of_fuse(self.fuse, refused)
        self.note_floor()

    def passed(self, time_us: int) -> None:
        """Log time goes on although no record says so."""
        self._time_us = max(self._time_us, time_us)

    def _tell_of_fuse(self, fuse: Fuse, refused: int) -> None:
        was_blown = fuse.is_blown
        for output in fuse.refused(refused, self._time_us):
            self._sender.send(output, self._fuse_noted)
        if fuse.is_blown and not was_blown:
            self._watch.tally("fuses")

    def _fuse_noted(self, output: Output, offset: int) -> None:
        fuse, index = self.fuse, self._index
        if fuse is None or index is None or output.key != fuse.key:
            return
        if fuse.is_blown:
            index.keep(fuse.name, offset)
        else:
            index.drop(fuse.name)

    def note_floor(self) -> None:
        """Publish the floor for the next commit."""
        if not self.alive or self.logic is None:
            return
        floor = self.logic.offsets.safe
        if floor > self._started_at:
            metadata = self._index.metadata(floor) if self._index is not None else ""
            self._floors[self.tp] = (floor, metadata)

    def _acknowledged(self, output: Output, offset: int) -> None:
        self._watch.delivered(output)
        if not self.alive or self.logic is None:
            return
        if self._index is not None and output.topic == "state" and output.owner is not None:
            run = output.owner.run
            self._index.written(
                run.trace_id, offset, closed=run.closed, closed_at_us=run.closed_at_us
            )
        self.logic.acknowledged(output)


class TopicStage:
    """All partitions of one topic that are assigned to this worker."""

    def __init__(
        self,
        topic: str,
        sender: Sender,
        floors: SafeOffsets,
        load: Load,
        watch: Watch,
        is_troubled: Callable[[TP], bool],
        is_missed: IsMissed,
    ) -> None:
        self._watch = watch
        self._is_troubled = is_troubled
        self._is_missed = is_missed
        self.topic = topic
        self.shells: dict[int, PartitionRunner] = {}
        self._sender = sender
        self._floors = floors
        self._load = load
        self._ready: dict[int, asyncio.Task[None]] = {}
        self._held = False
        self.at_work: PartitionRunner | None = None
        """Whose records or time are being processed."""

    def revoke(self) -> None:
        """Drop everything: a rebalance reads every partition again."""
        for shell in self.shells.values():
            shell.alive = False
            self._floors.pop(shell.tp, None)
        for task in self._ready.values():
            task.cancel()
        self.shells.clear()
        self._ready.clear()

    def hold(self) -> None:
        """Take no more records: the worker is about to stop."""
        self._held = True

    def assign(self, tps: Sequence[TP], generation: int) -> None:
        """Begin to load the partitions of this topic."""
        self.revoke()
        for tp in tps:
            if tp.topic == self.topic:
                shell = self.shells[tp.partition] = PartitionRunner(
                    tp, generation, self._sender, self._floors, self._watch
                )
                self._ready[tp.partition] = asyncio.create_task(
                    self._restore(shell), name=f"load {tp.topic} {tp.partition}"
                )

    async def handle(self, tp: TP, records: Sequence[Any], generation: int) -> None:
        """Feed a batch. Returns early when its assignment is gone."""
        shell = self.shells.get(tp.partition)
        if shell is None or shell.generation != generation:
            return
        await self.wait_ready(tp.partition)
        logic = shell.logic
        if logic is not None and shell.alive:
            first = records[0]
            await self._check_gap(tp, logic.offsets.position, getattr(first, "first", first.offset))
        if self._held:
            await asyncio.Event().wait()  # neither processed nor skipped
        if logic is None or not shell.alive or shell.halted:
            return
        self._watch.batch(len(records))
        self.at_work = shell
        shell.feed(records)
        if not shell.halted:
            if self._is_troubled(tp):
                logic.delay_timers()
            logic.flush()
        self.at_work = None
        shell.processed()
        if shell.halted:
            return
        shell.pump()
        if self._sender.is_full:
            self._watch.waited()
        while self._sender.is_full:
            self._sender.poll()
            await asyncio.sleep(0.001)

    async def _check_gap(self, tp: TP, position: int, first: int) -> None:
        """A log has gaps of its own, but what was lost between Kafka and us would be lost for ever: look."""
        # A transaction's end leaves a gap of one: to look at each of those would cost more than it could find.
        if first > position + 1 and await self._is_missed(tp, position, first):
            raise RecordsMissed(
                f"{tp.topic} partition {tp.partition}: {first - position} records before offset {first} never came"
            )

    async def wait_ready(self, partition: int) -> None:
        """Wait until a partition's logic is loaded. Raises what loading raised."""
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
        """Let time pass. ``caught_up_at(tp, position)`` is the wall time of a fetch that found no more, else 0."""
        for shell in self.shells.values():
            if shell.logic is None or shell.halted:
                continue
            time_us = caught_up_at(shell.tp, shell.logic.offsets.position)
            if (
                time_us and not self._sender.is_full
            ):  # what is due would only add to what nobody has taken yet
                self.at_work = shell
                shell.logic.tick(time_us)
                shell.passed(time_us)
                if self._is_troubled(shell.tp):
                    shell.logic.delay_timers()
                shell.logic.flush()
                self.at_work = None
            shell.pump()

    async def _restore(self, shell: PartitionRunner) -> None:
        restored = await self._load(shell.tp.partition)
        if shell.alive:
            shell.loaded(restored)
            position = restored.logic.offsets.position
            log.info(
                "ready: %s partition %d from offset %d",
                shell.tp.topic,
                shell.tp.partition,
                position,
            )


def _ignore(_output: Output, _offset: int) -> None:
    """Nothing waits for this output."""
