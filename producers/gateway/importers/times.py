"""Times as exports write them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any


def time_ns(value: Any) -> int:
    """Nanoseconds of an ISO 8601 time; UTC where it names no zone. Raises ``ValueError``."""
    if not isinstance(value, str):
        raise ValueError(f"not a time: {str(value)[:60]}")
    moment = datetime.fromisoformat(value)
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(aware.timestamp() * 1_000_000) * 1_000
