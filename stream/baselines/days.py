"""The weights of the days that a baseline is learnt from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import median
from typing import Final

from stepstream.schemas.times import DAY_US

HALF_LIFE_DAYS: Final = 7.0
"""A day counts half after a week: a slow drift is followed within about ten days, and each weekday
is represented."""

KEPT_DAYS: Final = 28
"""Four half-lives: an older day would count for less than a sixteenth."""


COMPARABLE_DAYS: Final = 3
"""Days needed before a day can be recognised as unusually busy."""


def day_of(time_us: int) -> int:
    """The UTC day of a time, counted from 1970."""
    return time_us // DAY_US


def day_weights(runs: Mapping[int, int], today: int) -> dict[int, float]:
    """The weight of one run of each day: halved each week, and reduced on days with many runs.

    A day counts for no more than the median of the days before today. So an exceptional day with
    many runs (a loop that starts runs, a load test) makes up at most a fifth of a week's history.
    """
    seen = {day: count for day, count in runs.items() if count > 0 and day > today - KEPT_DAYS}
    before = [count for day, count in seen.items() if day < today]
    ordinary = median(before) if len(before) >= COMPARABLE_DAYS else math.inf
    # Never above 1: a day with few runs counts as it is, so that chance is not magnified.
    return {
        day: 2.0 ** (-max(0, today - day) / HALF_LIFE_DAYS) * min(1.0, ordinary / count)
        for day, count in sorted(seen.items())
    }
