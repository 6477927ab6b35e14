"""The gate's verdict: pass, fail or inconclusive. docs/evaluation.md describes the method,
``python -m benchmarks.evals`` measures its error rates.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from stepstream.evals.gate.intervals import MIN_CASES_OF_INTERVAL, Spread, rate_interval
from stepstream.evals.gate.paired import (
    RATIOS,
    Differences,
    Pairing,
    differences,
    pair,
    successes,
)
from stepstream.evals.gate.policy import GatePolicy, MetricName, MetricPolicy, Outcome
from stepstream.evals.gate.rounds import levels
from stepstream.evals.gate.small_suites import p_worse
from stepstream.evals.gate.trials import Results

MIN_CASES: Final = 10
"""With at least this many cases Student's t-test is used, with fewer an exact test of success."""
MAX_LISTED_CASES: Final = 10
"""The most cases in ``Verdict.moved``."""
_K_OF_PASS_K: Final = (1, 2, 4, 8)


@dataclass(frozen=True)
class MetricResult:
    """A metric after one round. Differences are negative where the candidate is worse.

    ``change``, ``low`` and ``high`` are a difference of pass rates (0.1 is 10 points) or of errors
    per trial, and for cost, tokens and latency the logarithm of baseline / candidate.
    """

    metric: MetricName
    cases: int
    """Cases with values on both sides."""
    change: float
    low: float | None
    high: float | None
    p: float
    """The p-value of "the candidate is not worse", after the tolerance was added."""
    failed: bool
    """Whether it is shown that the candidate is worse, with all metrics sharing the level."""
    passed: bool
    """Whether it is shown that the candidate is not worse by the margin or more."""
    detectable: float | None
    """The smallest loss, in the unit of ``change``, that this round finds with a probability of
    80 %.
    """
    unknown: int = 0
    """Trials of both sides without a known outcome."""


@dataclass(frozen=True)
class Moved:
    """A case whose pass rate differs between the sides; unknown outcomes count as failures."""

    case: str
    baseline: float
    candidate: float


@dataclass(frozen=True)
class Side:
    """What one side did, over the compared cases."""

    name: str
    pass_rate: float | None
    """Of the trials with a known outcome."""
    interval: tuple[float, float] | None
    all_passed: Mapping[int, float]
    """By k: the probability that k trials of a case all succeed (pass^k), where trials suffice."""
    crashed: int
    cost_usd: float
    """The sum of the known costs."""
    without_cost: int
    """Trials without a known cost."""


@dataclass(frozen=True)
class Verdict:
    """The decision, and everything that it rests on."""

    outcome: Outcome
    reasons: tuple[str, ...]
    """A sentence for each metric that decided it."""
    trials: int
    """Trials of each case and side that were used."""
    level: float
    """Significance level of this round."""
    pairing: Pairing
    metrics: tuple[MetricResult, ...]
    baseline: Side
    candidate: Side
    moved: tuple[Moved, ...]
    notes: tuple[str, ...]
    """What was not compared, and what the trials can show."""
    decided: Outcome
    """The outcome before the policy's ``inconclusive`` replaced it."""


@dataclass(frozen=True)
class Comparison:
    """Two sides and the plan by which they are compared."""

    baseline: Results
    candidate: Results
    policy: GatePolicy
    pairing: Pairing
    rounds: tuple[int, ...]

    @property
    def cases(self) -> tuple[str, ...]:
        return self.pairing.cases

    @property
    def is_small(self) -> bool:
        return len(self.cases) < MIN_CASES

    def measured(self, metric: MetricName, trials: int) -> Differences:
        return differences(metric, self.baseline, self.candidate, self.cases, trials)


def gate(baseline: Results, candidate: Results, policy: GatePolicy) -> Verdict:
    """The verdict on two finished files of results. Raises ``ResultsError``.

    Results that were made in planned rounds are decided after the first round whose verdict is pass
    or fail; others are tested once, with all their trials.
    """
    pairing = pair(baseline, candidate, policy.quarantine)
    planned = candidate.header.planned
    # Without the same plan on both sides the level of a decision after each round is not
    # controlled: one test with all trials.
    if planned != baseline.header.planned or pairing.trials not in planned:
        planned = (pairing.trials,)
    comparison = Comparison(baseline, candidate, policy, pairing, planned)
    reached = [index for index, trials in enumerate(planned) if trials <= pairing.trials]
    for index in reached[:-1]:
        verdict = after_round(comparison, index)
        if verdict.decided != "inconclusive":
            return verdict
    return after_round(comparison, reached[-1])


