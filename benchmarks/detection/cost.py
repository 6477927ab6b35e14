"""Runs that end at 5x the median cost or more must be found before they end; those under 3x must
not be reported.

Real span trees (trail_gaia), priced by their models' list prices, go through the worker's own logic
as starts and ends in the order of their times. What is normal is learnt from the other runs only:
from all of them (leave one out), and, as in production, from those that came before. It is
compared with limits that people set by hand.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median, quantiles, stdev
from typing import Any, Final

import msgspec

from benchmarks.cases import trail_gaia
from benchmarks.detection.replayed import PRICES, Replayed, only, replay
from benchmarks.detection.score import ROW, Confusion, mean_text
from benchmarks.harness import Goal, Report
from stepstream.schemas.fleet import FleetBaselineStruct
from stepstream.schemas.step import StepEvent
from stepstream.schemas.trajectory import RunSummaryStruct
from stepstream.stream.baselines.history import MIN_RUNS
from stepstream.stream.baselines.learner import Learner
from stepstream.stream.baselines.normal import Baselines

SPIKE: Final = 5.0
ORDINARY: Final = 3.0
ALERT: Final = "run-cost-spike"
_decode = msgspec.json.Decoder(FleetBaselineStruct).decode


@dataclass(frozen=True, slots=True)
class Case:
    """A run and its truth.

    ``spent`` are the moments at which a step of it had cost something, and what it had cost by
    then.
    """

    steps: list[StepEvent]
    summary: RunSummaryStruct
    spent: tuple[tuple[int, int], ...]
    times_median: float = 0.0

    @property
    def cost(self) -> int:
        return self.spent[-1][1] if self.spent else 0

    @property
    def first_us(self) -> int:
        return min(step.start_time for step in self.steps)

    @property
    def last_us(self) -> int:
        return max(step.end_time or step.start_time for step in self.steps)

    def cost_by(self, at_us: int) -> int:
        """What it had cost by then."""
        return max((cost for moment, cost in self.spent if moment <= at_us), default=0)

    def passes(self, limit: float) -> int | None:
        """When it had cost more than a limit."""
        return next((moment for moment, cost in self.spent if cost > limit), None)


@dataclass(frozen=True, slots=True)
class Score:
    """How well spikes were found, and how much was spent by then."""

    counts: Confusion
    cost_shares: list[float]
    time_shares: list[float]
    between: int

    def row(self, name: str) -> tuple[str, ...]:
        """One line of the table."""
        return (
            name,
            *self.counts.row(),
            mean_text(self.cost_shares),
            mean_text(self.time_shares),
            str(self.between),
        )


COLUMNS: Final = ("", *ROW, "cost spent when found", "time gone", "between")


def measure(report: Report, arguments: argparse.Namespace) -> None:
    """Score the detector and the limits that it is compared with."""
    cases = read_cases()
    if len(cases) <= MIN_RUNS:
        report.notes.append(
            f"cost: {len(cases)} runs are too few to learn from {MIN_RUNS} others; nothing was "
            "scored"
        )
        return
    spikes, between = (
        sum(c.times_median >= SPIKE for c in cases),
        sum(ORDINARY <= c.times_median < SPIKE for c in cases),
    )
    report.progress(
        f"{len(cases)} runs; {spikes} end at {SPIKE:.0f}x the median cost or more, {between} "
        "between"
    )
    ours = score(cases, left_out(cases))
    rows = [ours.row("cost spike, as it is by default")]
    changes: list[dict[str, Any]] = [{"factor": 2.5}, {"factor": 4}]
    changes += [{"above": share} for share in ("p75", "p80", "p90", "p95", "p99")]
    for change in changes:
        name = ", ".join(f"{key}: {value}" for key, value in change.items())
        rows.append(score(cases, left_out(cases, **change)).row(f"the same, {name}"))
    report.notes.append(
        f"cost: {100 * spikes / len(cases):.0f} of 100 runs are spikes themselves, so that what 95 "
        "or 99 of 100 cost is a spike"
    )
    rows += [score(cases, by_limit(cases, limit)).row(name) for name, limit in LIMITS.items()]
    report.table("cost spikes, normal learnt from all other runs", COLUMNS, rows)
    later, found = in_time_order(cases)
    report.table(
        f"the same in the order of time: silent for {MIN_RUNS} runs, then learnt from the runs "
        "before",
        COLUMNS,
        [score(later, found).row("cost spike, as it is by default")],
    )
    _figures(report, ours)


def _figures(report: Report, ours: Score) -> None:
    counts = ours.counts
    report.figures |= {
        "cost_spikes": counts.found + counts.missed,
        "cost_spikes_found": counts.found,
    }
    report.figures |= {
        "cost_ordinary_runs": counts.false + counts.quiet,
        "cost_false_alarms": counts.false,
    }
    if ours.cost_shares:
        report.figures["cost_share_spent_when_found"] = fmean(ours.cost_shares)
        report.figures["time_share_gone_when_found"] = fmean(ours.time_shares)
    report.goals += [
        Goal(
            "cost: spikes found before the run ends", counts.recall, 1.0, "of them", at_most=False
        ),
        Goal("cost: false alarms per 100 runs under 3x the median", counts.false_per_100, 5.0, ""),
        Goal(
            "cost: share of the cost spent when found",
            fmean(ours.cost_shares) if ours.cost_shares else None,
            0.5,
            "",
        ),
    ]


# -- cases --


def read_cases() -> list[Case]:
    """Every run of the source that came to an end, with its cost as multiples of the median.

    Raises ``MissingData``.
    """
    replayed = replay(trail_gaia.runs(), only({"rule": "run_cost_spike", "enabled": False}))
    cases = [_case(run, run.summary) for run in replayed if run.summary is not None]
    middle = median([case.cost for case in cases] or [1]) or 1
    return [Case(case.steps, case.summary, case.spent, case.cost / middle) for case in cases]


def _case(replayed: Replayed, summary: RunSummaryStruct) -> Case:
    spent: list[tuple[int, int]] = []
    total = 0
    for step in sorted(replayed.steps, key=lambda step: step.end_time or step.start_time):
        if step.usage is not None:
            total += PRICES.price(step.provider, step.model, step.usage, step.start_time).nanos or 0
            spent.append((step.end_time or step.start_time, total))
    return Case(replayed.steps, summary, tuple(spent))


# -- when each method reports a run --

# For each case, when it was reported; None where it was not.
Found = Sequence[int | None]


def left_out(cases: Sequence[Case], **change: Any) -> list[int | None]:
    """Each run evaluated with baselines of all others."""
    return [
        reported_at(case, (other.summary for other in cases if other is not case), **change)
        for case in cases
    ]


def reported_at(case: Case, others: Iterable[RunSummaryStruct], **change: Any) -> int | None:
    """When the worker reports a run, with baselines of the others; None if it does not."""
    learner = Learner()
    for summary in others:
        learner.closed(summary, 0)
    baselines = Baselines()
    for _, value in learner.publish(case.summary.first_append_time - 1):
        baselines.apply(_decode(value or b""))
    found = replay([case.steps], only({"rule": "run_cost_spike"} | change), baselines=baselines)[
        0
    ].of(ALERT)
    return min((finding["time"] for finding in found), default=None)


def in_time_order(cases: Sequence[Case]) -> tuple[list[Case], list[int | None]]:
    """The runs with enough runs before them, each evaluated with those closed when it began."""
    evaluated: list[Case] = []
    found: list[int | None] = []
    for case in sorted(cases, key=lambda case: case.first_us):
        before = [other.summary for other in cases if other.last_us < case.first_us]
        if len(before) >= MIN_RUNS:
            evaluated.append(case)
            found.append(reported_at(case, before))
    return evaluated, found


def by_limit(cases: Sequence[Case], limit: Callable[[list[int]], float]) -> list[int | None]:
    """Each run against a fixed limit that is derived from the costs of the others."""
    return [
        case.passes(limit([other.cost for other in cases if other is not case])) for case in cases
    ]


LIMITS: Final[dict[str, Callable[[list[int]], float]]] = {
    "fixed limit: mean + 3 deviations of others": lambda costs: fmean(costs) + 3 * stdev(costs),
    "fixed limit: p95 of others": lambda costs: quantiles(costs, n=20)[-1],
    "fixed limit: 10 x the median of others": lambda costs: 10 * median(costs),
    "fixed limit: the most expensive other run": lambda costs: float(max(costs)),
}


def score(cases: Sequence[Case], found: Found) -> Score:
    """Compare what was reported with what should have been."""
    counts, between = Confusion(), 0
    cost_shares: list[float] = []
    time_shares: list[float] = []
    for case, at_us in zip(cases, found, strict=True):
        reported = at_us is not None and at_us < case.last_us
        if ORDINARY <= case.times_median < SPIKE:
            between += reported
            continue
        counts = counts.plus(truth=case.times_median >= SPIKE, found=reported)
        if reported and case.times_median >= SPIKE:
            cost_shares.append(case.cost_by(at_us or 0) / case.cost)
            time_shares.append(
                ((at_us or 0) - case.first_us) / max(1, case.last_us - case.first_us)
            )
    return Score(counts, cost_shares, time_shares, between)
