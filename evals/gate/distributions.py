"""Student's t, the normal and the hypergeometric distribution, with the standard library alone.

The gate runs in CI, where an installation of scipy would take longer than the evaluation.
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist
from typing import Final

NORMAL: Final = NormalDist()
_TINY: Final = 1e-300
_PRECISION: Final = 1e-14
_MOST_TERMS: Final = 10_000
_HALVINGS: Final = 200


def normal_tail(x: float) -> float:
    """P(Z > x), also where 1 - cdf(x) would round to 0."""
    return 0.5 * math.erfc(x / math.sqrt(2))


def student_cdf(t: float, freedom: int) -> float:
    """P(T < t) with this many degrees of freedom."""
    if math.isinf(t):
        return float(t > 0)
    tail = 0.5 * _incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))
    return tail if t < 0 else 1 - tail


@lru_cache(maxsize=4096)
def student_upper(level: float, freedom: int) -> float:
    """The t with P(T > t) = level, for a level of at most a half."""
    low, high = 0.0, 1.0
    while 1 - student_cdf(high, freedom) > level:
        low, high = high, 2 * high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        # The lower tail is exact where 1 - cdf would lose its digits.
        if student_cdf(-middle, freedom) > level:
            low = middle
        else:
            high = middle
        if high - low < 1e-12 * high:
            break
    return high


@lru_cache(maxsize=1024)
def hypergeometric(trials: int, successes: int) -> tuple[float, ...]:
    """The law of how many of ``successes`` fall on one side, of two with ``trials`` trials each."""
    whole = math.comb(2 * trials, trials)
    return tuple(
        math.comb(successes, found) * math.comb(2 * trials - successes, trials - found) / whole
        if trials - found <= 2 * trials - successes
        else 0.0
        for found in range(trials + 1)
    )


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b), by its continued fraction.

    Abramowitz and Stegun 26.5.8, evaluated with Lentz's method.
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    # The fraction converges quickly only on this side of the mean.
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(a, b, x) / a
    return 1 - front * _fraction(b, a, 1 - x) / b


def _fraction(a: float, b: float, x: float) -> float:
    c, d = 1.0, 1 / _away_from_zero(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, _MOST_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / _away_from_zero(1 + term * d)
            c = _away_from_zero(1 + term / c)
            value *= c * d
        if abs(c * d - 1) < _PRECISION:
            break
    return value


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