def after_round(comparison: Comparison, place: int) -> Verdict:
    """The verdict after the round at this place of the plan."""
    policy, trials = comparison.policy, comparison.rounds[place]
    if comparison.is_small:
        level = policy.alpha if place == len(comparison.rounds) - 1 else 0.0
        found = _small(comparison, trials, level)
    else:
        level = levels(comparison.rounds, policy.alpha)[place]
        found = list(_metrics(comparison, place))
    decided, reasons = _decided(found, comparison, trials)
    return Verdict(
        policy.inconclusive if decided == "inconclusive" else decided,
        reasons,
        trials,
        level,
        comparison.pairing,
        tuple(found),
        _side(comparison.baseline, comparison.cases, trials),
        _side(comparison.candidate, comparison.cases, trials),
        _moved(comparison, trials),
        tuple(_notes(comparison, found, trials)),
        decided,
    )


def _small(comparison: Comparison, trials: int, level: float) -> list[MetricResult]:
    # Once, in the last round: ``levels`` assumes a normally distributed statistic, which so few
    # cases do not give.
    if "success" not in comparison.policy.metrics:
        return []
    measured = comparison.measured("success", trials)
    p = p_worse(
        successes(comparison.baseline, comparison.cases, trials, unknown=False),
        successes(comparison.candidate, comparison.cases, trials, unknown=True),
        trials,
    )
    return [
        MetricResult(
            metric="success",
            cases=len(comparison.cases),
            change=fmean((*measured.best, *measured.worst)),
            low=None,
            high=None,
            p=p,
            failed=p <= level,
            passed=False,
            detectable=None,
            unknown=measured.unknown,
        )
    ]


def _metrics(comparison: Comparison, place: int) -> Iterator[MetricResult]:
    policy, trials = comparison.policy, comparison.rounds[place]
    level = levels(comparison.rounds, policy.alpha)[place]
    # Two-sided: half of alpha on each side.
    bound = levels(comparison.rounds, policy.alpha / 2)[place]
    # ``best`` counts unknown outcomes for the candidate, ``worst`` against it: a failure must hold
    # with the first, a pass with the second.
    compared = [
        one
        for one in (comparison.measured(name, trials) for name in policy.metrics)
        if len(one.cases) >= MIN_CASES
    ]
    p_values = {
        one.metric: _shifted(one.best, policy.metrics[one.metric]).p_below() for one in compared
    }
    failed = _holm(p_values, policy.metrics, level)
    for one in compared:
        best, worst = Spread.of(one.best), Spread.of(one.worst)
        shown = best.cases >= MIN_CASES_OF_INTERVAL
        yield MetricResult(
            metric=one.metric,
            cases=best.cases,
            change=(best.mean + worst.mean) / 2,
            low=worst.lower(bound) if shown else None,
            high=best.upper(bound) if shown else None,
            p=p_values[one.metric],
            failed=one.metric in failed,
            passed=_passes(one, policy.metrics[one.metric], level, trials),
            detectable=best.detectable(level) if best.error else None,
            unknown=one.unknown,
        )


def _shifted(values: Sequence[float], metric: MetricPolicy) -> Spread:
    """The differences with the tolerated rise added: a rise within the tolerance is no loss."""
    allowed = math.log1p(metric.tolerance)
    return Spread.of([value + allowed for value in values] if allowed else values)


def _holm(
    p_values: Mapping[MetricName, float], metrics: Mapping[MetricName, MetricPolicy], level: float
) -> set[MetricName]:
    """The metrics that are worse, by Holm's procedure with weights (Holm, 1979)."""
    open_ = dict(p_values)
    failed: set[MetricName] = set()
    while open_:
        weights = sum(metrics[name].weight for name in open_)
        name = min(open_, key=lambda one: open_[one] / metrics[one].weight)
        if open_[name] * weights / metrics[name].weight > level:
            break
        failed.add(name)
        del open_[name]
    return failed


def _passes(measured: Differences, metric: MetricPolicy, level: float, trials: int) -> bool:
    values = measured.worst
    if measured.metric == "success":
        # A case that lost one trial is added: without it a candidate with a loss equal to the
        # margin would pass in 9 % of evaluations of 20 cases that nearly always succeed.
        values = (*values, -1 / trials)
    margin = math.log(metric.margin) if measured.metric in RATIOS else metric.margin
    return Spread.of(values).lower(level) > -margin


def _decided(
    found: Sequence[MetricResult], comparison: Comparison, trials: int
) -> tuple[Outcome, tuple[str, ...]]:
    failed = [one for one in found if one.failed]
    if failed:
        return "fail", tuple(_worse(one) for one in failed)
    if not found:
        return "inconclusive", (f"no metric has values in {MIN_CASES} cases on both sides",)
    if comparison.is_small:
        return "inconclusive", (
            f"fewer than {MIN_CASES} cases cannot show that the candidate is not worse",
        )
    if all(one.passed for one in found):
        names = ", ".join(one.metric for one in found)
        return "pass", (f"no metric is worse by its margin: {names}",)
    open_ = [one for one in found if not one.passed]
    return "inconclusive", tuple(_uncertain(one, comparison.policy, trials) for one in open_)


def _worse(one: MetricResult) -> str:
    return f"{one.metric} is worse: {change_text(one.metric, one.change)} (p = {one.p:.2g})"


