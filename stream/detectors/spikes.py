"""A run, while it goes on, uses far more than the baseline of its agent and task."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Final, Literal, TypeVar

from pydantic import Field

from stepstream.schemas.alert import Unit
from stepstream.schemas.durations import DurationUs
from stepstream.schemas.formatting import format_dollars, format_duration
from stepstream.schemas.money import NANOS_PER_USD, amount_nanos
from stepstream.schemas.rule_base import Dollars, Positive, RuleBase
from stepstream.schemas.rules import detector_for
from stepstream.stream.detectors.base import (
    NOTHING,
    DetectorBase,
    Observation,
    Observations,
)
from stepstream.stream.detectors.cause import likely_cause
from stepstream.stream.run.baseline import COST, DURATION, STEPS, TOKENS, Normal
from stepstream.stream.run.rules import Applied
from stepstream.stream.run.run import Run
from stepstream.stream.run.steps import StepInfo

Share = Literal["p75", "p80", "p90", "p95", "p99"]


class SpikeRule(RuleBase):
    """A run has used several times more than the median, and more than most runs use at all."""

    above: Share = Field(
        "p80", description="and more than this share of runs; p99: at most one run in a hundred"
    )
    factor: Annotated[float, Field(gt=1, le=1_000, strict=False)] = Field(
        3.0, description="times the median of other runs"
    )
    min_runs: Annotated[int, Field(ge=10)] = Field(
        30, description="runs to learn from first; the task's, else the agent's, else the project's"
    )


class RunCostSpike(SpikeRule):
    """The run costs far more than runs of its agent and task usually do."""

    on_by_default = True
    fires_when = "the run costs several times more than runs of its agent and task usually do"
    usual_severity = "warning; error from 10 times the median and beyond 99 % of runs"

    rule: Literal["run_cost_spike"]
    at_least_usd: Dollars = Field(
        Decimal("0.01"), description="what costs no more is never a spike"
    )


class RunTokensSpike(SpikeRule):
    """The run uses far more tokens than usual."""

    fires_when = "the run uses several times more tokens than runs of its agent and task usually do"
    usual_severity = "warning; error from 10 times the median and beyond 99 % of runs"

    rule: Literal["run_tokens_spike"]
    at_least: Positive = 10_000


class RunStepsSpike(SpikeRule):
    """The run takes far more steps than usual."""

    fires_when = "the run takes several times more steps than runs of its agent and task usually do"
    usual_severity = "warning; error from 10 times the median and beyond 99 % of runs"

    rule: Literal["run_steps_spike"]
    at_least: Positive = 10


class RunDurationSpike(SpikeRule):
    """The run takes far longer than usual."""

    fires_when = "the run takes several times more time than runs of its agent and task usually do"
    usual_severity = "warning; error from 10 times the median and beyond 99 % of runs"

    rule: Literal["run_duration_spike"]
    at_least: DurationUs = 10_000_000


FAR: Final = 10.0
"""A value above this many times the median, and above 99 % of runs, is an error, even if the rule
has already reported a warning."""

FAR_LEVEL: Final = "far"


R_ = TypeVar("R_", bound=SpikeRule)


class SpikeDetector(DetectorBase[R_]):
    """The base of spikes. It reports nothing about a run whose baseline has too few runs.

    Its findings also depend on the baseline, which may be another one in a replay. They are
    therefore deferred: written to the run's state before they are sent.
    """

    amount: int
    unit: Unit

    def __init__(self, applied: Applied) -> None:
        super().__init__(applied)
        self._factor, self._at_least = self.rule.factor, 0
        self._share = int(self.rule.above[1:]) / 100
        self.wanted_runs = self.rule.min_runs

    def thresholds(self, normal: Normal) -> tuple[float, float]:
        """The values above which a run is a warning and an error."""
        median = normal.median(self.amount)
        # All three must be passed: the factor keeps the rule quiet, the share where costs vary
        # widely.
        spike = max(self._at_least, self._factor * median, normal.at(self.amount, self._share))
        return spike, max(spike, FAR * median, normal.at(self.amount, 0.99))

    def evaluate(self, run: Run, value: float, evidence: StepInfo | None = None) -> Observations:
        """The levels that a value passes and that were not reported yet."""
        normal = run.normal
        if (
            normal is None
            or value <= self._at_least
            or normal.sample(self.amount) < self.wanted_runs
        ):
            return NOTHING
        spike, far = self.thresholds(normal)
        if value <= spike:
            return NOTHING
        passed = [("", spike)] if value <= far else [("", spike), (FAR_LEVEL, far)]
        new = [item for item in passed if not self.has_fired(run, level=item[0])]
        return [
            self._observation(run, normal, value, threshold, level, evidence)
            for level, threshold in new
        ]

    def _observation(
        self,
        run: Run,
        normal: Normal,
        value: float,
        threshold: float,
        level: str,
        evidence: StepInfo | None,
    ) -> Observation:
        detail, steps = self.cause(run, normal, evidence)
        median, p99, sample = (
            normal.median(self.amount),
            normal.at(self.amount, 0.99),
            normal.sample(self.amount),
        )
        beyond = f"p99 is {self.show(p99)}" if value > p99 else self._rank(normal, value)
        times = f"{value / median:.1f} x the median {self.show(median)}, " if median else ""
        return Observation(
            message=f"{self.show(value)} so far, {times}{beyond} ({sample} runs of {normal.whose})",
            detail=detail,
            severity=self.severity("error" if level else "warning"),
            level=level,
            step_ids=steps,
            value=self.reported(value),
            threshold=self.reported(threshold),
            unit=self.unit,
            baseline=self.reported(median),
            baseline_runs=sample,
        )

    def _rank(self, normal: Normal, value: float) -> str:
        return f"more than {100 * normal.share_below(self.amount, value):.0f} % of runs in all"

    def show(self, value: float) -> str:
        """Format a value for the message."""
        return f"{value:,.0f} {self.unit}"

    def reported(self, value: float) -> float:
        """Convert a value to the finding's ``unit``."""
        return value

    def cause(
        self, run: Run, normal: Normal, evidence: StepInfo | None
    ) -> tuple[str, tuple[str, ...]]:
        """Return the likely cause as a sentence, "" if unknown, and the ids of its steps."""
        return "", (evidence.step_id,) if evidence is not None else ()


