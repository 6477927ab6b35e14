"""Runs the processor of one partition under one assignment: passes it records, sends its outputs,
publishes its safe offset.

Records on which the processor fails are tried three times and then skipped
(``stream/core/poison.py``).
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from faust.types import TP

from stepstream.stream.core.dead_letter_rate import DeadLetterRate
from stepstream.stream.core.offsets import OffsetTracker
from stepstream.stream.core.outputs import IndexedWrite, Output
from stepstream.stream.core.poison import SKIP_WINDOW_US, Note, PoisonLedger, ProcessingFailed
from stepstream.stream.shell.batching import SafeOffsets
from stepstream.stream.shell.progress_marker import ProgressMarker
from stepstream.stream.shell.sender import Sender
from stepstream.stream.shell.state_index import StateIndex

log = logging.getLogger("stepstream.worker")


class PartitionProcessor(Protocol):
    """What a stage does with the records of one partition. Pure: no I/O and no clock of its own."""

    offsets: OffsetTracker

    def process(self, record: Any) -> None:
        """Process one record."""

    def flush(self) -> None:
        """A batch, or a tick, is over."""

    def tick(self, time_us: int) -> None:
        """Every record up to the high watermark was fed; ``time_us`` is the wall time of the fetch
        that found no more.
        """

    def delay_timers(self) -> None:
        """Brokers have failed: records may be late, so that their absence means nothing for a
        while.
        """

    def skip(self, record: Any, detail: str) -> None:
        """Dead-letter a record on which ``process`` has failed."""

    def take_outputs(self) -> list[Output]:
        """What is to be sent."""

    def acknowledged(self, output: Output) -> None:
        """Kafka has acknowledged the output."""

    @property
    def offset_in_progress(self) -> int:
        """Offset of the record that is processed now, or the last one; called by the watchdog while
        ``process`` hangs.
        """


@dataclass(frozen=True, slots=True)
class Restored:
    """A partition's processor as its previous owner left it, and what belongs to it."""

    processor: PartitionProcessor
    ledger: PoisonLedger
    index: StateIndex | None = None
    dead_letter_rate: DeadLetterRate | None = None
    marker: ProgressMarker | None = None
    dead_lettered: frozenset[int] = frozenset()
    """Offsets of records that the previous owner has dead-lettered already."""


class StageObserver(Protocol):
    """Counts batches, waits and deliveries."""

    def batch(self, records: int) -> None:
        """A batch is about to be processed."""

    def waited(self) -> None:
        """Processing waits for acknowledgements."""

    def delivered(self, output: Output) -> None:
        """An output was acknowledged."""

    def count(self, counter: str) -> None:
        """Add one to a counter: ``halts``, ``fuses`` or ``poison_skipped``."""


