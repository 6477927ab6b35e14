"""Rows of the trajectories topic: of each run in a batch, its highest revision."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Final

import msgspec

from stepstream.schemas.times import DAY_US
from stepstream.schemas.trajectory import Trajectory, TrajectoryStruct
from stepstream.sinks.batching.records import Record, Source
from stepstream.sinks.clickhouse.rows import (
    Block,
    Blocks,
    Columns,
    FieldColumns,
    arrival_columns,
    read_values,
    sink_table,
)

RUNS: Final = sink_table("runs_raw")

_fields: Final = FieldColumns(RUNS, TrajectoryStruct, without=("cost_usd", "path"))
_decode = msgspec.json.Decoder(TrajectoryStruct).decode
_encode_path = msgspec.json.Encoder().encode
_MAX_DAY: Final = 65_535
_MAX_TIME_US: Final = 2**62


def build_runs(records: Sequence[Record], source: Source) -> Blocks:
    """The block of a batch.

    Tombstones are left out; a record that is not a trajectory is refused.
    """
    blocks = Blocks()
    newest: dict[str, tuple[Trajectory, Record, Decimal]] = {}
    for (run, cost), record in read_values(records, _read, blocks):
        known = newest.get(run.trace_id)
        if known is None or run.revision > known[0].revision:
            newest[run.trace_id] = (run, record, cost)
        if known is not None:
            blocks.skipped["superseded"] += 1
    if newest:
        blocks.blocks.append(Block(RUNS, _columns(list(newest.values()), source), len(newest)))
    return blocks


def _read(value: bytes) -> tuple[Trajectory, Decimal]:
    """A record's run and its cost. Raises ``ValueError`` for what no row can hold."""
    run = _decode(value)
    if run.revision < 0:
        raise ValueError(f"revision is negative: {run.revision}")
    for name in ("start_time", "end_time", "first_append_time", "last_append_time"):
        if not 0 <= getattr(run, name) < _MAX_TIME_US:
            raise ValueError(f"{name} is not a time: {getattr(run, name)}")
    if run.first_append_time // DAY_US > _MAX_DAY:
        raise ValueError(f"first_append_time is too far in the future: {run.first_append_time}")
    return run, total_cost(run.cost_usd)


def total_cost(text: str) -> Decimal:
    """A run's cost from its decimal string.

    Raises ``ValueError`` for what cannot be a sum of costs.
    """
    try:
        cost = Decimal(text)
    except ArithmeticError:
        raise ValueError(f"cost_usd is not a number: {text[:40]!r}") from None
    if not cost.is_finite() or cost < 0 or cost >= 10**18:
        raise ValueError(f"cost_usd is not a cost: {text[:40]!r}")
    return cost


def _columns(runs: Sequence[tuple[Trajectory, Record, Decimal]], source: Source) -> Columns:
    values = [run for run, _, _ in runs]
    columns = _fields.columns(values)
    columns["run_day"] = [run.first_append_time // DAY_US for run in values]
    columns["cost_usd"] = [cost for _, _, cost in runs]
    columns["path"] = [[f"{step.kind} {step.name}" for step in run.path] for run in values]
    columns["path_json"] = [_encode_path(run.path) for run in values]
    return columns | arrival_columns([record for _, record, _ in runs], source)
