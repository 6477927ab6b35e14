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
"""A hundred years: what is longer is a slip of the pen, and would not fit into the numbers that timers are kept in."""
MOST_OF_A_UNIT: Final = 1_000
"""From so many on a duration is written in several units."""
_BARE: Final = re.compile(r"\d+(\.\d+)?", re.ASCII)
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|m|h|d|w)", re.ASCII)


def parse_duration_us(text: Any) -> int:
    """Microseconds of a duration such as ``90s`` or ``1h30m``; a bare number is seconds. Raises ``ValueError``."""
    if isinstance(text, bool):
        raise ValueError(f"not a duration: {text}")
    if isinstance(text, int | float):
        if not math.isfinite(text):
            raise ValueError(f"not a duration: {text}")
        return _bounded(round(text * 1_000_000), text)
    compact = str(text).replace(" ", "")
    if _BARE.fullmatch(compact):
        return _bounded(round(Decimal(compact) * _UNITS_US["s"]), text)
    parts = _PART.findall(compact)
    if not parts or "".join(number + unit for number, unit in parts) != compact:
        raise ValueError(f"not a duration: {text!r} (write 90s, 1h30m, 250ms, 2d)")
    return _bounded(round(sum(Decimal(number) * _UNITS_US[unit] for number, unit in parts)), text)


def _bounded(duration_us: int, text: Any) -> int:
    if duration_us > MAX_DURATION_US:
        raise ValueError(f"longer than 100 years: {text!s:.40}")
    return duration_us


def write_duration(duration_us: int) -> str:
    """A duration as it is written in a document, to the microsecond: ``5m``, ``90s``, ``2d``, ``3472d5h20m``."""
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


def _default_as_written(schema: dict[str, Any]) -> None:
    """A default in the unit in which documents are written, not in that in which it is kept."""
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
