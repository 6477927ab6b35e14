"""Time constants, and moments: microseconds since 1970-01-01 UTC inside, ISO 8601 as text."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

SECOND_US: Final = 1_000_000
MINUTE_US: Final = 60 * SECOND_US
HOUR_US: Final = 60 * MINUTE_US
DAY_US: Final = 24 * HOUR_US
WEEK_US: Final = 7 * DAY_US

SECOND_MS: Final = 1_000
MINUTE_MS: Final = 60 * SECOND_MS
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS


def time_of(time_us: int) -> datetime:
    """The moment, to the microsecond, in UTC."""
    # datetime.fromtimestamp(time_us / 1e6) would round: a float has no room for 17 digits.
    seconds, rest = divmod(time_us, SECOND_US)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest)


def iso_time(time: datetime | int) -> str:
    """ISO 8601 in UTC with microseconds: ``2026-03-01T12:03:07.000250Z``. A time without
    a zone is taken as UTC."""
    moment = time_of(time) if isinstance(time, int) else time
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return aware.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def us_of(value: datetime | int) -> int:
    """Microseconds since 1970 of a time, to the microsecond; UTC without a zone."""
    if isinstance(value, int):
        return value
    # clickhouse-connect returns times of a UTC column without a zone.
    aware = value if value.tzinfo else value.replace(tzinfo=UTC)
    # In integers: timestamp() is a float and loses microseconds.
    delta = aware - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds
