"""A history of days, and how much each of them says about what is normal now."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import median
from typing import Final

from stepstream.schemas.times import DAY_US

HALF_LIFE_DAYS: Final = 7.0
"""A week ago counts half: a slow drift is followed within about ten days, and every day of the week has its say."""

KEPT_DAYS: Final = 28
"""Four half-lives: what is older would count for less than a sixteenth."""


COMPARABLE_DAYS: Final = 3
"""With fewer days nobody can say which one is the odd one."""


def day_of(time_us: int) -> int:
    """The UTC day of a time, counted from 1970."""
    return time_us // DAY_US


def day_weights(runs: Mapping[int, int], today: int) -> dict[int, float]:
    """The weight of one run of each day. Days fade by half each week, and no day counts for more than an ordinary one.

    A busier day counts as the median of the days before today does, so that a bad day that was a busy one as well (a loop
    that starts runs, a load test) does not become what is normal: after a week it makes up a fifth of it at most.
    """
    seen = {day: count for day, count in runs.items() if count > 0 and day > today - KEPT_DAYS}
    before = [count for day, count in seen.items() if day < today]
    ordinary = median(before) if len(before) >= COMPARABLE_DAYS else math.inf
    return {
        day: 2.0 ** (-max(0, today - day) / HALF_LIFE_DAYS) * min(1.0, ordinary / count)
        for day, count in sorted(seen.items())
    }
