"""Converts step events of other producers: one wrong field never loses the step.

Conversions that lose nothing and are common in other languages (``null`` for absent, JSON for text,
whole floats) are not reported. What had to be changed or dropped is reported as a ``Repair``, field
by field, with the value that was sent. ``stepstream.schemas.step`` has the reader of each field.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final, NamedTuple

from pydantic import BaseModel

from stepstream.schemas.usage import MAX_USAGE_COUNT, TokenUsage


class Repair(NamedTuple):
    """A change: a key of ``clamps.CLAMPS``, and a text with the field and its old value."""

    clamp: str
    note: str


Repairs = list[Repair]

CONVERTED: Final = "value_converted"
DROPPED: Final = "value_dropped"
USAGE: Final = "usage_clamped"
TEXT: Final = "text_repaired"
COST: Final = "invalid_cost"

MAX_ATTEMPT: Final = 1_000_000
MAX_COUNT: Final = 2**53
"""The largest integer that every JSON reader can represent exactly. Sums stop at it."""
_FLAGS: Final = frozenset(
    name for name, info in TokenUsage.model_fields.items() if info.annotation is bool
)
_MOST_DIGITS: Final = 40
_NOTE_CHARS: Final = 80


def note(field: str, value: Any, became: str) -> str:
    """The text of a repair: ``usage: 5 became 3``."""
    return f"{field}: {repr(value)[:_NOTE_CHARS]} {became}"


Reader = Callable[[str, Any, Repairs], Any]
"""Converts the value of a field (its name, the value, where to report changes); None drops it."""


def converted(data: Any, readers: Mapping[str, Reader], repairs: Repairs) -> Any:
    """A copy of a decoded event with each field converted by its reader.

    Changes that lose something are added to ``repairs``. Ids and times are converted but never
    invented: a wrong one stays as it is, and ``accept`` rejects it.
    """
    if not isinstance(data, dict):
        return data
    out: dict[str, Any] = {}
    for key, value in data.items():
        if value is None:
            continue
        made = readers.get(key, read_number)(key, value, repairs)
        if made is not None:
            out[key] = made
    if "cost_source" in out and "cost_usd" not in out and data.get("cost_usd") is not None:
        del out["cost_source"]  # the source of a cost that was dropped
    return out


def json_text(value: Any) -> str:
    """Compact JSON of any value; ``str`` of what JSON cannot represent."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)


# --- readers ---


def read_content(_field: str, value: Any, _repairs: Repairs) -> Any:
    return value if isinstance(value, str) else json_text(value)


def read_text(field: str, value: Any, repairs: Repairs) -> Any:
    if isinstance(value, str):
        return value
    repairs.append(Repair(CONVERTED, note(field, value, "became text")))
    return json_text(value)


def read_id(field: str, value: Any, repairs: Repairs) -> Any:
    """Ids and versions: many producers send them as numbers, so that is not reported."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return json_text(value)
    return read_text(field, value, repairs)


def read_time(field: str, value: Any, repairs: Repairs) -> Any:
    if isinstance(value, str):
        made: int | None = _digits(value)
        if made is None:
            made = _iso_us(value)
    elif isinstance(value, float) and math.isfinite(value):
        if value.is_integer():
            return read_number(field, value, repairs)
        made = round(value)
    else:
        made = None
    if made is not None:
        repairs.append(Repair(CONVERTED, note(field, value, f"became {made}")))
        return made
    if field == "first_token_time" and (isinstance(value, bool) or not isinstance(value, int)):
        repairs.append(
            Repair(DROPPED, note(field, value, "is not a time in microseconds and was dropped"))
        )
        return None
    return value


def _iso_us(text: str) -> int | None:
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    if at.tzinfo is None:
        return None  # without a zone the moment is unknown
    return round(at.timestamp() * 1_000_000)


def _digits(text: str) -> int | None:
    plain = text.strip()
    return (
        int(plain) if plain.isascii() and plain.isdigit() and len(plain) <= _MOST_DIGITS else None
    )


def read_flag(field: str, value: Any, repairs: Repairs) -> Any:
    if isinstance(value, bool):
        return value
    repairs.append(Repair(DROPPED, note(field, value, "is neither true nor false and was dropped")))
    return None


def read_version(field: str, value: Any, repairs: Repairs) -> Any:
    if isinstance(value, str) and (number := _digits(value)) is not None:
        repairs.append(Repair(CONVERTED, note(field, value, f"became {number}")))
        return number
    return read_number(field, value, repairs)


def read_attempt(field: str, value: Any, repairs: Repairs) -> Any:
    number = _integer(value)
    if number is not None and 1 <= number <= MAX_ATTEMPT:
        if isinstance(value, str) or number != value:
            repairs.append(Repair(CONVERTED, note(field, value, f"became {number}")))
        return number
    repairs.append(
        Repair(DROPPED, note(field, value, "is not the number of an attempt and was dropped"))
    )
    return None


def read_size(field: str, value: Any, repairs: Repairs) -> Any:
    number = _integer(value)
    if number is not None and 0 <= number <= MAX_COUNT:
        if isinstance(value, str) or number != value:
            repairs.append(Repair(CONVERTED, note(field, value, f"became {number}")))
        return number
    repairs.append(Repair(DROPPED, note(field, value, "is not a size and was dropped")))
    return None


def _integer(value: Any) -> int | None:
    """The integer nearest to a number or numeric text; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return round(value) if math.isfinite(value) else None
    if isinstance(value, str) and len(value) <= _MOST_DIGITS:
        try:
            # Decimal, because float would change integers above 2**53.
            number = Decimal(value.strip())
        except InvalidOperation:
            return None
        return (
            int(number.to_integral_value())
            if number.is_finite() and number.adjusted() < _MOST_DIGITS
            else None
        )
    return None


