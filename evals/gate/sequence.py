"""Whether a candidate succeeds less often than production, evaluated whenever there are more runs.

A one-sided normal-mixture confidence sequence (Robbins 1970; Howard et al., "Time-uniform,
nonparametric, nonasymptotic confidence sequences", 2021): it may be evaluated after any number of
sessions, and still reports an unchanged candidate in at most ``ALPHA`` of all cases. Runs of one
session depend on each other, so sessions are the sample and not runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from stepstream.evals.gate.trials import Results, Trial

ALPHA: Final = 0.05
MIN_SESSIONS: Final = 60
"""The variance of fewer sessions is not known well enough: from 10 on, 7 % are false."""
MIXTURE: Final = 126.0
"""Where the sequence is narrowest: the information of about a thousand runs of each side."""


@dataclass(frozen=True)
class Arm:
    """The runs of one side."""

    sessions: int
    runs: int
    rate: float
    variance: float


@dataclass(frozen=True)
class Comparison:
    """The candidate's rate minus that of production, and the bound that it is below."""

    production: Arm
    candidate: Arm
    difference: float
    upper: float

    @property
    def is_worse(self) -> bool:
        """Whether it is shown that the candidate succeeds less often."""
        return self.candidate.sessions >= MIN_SESSIONS and self.upper < 0


def compare(production: Results, candidate: Results) -> Comparison:
    """The comparison as of now; a case of the results is a session.

    Unknown outcomes count for the candidate, so that they can make nothing worse.
    """
    before = _arm(production.cases.values(), unknown=False)
    after = _arm(candidate.cases.values(), unknown=True)
    difference = after.rate - before.rate
    information = 1 / (before.variance + after.variance)
    total = information + MIXTURE
    width = math.sqrt(
        2 * total / information**2 * math.log1p(math.sqrt(total / MIXTURE) / (2 * ALPHA))
    )
    return Comparison(before, after, difference, difference + width)


def _arm(sessions: Iterable[Sequence[Trial]], *, unknown: bool) -> Arm:
    counted = [
        (sum(unknown if t.outcome is None else t.outcome for t in trials), len(trials))
        for trials in sessions
    ]
    good, runs = sum(one for one, _ in counted), sum(number for _, number in counted)
    rate, many = good / runs, len(counted)
    spread = sum((one - rate * number) ** 2 for one, number in counted)
    variance = many / max(1, many - 1) * spread / runs**2
    # Where all runs agree the spread is 0, and so few runs do not prove that much: Laplace's rule.
    likely = (good + 1) / (runs + 2)
    return Arm(many, runs, rate, max(variance, likely * (1 - likely) / runs))
