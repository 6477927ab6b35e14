"""Rows of the steps topic: ended steps for ``steps_raw``, starts for ``steps_open``. Pure and, given prices, repeatable."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any, Final, Protocol

from stepstream.schemas.accept import Accepted, Misrouted, accept
from stepstream.schemas.step import NO_TOKENS, Step
from stepstream.sinks.clickhouse.records import (
    ARRIVAL_TYPES,
    Block,
    Built,
    Columns,
    Record,
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

_SHARED_GETTERS: Final = {name: attrgetter(name) for name in _SHARED}
_ENDED_GETTERS: Final = {name: attrgetter(name) for name in (*_SHARED, *_ENDED)}
_TOKEN_GETTERS: Final = {name: attrgetter(name) for name in _TOKENS}
_NO_DOCUMENTS: Final[list[Any]] = []


class Keys(Protocol):
    """A set of step keys."""

    def __contains__(self, key: int, /) -> bool: ...


def build_steps(records: Sequence[Record], source: Source, seen: Keys) -> Built:
    """The blocks of a batch. ``seen`` holds the keys of the steps that ended in the batches before.

    What ``accept`` rejects is left out and counted (the worker dead-letters it), as are repeats of an ended step. A start
    whose end is known is left out: the end says it all.
    """
    built = Built()
    ends: list[Accepted] = []
    end_records: list[Record] = []
    starts: dict[int, tuple[Step, Record]] = {}
    partition, partitions, limits, fresh = source.partition, source.partitions, source.limits, built.keys
    for record in records:
        result = accept(
            record.value,
            key=record.key,
            partition=partition,
            partitions=partitions,
            timestamp_us=record.timestamp_ms * 1000,
            headers=record.headers,
            limits=limits,
        )
        if not isinstance(result, Accepted):
            built.skipped["misrouted" if isinstance(result, Misrouted) else result.reason] += 1
            continue
        step = result.step
        key = step_key(step.trace_id, step.step_id)
        if step.phase == "start":
            starts.setdefault(key, (step, record))
        elif key in fresh or key in seen:
            built.skipped["duplicate"] += 1
        else:
            fresh.add(key)
            ends.append(result)
            end_records.append(record)
    opened = [pair for key, pair in starts.items() if key not in fresh and key not in seen]
    if ended := len(starts) - len(opened):
        built.skipped["ended"] = ended
    if opened:  # first: nothing depends on these rows, so a batch refused later may come again in parts
        built.blocks.append(Block(OPEN, _open_columns(opened, source), len(opened)))
    if ends:
        built.blocks.append(Block(STEPS, _end_columns(ends, end_records, source), len(ends)))
    return built


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
