"""Intervals of 95 %: of a share, and of the difference of two means and of two rates. Pure."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

Z95: Final = 1.959963984540054
"""The 97.5 % point of the normal distribution."""


class Sample(NamedTuple):
    """Size, mean and variance (with n - 1) of a sample."""

    size: int
    mean: float
    variance: float


class Interval(NamedTuple):
    """Both ends."""

    low: float
    high: float

    @property
    def leaves_out_zero(self) -> bool:
        return self.low > 0 or self.high < 0


def t95(freedom: float) -> float:
    """The 97.5 % point of Student's t: within 1 % from 3 degrees of freedom on."""
    # Cornish-Fisher expansion, Abramowitz and Stegun 26.7.5.
    z = Z95
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )


def mean_difference(old: Sample, new: Sample) -> Interval | None:
    """Welch's interval of new minus old; None for fewer than four of one: it would be a guess."""
    if min(old.size, new.size) < 4:
        return None
    parts = (old.variance / old.size, new.variance / new.size)
    error = sum(parts)
    difference = new.mean - old.mean
    if error == 0:
        return Interval(difference, difference)
    freedom = error**2 / (parts[0] ** 2 / (old.size - 1) + parts[1] ** 2 / (new.size - 1))
    half = t95(freedom) * math.sqrt(error)
    return Interval(difference - half, difference + half)


def rate_difference(old: Sample, new: Sample) -> Interval | None:
    """Newcombe's interval (1998, method 10) of new minus old; ``mean`` is the rate."""
    if not (old.size and new.size):
        return None
    before, after = share_interval(old.mean, old.size), share_interval(new.mean, new.size)
    difference = new.mean - old.mean
    return Interval(
        difference - math.hypot(new.mean - after.low, before.high - old.mean),
        difference + math.hypot(after.high - new.mean, old.mean - before.low),
    )


def share_interval(share: float, size: int) -> Interval:
    """Wilson's interval for a share of ``size`` values; all of 0 to 1 where there is none."""
    if not size:
        return Interval(0.0, 1.0)
    z2 = Z95**2 / size
    middle = (share + z2 / 2) / (1 + z2)
    half = math.sqrt(share * (1 - share) * z2 + z2 * z2 / 4) / (1 + z2)
    return Interval(max(0.0, middle - half), min(1.0, middle + half))