@detector_for(RunCostSpike)
class RunCostSpikeDetector(SpikeDetector[RunCostSpike]):
    """The run costs far more than usual."""

    amount, unit = COST, "usd"

    def __init__(self, applied: Applied) -> None:
        super().__init__(applied)
        self._at_least = amount_nanos(self.rule.at_least_usd)

    def on_step(self, run: Run, step: StepInfo, now_us: int) -> Observations:
        """Compare the total after a step that cost something."""
        return (
            self.evaluate(run, run.cost_nanos)
            if step.cost_nanos and run.normal is not None
            else NOTHING
        )

    def show(self, value: float) -> str:
        """Dollars."""
        return format_dollars(value / NANOS_PER_USD)

    def reported(self, value: float) -> float:
        """Dollars."""
        return value / NANOS_PER_USD

    def cause(
        self, run: Run, normal: Normal, evidence: StepInfo | None
    ) -> tuple[str, tuple[str, ...]]:
        """The calls that the cost went into."""
        return likely_cause(run, normal)


@detector_for(RunTokensSpike)
class RunTokensSpikeDetector(SpikeDetector[RunTokensSpike]):
    """The run uses far more tokens than usual."""

    amount, unit = TOKENS, "tokens"

    def __init__(self, applied: Applied) -> None:
        super().__init__(applied)
        self._at_least = self.rule.at_least

    def on_step(self, run: Run, step: StepInfo, now_us: int) -> Observations:
        """Compare the total after a step that used tokens."""
        if run.normal is None or not step.ended or not (step.tokens[0] or step.tokens[1]):
            return NOTHING
        tokens = run.totals.tokens
        return self.evaluate(run, tokens[0] + tokens[1], step)


@detector_for(RunStepsSpike)
class RunStepsSpikeDetector(SpikeDetector[RunStepsSpike]):
    """The run takes far more steps than usual."""

    amount, unit = STEPS, "steps"

    def __init__(self, applied: Applied) -> None:
        super().__init__(applied)
        self._at_least = self.rule.at_least

    def on_step(self, run: Run, step: StepInfo, now_us: int) -> Observations:
        """Compare the count of ended steps."""
        return (
            self.evaluate(run, len(run.steps) - len(run.open), step)
            if run.normal is not None
            else NOTHING
        )


@detector_for(RunDurationSpike)
class RunDurationSpikeDetector(SpikeDetector[RunDurationSpike]):
    """The run takes far longer than usual: noticed by a timer, or when its root ends."""

    amount, unit = DURATION, "us"

    def __init__(self, applied: Applied) -> None:
        super().__init__(applied)
        self._at_least = self.rule.at_least

    def on_step(self, run: Run, step: StepInfo, now_us: int) -> Observations:
        """Evaluate the root's own duration once it has ended."""
        root = run.root
        return (
            self.evaluate(run, root.end_us - root.start_us)
            if root is not None and root.ended
            else NOTHING
        )

    def _due_us(self, run: Run) -> int | None:
        """When the next level is passed, counted from the append time of the run's first record."""
        normal = run.normal
        if (
            normal is None
            or normal.runs < self.wanted_runs
            or not run.live
            or run.root_ended
            or run.closed
        ):
            return None
        for level, threshold in zip(("", FAR_LEVEL), self.thresholds(normal), strict=True):
            if not self.has_fired(run, level=level):
                return run.first_append_us + int(threshold) + 1
        return None

    def on_timer(self, run: Run, now_us: int) -> Observations:
        """Report the levels that are passed while the root has not ended."""
        due_us = self._due_us(run)
        if due_us is None:
            return NOTHING
        if now_us < due_us:
            run.set_timer(self.name, due_us)
            return NOTHING
        # The level counts as reported only after this method has returned, so the timer of the
        # second level cannot be computed yet: the next call does that.
        run.set_timer(self.name, now_us + 1)
        return self.evaluate(run, now_us - run.first_append_us)

    def show(self, value: float) -> str:
        """Minutes and seconds."""
        return format_duration(round(value))