def _uncertain(one: MetricResult, policy: GatePolicy, trials: int) -> str:
    margin = policy.metrics[one.metric].margin
    allowed = -math.log(margin) if one.metric in RATIOS else -margin
    return (
        f"{one.metric} ({change_text(one.metric, one.change)}) may be worse by more than its "
        f"margin ({change_text(one.metric, allowed)}); {trials} trials of {one.cases} cases do not "
        "decide it"
    )


def change_text(metric: MetricName, change: float) -> str:
    """A difference in the unit of its metric: ``-8.0 points``, ``+12 %``, ``+0.3 errors a trial``.

    Cost, tokens and latency are shown as they change, so a rise has a plus.
    """
    if metric == "success":
        return f"{round(100 * change, 1) or 0.0:+.1f} points"
    if metric in RATIOS:
        return f"{round(100 * math.expm1(-change), 1) or 0.0:+.1f} %"
    # Without "or 0.0" no change would be "-0.00".
    return f"{round(-change, 2) or 0.0:+.2f} errors a trial"


def side_of(results: Results) -> Side:
    """What one side did, with the trials that each of its cases has."""
    fewest = min(map(len, results.cases.values()))
    return _side(results, tuple(results.cases), fewest)


def _side(results: Results, cases: Sequence[str], trials: int) -> Side:
    kept = [results.cases[case][:trials] for case in cases]
    outcomes = [[trial.outcome for trial in of_case] for of_case in kept]
    known = [
        found for found in ([one for one in row if one is not None] for row in outcomes) if found
    ]
    rates = [sum(found) / len(found) for found in known]
    return Side(
        results.name,
        fmean(rates) if rates else None,
        rate_interval(rates, trials) if len(rates) >= MIN_CASES_OF_INTERVAL else None,
        {
            k: fmean(_all_of(sum(found), len(found), k) for found in known)
            for k in _K_OF_PASS_K
            if known and k <= min(map(len, known))
        },
        sum(trial.crashed for of_case in kept for trial in of_case),
        math.fsum(trial.cost_usd or 0.0 for of_case in kept for trial in of_case),
        sum(trial.cost_usd is None for of_case in kept for trial in of_case),
    )


def _all_of(found: int, trials: int, k: int) -> float:
    """The unbiased estimate of pass^k: C(found, k) / C(trials, k)."""
    return math.comb(found, k) / math.comb(trials, k)


def _moved(comparison: Comparison, trials: int) -> tuple[Moved, ...]:
    before = successes(comparison.baseline, comparison.cases, trials, unknown=False)
    after = successes(comparison.candidate, comparison.cases, trials, unknown=False)
    found = [
        Moved(case, a / trials, b / trials)
        for case, a, b in zip(comparison.cases, before, after, strict=True)
        if a != b
    ]
    found.sort(key=lambda one: (-abs(one.candidate - one.baseline), one.candidate, one.case))
    return tuple(found[:MAX_LISTED_CASES])


def _notes(comparison: Comparison, found: Sequence[MetricResult], trials: int) -> Iterator[str]:
    pairing, cases = comparison.pairing, len(comparison.cases)
    if pairing.only_baseline or pairing.only_candidate:
        yield (
            f"the sides have different cases: {cases} are compared, "
            f"{len(pairing.only_baseline)} are only in the baseline, "
            f"{len(pairing.only_candidate)} only in the candidate"
        )
    if pairing.quarantined:
        yield f"in quarantine and not compared: {', '.join(pairing.quarantined)}"
    if pairing.unused:
        yield (
            f"{pairing.unused} trials are not used: some cases have only {pairing.trials} on one "
            "side"
        )
    unknown = sum(one.unknown for one in found)
    if unknown:
        yield (
            f"{unknown} outcomes are unknown: fail is reported only if it holds when all of them "
            "count as successes of the candidate, pass only if it holds when all count as its "
            "failures"
        )
    if comparison.is_small:
        number = "one case" if cases == 1 else f"{cases} cases"
        yield (
            f"{number}: the verdict is about these cases, not about the agent; it can fail but "
            "not pass, and only success is compared"
        )
    else:
        yield from _missing(comparison, found, trials)


def _missing(comparison: Comparison, found: Sequence[MetricResult], trials: int) -> Iterator[str]:
    cases, measured = len(comparison.cases), {one.metric: one for one in found}
    for name in comparison.policy.metrics:
        if name not in measured:
            yield f"{name} is not compared: fewer than {MIN_CASES} cases have it on both sides"
        elif measured[name].cases < cases:
            yield f"{name} is compared over {measured[name].cases} of {cases} cases"
    success = measured.get("success")
    if success is not None and success.detectable is not None:
        yield (
            f"with {trials} trials of each of {cases} cases a loss of "
            f"{100 * success.detectable:.0f} points of the pass rate is found with a probability "
            "of 80 %"
        )
