"""Rows of the steps topic: ended steps for ``steps_raw``, starts for ``steps_open``. Pure and, given prices, repeatable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Final, Protocol

import msgspec

from stepstream.schemas.accept import Accepted, Misrouted, Rejected, accept
from stepstream.schemas.step import NO_TOKENS, Step
from stepstream.schemas.topics import DAY_MS
from stepstream.sinks.clickhouse.records import (
    ARRIVAL_TYPES,
    EXPIRED,
    USUAL_HEADERS,
    Block,
    Built,
    Columns,
    Record,
    Refused,
    Source,
    Table,
    arrival_columns,
)
from stepstream.sinks.clickhouse.window import step_key

MAX_COST_NANOS: Final = 10**18 - 1
"""What the cost column holds: no sum of prices comes near it, and one that does is no price."""

_LOW: Final = "LowCardinality(String)"
_TIME: Final = "DateTime64(6, 'UTC')"
_SHARED: Final = {
    "trace_id": "String",
    "step_id": "String",
    "parent_step_id": "String",
    "kind": _LOW,
    "name": _LOW,
    "tool": _LOW,
    "model": _LOW,
    "provider": _LOW,
    "project": _LOW,
    "environment": _LOW,
    "agent": _LOW,
    "agent_version": _LOW,
    "task": _LOW,
    "session_id": "String",
    "user_id": "String",
    "start_time": _TIME,
    "attempt": "UInt32",
    "retry_of": "String",
    "fallback_of": "String",
    "input": "String",
    "input_bytes": "Nullable(UInt64)",
    "tool_schema": _LOW,
    "attributes": f"Map({_LOW}, String)",
}
_ENDED: Final = {
    "end_time": _TIME,
    "first_token_time": f"Nullable({_TIME})",
    "status": _LOW,
    "error_type": _LOW,
    "error_message": "String",
    "output": "String",
    "output_bytes": "Nullable(UInt64)",
}
_TOKENS: Final = dict.fromkeys(
    ("input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens", "reasoning_tokens"), "UInt64"
)
_COSTS: Final = {"cost_nanos": "Nullable(Int64)", "cost_source": _LOW, "price_version": _LOW}
_DOCUMENTS: Final = {"documents": "Array(Tuple(id String, score Nullable(Float64), content String))"}

STEPS: Final = Table("steps_raw", {**_SHARED, **_ENDED, **_TOKENS, **_COSTS, **_DOCUMENTS, **ARRIVAL_TYPES})
OPEN: Final = Table("steps_open", {**_SHARED, **ARRIVAL_TYPES})

STARTS_AS: Final = b'"phase":"start"'
"""Near the beginning of a start, as our SDK writes it; in an end only by chance."""
_HEAD_BYTES: Final = 256

_SHARED_GETTERS: Final = {name: attrgetter(name) for name in _SHARED}
_ENDED_GETTERS: Final = {name: attrgetter(name) for name in (*_SHARED, *_ENDED)}
_TOKEN_GETTERS: Final = {name: attrgetter(name) for name in _TOKENS}
_NO_DOCUMENTS: Final[list[Any]] = []


class Keys(Protocol):
    """A set of step keys."""

    def __contains__(self, key: int, /) -> bool: ...


class _Peek(msgspec.Struct, gc=False):
    """What tells whose start a record is."""

    trace_id: str
    step_id: str
    phase: str


peek = msgspec.json.Decoder(_Peek).decode


@dataclass(slots=True)
class _Sorted:
    """Records of a batch: ends as they were accepted, and starts by key, of which only the first counts."""

    ends: list[Accepted] = field(default_factory=list)
    end_records: list[Record] = field(default_factory=list)
    starts: dict[int, Record] = field(default_factory=dict)


def build_steps(records: Sequence[Record], source: Source, seen: Keys) -> Built:
    """The blocks of a batch. ``seen`` holds the keys of the steps that ended in the batches before.

    What ``accept`` rejects is left out and counted (the worker dead-letters it), as are repeats of an ended step. A start
    whose end is known is left out unread: the end says it all. What arrived so long ago that it would expire at once is
    for the dead letter.
    """
    built = Built()
    found = _sort(records, source, seen, built)
    opened: list[tuple[Step, Record]] = []
    judged = _judge(source)
    for key, record in found.starts.items():
        if key in built.keys or key in seen:
            built.skipped["ended"] += 1
        elif isinstance(result := judged(record), Accepted):
            opened.append((result.step, record))
        else:
            built.skipped[_why(result)] += 1
    if opened:  # first: nothing depends on these rows, so a batch refused later may come again in parts
        built.blocks.append(Block(OPEN, _open_columns(opened, source), len(opened)))
    ends, end_records = _unexpired(found.ends, found.end_records, source, built)
    if ends:
        built.blocks.append(Block(STEPS, _end_columns(ends, end_records, source), len(ends)))
    return built


def _sort(records: Sequence[Record], source: Source, seen: Keys, built: Built) -> _Sorted:
    found, fresh, judged = _Sorted(), built.keys, _judge(source)
    for record in records:
        value = record.value
        if value and value.find(STARTS_AS, 0, _HEAD_BYTES) > 0 and (start := _start_key(value)) is not None:
            found.starts.setdefault(start, record)
            continue
        result = judged(record)
        if not isinstance(result, Accepted):
            built.skipped[_why(result)] += 1
            continue
        step = result.step
        key = step_key(step.trace_id, step.step_id)
        if step.phase == "start":
            found.starts.setdefault(key, record)
        elif key in fresh or key in seen:
            built.skipped["duplicate"] += 1
        else:
            fresh.add(key)
            found.ends.append(result)
            found.end_records.append(record)
    return found


def _start_key(value: bytes) -> int | None:
    """The key of the step that this starts; None when it is to be judged before anything is said about it."""
    try:
        peeked = peek(value)
        return step_key(peeked.trace_id, peeked.step_id) if peeked.phase == "start" else None
    except ValueError:
        return None


def _judge(source: Source) -> Callable[[Record], Accepted | Misrouted | Rejected]:
    """``accept`` for the records of a source."""
    partition, partitions, limits = source.partition, source.partitions, source.limits

    def judged(record: Record) -> Accepted | Misrouted | Rejected:
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

    return judged


def _why(result: Misrouted | Rejected) -> str:
    return "misrouted" if isinstance(result, Misrouted) else result.reason


def _unexpired(
    ends: list[Accepted], records: list[Record], source: Source, built: Built
) -> tuple[list[Accepted], list[Record]]:
    """Without those that would vanish from the table, while rollups kept them: rows live so long from their arrival."""
    kept, now_ms = source.retention, source.now_ms
    if not records or min(record.timestamp_ms for record in records) + kept.shortest * DAY_MS > now_ms:
        return ends, records
    left: tuple[list[Accepted], list[Record]] = [], []
    for result, record in zip(ends, records, strict=True):
        days = kept.of(result.step.project)
        if record.timestamp_ms + days * DAY_MS > now_ms:
            left[0].append(result)
            left[1].append(record)
        else:
            built.refused.append(Refused(record, EXPIRED, f"it arrived more than {days} days ago, longer than steps are kept"))
    return left


def _open_columns(opened: Sequence[tuple[Step, Record]], source: Source) -> Columns:
    steps = [step for step, _ in opened]
    columns: Columns = {name: list(map(get, steps)) for name, get in _SHARED_GETTERS.items()}
    return columns | arrival_columns([record for _, record in opened], source)


def _end_columns(ends: Sequence[Accepted], records: Sequence[Record], source: Source) -> Columns:
    steps = [result.step for result in ends]
    columns: Columns = {name: list(map(get, steps)) for name, get in _ENDED_GETTERS.items()}
    usages = [step.usage or NO_TOKENS for step in steps]
    for name, get in _TOKEN_GETTERS.items():
        columns[name] = list(map(get, usages))
    columns |= _cost_columns(ends, source)
    columns["documents"] = [
        [(d.id, d.score, d.content) for d in step.documents] if step.documents else _NO_DOCUMENTS for step in steps
    ]
    return columns | arrival_columns(records, source)


def _cost_columns(ends: Sequence[Accepted], source: Source) -> Columns:
    price = source.prices.cost
    nanos: list[int | None] = []
    sources: list[str] = []
    versions: list[str] = []
    for result in ends:
        cost = price(result.step, result.cost_nanos)
        if cost.nanos is None or cost.nanos <= MAX_COST_NANOS:
            nanos.append(cost.nanos)
            sources.append(cost.source)
            versions.append(cost.price_version)
        else:
            nanos.append(None)
            sources.append("unpriced")
            versions.append("")
    return {"cost_nanos": nanos, "cost_source": sources, "price_version": versions}
