"""Nothing comes from an agent at a time when something always did."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

from pydantic import Field

from stepstream.schemas.durations import DurationUs
from stepstream.schemas.formatting import format_duration
from stepstream.schemas.rule_base import WindowRuleBase
from stepstream.schemas.rules import detector_for
from stepstream.schemas.times import DAY_US, HOUR_US, MINUTE_US, WEEK_US
from stepstream.stream.usage.detectors.base import Group, WindowDetectorBase
from stepstream.stream.usage.windows.findings import WindowObservation
from stepstream.stream.usage.windows.series import KEEP_MINUTES_US
from stepstream.stream.usage.windows.totals import STEPS


class Silence(WindowRuleBase):
    """Nothing at all comes from an agent at a time when something always did."""

    on_by_default = True
    fires_when = "no step arrives at a time when there always were some"
    usual_severity = "error"

    rule: Literal["silence"]
    after: DurationUs = Field(900_000_000, description="a shorter silence is none")


HISTORY_US: Final = KEEP_MINUTES_US - HOUR_US
MISSING: Final = 30
"""Steps that should have arrived by now, by the quietest of the days compared with."""


@detector_for(Silence)
class SilenceDetector(WindowDetectorBase[Silence]):
    """No step for a while, where the same hours of other days had many.

    Other days are the same weekday of the last three weeks or, in an agent's first weeks, the last
    seven days, of which each must have had something then. So nights and weekends are no silence,
    and nothing is reported in the first week.
    """

    def evaluate(self, group: Group, now_us: int) -> Iterator[WindowObservation]:
        """How long nothing came, and how much should have."""
        last = max(
            (
                minute
                for series in group.owners
                for minute, row in series.minutes.items()
                if row.sums[STEPS]
            ),
            default=None,
        )
        since = max(now_us - HISTORY_US, 0) if last is None else last + MINUTE_US
        if now_us - since < self.rule.after:
            return
        expected, days = self._expected(group, since, now_us)
        if expected < MISSING:
            return
        yield WindowObservation(
            message=f"nothing has come from {group.name} for {format_duration(now_us - since)}; "
            f"at this time there are usually at least {expected:,.0f} steps",
            severity=self.rule.severity or "error",
            value=float(now_us - since),
            threshold=float(self.rule.after),
            unit="us",
            baseline=expected,
            baseline_runs=days,
        )

    def _expected(self, group: Group, since: int, until: int) -> tuple[float, int]:
        """Steps in the same hours of the quietest day compared with, and the number of days."""
        first = group.first_hour
        if first is None:
            return 0.0, 0
        # Three weekdays: one of them may have been a holiday, which the minimum then reports as
        # quiet.
        if first <= since - 3 * WEEK_US:
            backs = [WEEK_US, 2 * WEEK_US, 3 * WEEK_US]
        elif first <= since - WEEK_US:
            backs = [day * DAY_US for day in range(1, 8)]
        else:
            return 0.0, 0
        return min(_steps(group, since - back, until - back) for back in backs), len(backs)


def _steps(group: Group, start: int, end: int) -> float:
    """Steps between two times, those of an hour spread evenly over it."""
    found = 0.0
    for hour in range(start - start % HOUR_US, end, HOUR_US):
        share = (min(end, hour + HOUR_US) - max(start, hour)) / HOUR_US
        found += share * group.hour(hour).sums[STEPS]
    return found
