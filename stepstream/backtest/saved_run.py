"""Saved runs: one recorded run in a file, and the alerts that policies should raise about it.

``policy test`` evaluates them with the worker's own code. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from stepstream.backtest.history import Event, Row, in_order
from stepstream.backtest.pipeline import OfflinePipeline
from stepstream.schemas.accept import ANY_TIME, Accepted, accept_value
from stepstream.schemas.alert import AlertStruct
from stepstream.schemas.alert_text import sentence
from stepstream.schemas.misfits import MAX_TIME_US
from stepstream.schemas.policy import Policy
from stepstream.schemas.policy_tests import ExpectedAlert
from stepstream.schemas.prices import PriceBook
from stepstream.schemas.redaction import redacted_value
from stepstream.schemas.step import happened_us
from stepstream.schemas.times import DAY_US
from stepstream.stream.core.contained_failures import RULE_FAILED

_encode = msgspec.json.Encoder().encode


class SavedRun(BaseModel):
    """One run as its step events, and the alerts that it should raise; no others may come."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["Incident"] = "Incident"
    version: Literal[1] = 1
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    trace_id: str = Field("", description="the run that it was saved from")
    expect: tuple[ExpectedAlert, ...] = ()
    allow_others: bool = Field(
        False, description="alerts that are not expected do not fail the test"
    )
    events: tuple[dict[str, Any], ...] = Field(
        min_length=1, description="step events, in the order of their times"
    )
    recording: tuple[dict[str, Any], ...] | None = Field(
        None, description="the calls of the run as they were recorded, for `stepstream eval replay`"
    )


@dataclass(frozen=True)
class Found:
    """An alert that was raised about a saved run."""

    alert: str
    subject: str
    severity: str
    message: str
    steps: int
    """Steps of the run when it was raised."""
    cost_share: float | None
    """The share of the run's cost that was spent then; None where the run cost nothing."""
    policy: str = ""


@dataclass(frozen=True)
class Decided:
    """What a guardrail decided about a call of a test."""

    guardrail: str
    decision: str
    step: int
    """The number of the call among the test's steps, from 1."""
    reason: str


@dataclass(frozen=True)
class Tested:
    """A saved run's result: what was found, and what is wrong with that."""

    saved: SavedRun
    found: tuple[Found, ...]
    problems: tuple[str, ...]
    decided: tuple[Decided, ...] = ()
    """What the policy's guardrails decided, in the order of the calls."""


class SavedRunError(ValueError):
    """A saved run that cannot be evaluated; the message states why."""


def saved_run_of(
    rows: Iterable[Row],
    alerts: Iterable[Mapping[str, Any]],
    name: str,
    recording: Sequence[dict[str, Any]] | None = None,
) -> SavedRun:
    """The saved run of a run: ``rows`` are its steps, ``alerts`` what was raised about it.

    ``recording`` has the lines of its recording, which is kept as it is. Secrets in
    contents, errors and attributes are replaced.
    """
    ordered = sorted(rows, key=lambda row: row["start_time"])
    events = [msgspec.json.decode(event.value) for event in in_order(ordered)]
    if not events:
        raise SavedRunError("the run has no steps in the store")
    # By text, because a subject may be None.
    expected = sorted({(row["alert"], row["subject"] or None) for row in alerts}, key=str)
    return SavedRun(
        name=name,
        trace_id=events[0]["trace_id"],
        expect=tuple(ExpectedAlert(alert=alert, subject=subject) for alert, subject in expected),
        events=tuple(redacted_value(event) for event in events),
        recording=None if recording is None else tuple(recording),
    )


def evaluate_saved_run(
    saved: SavedRun,
    policies: Iterable[Policy],
    prices: PriceBook | None = None,
    *,
    only_policy: str = "",
) -> Tested:
    """Evaluate the run with these policies; ``only_policy``: only its alerts count.

    Raises ``SavedRunError`` for an event that no worker would accept.
    """
    pipeline = OfflinePipeline(policies, prices=prices)
    for event in _events(saved):
        pipeline.event(event.trace_id, event.value, event.at_us)
    pipeline.finish(DAY_US)
    found = _found(pipeline)
    if only_policy:
        # A rule without a result is reported by the pipeline, without a policy.
        found = tuple(one for one in found if one.policy == only_policy or one.alert == RULE_FAILED)
    return Tested(saved, found, tuple(_problems(saved, found)))


def _events(saved: SavedRun) -> list[Event]:
    events = []
    for number, fields in enumerate(saved.events, 1):
        value = _encode(fields)
        # A run may have been saved long ago: how old an event is does not matter here.
        verdict = accept_value(value, timestamp_us=0, limits=ANY_TIME)
        if not isinstance(verdict, Accepted):
            raise SavedRunError(f"event {number} is not a step event: {verdict.detail}")
        step = verdict.step
        # The summary of a run has no such time and would raise an error of validation.
        if max(step.start_time, step.end_time or 0) >= MAX_TIME_US:
            raise SavedRunError(
                f"event {number} is not a step event: times are before {MAX_TIME_US} us (year 2096)"
            )
        events.append(Event(happened_us(step), step.trace_id, value))
    return sorted(events, key=lambda event: event.at_us)


def _found(pipeline: OfflinePipeline) -> tuple[Found, ...]:
    outcome = pipeline.outcome
    first = {}
    for one in outcome.raised:
        key = (one.finding.alert, one.finding.subject)
        if one.finding.state == "firing" and key not in first:
            first[key] = one
    whole = {run.trace_id: float(run.cost_usd) * 1e9 for run in outcome.runs.values()}
    found = []
    for alert in sorted(outcome.alerts.values(), key=lambda alert: alert.opened_at):
        raised = first.get((alert.alert, alert.subject))
        total = whole.get(alert.trace_id, 0.0)
        share = min(1.0, raised.cost_nanos / total) if raised and total else None
        found.append(_one_found(alert, raised.steps if raised else 0, share))
    return tuple(found)


def _one_found(alert: AlertStruct, steps: int, share: float | None) -> Found:
    return Found(
        alert.alert, alert.subject, alert.severity, sentence(alert), steps, share, alert.policy
    )


def _problems(saved: SavedRun, found: Iterable[Found]) -> Iterable[str]:
    rest = list(found)
    for expected in saved.expect:
        matching = [one for one in rest if _is_expected(expected, one)]
        if not matching:
            yield f"{_named(expected)} was not raised"
            continue
        # Without a subject an expectation is about every alert of the name: none is unexpected
        # then.
        rest = [one for one in rest if one not in matching]
        if late := _too_late(expected, matching[0]):
            yield late
    if not saved.allow_others:
        yield from (f"{one.alert} was raised and is not expected: {one.message}" for one in rest)


def _is_expected(expected: ExpectedAlert, found: Found) -> bool:
    return (
        found.alert == expected.alert
        and expected.subject in (None, found.subject)
        and expected.severity in (None, found.severity)
    )


def _too_late(expected: ExpectedAlert, found: Found) -> str:
    if expected.by_step is not None and found.steps > expected.by_step:
        return f"{_named(expected)} came at step {found.steps}, wanted by step {expected.by_step}"
    latest, share = expected.by_cost_share, found.cost_share
    if latest is None or share is None or share <= latest:
        return ""
    return f"{_named(expected)} came when {share:.0%} of the cost was spent, wanted by {latest:.0%}"


def _named(expected: ExpectedAlert) -> str:
    about = f" about {expected.subject}" if expected.subject else ""
    severity = f" ({expected.severity})" if expected.severity else ""
    return f"{expected.alert}{about}{severity}"
