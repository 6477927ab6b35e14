"""Intervals of means over cases. Trials of a case are not independent: cases are the sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from stepstream.evals.gate.distributions import NORMAL, student_cdf, student_upper

MIN_CASES_OF_INTERVAL: Final = 20
"""With fewer cases no interval is printed: its coverage is not that of its name."""
_POWER: Final = 0.8


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and standard error of one value for each case."""

    cases: int
    mean: float
    error: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least two values."""
        count = len(values)
        mean = math.fsum(values) / count
        squares = math.fsum((value - mean) ** 2 for value in values)
        # Equal values differ by rounding; that must not count as spread.
        if squares <= 1e-18 * count * max(1.0, mean * mean):
            return cls(count, mean, 0.0)
        return cls(count, mean, math.sqrt(squares / (count - 1) / count))

    def p_below(self) -> float:
        """The probability of such a low mean where the true mean is 0."""
        if self.error == 0:
            return math.ldexp(1.0, -self.cases) if self.mean < 0 else 1.0
        return student_cdf(self.mean / self.error, self.cases - 1)

    def lower(self, level: float) -> float:
        """The one-sided lower bound."""
        return self.mean - self._width(level)

    def upper(self, level: float) -> float:
        """The one-sided upper bound."""
        return self.mean + self._width(level)

    def detectable(self, level: float) -> float:
        """The loss that a test at this level finds with a probability of 80 %."""
        return (student_upper(level, self.cases - 1) + NORMAL.inv_cdf(_POWER)) * self.error

    def _width(self, level: float) -> float:
        if self.error == 0:
            # No case differed: the share of cases that would differ is below 1 - level^(1/n).
            return 1.0 - math.pow(level, 1 / self.cases)
        return student_upper(level, self.cases - 1) * self.error


def rate_interval(rates: Sequence[float], trials: int) -> tuple[float, float]:
    """The 95 % interval of a pass rate from the pass rates of its cases.

    Wilson's interval with the number of independent trials that has the same standard error.
    """
    spread = Spread.of(rates)
    mean, cases = spread.mean, spread.cases
    z = NORMAL.inv_cdf(0.975)
    if spread.error > 0:
        effective = min(cases * trials, mean * (1 - mean) / spread.error**2)
        effective *= (z / student_upper(0.025, cases - 1)) ** 2
    else:
        effective = cases
    center = (mean + z * z / 2 / effective) / (1 + z * z / effective)
    half = (
        z
        / (1 + z * z / effective)
        * math.sqrt(mean * (1 - mean) / effective + z * z / 4 / effective**2)
    )
    return max(0.0, center - half), min(1.0, center + half)
