"""Rows of the taskstate topic: every change of tasks and executors, and of each task in a batch its
newest state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from stepstream.schemas.misfits import task_state_misfit
from stepstream.schemas.task_state import (
    AttemptRecordStruct,
    ExecutorStateStruct,
    StateRecord,
    TaskRefusalStruct,
    TaskStateStruct,
)
from stepstream.sinks.batching.records import Record, Source
from stepstream.sinks.clickhouse.rows import (
    Block,
    Blocks,
    Columns,
    FieldColumns,
    Table,
    arrival_columns,
    read_values,
    sink_table,
)

TASK_EVENTS: Final = sink_table("task_events_raw")
TASKS: Final = sink_table("tasks_raw")
TASK_REFUSALS: Final = sink_table("task_refusals_raw")
EXECUTOR_EVENTS: Final = sink_table("executor_events_raw")

_TIMES: Final = {
    "changed_at": "at_us",
    "refused_at": "at_us",
    "submitted_at": "submitted_at_us",
    "waiting_until": "waiting_until_us",
    "not_before": "not_before_us",
    "deadline_at": "deadline_at_us",
    "bound_at": "bound_at_us",
    "started_at": "started_at_us",
    "ended_at": "ended_at_us",
    "timeout_at": "timeout_at_us",
    "last_beat": "last_beat_us",
    "drain_by": "drain_by_us",
}
"""The field of each column of a time."""

_decode: Final = msgspec.json.Decoder(StateRecord).decode
Kept: TypeAlias = tuple[Any, Record]


class _Columns:
    """The columns of a table: fields of the same name, and times."""

    def __init__(
        self, table: Table, struct: Any, **computed: Callable[[Sequence[Any]], Sequence[Any]]
    ) -> None:
        self.table = table
        self._fields = FieldColumns(table, struct, without=computed)
        self._times = [(name, field) for name, field in _TIMES.items() if name in table.types]
        self._computed = computed

    def block(self, kept: Sequence[Kept], source: Source) -> Block:
        values = [value for value, _ in kept]
        columns: Columns = self._fields.columns(values)
        for name, field in self._times:
            times = [getattr(value, field) for value in values]
            may_be_absent = self.table.types[name].startswith("Nullable")
            columns[name] = [time or None for time in times] if may_be_absent else times
        columns |= {name: make(values) for name, make in self._computed.items()}
        columns |= arrival_columns([record for _, record in kept], source)
        return Block(self.table, columns, len(kept))


def _json(raw: Any) -> str:
    """The text of a JSON value; empty for null and where there is none."""
    # The decoder skips over these bytes, so nothing has checked that they are UTF-8.
    text = "" if raw is None else bytes(raw).decode(errors="replace")
    return "" if text == "null" else text


def _attempt(one: AttemptRecordStruct) -> tuple[Any, ...]:
    times = (one.bound_at_us, one.started_at_us, one.ended_at_us)
    return (
        one.attempt, one.fence, one.trace_id, one.executor_id, one.agent, one.version,
        *(time or None for time in times), one.status, one.error_type, one.error_message,
        one.reason,
    )  # fmt: skip


def _agent(one: Any) -> tuple[Any, ...]:
    return (
        one.name, one.version, one.slots, one.max_running, one.timeout_us, one.lease_us,
        one.retry.attempts, one.fallback, one.budget_usd, one.idempotent,
    )  # fmt: skip


_task_events: Final = _Columns(TASK_EVENTS, TaskStateStruct)
_tasks: Final = _Columns(
    TASKS,
    TaskStateStruct,
    input=lambda tasks: [_json(task.input) for task in tasks],
    result=lambda tasks: [_json(task.result) for task in tasks],
    once=lambda tasks: [{key: _json(value) for key, value in task.once.items()} for task in tasks],
    attempts=lambda tasks: [list(map(_attempt, task.attempts)) for task in tasks],
)
_executor_events: Final = _Columns(
    EXECUTOR_EVENTS,
    ExecutorStateStruct,
    agents=lambda executors: [list(map(_agent, one.agents)) for one in executors],
)


_task_refusals: Final = _Columns(TASK_REFUSALS, TaskRefusalStruct)


def build_tasks(records: Sequence[Record], source: Source) -> Blocks:
    """The blocks of a batch.

    Tombstones are left out; a record of none of the known kinds is refused.
    """
    blocks = Blocks()
    kept: dict[type, list[Kept]] = {
        TaskStateStruct: [],
        TaskRefusalStruct: [],
        ExecutorStateStruct: [],
    }
    for value, record in read_values(records, _read, blocks):
        kept[type(value)].append((value, record))
    tasks = kept[TaskStateStruct]
    for columns, rows in (
        (_task_events, tasks),
        (_tasks, _newest(tasks)),
        (_task_refusals, kept[TaskRefusalStruct]),
        (_executor_events, kept[ExecutorStateStruct]),
    ):
        if rows:
            blocks.blocks.append(columns.block(rows, source))
    return blocks


def _newest(tasks: Iterable[Kept]) -> list[Kept]:
    """Of each task its newest state: the others would be replaced in the store."""
    newest: dict[tuple[str, str, int], Kept] = {}
    for kept in tasks:
        task = kept[0]
        key = (task.project, task.task_id, task.submitted_at_us)
        known = newest.get(key)
        if known is None or (task.epoch, task.revision) >= (known[0].epoch, known[0].revision):
            newest[key] = kept
    return list(newest.values())


def _read(value: bytes) -> StateRecord:
    state: StateRecord = _decode(value)
    if why := task_state_misfit(state):
        raise ValueError(why)
    return state
