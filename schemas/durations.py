"""Durations as people write them: ``90s``, ``1h30m``, ``250ms``, ``2d``."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, PlainSerializer

from stepstream.schemas.times import DAY_US, HOUR_US, MINUTE_US, SECOND_US, WEEK_US

_UNITS_US: Final = {
    "us": 1,
    "ms": 1_000,
    "s": SECOND_US,
    "m": MINUTE_US,
    "h": HOUR_US,
    "d": DAY_US,
    "w": WEEK_US,
}
MAX_DURATION_US: Final = 36_525 * DAY_US
"""A hundred years. Longer ones are mistakes, and would overflow the integers of timers."""
# 300000000 is meant as microseconds or milliseconds: ten years in seconds are not plausible.
MAX_BARE_S: Final = 366 * 86_400
# From this number of a unit on a duration is written in several units.
MOST_OF_A_UNIT: Final = 1_000
_BARE: Final = re.compile(r"\d+(\.\d+)?", re.ASCII)
_DUMPED: Final = re.compile(r"\d+us", re.ASCII)
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|m|h|d|w)", re.ASCII)


def parse_duration_us(text: Any) -> int:
    """Microseconds of a duration such as ``90s`` or ``1h30m``; a number without a unit is seconds.

    Raises ``ValueError``.
    """
    if isinstance(text, bool):
        raise ValueError(f"not a duration: {text}")
    if isinstance(text, int | float):
        if not math.isfinite(text):
            raise ValueError(f"not a duration: {text}")
        return _seconds(text, text)
    compact = str(text).replace(" ", "")
    if _BARE.fullmatch(compact):
        return _seconds(Decimal(compact), text)
    parts = _PART.findall(compact)
    if not parts or "".join(number + unit for number, unit in parts) != compact:
        raise ValueError(f"not a duration: {text!r} (write 90s, 1h30m, 250ms, 2d)")
    return _bounded(round(sum(Decimal(number) * _UNITS_US[unit] for number, unit in parts)), text)


def _seconds(number: int | float | Decimal, text: Any) -> int:
    """A number without a unit: seconds, unless it is so large that another unit must be meant."""
    if number > MAX_BARE_S:
        raise ValueError(
            f"{text!s:.40} without a unit is seconds, {number / 86_400:,.0f} days: write the unit, "
            f"such as 5m, 300s or {text!s:.40}ms"
        )
    return _bounded(round(number * SECOND_US), text)


def _bounded(duration_us: int, text: Any) -> int:
    if duration_us > MAX_DURATION_US:
        raise ValueError(f"longer than 100 years: {text!s:.40}")
    return duration_us


def write_duration(duration_us: int) -> str:
    """A duration as documents have it, exact: ``5m``, ``90s``, ``2d``, ``3472d5h20m``."""
    units = ("d", "h", "m", "s", "ms", "us")
    unit = next(unit for unit in units if duration_us % _UNITS_US[unit] == 0)
    if 0 < duration_us // _UNITS_US[unit] < MOST_OF_A_UNIT:
        return f"{duration_us // _UNITS_US[unit]}{unit}"
    parts, rest = [], duration_us
    for unit in units:
        count, rest = divmod(rest, _UNITS_US[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def shorten_durations(value: Any) -> Any:
    """Dumped data with the durations as documents have them: ``5m`` instead of ``300000000us``."""
    if isinstance(value, dict):
        return {key: shorten_durations(part) for key, part in value.items()}
    if isinstance(value, list):
        return [shorten_durations(part) for part in value]
    if isinstance(value, str) and _DUMPED.fullmatch(value):
        return write_duration(int(value.removesuffix("us")))
    return value


def _default_as_written(schema: dict[str, Any]) -> None:
    """Write the default as documents do: ``1m`` instead of the microseconds 60000000."""
    if isinstance(schema.get("default"), int):
        schema["default"] = write_duration(schema["default"])


DurationUs = Annotated[
    int,
    BeforeValidator(parse_duration_us, json_schema_input_type=str | float),
    PlainSerializer(lambda us: f"{us}us", return_type=str),
    Field(
        gt=0,
        description="e.g. 90s, 1h30m, 250ms; a number is seconds",
        json_schema_extra=_default_as_written,
    ),
]
