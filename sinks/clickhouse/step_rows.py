"""Rows of the steps topic: ended steps for ``steps_raw``, starts for ``steps_open``. Pure.

The same records, prices and known steps give the same rows, as a repeated batch needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Final, Protocol

import msgspec

from stepstream.schemas.accept import Accepted, Misrouted, Rejected, accept
from stepstream.schemas.step import Step
from stepstream.schemas.times import DAY_MS
from stepstream.sinks.batching.records import EXPIRED, USUAL_HEADERS, Record, Refused, Source
from stepstream.sinks.clickhouse.rows import Block, Blocks
from stepstream.sinks.clickhouse.step_columns import OPEN, STEPS, EndColumns, open_columns
from stepstream.sinks.clickhouse.window import step_keys

STARTS_AS: Final = b'"phase":"start"'
"""Near the beginning of a start, as our SDK writes it; in an end only by coincidence."""
HEAD: Final = (40, 160)
"""The range of bytes to search it in: after two or three ids."""

CHUNK: Final = 256
"""Records that become columns at once: few enough that their steps stay in the processor's cache.
"""


class Keys(Protocol):
    """A set of step keys."""

    def intersection(self, keys: Collection[int], /) -> AbstractSet[int]:
        """Those of ``keys`` that are in the set."""


class _Peek(msgspec.Struct, gc=False):
    """The fields that identify the step of a start."""

    trace_id: str
    step_id: str
    phase: str


peek = msgspec.json.Decoder(_Peek).decode


def build_steps(records: Sequence[Record], source: Source, seen: Keys) -> Blocks:
    """The blocks of a batch. ``seen`` has the keys of the steps that ended in earlier batches.

    Records that ``accept`` rejects are left out and counted (the worker dead-letters them), as are
    repeats of an ended step, and starts whose end is known, since the end has all their fields.
    Records that would expire at once are refused.
    """
    batch = _Batch(source, seen)
    for begin in range(0, len(records), CHUNK):
        batch.add(records[begin : begin + CHUNK])
    batch.finish()
    return batch.blocks


class _Batch:
    """A batch while its rows are blocks."""

    def __init__(self, source: Source, seen: Keys) -> None:
        self.blocks = Blocks()
        self._source = source
        self._seen = seen
        self._accept = _acceptor(source)
        self._starts: dict[str, Record] = {}
        """By trace id and step id, joined; the first start of a step counts."""
        self._ended: set[str] = set()
        self._amended: list[tuple[Accepted, Record]] = []
        self._ends = EndColumns(source.prices)

    def add(self, records: Iterable[Record]) -> None:
        """Add records in order: ends become rows, starts wait until all records are known."""
        ends, end_records, ids = self._sorted(records)
        keys = step_keys(ids)
        known = self._seen.intersection(keys)
        self.blocks.keys.update(keys)
        if known:
            self.blocks.keys -= known
            self.blocks.skipped["duplicate"] += len(known)
            fresh = [n for n, key in enumerate(keys) if key not in known]
            ends, end_records = [ends[n] for n in fresh], [end_records[n] for n in fresh]
        ends, end_records = _unexpired(ends, end_records, self._source, self.blocks)
        self._ends.add(ends, end_records)

    def _sorted(self, records: Iterable[Record]) -> tuple[list[Accepted], list[Record], list[str]]:
        """The new ends among the records: as accepted, with their records and joined ids."""
        ends: list[Accepted] = []
        end_records: list[Record] = []
        fresh: list[str] = []
        starts, ended, skipped, accepted, (low, high) = (
            self._starts,
            self._ended,
            self.blocks.skipped,
            self._accept,
            HEAD,
        )
        ended_here = 0
        for record in records:
            value = record.value
            if (
                value
                and value.find(STARTS_AS, low, high) > 0
                and (start := _started(value)) is not None
            ):
                starts.setdefault(start, record)
                continue
            result = accepted(record)
            if not isinstance(result, Accepted):
                skipped[_reason(result)] += 1
                continue
            step = result.step
            ids = step.trace_id + step.step_id
            if step.amends:
                # Its row replaces the step's; rollups do not count it.
                self._amended.append((result, record))
                continue
            if step.phase == "start":
                starts.setdefault(ids, record)
            elif ids in ended:
                skipped["duplicate"] += 1
            else:
                if starts.pop(ids, None) is not None:
                    ended_here += 1
                ended.add(ids)
                fresh.append(ids)
                ends.append(result)
                end_records.append(record)
        if ended_here:
            skipped["ended"] += ended_here
        return ends, end_records, fresh

    def finish(self) -> None:
        """Make the blocks."""
        blocks, source = self.blocks, self._source
        if self._amended:
            ends, end_records = map(list, zip(*self._amended, strict=True))
            self._ends.add(*_unexpired(ends, end_records, source, blocks))
        steps, records = self._opened()
        # Starts first: no rollup is made from them, so they may come again if the ends are refused
        # and the batch is split.
        if steps:
            blocks.blocks.append(Block(OPEN, open_columns(steps, records, source), len(steps)))
        if self._ends.rows:
            blocks.blocks.append(Block(STEPS, self._ends.columns(source), self._ends.rows))

    def _opened(self) -> tuple[list[Step], list[Record]]:
        """Starts without an end."""
        skipped = self.blocks.skipped
        left: list[tuple[str, Step, Record]] = []
        for ids, record in self._starts.items():
            if ids in self._ended:
                skipped["ended"] += 1
            elif isinstance(result := self._accept(record), Accepted):
                # The ids as ``accept`` normalised them.
                named = result.step.trace_id + result.step.step_id
                if named in self._ended:
                    skipped["ended"] += 1
                else:
                    left.append((named, result.step, record))
            else:
                skipped[_reason(result)] += 1
        keys = step_keys(ids for ids, _, _ in left)
        if known := self._seen.intersection(keys):
            skipped["ended"] += len(known)
            left = [start for start, key in zip(left, keys, strict=True) if key not in known]
        return [step for _, step, _ in left], [record for _, _, record in left]


def _started(value: bytes) -> str | None:
    """The ids of the step that this starts, joined; None where the whole record has to be
    decoded.
    """
    try:
        peeked = peek(value)
    except ValueError:
        return None
    return peeked.trace_id + peeked.step_id if peeked.phase == "start" else None


def _acceptor(source: Source) -> Callable[[Record], Accepted | Misrouted | Rejected]:
    """``accept`` with the parameters of a source."""
    partition, partitions, limits = source.partition, source.partitions, source.limits

    def accepted(record: Record) -> Accepted | Misrouted | Rejected:
        _, timestamp_ms, key, value, headers = record
        return accept(
            value,
            key=key,
            partition=partition,
            partitions=partitions,
            timestamp_us=timestamp_ms * 1000,
            headers=None if headers is USUAL_HEADERS else headers,
            limits=limits,
        )

    return accepted


def _reason(result: Misrouted | Rejected) -> str:
    return "misrouted" if isinstance(result, Misrouted) else result.reason


def _unexpired(
    ends: list[Accepted], records: list[Record], source: Source, blocks: Blocks
) -> tuple[list[Accepted], list[Record]]:
    """Ends and records without the expired ones, which are added to the refused.

    The table would drop them at once (rows expire by their arrival), while rollups kept them.
    """
    kept, now_ms = source.retention, source.now_ms
    if (
        not records
        or min(record.timestamp_ms for record in records) + kept.shortest * DAY_MS > now_ms
    ):
        return ends, records
    left: tuple[list[Accepted], list[Record]] = [], []
    for result, record in zip(ends, records, strict=True):
        days = kept.of(result.step.project)
        if record.timestamp_ms + days * DAY_MS > now_ms:
            left[0].append(result)
            left[1].append(record)
        else:
            blocks.refused.append(
                Refused(
                    record,
                    EXPIRED,
                    f"it arrived more than {days} days ago, and steps are kept no longer",
                )
            )
    return left
