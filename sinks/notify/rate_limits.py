"""When a notification may be sent: pauses after failures, quiet hours, rate limits. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, tzinfo
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from stepstream.common.retry import Backoff
from stepstream.schemas.documents import QuietHours, RateLimit

ATTEMPT_BACKOFF: Final = Backoff(first_s=1.0, longest_s=300.0)
_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def pause_us(attempts: int, key: str) -> int:
    """The pause after this many failed attempts. ``key`` decides the jitter.

    Not a random one: a notifier that restores its state plans the same times.
    """
    return round(ATTEMPT_BACKOFF.pause_s(attempts, key) * 1e6)


def quiet_until_us(quiet: QuietHours | None, now_us: int) -> int:
    """The end of the quiet hours that are in force now; 0 if none are."""
    if quiet is None:
        return 0
    zone = _zone(quiet.timezone)
    today = datetime.fromtimestamp(now_us / 1e6, zone).date()
    # Quiet hours that began yesterday may last until this morning.
    for day in (today - timedelta(days=1), today):
        if quiet.days and _DAYS[day.weekday()] not in quiet.days:
            continue
        ends_next_day = quiet.end <= quiet.begin
        begin = datetime.combine(day, _time(quiet.begin), zone)
        end = datetime.combine(day + timedelta(days=ends_next_day), _time(quiet.end), zone)
        if begin.timestamp() <= now_us / 1e6 < end.timestamp():
            return round(end.timestamp() * 1e6)
    return 0


@lru_cache(64)
def _zone(name: str) -> tzinfo:
    """The time zone of that name; UTC if this machine does not have it."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return UTC


def _time(text: str) -> time:
    hours, _, minutes = text.partition(":")
    return time(int(hours), int(minutes))


@dataclass(slots=True)
class TokenBucket:
    """A rate limit: each notification takes a token, and tokens are refilled evenly."""

    tokens: float
    at_us: int

    def free_at_us(self, limit: RateLimit, now_us: int) -> int:
        """When a token is available: now, or a later time."""
        self._refill(limit, now_us)
        if self.tokens >= 1:
            return now_us
        return now_us + round((1 - self.tokens) * limit.per / limit.notifications) + 1

    def take(self, limit: RateLimit, now_us: int) -> None:
        """Take a token."""
        self._refill(limit, now_us)
        self.tokens -= 1

    def _refill(self, limit: RateLimit, now_us: int) -> None:
        # At least 0: a clock that was set back must not block notifications for that time.
        passed = max(0, now_us - self.at_us)
        refilled = self.tokens + passed * limit.notifications / limit.per
        self.tokens = min(float(limit.notifications), refilled)
        self.at_us = now_us
