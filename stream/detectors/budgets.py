"""Budgets of a run: cost, tokens, steps."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from stepstream.schemas.control import CONTROL_KIND
from stepstream.schemas.formatting import format_dollars
from stepstream.schemas.money import NANOS_PER_USD, amount_nanos
from stepstream.schemas.rule_base import Limit, Positive, RuleBase
from stepstream.schemas.rules import detector_for
from stepstream.stream.detectors.base import (
    NOTHING,
    DetectorBase,
    Observation,
    Observations,
)
from stepstream.stream.run.rules import Applied
from stepstream.stream.run.run import Run
from stepstream.stream.run.steps import StepInfo


class RunCost(RuleBase):
    """The run has cost more than a limit."""

    fires_when = "the run has cost more than limit_usd, or warn_usd"
    usual_severity = "error; warning for warn_usd"

    rule: Literal["run_cost"]
    limit_usd: Limit
    warn_usd: Limit | None = None

    @model_validator(mode="after")
    def _warn_is_lower(self) -> RunCost:
        if self.warn_usd is not None and self.warn_usd >= self.limit_usd:
            raise ValueError("warn_usd must be lower than limit_usd")
        return self


class RunTokens(RuleBase):
    """The run has used more tokens, input and output together, than a limit."""

    fires_when = "input and output tokens together exceed the limit"
    usual_severity = "error"

    rule: Literal["run_tokens"]
    limit: Positive


class RunSteps(RuleBase):
    """The run has taken more steps than a limit."""

    fires_when = "the run has more steps than the limit"
    usual_severity = "error"

    rule: Literal["run_steps"]
    limit: Positive


@detector_for(RunCost)
class RunCostDetector(DetectorBase[RunCost]):
    """The run has cost more than ``warn_usd`` or ``limit_usd``."""

    def __init__(self, applied: Applied) -> None:
        super().__init__(applied)
        self._limit = amount_nanos(self.rule.limit_usd)
        self._warn = amount_nanos(self.rule.warn_usd) if self.rule.warn_usd is not None else None

    def on_step(self, run: Run, step: StepInfo, now_us: int) -> Observations:
        """Compare the total after a step that cost something. An approval raises the limit."""
        if step.kind == CONTROL_KIND and step.ended:
            self._approve(run, step)
        if not step.cost_nanos:
            return NOTHING
        cost, approved = run.cost_nanos, self._approved(run)
        # Each approval is a level of its own, so that the raised limit is reported when it is
        # passed too.
        most = self._limit + approved
        limit, level = (
            (most, f"limit+{approved}" if approved else "limit")
            if cost > most
            else (self._warn, "warn")
        )
        if limit is None or cost <= limit or self.has_fired(run, level=level):
            return NOTHING
        return (self._observation(run, limit, level),)

    def _approve(self, run: Run, step: StepInfo) -> None:
        nanos = run.control_of(step).approved_nanos
        if nanos:
            self.state(run, {})["approved"] = self._approved(run) + nanos

    def _approved(self, run: Run) -> int:
        state = run.detector_state.get(self.name)
        return int(state["approved"]) if state else 0

    def _observation(self, run: Run, limit: int, level: str) -> Observation:
        cost_usd, limit_usd = run.cost_nanos / NANOS_PER_USD, limit / NANOS_PER_USD
        word = "the limit is" if level != "warn" else "the warning is set at"
        # Only when a limit is passed: sorting all steps with each record would be quadratic.
        most_expensive = sorted(run.steps.values(), key=lambda info: -(info.cost_nanos or 0))[:5]
        return Observation(
            message=f"cost {format_dollars(cost_usd)} so far, {word} {format_dollars(limit_usd)}",
            detail=_most_expensive_group(run),
            severity=self.severity("error") if level != "warn" else "warning",
            level=level,
            step_ids=tuple(info.step_id for info in most_expensive if info.cost_nanos),
            value=cost_usd,
            threshold=limit_usd,
            unit="usd",
        )


@detector_for(RunTokens)
class RunTokensDetector(DetectorBase[RunTokens]):
    """The run has used more tokens than a limit."""

    def __init__(self, applied: Applied) -> None:
        super().__init__(applied)
        self._limit = self.rule.limit

    def on_step(self, run: Run, step: StepInfo, now_us: int) -> Observations:
        """Compare the total after a step that used tokens."""
        if self.has_fired(run):
            return NOTHING
        totals = run.totals
        tokens = totals.tokens[0] + totals.tokens[1]
        if tokens <= self._limit or not step.ended:
            return NOTHING
        most = sorted(run.steps.values(), key=lambda info: -(info.tokens[0] + info.tokens[1]))[:5]
        return (
            Observation(
                message=f"{tokens:,} tokens so far, the limit is {self._limit:,}",
                severity=self.severity("error"),
                step_ids=tuple(info.step_id for info in most if info.tokens[0]),
                value=float(tokens),
                threshold=float(self._limit),
                unit="tokens",
            ),
        )


@detector_for(RunSteps)
class RunStepsDetector(DetectorBase[RunSteps]):
    """The run has taken more steps than a limit."""

    def __init__(self, applied: Applied) -> None:
        super().__init__(applied)
        self._limit = self.rule.limit

    def wants_step(self, kind: str, *, ended: bool) -> bool:
        """Every record may bring a step."""
        return True

    def on_step(self, run: Run, step: StepInfo, now_us: int) -> Observations:
        """Compare the count after every record."""
        count = len(run.steps)
        if count <= self._limit or self.has_fired(run):
            return NOTHING
        return (
            Observation(
                message=f"{count} steps so far, the limit is {self._limit}",
                severity=self.severity("error"),
                step_ids=(step.step_id,),
                value=float(count),
                threshold=float(self._limit),
                unit="steps",
            ),
        )


def _most_expensive_group(run: Run) -> str:
    """Which kind of call makes up most of the cost."""
    groups: dict[str, tuple[int, int]] = {}
    for info in run.steps.values():
        if info.cost_nanos:
            cost, count = groups.get(info.label, (0, 0))
            groups[info.label] = (cost + info.cost_nanos, count + 1)
    if not groups:
        return ""
    label, (cost, count) = max(groups.items(), key=lambda item: item[1])
    share = 100 * cost / max(1, run.cost_nanos)
    return f"{share:.0f} % of it is {count} x {label}"
