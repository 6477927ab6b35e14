"""The recent past of each owner for detectors.

Minutes of the last hours, hours of the last weeks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from stepstream.schemas.times import HOUR_US, MINUTE_US
from stepstream.stream.usage.windows.totals import Totals

KEEP_MINUTES_US: Final = 7 * HOUR_US
"""The longest window that is evaluated minute by minute is six hours."""

KEEP_HOURS_US: Final = 35 * 24 * HOUR_US
"""A month, and four weeks to compare with."""


class Series:
    """Rows by minute and by hour."""

    __slots__ = ("hours", "minutes")

    def __init__(self) -> None:
        self.minutes: dict[int, Totals] = {}
        self.hours: dict[int, Totals] = {}

    def rows(self, minute: int) -> tuple[Totals, Totals]:
        """The rows that a minute counts in."""
        hour = minute - minute % HOUR_US
        of_minute, of_hour = self.minutes.get(minute), self.hours.get(hour)
        if of_minute is None:
            of_minute = self.minutes[minute] = Totals()
        if of_hour is None:
            of_hour = self.hours[hour] = Totals()
        return of_minute, of_hour

    def share(self, minute: int, row: Totals) -> Totals:
        """Show a minute's row that is kept elsewhere; returns the hour's."""
        self.minutes[minute] = row
        hour = minute - minute % HOUR_US
        of_hour = self.hours.get(hour)
        if of_hour is None:
            of_hour = self.hours[hour] = Totals()
        return of_hour

    def forget(self, now_us: int) -> bool:
        """Drop what is too old; True when nothing is left."""
        self.minutes = {
            at: row for at, row in self.minutes.items() if at >= now_us - KEEP_MINUTES_US
        }
        if self.hours and min(self.hours) < now_us - KEEP_HOURS_US:
            self.hours = {at: row for at, row in self.hours.items() if at >= now_us - KEEP_HOURS_US}
        return not self.hours


def total(group: Iterable[Series], start: int, end: int) -> Totals:
    """What a group of owners used from ``start`` to before ``end``, both whole minutes.

    Exact to the minute within the last hours; what lies before is counted by whole hours, the first
    one in full.
    """
    sums = Totals()
    for series in group:
        # Up to six hours: minutes are kept for seven before the last seal.
        if end - start <= KEEP_MINUTES_US - HOUR_US:
            for minute in range(start, end, MINUTE_US):
                row = series.minutes.get(minute)
                if row is not None:
                    sums.join(row)
        else:
            for hour in range(start - start % HOUR_US, end, HOUR_US):
                row = series.hours.get(hour)
                if row is not None:
                    sums.join(row)
    return sums
