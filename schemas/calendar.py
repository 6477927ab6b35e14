"""Hours, days and months in a time zone, in microseconds since 1970-01-01 UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from stepstream.schemas.times import HOUR_US

Window = Literal["hour", "day", "month"]

QUARTER_US: Final = 900_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def check_zone(name: str) -> str:
    """The name of a time zone. Raises ``ValueError`` where there is no such zone."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(
            f"there is no time zone {name!r}: give an IANA name such as Europe/Berlin, or UTC"
        ) from None
    return name


def window_of(time_us: int, window: Window, zone: str = "UTC") -> tuple[int, int]:
    """Start and end of the calendar window of a time. Windows are adjacent. A day may have 23 or 25
    hours.
    """
    return _window_of(time_us - time_us % QUARTER_US, window, zone)


@lru_cache(maxsize=16_384)
def _window_of(quarter_us: int, window: Window, zone: str) -> tuple[int, int]:
    tz = ZoneInfo(zone)
    local = (_EPOCH + timedelta(microseconds=quarter_us)).astimezone(tz)
    if window == "hour":
        # By offset, not by the wall: the hour that the end of summer time repeats is two windows.
        offset_us = (local.utcoffset() or timedelta()) // _MICROSECOND
        start = (quarter_us + offset_us) // HOUR_US * HOUR_US - offset_us
        return start, start + HOUR_US
    first = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0, tzinfo=None)
    if window == "day":
        return _instant(first, tz), _instant(first + timedelta(days=1), tz)
    first = first.replace(day=1)
    return _instant(first, tz), _instant((first + timedelta(days=32)).replace(day=1), tz)


def _instant(wall: datetime, tz: ZoneInfo) -> int:
    """The time of a local midnight; if clocks skip it, the time of the skip."""
    return (wall.replace(tzinfo=tz).astimezone(UTC) - _EPOCH) // _MICROSECOND


def window_name(start_us: int, window: Window, zone: str = "UTC") -> str:
    """A window's name for display: ``2026-11``, ``2026-11-23``, ``2026-11-23 04:00 CET``."""
    local = (_EPOCH + timedelta(microseconds=start_us)).astimezone(ZoneInfo(zone))
    return local.strftime(
        {"hour": "%Y-%m-%d %H:%M %Z", "day": "%Y-%m-%d", "month": "%Y-%m"}[window]
    )


def hour_of_week(time_us: int) -> int:
    """0 for Monday's first hour (UTC) to 167."""
    return (time_us // HOUR_US + 72) % 168  # 1970-01-01 was a Thursday


def day_kind(time_us: int) -> int:
    """1 on Saturdays and Sundays (UTC), else 0."""
    return int(hour_of_week(time_us) >= 120)
