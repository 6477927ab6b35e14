"""What a series of windows usually amounts to, and whether one is far above it.

Day and week cycle, drift and skew considered.

A window's amount is the number of its runs times what one of them costs on average; each is
forecast by itself, because each varies in its own way: a few expensive runs change the average, and
nothing else. Both are compared by their logarithms: what changes them multiplies. The forecast is a
profile (the median of the hour of the day, weekdays and weekends apart) times a level (how far the
last day or the last week, whichever is higher, lies above the profile). How far windows usually lie
above their forecast is the distance from the median to the deviation that a twentieth exceed, wider
for windows of few runs, as the deviation of a mean is, and for an hour that was not yet seen often
enough to have a profile of its own: most false alarms would come in the first days. Medians and
ranks throughout: a spike, or a bad day, moves none of it. A level that has shifted is the new
normal after about half a day.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from stepstream.schemas.calendar import day_kind
from stepstream.schemas.times import DAY_US, HOUR_US

KEEP_US: Final = 28 * DAY_US
"""Four of each day of the week."""

SPREAD_US: Final = 7 * DAY_US
"""Deviations are those of a week: each hour of each day once."""

REFIT_US: Final = 4 * HOUR_US
"""How often the forecast is computed again."""

LEARN_WINDOWS: Final = 72
"""Three days of hours: each hour of the day was seen three times before anything is reported."""

ANY_DAY: Final = 2
"""In the place of a ``day_kind``: weekdays and weekends together."""

MIN_SAMPLES: Final = 3
SPREADS: Final = 2.0
"""Of a normal distribution the twentieth's deviation is 1.64 sigma: a little more than three sigma
are asked for."""

UNKNOWN: Final = 1.5
"""By how much more in the first week, and while an hour of its kind of day was seen fewer than
``MIN_SAMPLES`` times."""

LEAST_SPREAD: Final = 0.1
SYSTEMATIC: Final = 0.05
"""Share of a single run's variance that does not shrink with the number of a window's runs."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """The expected amount of a window, the limit of a spike, and the windows learnt from."""

    expected: float
    limit: float
    windows: int


class SpikeModel:
    """The past of one series. Call ``forecast`` for a window first, then ``learn``."""

    def __init__(self, factor: float = 3.0, window_us: int = HOUR_US) -> None:
        least = math.log(factor)
        self._least = least
        self._average = _Channel(least, window_us)
        self._count = _Channel(least, window_us)

    @property
    def windows(self) -> int:
        """How many windows it knows; ``LEARN_WINDOWS`` are needed."""
        return len(self._count.seen)

    def is_spike(self, start_us: int, value: float, count: int) -> bool:
        """Whether a window, or what there is of it so far, amounts to far more than it should."""
        forecast = self.forecast(start_us, value, count)
        return forecast is not None and value > forecast.limit

    def forecast(self, start_us: int, value: float, count: int) -> Forecast | None:
        """What is expected instead of a window that amounts to ``value`` in ``count`` runs.

        None while too little is known.
        """
        if self.windows < LEARN_WINDOWS or value <= 0 or count <= 0:
            return None
        self._average.before(start_us)
        self._count.before(start_us)
        runs, cost = self._count.usual(start_us), self._average.usual(start_us)
        # By how much more each run may cost, given their number; by how much more runs there may
        # be, at what they cost.
        costlier = math.log(count) + cost + self._average.margin(start_us, _width(count))
        busier = (
            math.log(value / count) + runs + self._count.margin(start_us, _width(math.exp(runs)))
        )
        limit = max(min(costlier, busier), runs + cost + self._least / 2)
        return Forecast(math.exp(runs + cost), math.exp(limit), self.windows)

    def learn(self, start_us: int, value: float, count: int) -> None:
        """Learn from a window that is over.

        One without runs is ignored; of a spike only the amount up to the limit counts.
        """
        if value <= 0 or count <= 0:
            return
        self._average.before(start_us)
        self._count.before(start_us)
        expected = math.exp(self._count.usual(start_us)) if self.windows else count
        self._average.learn(start_us, math.log(value / count), _width(count))
        self._count.learn(start_us, math.log(count), _width(expected))

    def learn_old(self, start_us: int, value: float, count: int) -> None:
        """Take over a window of long ago, older than ``SPREAD_US``.

        Quicker, and the same but for what was too much.
        """
        if value > 0 and count > 0:
            self._average.put(start_us, math.log(value / count), None)
            self._count.put(start_us, math.log(count), None)


def _width(count: float) -> float:
    """The spread of a window of this many runs, relative to a window of one run."""
    return math.sqrt(SYSTEMATIC + (1 - SYSTEMATIC) / max(1.0, count))


@dataclass(slots=True)
class _Seen:
    start: int
    kind: int
    """``day_kind`` of the start."""
    hour: int
    """The number of the window within its day."""
    amount: float
    strayed: float | None


class _Channel:
    """The past of one logarithm."""

    def __init__(self, least: float, window_us: int) -> None:
        self.seen: deque[_Seen] = deque()
        self._least = least
        self._window_us = window_us
        self._fitted: _Fit | None = None
        self._fitted_for = -1

    def before(self, start_us: int) -> None:
        """Move on to this time; the forecast is computed again now and then."""
        if start_us // REFIT_US != self._fitted_for:
            self._fitted_for, self._fitted = start_us // REFIT_US, None

    def usual(self, start_us: int) -> float:
        """What is expected."""
        return self._fit().usual(start_us)

    def margin(self, start_us: int, width: float) -> float:
        """How far above that is too much."""
        fit = self._fit()
        margin = max(self._least, SPREADS * fit.spread * width)
        return margin if fit.knows(start_us) else UNKNOWN * margin

    def learn(self, start_us: int, amount: float, width: float) -> None:
        """Take over what was seen."""
        strayed = None
        if len(self.seen) >= LEARN_WINDOWS:
            usual = self.usual(start_us)
            most = usual + self.margin(start_us, width)
            strayed = (amount - usual) / width if amount <= most else None
            # A spike is learnt as the limit it passed, so that it does not make the next one
            # normal.
            amount = min(amount, most)
        self.put(start_us, amount, strayed)

    def put(self, start_us: int, amount: float, strayed: float | None) -> None:
        """Remember a window, and forget what is too old."""
        # Kind and hour are computed once: each refit reads them several times for all windows,
        # which was a third of the CPU time of a backtest over seven days.
        kind, hour = day_kind(start_us), start_us % DAY_US // self._window_us
        self.seen.append(_Seen(start_us, kind, hour, amount, strayed))
        while self.seen[0].start < start_us - KEEP_US:
            self.seen.popleft()
        if len(self.seen) <= LEARN_WINDOWS:
            self._fitted = None

    def _fit(self) -> _Fit:
        if self._fitted is None:
            self._fitted = _Fit(self.seen, self._window_us)
        return self._fitted


class _Fit:
    """Profile, level and spread of what was seen."""

    def __init__(self, seen: Sequence[_Seen], window_us: int) -> None:
        self._window_us = window_us
        self._since_us = seen[0].start
        self._slots = _medians((item.kind, item.hour, item.amount) for item in seen)
        self._hours = _medians((ANY_DAY, item.hour, item.amount) for item in seen)
        self._all = median(item.amount for item in seen)
        self._kinds = self._of_kinds(seen)
        profile = self._profile
        over = [(item.start, item.amount - profile(item.kind, item.hour)) for item in seen]
        now_us = seen[-1].start
        week = [rest for start, rest in over if start > now_us - 7 * DAY_US]
        day = [rest for start, rest in over if start > now_us - DAY_US]
        self._level = max(median(week), median(day))
        strayed = [
            item.strayed
            for item in seen
            if item.strayed is not None and item.start > now_us - SPREAD_US
        ]
        self.spread = _spread(
            strayed if len(strayed) >= LEARN_WINDOWS / 2 else [rest for _, rest in over]
        )

    def usual(self, start_us: int) -> float:
        """Profile and level."""
        hour = start_us % DAY_US // self._window_us
        return self._profile(day_kind(start_us), hour) + self._level

    def knows(self, start_us: int) -> bool:
        """Whether a week was seen, and in it the hour on such a day."""
        slot = (day_kind(start_us), start_us % DAY_US // self._window_us)
        return slot in self._slots and start_us - self._since_us >= 7 * DAY_US

    def _profile(self, kind: int, hour: int) -> float:
        found = self._slots.get((kind, hour))
        if found is not None:
            return found
        return self._hours.get((ANY_DAY, hour), self._all) + self._kinds.get(kind, 0.0)

    def _of_kinds(self, seen: Sequence[_Seen]) -> dict[int, float]:
        """How far weekdays and weekends lie from all days.

        Until each of their hours is known, after one of them is.
        """
        apart: dict[int, list[float]] = {}
        for item in seen:
            usual = self._hours.get((ANY_DAY, item.hour), self._all)
            apart.setdefault(item.kind, []).append(item.amount - usual)
        return {kind: median(rests) for kind, rests in apart.items()}


def _medians(seen: Iterable[tuple[int, int, float]]) -> dict[tuple[int, int], float]:
    """The median amount of each kind of day and hour with enough windows."""
    slots: dict[tuple[int, int], list[float]] = {}
    for kind, hour, amount in seen:
        slots.setdefault((kind, hour), []).append(amount)
    return {slot: median(amounts) for slot, amounts in slots.items() if len(amounts) >= MIN_SAMPLES}


def _spread(strayed: list[float]) -> float:
    """The distance from the median to the deviation that a twentieth exceeds.

    More for a tail that is long upwards.
    """
    ordered = sorted(strayed)
    return max(LEAST_SPREAD, ordered[int(0.95 * (len(ordered) - 1))] - ordered[len(ordered) // 2])
