"""The batches of one partition: buffered records, when a batch is cut, the pending batch. No I/O.

A partition has at most one pending batch. Its states:

    OPENING -> FILLING -> PLANNED -> INSERTING -> FILLING ...

A batch that must be inserted again goes from INSERTING back to PLANNED; one that is split, to
FILLING.

``README.md`` of this folder explains the protocol and what a crash in each state leaves behind.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Final

from stepstream.sinks.batching.records import Record, RowBlocks

MAX_ROWS: Final = 1_000_000
"""The largest batch.

Above it ClickHouse would split an insert into several blocks, each with a token of its own.
"""

OTHER_TOPICS_FACTOR: Final = 3.0
"""The longest wait of batches of topics other than steps is this many times that of steps."""

READ_AHEAD: Final = 1.5
"""Reading of a partition stops when 1.5 batches of rows, or one batch of bytes, are in memory:
enough for the next batch to be complete when the store has finished one.
"""

OVERHEAD_BYTES: Final = 64
"""Bytes that are added per record for its key and its objects in memory (an estimate)."""


class BatchState(Enum):
    """Where the work on a partition stands."""

    OPENING = "opening"
    """It is not known yet at which offset to resume."""
    FILLING = "filling"
    """Records are collected; no batch is pending."""
    PLANNED = "planned"
    """A batch is cut; its range is not committed yet, unless the batch is repeated."""
    INSERTING = "inserting"
    """The range of the batch is committed. Each block of it is stored as a whole or not at all;
    some may be stored and others not."""


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """When a batch is cut: by rows, bytes or time.

    If inserts are slow, batches wait longer, so that there are fewer inserts.
    """

    rows: int = 20_000
    bytes: int = 33_554_432
    interval_s: float = 0.25
    max_intervals: float = 4.0
    """A batch waits for at most this many intervals, unless the partition has a lag
    (``catch_up_s``).
    """
    insert_factor: float = 12.0
    """A batch waits for this many times the duration of the last insert, but at least one interval
    and at most ``max_intervals``.
    """
    small_rows: int = 100
    """A batch of fewer rows than this waits for at most half of ``max_intervals``: with little
    traffic more frequent inserts are affordable.
    """
    catch_up_s: float = 5.0
    """How long a batch waits while the partition's lag is larger than a batch: one large insert
    costs less than several small ones.
    """

    def for_topic(self, name: str) -> BatchPolicy:
        """The policy of a topic, named without prefix.

        Topics other than steps have few records, and the cost of an insert hardly depends on its
        number of rows. So their batches wait longer than those of steps if inserts are slow.
        """
        if name == "steps":
            return self
        return replace(self, small_rows=0, max_intervals=OTHER_TOPICS_FACTOR * self.max_intervals)

    def longest_wait_s(self, last_insert_s: float, *, waiting: int, lag: int = 0) -> float:
        """How long a batch of ``waiting`` rows waits for more; ``lag`` records of the partition are
        not stored.
        """
        if lag > self.rows:
            return self.catch_up_s
        intervals = self.max_intervals / 2 if waiting < self.small_rows else self.max_intervals
        wanted = max(self.interval_s, self.insert_factor * last_insert_s)
        return min(wanted, intervals * self.interval_s)


@dataclass(slots=True)
class PendingBatch:
    """The records of offsets first..last, inserted as one.

    ``first`` is the committed offset. Records may be missing at either end (compaction), so the
    range names the batch, not its records.
    """

    first: int
    last: int
    records: list[Record]
    size_bytes: int = 0
    replay: bool = False
    """Whether the range was committed by a process before this one."""
    may_have_letters: bool = False
    """Whether its refused records may be in the dead-letter topic already."""
    blocks: RowBlocks[Any] | None = None
    """Its rows, once built. A retry must send exactly the same rows."""
    stored_blocks: int = 0
    """How many of ``blocks`` are inserted: a retry continues after them."""

    def token(self, topic_id: str, partition: int) -> str:
        """The deduplication token of its insert: the exact range, and what identifies the log.

        A topic that was deleted and created again has another id. A log that lost its end (unclean
        leader election) and grew again has other timestamps at the same offsets. The batch must
        have records.
        """
        newest_ms = self.records[-1].timestamp_ms
        return f"{topic_id}:{partition}:{self.first}-{self.last}:{newest_ms}"


@dataclass(slots=True)
class PartitionBatcher:
    """Buffers the records of one partition and cuts them into batches. ``name`` is the topic's name
    without prefix.
    """

    name: str
    partition: int
    policy: BatchPolicy
    state: BatchState = BatchState.OPENING
    position: int = 0
    """The offset after the last stored batch, where the next one begins."""
    replay_end: int | None = None
    """The last offset of a batch to be inserted again: its range was committed, and its result is
    unknown.
    """
    batch: PendingBatch | None = None
    position_is_committed: bool = True
    """Whether ``position`` is committed."""
    last_insert_s: float = 0.0
    row_limit: int = MAX_ROWS
    """Lowered while a refused batch is split."""
    buffered_bytes: int = 0
    lag: int = 0
    """Records between ``position`` and the end of the log, when it was measured last."""
    _buffer: deque[Record] = field(default_factory=deque)
    _oldest_read_at_s: float = 0.0
    """When the oldest buffered record was read, by ``time.monotonic`` as all ``now`` here."""
    _read_to: int = 0

    def open(self, position: int, replay_end: int | None, now: float) -> None:
        """Resume at ``position``; ``replay_end`` is the end of the batch to insert again first."""
        self.position = position
        self.replay_end = replay_end
        self.state = BatchState.FILLING
        self._read_to = position
        self._oldest_read_at_s = now

    def add(self, records: Iterable[Record], now: float) -> None:
        """Take records in the order they were read; those read before and those before ``position``
        are dropped.
        """
        if self.state is BatchState.OPENING:
            return
        read_to, new, size = self._read_to, [], 0
        for record in records:
            offset, _, _, value, _ = record
            if offset >= read_to:
                read_to = offset + 1
                new.append(record)
                size += OVERHEAD_BYTES if value is None else len(value) + OVERHEAD_BYTES
        if not new:
            return
        if not self._buffer:
            self._oldest_read_at_s = now
        self._buffer.extend(new)
        self.buffered_bytes += size
        self._read_to = read_to

    def reached_end(self, offset: int) -> None:
        """Every record before ``offset`` has been read, or does not exist any more."""
        if self.state is not BatchState.OPENING:
            self._read_to = max(self._read_to, offset)

    @property
    def buffered(self) -> int:
        """Records that wait for a batch."""
        return len(self._buffer)

    @property
    def memory_bytes(self) -> int:
        """Bytes of the records that wait and of the pending batch."""
        return self.buffered_bytes + (self.batch.size_bytes if self.batch is not None else 0)

    @property
    def is_full(self) -> bool:
        """Whether the next batch is complete."""
        return self._has_batches(1)

    @property
    def has_read_ahead(self) -> bool:
        """Whether reading more would only fill memory."""
        return self._has_batches(READ_AHEAD)

    def _has_batches(self, batches: float) -> bool:
        if self.needs_records:
            return False
        return (
            self.buffered >= batches * self.policy.rows or self.buffered_bytes >= self.policy.bytes
        )

    @property
    def needs_records(self) -> bool:
        """Whether nothing can be done before more is read."""
        waits_for_replay = self.replay_end is not None and self.batch is None
        return self.buffered == 0 or waits_for_replay

    @property
    def has_work(self) -> bool:
        """Whether something that was read can still be stored or committed."""
        if self.state is BatchState.OPENING:
            return False
        if self.state is not BatchState.FILLING or not self.position_is_committed:
            return True
        return self.buffered > 0 and self.replay_end is None

    def is_due(self, now: float, *, flush: bool = False) -> bool:
        """Whether a batch should be cut now; with ``flush`` whatever its size."""
        if self.state is not BatchState.FILLING:
            return False
        if self.replay_end is not None:
            return self._read_to > self.replay_end
        if not self._buffer:
            return False
        if flush or self.is_full or self.row_limit < self.policy.rows:
            return True
        return now - self._oldest_read_at_s >= self._longest_wait_s()

    def time_left_s(self, now: float) -> float:
        """Seconds until the records in memory are due; infinite without any, or while a batch is
        pending.
        """
        if self.state is not BatchState.FILLING or not self._buffer:
            return float("inf")
        return self._oldest_read_at_s + self._longest_wait_s() - now

    def _longest_wait_s(self) -> float:
        return self.policy.longest_wait_s(
            self.last_insert_s, waiting=len(self._buffer), lag=self.lag
        )

    def cut(self, now: float) -> PendingBatch:
        """Cut the next batch, make it the pending one and return it. Only when one ``is_due``."""
        end = self.replay_end
        if end is None:
            records, size = self._take()
            last = records[-1].offset
        else:
            # The same range as the first time, whatever the limits are now: the token names the
            # range.
            records, size = self._take_through(end)
            last = end
        self.buffered_bytes -= size
        replay = end is not None
        self.batch = PendingBatch(
            self.position, last, records, size, replay, may_have_letters=replay
        )
        self.state = BatchState.PLANNED
        self._oldest_read_at_s = now
        return self.batch

    def started(self) -> None:
        """Call when the range of the planned batch is committed: PLANNED -> INSERTING."""
        self.state = BatchState.INSERTING
        self.position_is_committed = True

    def plan_again(self) -> None:
        """Call when the range must be committed again before the insert: INSERTING -> PLANNED."""
        self.state = BatchState.PLANNED
        if self.batch is not None:
            self.batch.replay = False

    def stored(self, insert_s: float) -> None:
        """Call when the pending batch is stored, or its only record is dead-lettered: the position
        moves behind it. INSERTING -> FILLING.
        """
        if self.batch is not None:
            self.position = self.batch.last + 1
        self.batch = None
        self.replay_end = None
        self.position_is_committed = False
        self.last_insert_s = insert_s
        # After a split: return to full batches step by step.
        self.row_limit = min(MAX_ROWS, self.row_limit * 2)
        self.state = BatchState.FILLING

    def split(self) -> None:
        """Call when the store refused the pending batch as a whole: its records go back to the
        buffer, and the next batches are half as large. INSERTING -> FILLING.
        """
        batch = self.batch
        if batch is None:
            return
        self._buffer.extendleft(reversed(batch.records))
        self.buffered_bytes += batch.size_bytes
        self.row_limit = max(1, len(batch.records) // 2)
        self.batch = None
        self.replay_end = None
        self.state = BatchState.FILLING

    def _take(self) -> tuple[list[Record], int]:
        most = min(self.policy.rows, self.row_limit, MAX_ROWS)
        if self.buffered_bytes <= self.policy.bytes:
            if len(self._buffer) <= most:
                return self._take_all()
            records = [self._buffer.popleft() for _ in range(most)]
            return records, sum(map(record_bytes, records))
        return self._take_within_bytes(most)

    def _take_all(self) -> tuple[list[Record], int]:
        records, size = list(self._buffer), self.buffered_bytes
        self._buffer.clear()
        return records, size

    def _take_within_bytes(self, most: int) -> tuple[list[Record], int]:
        records: list[Record] = []
        size = 0
        while self._buffer and len(records) < most:
            more = record_bytes(self._buffer[0])
            if records and size + more > self.policy.bytes:
                break
            size += more
            records.append(self._buffer.popleft())
        return records, size

    def _take_through(self, last: int) -> tuple[list[Record], int]:
        records: list[Record] = []
        size = 0
        while self._buffer and self._buffer[0].offset <= last:
            size += record_bytes(self._buffer[0])
            records.append(self._buffer.popleft())
        return records, size


def record_bytes(record: Record) -> int:
    """What a record counts in the bytes of a batch."""
    value = record.value
    return OVERHEAD_BYTES if value is None else len(value) + OVERHEAD_BYTES
