"""Moments: kept as microseconds since 1970, and in everything that programs read as text in one form. Pure."""

from __future__ import annotations

from datetime import UTC, datetime


def time_of(time_us: int) -> datetime:
    """The moment, to the microsecond, in UTC."""
    seconds, rest = divmod(time_us, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest)


def iso_time(time: datetime | int) -> str:
    """ISO 8601 in UTC with microseconds: ``2026-03-01T12:03:07.000250Z``. A time without a zone is taken for UTC."""
    moment = time_of(time) if isinstance(time, int) else time
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return aware.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
