"""When something may be told: pauses after failures, quiet hours, rate limits. Pure; time is passed in."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, tzinfo
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from stepstream.schemas.documents import QuietHours, RateLimit

FIRST_PAUSE_US: Final = 1_000_000
LONGEST_PAUSE_US: Final = 300_000_000
_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def pause_us(attempts: int, key: str) -> int:
    """The pause after so many failed tries: doubled each time up to five minutes, and spread by up to a half.

    The spread depends on ``key`` alone, so that the same history gives the same times.
    """
    longest = min(LONGEST_PAUSE_US, FIRST_PAUSE_US << min(20, max(0, attempts - 1)))
    share = zlib.crc32(f"{key}:{attempts}".encode()) / 0xFFFFFFFF
    return round(longest * (0.5 + share / 2))


def quiet_until_us(quiet: QuietHours | None, now_us: int) -> int:
    """When the quiet hours that hold now are over; 0 where none hold."""
    if quiet is None:
        return 0
    zone = _zone(quiet.timezone)
    here = datetime.fromtimestamp(now_us / 1e6, zone)
    for day in (here.date() - timedelta(days=1), here.date()):
        if quiet.days and _DAYS[day.weekday()] not in quiet.days:
            continue
        begin = datetime.combine(day, _time(quiet.begin), zone)
        end = datetime.combine(
            day + timedelta(days=quiet.end <= quiet.begin), _time(quiet.end), zone
        )
        if begin.timestamp() <= now_us / 1e6 < end.timestamp():
            return round(end.timestamp() * 1e6)
    return 0


@lru_cache(64)
def _zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return UTC


def _time(text: str) -> time:
    hours, _, minutes = text.partition(":")
    return time(int(hours), int(minutes))


@dataclass(slots=True)
class Bucket:
    """A rate limit: room for so many notifications, refilled evenly."""

    room: float
    at_us: int

    def free_at_us(self, limit: RateLimit, now_us: int) -> int:
        """When there is room for one more: now, or later."""
        self._refill(limit, now_us)
        return (
            now_us
            if self.room >= 1
            else now_us + round((1 - self.room) * limit.per / limit.notifications) + 1
        )

    def take(self, limit: RateLimit, now_us: int) -> None:
        """One notification is sent."""
        self._refill(limit, now_us)
        self.room -= 1

    def _refill(self, limit: RateLimit, now_us: int) -> None:
        # A clock that was set back must not empty the bucket for as long as it was set back.
        passed = max(0, now_us - self.at_us)
        self.room = min(
            float(limit.notifications), self.room + passed * limit.notifications / limit.per
        )
        self.at_us = now_us