class PartitionRunner:
    """One partition under one assignment; ``alive`` until the assignment ends."""

    def __init__(
        self,
        tp: TP,
        generation: int,
        sender: Sender,
        safe_offsets: SafeOffsets,
        observer: StageObserver,
    ) -> None:
        self._observer = observer
        self.tp = tp
        self.generation = generation
        self.alive = True
        self.halted = False
        self.processor: PartitionProcessor | None = None
        self.ledger: PoisonLedger | None = None
        self.dead_letter_rate: DeadLetterRate | None = None
        self._index: StateIndex | None = None
        self._marker: ProgressMarker | None = None
        self._mark_each_until = -1  # up to this offset each record is marked, not each chunk
        self._dead_lettered: frozenset[int] = frozenset()
        self._time_us = 0
        self._started_at = 0
        self._skipped_at_us = 0
        self._sender = sender
        self._safe_offsets = safe_offsets

    def loaded(self, restored: Restored) -> None:
        """The processor is restored and may be fed."""
        self.processor, self.ledger = restored.processor, restored.ledger
        self._index, self._marker = restored.index, restored.marker
        self.dead_letter_rate = restored.dead_letter_rate
        self._dead_lettered = restored.dead_lettered
        offsets = restored.processor.offsets
        self._started_at = offsets.safe
        marker = self._marker
        if marker is None or marker.unfinished is None:
            return
        unfinished = marker.unfinished
        if unfinished.last < offsets.position:
            return
        self._mark_each_until = unfinished.last
        if marker.has_hung and unfinished.offset >= offsets.position:
            why = "a worker hung in C code while it processed this record"
            log.error("%s offset %d: %s", self._name, unfinished.offset, why)
            self._sender.send(
                restored.ledger.failed(unfinished.offset, unfinished.time_ms * 1000, why), _ignore
            )

    @property
    def _name(self) -> str:
        return f"{self.tp.topic} partition {self.tp.partition}"

    def hung(self, why: str) -> Output | None:
        """The note of a failed try at the record that hangs, to be sent before the process is
        ended; None without one.
        """
        if self.processor is None or self.ledger is None:
            return None
        if self._marker is not None:
            self._marker.clear()  # the note takes its place
        offset = self.processor.offset_in_progress
        return self.ledger.failed(offset, self._time_us, why) if offset >= 0 else None

    def process(self, records: Sequence[Any]) -> None:
        """Process records in order; skip those that have failed three times. Raises
        ``ProcessingFailed``.
        """
        processor, ledger = self.processor, self.ledger
        if processor is None or ledger is None:
            return
        self.passed(records[-1].timestamp * 1000)
        marker, first, last = self._marker, records[0].offset, records[-1].offset
        if marker is not None:
            marker.begin(first, last, records[0].timestamp)
        each_marker = marker if first <= self._mark_each_until else None
        for record in records:
            if each_marker is not None:
                each_marker.record(first, last, record.offset, record.timestamp)
            if ledger and (note := ledger.skip_note(record.offset)) is not None:
                if not self._skip_or_halt(record, note, processor, ledger):
                    return
                continue
            try:
                processor.process(record)
            except Exception as error:
                self.processed()
                raise ProcessingFailed(
                    f"processing {self._name} offset {record.offset} failed: {error!r}",
                    ledger.failed(record.offset, record.timestamp * 1000, traceback.format_exc()),
                ) from error

    def _skip_or_halt(
        self, record: Any, note: Note, processor: PartitionProcessor, ledger: PoisonLedger
    ) -> bool:
        """Skip a record that has failed three times. Returns False where the partition halts."""
        if not note.skipped_at_us and ledger.too_many(record.timestamp * 1000):
            return self._try_again(record, processor, ledger)
        now_us = record.timestamp * 1000
        if ledger.is_resumed and not note.skipped_at_us:
            self._sender.send(ledger.resumed(record.offset, now_us), _ignore)
        self._skipped_at_us = now_us
        self._observer.count("poison_skipped")
        self._sender.send(ledger.skipped(record.offset, now_us), self._skip_noted)
        processor.skip(record, note.traceback)
        return True

    def _try_again(self, record: Any, processor: PartitionProcessor, ledger: PoisonLedger) -> bool:
        """Too many records were skipped: try this one, in case the worker was fixed, and halt if it
        fails again.
        """
        now_us = record.timestamp * 1000
        processor.flush()
        self.send_outputs()
        try:
            processor.process(record)
        except Exception:
            # What the failure has left of the processor must not move the safe offset.
            self.halted, self.alive = True, False
            log.error("%s halts at offset %d", self._name, record.offset, exc_info=True)
            self._observer.count("halts")
            self._sender.send(ledger.halted(record.offset, now_us), _ignore)
            return False
        log.warning("%s continues at offset %d", self._name, record.offset)
        for output in (ledger.recovered(record.offset), ledger.resumed(record.offset, now_us)):
            self._sender.send(output, _ignore)
        return True

    def _skip_noted(self, _output: Output, offset: int) -> None:
        if self._index is not None:
            self._index.pin(offset, self._skipped_at_us + SKIP_WINDOW_US)

    def processed(self) -> None:
        """The chunk that was fed is processed."""
        if self._marker is not None:
            self._marker.clear()

    def send_outputs(self) -> None:
        """Send what the processor wants sent, and publish its safe offset for the next commit."""
        if self.processor is None or self.halted:
            return
        refused = 0
        for output in self.processor.take_outputs():
            if output.topic == "deadletter":
                if output.through in self._dead_lettered:
                    self.processor.acknowledged(output)
                    continue
                refused += 1
                if output.preceded_by is not None:
                    self._sender.send(output.preceded_by, _ignore)
            self._sender.send(output, self._acknowledged)
        if self.dead_letter_rate is not None:
            self._check_dead_letter_rate(self.dead_letter_rate, refused)
        self.note_safe_offset()

    def passed(self, time_us: int) -> None:
        """Log time has reached ``time_us``."""
        self._time_us = max(self._time_us, time_us)

    def _check_dead_letter_rate(self, rate: DeadLetterRate, refused: int) -> None:
        was_exceeded = rate.is_exceeded
        for output in rate.refused(refused, self._time_us):
            self._sender.send(output, self._rate_noted)
        if rate.is_exceeded and not was_exceeded:
            self._observer.count("fuses")

    def _rate_noted(self, output: Output, offset: int) -> None:
        rate, index = self.dead_letter_rate, self._index
        if rate is None or index is None or output.key != rate.key:
            return
        if rate.is_exceeded:
            index.keep(rate.name, offset)
        else:
            index.drop(rate.name)

    def note_safe_offset(self) -> None:
        """Publish the safe offset for the next commit."""
        if not self.alive or self.processor is None:
            return
        safe = self.processor.offsets.safe
        if safe > self._started_at:
            metadata = self._index.metadata(safe) if self._index is not None else ""
            self._safe_offsets[self.tp] = (safe, metadata)

    def _acknowledged(self, output: Output, offset: int) -> None:
        self._observer.delivered(output)
        if not self.alive or self.processor is None:
            return
        if self._index is not None and output.topic == "state" and output.owner is not None:
            run = output.owner.run
            self._index.written(
                run.trace_id, offset, closed=run.closed, closed_at_us=run.closed_at_us
            )
        elif self._index is not None and isinstance(output.owner, IndexedWrite):
            write = output.owner
            is_closed, closed_at_us = bool(write.closed_at_us), write.closed_at_us
            self._index.written(write.name, offset, closed=is_closed, closed_at_us=closed_at_us)
        self.processor.acknowledged(output)


def _ignore(_output: Output, _offset: int) -> None:
    """Nothing waits for this output."""
