"""Typed rows of runs and steps, read from the columns of the public views."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from typing import Any, Final

from stepstream.schemas.money import amount_nanos
from stepstream.schemas.times import us_of

RUNNING: Final = "running"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRow:
    """A step. ``end_us`` is None while it is open, ``cost_nanos`` if unknown or none."""

    step_id: str
    start_us: int
    kind: str
    name: str
    end_us: int | None = None
    parent_step_id: str = ""
    tool: str = ""
    model: str = ""
    agent: str = ""
    status: str = "ok"
    error_type: str = ""
    error_message: str = ""
    attempt: int = 1
    retry_of: str = ""
    fallback_of: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cost_nanos: int | None = None
    cost_source: str = ""
    input: str = ""
    output: str = ""
    documents: int = 0
    best_score: float | None = None
    texts: tuple[str, ...] = ()
    """Each document as a line: its id, its score, its content as far as it was asked for."""

    @property
    def failed(self) -> bool:
        return self.status == "error"

    @property
    def open(self) -> bool:
        return self.end_us is None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """A run's totals, as in the view ``runs``."""

    trace_id: str
    status: str
    start_us: int
    end_us: int
    project: str = "default"
    environment: str = ""
    agent: str = ""
    agent_version: str = ""
    task: str = ""
    session_id: str = ""
    user_id: str = ""
    task_id: str = ""
    attempt: int = 0
    steps: int = 0
    open_steps: int = 0
    error_steps: int = 0
    unpriced_steps: int = 0
    orphan_steps: int = 0
    duplicates: int = 0
    late_steps: int = 0
    steps_over_limit: int = 0
    skewed_steps: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_nanos: int = 0
    failed_tool: str = ""
    failed_kind: str = ""
    error_type: str = ""
    error_message: str = ""

    @property
    def running(self) -> bool:
        return self.status == RUNNING

    @property
    def who(self) -> str:
        """Agent and task: ``support/refund``."""
        return "/".join(part for part in (self.agent, self.task) if part) or self.project


def step_row(record: Mapping[str, Any]) -> StepRow:
    """A row of the views ``steps``, ``open_steps`` or ``trace``; open without an ``end_time``."""
    end_time = record.get("end_time")
    documents = record.get("documents") or ()
    scores = [score for score in map(_score, documents) if score is not None]
    return StepRow(
        step_id=record["step_id"],
        parent_step_id=record.get("parent_step_id", ""),
        start_us=us_of(record["start_time"]),
        end_us=None if end_time is None else us_of(end_time),
        status=RUNNING if end_time is None else record.get("status", "ok"),
        cost_nanos=nanos(record.get("cost_usd")),
        documents=len(documents),
        best_score=max(scores, default=None),
        texts=tuple(map(_document, documents)),
        **{name: record[name] for name in _STEP_FIELDS if record.get(name) is not None},
    )


def run_row(record: Mapping[str, Any]) -> RunRow:
    """A row of the view ``runs``."""
    return RunRow(
        trace_id=record["trace_id"],
        status=record["status"],
        start_us=us_of(record["start_time"]),
        end_us=us_of(record["end_time"]),
        cost_nanos=nanos(record["cost_usd"]) or 0,
        **{name: record[name] for name in _RUN_FIELDS if record.get(name) is not None},
    )


def run_from_steps(trace_id: str, steps: list[StepRow]) -> RunRow:
    """A stand-in for a run whose own row has not arrived yet, summed up from its steps."""
    open_steps = sum(step.open for step in steps)
    root = next((step for step in steps if not step.parent_step_id), None)
    timed = steps if root is None or root.open else [root]  # its own times are by one host's clock
    return RunRow(
        trace_id=trace_id,
        status=RUNNING if open_steps or root is None else root.status,
        start_us=min(step.start_us for step in timed),
        end_us=max(step.end_us or step.start_us for step in timed),
        agent=next((step.agent for step in steps if step.agent), ""),
        steps=len(steps),
        open_steps=open_steps,
        error_steps=sum(step.failed for step in steps),
        unpriced_steps=sum(step.cost_source == "unpriced" for step in steps),
        input_tokens=sum(step.input_tokens for step in steps),
        output_tokens=sum(step.output_tokens for step in steps),
        cost_nanos=sum(step.cost_nanos or 0 for step in steps),
    )


def caught_up(run: RunRow, steps: list[StepRow]) -> RunRow:
    """The run with the totals of its steps if those are newer than its own row."""
    if not run.running or not steps:
        return run
    now = run_from_steps(run.trace_id, steps)
    # Two queries: the steps may have been read before the run's row changed.
    if now.steps < run.steps or now.open_steps > run.open_steps:
        return run
    totals = (
        "status", "start_us", "end_us", "steps", "open_steps", "error_steps", "unpriced_steps",
        "input_tokens", "output_tokens", "cost_nanos",
    )  # fmt: skip
    return replace(run, **{name: getattr(now, name) for name in totals})


def nanos(value: Decimal | str | float | int | None) -> int | None:
    """Nano-dollars of a cost column."""
    if value is None:
        return None
    return (
        int((value * 10**9).to_integral_value())
        if isinstance(value, Decimal)
        else amount_nanos(value)
    )


def _score(document: Any) -> float | None:
    score = document.get("score") if isinstance(document, Mapping) else document[1]
    return None if score is None else float(score)


def _document(document: Any) -> str:
    parts = list(document.values()) if isinstance(document, Mapping) else list(document)
    name, score, content = (*parts, "", "", "")[:3]
    rated = f" ({float(score):.2f})" if score is not None else ""
    return f"{name}{rated}{f': {content}' if content else ''}"


# The columns that a row takes as they are; the others are converted above.
_STEP_FIELDS: Final = tuple(
    field.name
    for field in fields(StepRow)
    if field.name
    not in (
        *("step_id", "parent_step_id", "start_us", "end_us", "status", "cost_nanos"),
        *("documents", "best_score", "texts"),
    )
)
_RUN_FIELDS: Final = tuple(
    field.name
    for field in fields(RunRow)
    if field.name not in ("trace_id", "status", "start_us", "end_us", "cost_nanos")
)
