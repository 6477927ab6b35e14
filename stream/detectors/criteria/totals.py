"""Checks of a run as a whole: its status, what it used, and expressions over it."""

from __future__ import annotations

from collections.abc import Iterator

from stepstream.schemas.criteria import ExprCheck, LimitsCheck, StatusCheck
from stepstream.schemas.expression.compiler import EvaluationError
from stepstream.schemas.formatting import format_usd
from stepstream.schemas.money import amount_nanos
from stepstream.stream.detectors.criteria.outcome import (
    PASSED,
    Outcome,
    failed,
    together,
    unknown,
)
from stepstream.stream.detectors.expression.variables import Moment, compiled, new_counts
from stepstream.stream.run.clock_skew import run_span
from stepstream.stream.run.run import Run
from stepstream.stream.run.status import run_status


def status(check: StatusCheck, run: Run) -> Outcome:
    found = run_status(run)
    root = run.root.step_id if run.root is not None else ""
    # It is asked while the run closes: one without an end still counts as running then.
    if found in {"incomplete", "running"}:
        return unknown("the run has no end")
    return PASSED if found == check.equals else failed(f"its status is {found}", root)


def limits(check: LimitsCheck, run: Run) -> Outcome:
    return together(_limits(check, run))


def _limits(check: LimitsCheck, run: Run) -> Iterator[Outcome]:
    totals = run.totals
    if check.cost_usd is not None:
        allowed = amount_nanos(check.cost_usd)
        if totals.cost_nanos > allowed:
            cost, limit = format_usd(totals.cost_nanos), format_usd(allowed)
            yield failed(f"it cost {cost}, more than {limit}")
        elif totals.unpriced:
            yield unknown("a part of its cost is unknown")
    if check.steps is not None and len(run.steps) > check.steps:
        yield failed(f"it took {len(run.steps)} steps, more than {check.steps}")
    if check.seconds is not None:
        start_us, end_us = run_span(run)
        seconds = (end_us - start_us) / 1_000_000
        if seconds > check.seconds:
            yield failed(f"it took {seconds:.1f} s, more than {check.seconds:g} s")
    if check.tokens is not None and (tokens := totals.tokens[0] + totals.tokens[1]) > check.tokens:
        yield failed(f"it used {tokens} tokens, more than {check.tokens}")
    if check.tool_errors is not None:
        ids = [
            info.step_id
            for info in run.steps.values()
            if info.kind == "tool_call" and info.status == "error"
        ]
        if len(ids) > check.tool_errors:
            yield failed(f"{len(ids)} calls failed, more than {check.tool_errors}", *sorted(ids))


def expression(check: ExprCheck, run: Run) -> Outcome:
    """Its ``step`` is the run's root, and now is when its last record came."""
    if run.root is None:
        return unknown("the run has no root")
    try:
        holds = compiled(check.when).holds(
            Moment(run, run.root, run.last_append_us, new_counts(run))
        )
    except EvaluationError as error:
        return unknown(str(error))
    return PASSED if holds else failed(f"not true: {check.when.strip()[:100]}")