class Counted(NamedTuple):
    """A usage count, and whether it had to be changed."""

    number: int
    changed: bool
    lost: bool
    """The value sent was impossible: ``number`` is 0 and the true count is unknown."""


def counted(value: Any) -> Counted:
    """A usage count as an integer from 0 to ``MAX_USAGE_COUNT``; 0 and ``lost`` if impossible."""
    number = _integer(value)
    if number is None or not 0 <= number <= MAX_USAGE_COUNT:
        return Counted(0, True, True)
    return Counted(number, isinstance(value, str) or number != value, False)


def read_usage(field: str, value: Any, repairs: Repairs) -> Any:
    if isinstance(value, BaseModel):
        return value
    if not isinstance(value, dict):
        repairs.append(
            Repair(
                USAGE,
                note(
                    field, value, "is not an object of counts and was dropped; the cost is unknown"
                ),
            )
        )
        return {"incomplete": True}
    out: dict[str, Any] = {}
    for name, given in value.items():
        if given is None or name not in TokenUsage.model_fields:
            continue
        if name in _FLAGS:
            out[name] = out.get(name, False) or given is True
            continue
        made = counted(given)
        out[name] = made.number
        if made.lost:
            out["incomplete"] = True
            repairs.append(
                Repair(
                    USAGE,
                    note(f"{field}.{name}", given, "is an impossible count: it counts as unknown"),
                )
            )
        elif made.changed:
            repairs.append(Repair(USAGE, note(f"{field}.{name}", given, f"became {made.number}")))
    return out


def read_cost(field: str, value: Any, repairs: Repairs) -> Any:
    """An amount; what is not a number is dropped. ``accept`` checks its range."""
    if isinstance(value, Decimal):
        return value
    try:
        amount = (
            Decimal(str(value))
            if isinstance(value, str | int | float) and not isinstance(value, bool)
            else None
        )
    except InvalidOperation:
        amount = None
    if amount is None or amount.is_nan():
        repairs.append(Repair(COST, note(field, value, "is an impossible cost and was dropped")))
        return None
    return amount


def read_attributes(field: str, value: Any, repairs: Repairs) -> Any:
    if isinstance(value, dict):
        return {
            str(k): v if isinstance(v, str) else json_text(v)
            for k, v in value.items()
            if v is not None
        }
    repairs.append(Repair(DROPPED, note(field, value, "is not an object and was dropped")))
    return None


def read_documents(field: str, value: Any, repairs: Repairs) -> Any:
    if not isinstance(value, list):
        repairs.append(Repair(DROPPED, note(field, value, "is not a list and was dropped")))
        return None
    return [_document(f"{field}[{place}]", item, repairs) for place, item in enumerate(value)]


def _document(field: str, item: Any, repairs: Repairs) -> Any:
    if isinstance(item, BaseModel):
        return item
    if not isinstance(item, dict):
        repairs.append(Repair(CONVERTED, note(field, item, "became the content of a document")))
        return {"content": item if isinstance(item, str) else json_text(item)}
    out = {k: v for k, v in item.items() if v is not None and k in ("id", "score", "content")}
    for key in ("id", "content"):
        if key in out and not isinstance(out[key], str):
            out[key] = json_text(out[key])
    if "score" in out:
        score = _score(out.pop("score"))
        if score is None:
            repairs.append(
                Repair(
                    DROPPED,
                    note(f"{field}.score", item["score"], "is not a number and was dropped"),
                )
            )
        else:
            out["score"] = score
    return out


def _score(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def read_number(_field: str, value: Any, _repairs: Repairs) -> Any:
    """A whole float as an integer, anything else unchanged: JavaScript writes 5 as 5.0."""
    is_whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**63
    return int(value) if is_whole else value
