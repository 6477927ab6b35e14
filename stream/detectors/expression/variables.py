"""What an expression may refer to: the run so far, and the step of the record just merged."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

from stepstream.schemas.expression.compiler import Expression
from stepstream.schemas.expression.values import BOOL, COUNTS, DOUBLE, INT, STRING, Variable
from stepstream.schemas.money import NANOS_PER_USD
from stepstream.stream.run.run import Run
from stepstream.stream.run.steps import StepInfo

MAX_NAMES: Final = 200
"""Names that a map of counts has at most; calls of further names are not counted."""
MAX_FAILURES: Final = 200
"""Failed calls of a run that are counted: the id of each is kept in the run's state."""


class Moment:
    """What an expression is evaluated on: a run as it is now, and the step of its newest record."""

    __slots__ = ("counts", "local", "now_us", "run", "step")

    def __init__(self, run: Run, step: StepInfo, now_us: int, counts: dict[str, Any]) -> None:
        self.run = run
        self.step = step
        self.now_us = now_us
        self.counts = counts
        self.local: Any = None
        """The item that a macro is at."""


def _end_us(moment: Moment) -> int:
    step = moment.step
    return step.end_us if step.ended else moment.now_us


VARIABLES: Final[dict[str, Variable]] = {
    "run.steps": Variable(INT, lambda m: len(m.run.steps), "steps so far, open ones as well"),
    "run.open_steps": Variable(INT, lambda m: len(m.run.open), "steps that have not ended"),
    "run.errors": Variable(INT, lambda m: m.run.errors, "steps that ended with status error"),
    "run.llm_calls": Variable(INT, lambda m: m.run.totals.llm_calls, "model calls that ended"),
    "run.tool_calls": Variable(INT, lambda m: m.run.totals.tool_calls, "tool calls that ended"),
    "run.cost_usd": Variable(
        DOUBLE, lambda m: m.run.cost_nanos / NANOS_PER_USD,
        "US dollars of the ended steps that have a known price"
    ),
    "run.tokens": Variable(
        INT,
        lambda m: m.run.totals.tokens[0] + m.run.totals.tokens[1],
        "input and output tokens of the ended steps",
    ),
    "run.input_tokens": Variable(INT, lambda m: m.run.totals.tokens[0], "input tokens"),
    "run.output_tokens": Variable(INT, lambda m: m.run.totals.tokens[1], "output tokens"),
    "run.duration_s": Variable(
        DOUBLE,
        lambda m: (m.now_us - m.run.first_append_us) / 1e6,
        "seconds since the run's first record",
    ),
    "run.calls": Variable(
        COUNTS,
        lambda m: m.counts["calls"],
        f"calls of each tool, from their start on; the first {MAX_NAMES} tools of a run count",
    ),
    "run.failed_calls": Variable(
        COUNTS,
        lambda m: m.counts["failed"],
        f"calls of each tool that ended with status error; the first {MAX_FAILURES} of a run count",
    ),
    "run.project": Variable(STRING, lambda m: m.run.identity.project, "the run's project"),
    "run.environment": Variable(STRING, lambda m: m.run.identity.environment, "its environment"),
    "run.agent": Variable(STRING, lambda m: m.run.identity.agent, "its agent"),
    "run.agent_version": Variable(
        STRING, lambda m: m.run.identity.agent_version, "the agent's version"
    ),
    "run.task": Variable(STRING, lambda m: m.run.identity.task, "its task"),
    "run.user_id": Variable(STRING, lambda m: m.run.identity.user_id, "its user"),
    "run.session_id": Variable(STRING, lambda m: m.run.identity.session_id, "its session"),
    "step.kind": Variable(STRING, lambda m: m.step.kind, "`tool_call`, `llm_call`, ..."),
    "step.name": Variable(STRING, lambda m: m.step.name, "the step's name"),
    "step.tool": Variable(STRING, lambda m: m.step.tool, "its tool; empty without one"),
    "step.model": Variable(STRING, lambda m: m.step.model, "its model; empty without one"),
    "step.agent": Variable(STRING, lambda m: m.step.agent, "its agent"),
    "step.status": Variable(
        STRING, lambda m: m.step.status, "`running` until it has ended, then `ok`, `error` or "
        "`cancelled`"
    ),
    "step.ended": Variable(BOOL, lambda m: m.step.ended, "whether it has ended"),
    "step.error_type": Variable(STRING, lambda m: m.step.error_type, "the type of its error"),
    "step.attempt": Variable(INT, lambda m: m.step.attempt, "1, or more for a repeated call"),
    "step.cost_usd": Variable(
        DOUBLE, lambda m: (m.step.cost_nanos or 0) / NANOS_PER_USD,
        "US dollars; 0 until it ends, or without a known price"
    ),
    "step.tokens": Variable(
        INT, lambda m: m.step.tokens[0] + m.step.tokens[1], "its input and output tokens"
    ),
    "step.duration_us": Variable(
        INT, lambda m: max(0, _end_us(m) - m.step.start_us), "its duration so far in microseconds"
    ),
    "step.duration_s": Variable(
        DOUBLE, lambda m: max(0, _end_us(m) - m.step.start_us) / 1e6,
        "its duration so far in seconds"
    ),
}  # fmt: skip
"""Every variable by name."""


@lru_cache(maxsize=1_024)
def compiled(text: str) -> Expression:
    """The expression of a text, compiled once per process. Raises ``ExpressionError``."""
    return Expression(text, VARIABLES)


def new_counts(run: Run) -> dict[str, Any]:
    """The counts of a run's calls so far."""
    counts: dict[str, Any] = {"calls": {}, "failed": {}, "failed_ids": []}
    for step in run.steps.values():
        if step.tool:
            add(counts["calls"], step.tool)
            note_failure(counts, step)
    return counts


def note_record(counts: dict[str, Any], step: StepInfo) -> None:
    """Count a step after one of its records was merged: its call once, its failure once."""
    if not step.tool:
        return
    # After the first record of a step exactly one of the two is set.
    if step.started != step.ended:
        add(counts["calls"], step.tool)
    note_failure(counts, step)


def note_failure(counts: dict[str, Any], step: StepInfo) -> None:
    """Count a failed call once; a start that arrives after its end changes nothing."""
    ids = counts["failed_ids"]
    if step.status == "error" and len(ids) < MAX_FAILURES and step.step_id not in ids:
        ids.append(step.step_id)
        add(counts["failed"], step.tool)


def add(counts: dict[str, int], name: str) -> None:
    """One more of a name, within ``MAX_NAMES``."""
    if name in counts or len(counts) < MAX_NAMES:
        counts[name] = counts.get(name, 0) + 1


def markdown() -> Iterator[str]:
    """The table of variables for docs/policies.md."""
    yield "| variable | type | value |"
    yield "|---|---|---|"
    for name, variable in VARIABLES.items():
        yield f"| `{name}` | {variable.type} | {variable.meaning} |"


if __name__ == "__main__":
    print("\n".join(markdown()))
