"""Trials of two versions, paired by case: one difference a case and metric, negative is worse."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from stepstream.evals.gate.policy import MetricName
from stepstream.evals.gate.trials import Results, ResultsError, Trial

RATIOS: Final = frozenset({"cost", "tokens", "latency"})
"""Compared as logarithms of ratios: a case that costs ten times as much does not count more."""
_VALUES: Final[Mapping[str, Callable[[Trial], float | None]]] = {
    "cost": lambda trial: trial.cost_usd,
    "tokens": lambda trial: trial.tokens,
    "latency": lambda trial: trial.latency_s,
    "tool_errors": lambda trial: trial.tool_errors,
}


@dataclass(frozen=True)
class Pairing:
    """The cases that both sides have, and what only one has."""

    cases: tuple[str, ...]
    trials: int
    """Trials that each of the cases has on both sides."""
    only_baseline: tuple[str, ...] = ()
    only_candidate: tuple[str, ...] = ()
    quarantined: tuple[str, ...] = ()
    unused: int = 0
    """Trials beyond the number that every case has."""


@dataclass(frozen=True)
class Differences:
    """A metric's differences, candidate against baseline, of the cases that have values.

    ``best`` counts unknown outcomes in favour of the candidate, ``worst`` against it; a failure
    must hold for the best, a pass for the worst. Without unknown outcomes both are the same.
    """

    metric: MetricName
    cases: tuple[str, ...]
    best: tuple[float, ...]
    worst: tuple[float, ...]
    unknown: int = 0


def pair(baseline: Results, candidate: Results, quarantine: Sequence[str] = ()) -> Pairing:
    """The cases of both. Raises ``ResultsError`` where the two cannot be compared."""
    before, after = baseline.header, candidate.header
    if before.suite_version and after.suite_version and before.suite_version != after.suite_version:
        raise ResultsError(
            f"{baseline.name} is of version {before.suite_version} of the suite, {candidate.name} "
            f"of version {after.suite_version}: {_difference(baseline, candidate)}; run the "
            "baseline again"
        )
    apart = set(quarantine)
    shared = [case for case in baseline.cases if case in candidate.cases and case not in apart]
    if not shared:
        raise ResultsError(f"{baseline.name} and {candidate.name} have no case in common")
    counts = [len(side.cases[case]) for side in (baseline, candidate) for case in shared]
    fewest = min(counts)
    return Pairing(
        tuple(shared),
        fewest,
        tuple(case for case in baseline.cases if case not in candidate.cases),
        tuple(case for case in candidate.cases if case not in baseline.cases),
        tuple(case for case in baseline.cases if case in apart),
        sum(counts) - fewest * len(counts),
    )


def _difference(baseline: Results, candidate: Results) -> str:
    gone = [case for case in baseline.cases if case not in candidate.cases]
    new = [case for case in candidate.cases if case not in baseline.cases]
    if not gone and not new:
        return "the cases have the same ids and other contents or criteria"
    parts = [
        f"{label} {', '.join(ids[:5])}" for label, ids in (("without", gone), ("with", new)) if ids
    ]
    return f"the candidate is {' and '.join(parts)}"


def differences(
    metric: MetricName, baseline: Results, candidate: Results, cases: Sequence[str], trials: int
) -> Differences:
    """The differences of one metric after this number of trials."""
    if metric == "success":
        return _success(baseline, candidate, cases, trials)
    value = _VALUES[metric]
    used, found = [], []
    for case in cases:
        before = _mean(value, baseline.cases[case][:trials])
        after = _mean(value, candidate.cases[case][:trials])
        if before is None or after is None:
            continue
        if metric not in RATIOS:
            used.append(case)
            found.append(before - after)
        elif before > 0 and after > 0:
            used.append(case)
            # Not the logarithm of the ratio, which is infinite for the smallest numbers.
            found.append(math.log(before) - math.log(after))
    exact = tuple(found)
    return Differences(metric, tuple(used), exact, exact)


def successes(results: Results, cases: Sequence[str], trials: int, *, unknown: bool) -> list[int]:
    """The successes of each case; an unknown outcome counts as ``unknown``."""
    return [
        sum(_counted(trial.outcome, unknown) for trial in results.cases[case][:trials])
        for case in cases
    ]


def _counted(outcome: bool | None, unknown: bool) -> bool:
    return unknown if outcome is None else outcome


def _success(
    baseline: Results, candidate: Results, cases: Sequence[str], trials: int
) -> Differences:
    def side(of_baseline: bool, of_candidate: bool) -> tuple[float, ...]:
        before = successes(baseline, cases, trials, unknown=of_baseline)
        after = successes(candidate, cases, trials, unknown=of_candidate)
        return tuple((b - a) / trials for a, b in zip(before, after, strict=True))

    unknown = sum(
        trial.outcome is None
        for results in (baseline, candidate)
        for case in cases
        for trial in results.cases[case][:trials]
    )
    best = side(False, True)
    return Differences(
        "success", tuple(cases), best, side(True, False) if unknown else best, unknown
    )


def _mean(value: Callable[[Trial], float | None], trials: Sequence[Trial]) -> float | None:
    """The mean of the trials that have the value; None where no trial has it."""
    # A crashed trial has often no cost; the others of its case still have one.
    found = [one for trial in trials if (one := value(trial)) is not None]
    return sum(found) / len(found) if found else None
