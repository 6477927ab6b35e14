"""One partition as the sink works through it: what has been read, when a batch is cut, what is in flight. No I/O.

A lane holds at most one batch in flight. Its life: ``opening`` (where to go on is not known yet), ``filling``, ``planned``
(a batch is cut and its intent not yet committed), ``running`` (being inserted), and ``filling`` again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from stepstream.sinks.batching.intent import token
from stepstream.sinks.clickhouse.records import Built, Record

MAX_ROWS = 1_000_000
"""Above this ClickHouse would split an insert into several blocks."""

OTHERS_LONGEST: Final = 3.0
"""Batches of what is not steps wait up to so many times longer."""

AHEAD: Final = 1.5
"""So many batches of a partition are read before they are made: what is read while the store works need not be read later."""

OVERHEAD_BYTES: Final = 64
"""What a record counts for beside its value."""


class Stage(Enum):
    """Where a lane stands."""

    OPENING = "opening"
    FILLING = "filling"
    PLANNED = "planned"
    RUNNING = "running"


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """When a batch is cut: by rows, bytes, or time. Under load batches wait longer, so that inserts do not crowd the store."""

    rows: int = 20_000
    bytes: int = 33_554_432
    interval_s: float = 0.25
    longest: float = 4.0
    """The interval grows up to this many times itself,"""
    idle_share: float = 12.0
    """so as to be this many times the duration of the last insert."""
    few: int = 100
    """Fewer steps than this wait for half of the longest time at most: nobody sends much, so inserts may come more often."""
    behind_s: float = 5.0
    """A partition that is behind by a batch and more waits for a full one, at most for so long: large inserts are quicker."""

    def of(self, topic: str) -> BatchPolicy:
        """For one topic, named without prefix: where inserts are slow, the rows of runs and alerts give way to steps.

        They are few at any time, and each insert costs the store about the same.
        """
        return (
            self
            if topic == "steps"
            else replace(self, few=0, longest=OTHERS_LONGEST * self.longest)
        )

    def wait_s(self, last_insert_s: float, *, waiting: int, behind: int = 0) -> float:
        """How long a batch waits for more rows; ``waiting`` are there, ``behind`` counts those that are there to come."""
        if behind > self.rows:
            return self.behind_s
        longest = self.longest / 2 if waiting < self.few else self.longest
        return min(max(self.interval_s, self.idle_share * last_insert_s), longest * self.interval_s)


@dataclass(slots=True)
class Batch:
    """The records of offsets first..last, inserted as one. ``first`` is the committed offset, which may precede them."""

    first: int
    last: int
    records: list[Record]
    size_bytes: int = 0
    replay: bool = False
    letters_tried: bool = False
    """Whether its refused records may lie in the dead letter already."""
    built: Built | None = None
    """Its rows, once made: a retry must send the very same."""
    stored_blocks: int = 0

    def token(self, topic_id: str, partition: int) -> str:
        """Its deduplication token; it must hold records."""
        return token(topic_id, partition, self.first, self.last, self.records[-1].timestamp_ms)


@dataclass(slots=True)
class Lane:
    """The state of one partition of one topic (its name without prefix)."""

    name: str
    partition: int
    policy: BatchPolicy
    stage: Stage = Stage.OPENING
    position: int = 0
    """Offset after the last stored batch: where the next one begins."""
    replay_end: int | None = None
    """End of the batch that was in flight when the partition came to us."""
    batch: Batch | None = None
    acknowledged: bool = True
    """Whether ``position`` is committed."""
    last_insert_s: float = 0.0
    row_limit: int = MAX_ROWS
    """Lowered while a refused batch is taken apart."""
    buffered_bytes: int = 0
    behind: int = 0
    """Records between what is stored and the end of the log, when somebody last looked."""
    _buffer: deque[Record] = field(default_factory=deque)
    _oldest: float = 0.0
    _read_to: int = 0

    def open(self, position: int, replay_end: int | None, now: float) -> None:
        """Go on from ``position``; ``replay_end`` names the end of a batch to repeat first."""
        self.position = position
        self.replay_end = replay_end
        self.stage = Stage.FILLING
        self._read_to = position
        self._oldest = now

    def add(self, records: Iterable[Record], now: float) -> None:
        """Take records that were read, in order; what lies before ``position`` is dropped."""
        if self.stage is Stage.OPENING:
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
            self._oldest = now
        self._buffer.extend(new)
        self.buffered_bytes += size
        self._read_to = read_to

    def at_end(self, offset: int) -> None:
        """The partition's end was reached at ``offset``: there is nothing before it that was not read."""
        if self.stage is not Stage.OPENING:
            self._read_to = max(self._read_to, offset)

    @property
    def buffered(self) -> int:
        """Records that wait."""
        return len(self._buffer)

    @property
    def held_bytes(self) -> int:
        """Bytes of the records that wait and of those in flight."""
        return self.buffered_bytes + (self.batch.size_bytes if self.batch is not None else 0)

    @property
    def full(self) -> bool:
        """Whether the next batch is whole."""
        return self._holds(1)

    @property
    def ahead(self) -> bool:
        """Whether more would only lie in memory: the next batch is whole, and so is half of the one after it."""
        return self._holds(AHEAD)

    def _holds(self, batches: float) -> bool:
        return not self.hungry and (
            self.buffered >= batches * self.policy.rows or self.buffered_bytes >= self.policy.bytes
        )

    @property
    def hungry(self) -> bool:
        """Whether nothing can be done before more is read: there is nothing, or a batch to be repeated is not whole."""
        return self.buffered == 0 or (self.replay_end is not None and self.batch is None)

    @property
    def busy(self) -> bool:
        """Whether something that was read is not stored and committed yet, and can be."""
        if self.stage is Stage.OPENING:
            return False
        return (
            self.stage is not Stage.FILLING
            or not self.acknowledged
            or (self.buffered > 0 and self.replay_end is None)
        )

    def due(self, now: float, *, flush: bool = False) -> bool:
        """Whether a batch should be cut now; with ``flush`` whatever there is."""
        if self.stage is not Stage.FILLING:
            return False
        if self.replay_end is not None:
            return self._read_to > self.replay_end
        if not self._buffer:
            return False
        waited = now - self._oldest
        return flush or self.full or self.row_limit < self.policy.rows or waited >= self._wait_s()

    def wait_s(self, now: float) -> float:
        """Seconds until the records at hand are due; without any, or where nothing can be done, for ever."""
        if self.stage is not Stage.FILLING or not self._buffer:
            return float("inf")
        return self._oldest + self._wait_s() - now

    def _wait_s(self) -> float:
        return self.policy.wait_s(self.last_insert_s, waiting=len(self._buffer), behind=self.behind)

    def cut(self, now: float) -> Batch:
        """Plan the next batch. Call it when ``due``."""
        end = self.replay_end
        records, size = self._take() if end is None else self._take_until(end)
        last = records[-1].offset if end is None else end
        self.buffered_bytes -= size
        self.batch = Batch(
            self.position,
            last,
            records,
            size,
            replay=end is not None,
            letters_tried=end is not None,
        )
        self.stage = Stage.PLANNED
        self._oldest = now
        return self.batch

    def started(self) -> None:
        """The planned batch's intent is committed."""
        self.stage = Stage.RUNNING
        self.acknowledged = True

    def again(self) -> None:
        """The batch in flight needs its intent committed anew before it goes on."""
        self.stage = Stage.PLANNED
        if self.batch is not None:
            self.batch.replay = False

    def stored(self, insert_s: float) -> None:
        """The batch in flight is done."""
        if self.batch is not None:
            self.position = self.batch.last + 1
        self.batch = None
        self.replay_end = None
        self.acknowledged = False
        self.last_insert_s = insert_s
        self.row_limit = min(MAX_ROWS, self.row_limit * 2)
        self.stage = Stage.FILLING

    def take_apart(self) -> None:
        """The store refused the batch in flight, all of it: its records come again in batches half as large."""
        batch = self.batch
        if batch is None:
            return
        self._buffer.extendleft(reversed(batch.records))
        self.buffered_bytes += batch.size_bytes
        self.row_limit = max(1, len(batch.records) // 2)
        self.batch = None
        self.replay_end = None
        self.stage = Stage.FILLING

    def _take(self) -> tuple[list[Record], int]:
        most = min(self.policy.rows, self.row_limit, MAX_ROWS)
        if len(self._buffer) <= most and self.buffered_bytes <= self.policy.bytes:
            return self._take_all()
        if self.buffered_bytes <= self.policy.bytes:
            records = [self._buffer.popleft() for _ in range(most)]
            return records, sum(map(record_bytes, records))
        records = []
        size = 0
        while self._buffer and len(records) < most:
            more = record_bytes(self._buffer[0])
            if records and size + more > self.policy.bytes:
                break
            size += more
            records.append(self._buffer.popleft())
        return records, size

    def _take_all(self) -> tuple[list[Record], int]:
        records, size = list(self._buffer), self.buffered_bytes
        self._buffer.clear()
        return records, size

    def _take_until(self, last: int) -> tuple[list[Record], int]:
        records: list[Record] = []
        size = 0
        while self._buffer and self._buffer[0].offset <= last:
            size += record_bytes(self._buffer[0])
            records.append(self._buffer.popleft())
        return records, size


def record_bytes(record: Record) -> int:
    """What a record counts for in a batch's bytes."""
    value = record.value
    return OVERHEAD_BYTES if value is None else len(value) + OVERHEAD_BYTES
