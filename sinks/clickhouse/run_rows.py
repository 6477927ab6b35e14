"""Rows of the trajectories topic: of each run in a batch, its highest revision."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from operator import attrgetter
from typing import Final

import msgspec

from stepstream.schemas.times import DAY_US
from stepstream.schemas.trajectory import Trajectory, TrajectoryStruct
from stepstream.sinks.batching.records import Record, Source
from stepstream.sinks.clickhouse.rows import (
    ARRIVAL_TYPES,
    Block,
    Blocks,
    Columns,
    Table,
    arrival_columns,
    read_values,
)

_LOW: Final = "LowCardinality(String)"
_TIME: Final = "DateTime64(6, 'UTC')"
_PLAIN: Final = {
    "trace_id": "String",
    "revision": "UInt64",
    "status": _LOW,
    "closed": "Bool",
    "project": _LOW,
    "environment": _LOW,
    "agent": _LOW,
    "agent_version": _LOW,
    "task": _LOW,
    "session_id": "String",
    "user_id": "String",
    "root_step_id": "String",
    "name": _LOW,
    "start_time": _TIME,
    "end_time": _TIME,
    "duration_us": "UInt64",
    "first_append_time": _TIME,
    "last_append_time": _TIME,
    "steps": "UInt64",
    "ended_steps": "UInt64",
    "open_steps": "UInt64",
    "error_steps": "UInt64",
    "cancelled_steps": "UInt64",
    "llm_calls": "UInt64",
    "tool_calls": "UInt64",
    "retrievals": "UInt64",
    "unpriced_steps": "UInt64",
    "orphan_steps": "UInt64",
    "extra_roots": "UInt64",
    "duplicates": "UInt64",
    "late_steps": "UInt64",
    "steps_over_limit": "UInt64",
    "skewed_steps": "UInt64",
    "input_tokens": "UInt64",
    "output_tokens": "UInt64",
    "cached_input_tokens": "UInt64",
    "cache_write_tokens": "UInt64",
    "reasoning_tokens": "UInt64",
    "tools": f"Array({_LOW})",
    "models": f"Array({_LOW})",
    "failed_step_id": "String",
    "failed_kind": _LOW,
    "failed_tool": _LOW,
    "error_type": _LOW,
    "error_message": "String",
    "findings": "UInt64",
    "path_truncated": "Bool",
}
_MADE: Final = {
    "run_day": "Date",
    "cost_usd": "Decimal(38, 9)",
    "path": f"Array({_LOW})",
    "path_json": "String",
}

RUNS: Final = Table("runs_raw", {**_PLAIN, **_MADE, **ARRIVAL_TYPES})

_GETTERS: Final = {name: attrgetter(name) for name in _PLAIN}
_decode = msgspec.json.Decoder(TrajectoryStruct).decode
_encode_path = msgspec.json.Encoder().encode
_MAX_DAY: Final = 65_535
_MAX_TIME_US: Final = 2**62


def build_runs(records: Sequence[Record], source: Source) -> Blocks:
    """The block of a batch. Tombstones are left out; a record that is no trajectory goes to the dead letter."""
    built = Blocks()
    newest: dict[str, tuple[Trajectory, Record, Decimal]] = {}
    for (run, cost), record in read_values(records, _read, built):
        held = newest.get(run.trace_id)
        if held is None or run.revision > held[0].revision:
            newest[run.trace_id] = (run, record, cost)
        if held is not None:
            built.skipped["superseded"] += 1
    if newest:
        built.blocks.append(Block(RUNS, _columns(list(newest.values()), source), len(newest)))
    return built


def _read(value: bytes) -> tuple[Trajectory, Decimal]:
    """A record's run and what it cost. Raises ``ValueError`` for what no row can hold."""
    run = _decode(value)
    if run.revision < 0:
        raise ValueError(f"revision is negative: {run.revision}")
    for name in ("start_time", "end_time", "first_append_time", "last_append_time"):
        if not 0 <= getattr(run, name) < _MAX_TIME_US:
            raise ValueError(f"{name} is no time: {getattr(run, name)}")
    if run.first_append_time // DAY_US > _MAX_DAY:
        raise ValueError(f"first_append_time is too far in the future: {run.first_append_time}")
    return run, total_cost(run.cost_usd)


def total_cost(text: str) -> Decimal:
    """A run's cost from its decimal string. Raises ``ValueError`` for what is no sum of costs."""
    try:
        cost = Decimal(text)
    except ArithmeticError:
        raise ValueError(f"cost_usd is not a number: {text[:40]!r}") from None
    if not cost.is_finite() or cost < 0 or cost >= 10**18:
        raise ValueError(f"cost_usd is no cost: {text[:40]!r}")
    return cost


def _columns(runs: Sequence[tuple[Trajectory, Record, Decimal]], source: Source) -> Columns:
    values = [run for run, _, _ in runs]
    columns: Columns = {name: list(map(get, values)) for name, get in _GETTERS.items()}
    columns["run_day"] = [run.first_append_time // DAY_US for run in values]
    columns["cost_usd"] = [cost for _, _, cost in runs]
    columns["path"] = [[f"{step.kind} {step.name}" for step in run.path] for run in values]
    columns["path_json"] = [_encode_path(run.path) for run in values]
    return columns | arrival_columns([record for _, record, _ in runs], source)
