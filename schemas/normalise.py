"""Step events as other producers write them, made into what the contract says: one wrong field never costs the step.

What loses nothing and is common in other languages (``null`` for absent, JSON for text, whole floats) is a liberty and not
noted. What had to be converted or dropped is noted, field by field, with the value that was sent.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final, NamedTuple

from pydantic import BaseModel

from stepstream.schemas.usage import MAX_USAGE_COUNT, TokenUsage


class Repair(NamedTuple):
    """What was changed: one of ``accept.CLAMPS``, and which field had which value."""

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
"""The largest whole number that every reader of JSON tells from its neighbours. A sum that would exceed it stays at it."""
_CONTENTS: Final = frozenset(("input", "output"))
_LOOSE_TEXTS: Final = frozenset(("session_id", "user_id", "agent_version", "error_type"))
"""Ids and versions that many producers hold as numbers."""
_TEXTS: Final = frozenset((
    "name", "tool", "model", "provider", "project", "environment", "agent", "task", "error_message", "tool_schema",
    "cost_source", "price_version", "status", "kind", "phase", "retry_of", "fallback_of",
))  # fmt: skip
_TIMES: Final = frozenset(("start_time", "end_time", "first_token_time"))
_SIZES: Final = frozenset(("input_bytes", "output_bytes"))
_FLAGS: Final = frozenset(
    name for name, info in TokenUsage.model_fields.items() if info.annotation is bool
)
_MOST_DIGITS: Final = 40
_NOTE_CHARS: Final = 80


def note(field: str, value: Any, became: str) -> str:
    """What happened to a field, in words."""
    return f"{field}: {repr(value)[:_NOTE_CHARS]} {became}"


def normalised(data: Any, repairs: Repairs | None = None) -> Any:
    """A copy of a decoded event that the contract can read; what was changed beyond a liberty is added to ``repairs``.

    Identity and times are only converted, never made up: what cannot be read stays, and is refused.
    """
    if not isinstance(data, dict):
        return data
    noted: Repairs = [] if repairs is None else repairs
    out: dict[str, Any] = {}
    for key, value in data.items():
        if value is None:
            continue
        reader = _READERS.get(key)
        made = _whole(value) if reader is None else reader(key, value, noted)
        if made is not None:
            out[key] = made
    if "cost_source" in out and "cost_usd" not in out and data.get("cost_usd") is not None:
        del out["cost_source"]  # it told where a cost came from that is none
    return out


def json_text(value: Any) -> str:
    """Compact JSON of any value; what JSON cannot say becomes its ``str``."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)


# --- readers: what a field becomes; None leaves it out ---


def _content(_field: str, value: Any, _repairs: Repairs) -> Any:
    return value if isinstance(value, str) else json_text(value)


def _text(field: str, value: Any, repairs: Repairs) -> Any:
    if isinstance(value, str):
        return value
    repairs.append(Repair(CONVERTED, note(field, value, "became text")))
    return json_text(value)


def _loose_text(field: str, value: Any, repairs: Repairs) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return json_text(value)
    return _text(field, value, repairs)


def _time(field: str, value: Any, repairs: Repairs) -> Any:
    if isinstance(value, str):
        made: int | None = _digits(value)
        if made is None:
            made = _iso_us(value)
    elif isinstance(value, float) and math.isfinite(value):
        if value.is_integer():
            return _whole(value)
        made = round(value)
    else:
        made = None
    if made is not None:
        repairs.append(Repair(CONVERTED, note(field, value, f"became {made}")))
        return made
    if field == "first_token_time" and (isinstance(value, bool) or not isinstance(value, int)):
        repairs.append(
            Repair(DROPPED, note(field, value, "is no time in microseconds and was dropped"))
        )
        return None
    return value


def _iso_us(text: str) -> int | None:
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    if at.tzinfo is None:
        return None  # whose clock is not said
    return round(at.timestamp() * 1_000_000)


def _digits(text: str) -> int | None:
    plain = text.strip()
    return (
        int(plain) if plain.isascii() and plain.isdigit() and len(plain) <= _MOST_DIGITS else None
    )


def _flag(field: str, value: Any, repairs: Repairs) -> Any:
    if isinstance(value, bool):
        return value
    repairs.append(Repair(DROPPED, note(field, value, "is neither true nor false and was dropped")))
    return None


def _version(field: str, value: Any, repairs: Repairs) -> Any:
    if isinstance(value, str) and (number := _digits(value)) is not None:
        repairs.append(Repair(CONVERTED, note(field, value, f"became {number}")))
        return number
    return _whole(value)


def _attempt(field: str, value: Any, repairs: Repairs) -> Any:
    number = _integer(value)
    if number is not None and 1 <= number <= MAX_ATTEMPT:
        if isinstance(value, str) or number != value:
            repairs.append(Repair(CONVERTED, note(field, value, f"became {number}")))
        return number
    repairs.append(Repair(DROPPED, note(field, value, "is no number of a try and was dropped")))
    return None


def _size(field: str, value: Any, repairs: Repairs) -> Any:
    number = _integer(value)
    if number is not None and 0 <= number <= MAX_COUNT:
        if isinstance(value, str) or number != value:
            repairs.append(Repair(CONVERTED, note(field, value, f"became {number}")))
        return number
    repairs.append(Repair(DROPPED, note(field, value, "is no size and was dropped")))
    return None


def _integer(value: Any) -> int | None:
    """The number that a value says, rounded; None where it says none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return round(value) if math.isfinite(value) else None
    if isinstance(value, str) and len(value) <= _MOST_DIGITS:
        try:
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
    """A count of usage and how it came about."""

    number: int
    changed: bool
    lost: bool
    """What was sent cannot be right: the count is 0, and the truth is not known."""


def counted(value: Any) -> Counted:
    """A usage count as somebody gave it: whole, not negative and within ``MAX_USAGE_COUNT``, or 0 and lost."""
    number = _integer(value)
    if number is None or not 0 <= number <= MAX_USAGE_COUNT:
        return Counted(0, True, True)
    return Counted(number, isinstance(value, str) or number != value, False)


def _usage(field: str, value: Any, repairs: Repairs) -> Any:
    if isinstance(value, BaseModel):
        return value
    if not isinstance(value, dict):
        repairs.append(
            Repair(
                USAGE,
                note(field, value, "is no object of counts and was dropped; the cost is unknown"),
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
                    note(f"{field}.{name}", given, "is no possible count: it counts as unknown"),
                )
            )
        elif made.changed:
            repairs.append(Repair(USAGE, note(f"{field}.{name}", given, f"became {made.number}")))
    return out


def _cost(field: str, value: Any, repairs: Repairs) -> Any:
    """An amount, possible or not: ``accept`` judges that. What is no number at all is dropped."""
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
        repairs.append(Repair(COST, note(field, value, "is no possible cost and was dropped")))
        return None
    return amount


def _attributes(field: str, value: Any, repairs: Repairs) -> Any:
    if isinstance(value, dict):
        return {
            str(k): v if isinstance(v, str) else json_text(v)
            for k, v in value.items()
            if v is not None
        }
    repairs.append(Repair(DROPPED, note(field, value, "is no object and was dropped")))
    return None


def _documents(field: str, value: Any, repairs: Repairs) -> Any:
    if not isinstance(value, list):
        repairs.append(Repair(DROPPED, note(field, value, "is no list and was dropped")))
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
                    DROPPED, note(f"{field}.score", item["score"], "is no number and was dropped")
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


def _whole(value: Any) -> Any:
    return (
        int(value)
        if isinstance(value, float) and value.is_integer() and abs(value) < 2**63
        else value
    )


_READERS: Final[dict[str, Callable[[str, Any, Repairs], Any]]] = {
    **dict.fromkeys(_CONTENTS, _content),
    **dict.fromkeys(_TEXTS, _text),
    **dict.fromkeys(_LOOSE_TEXTS, _loose_text),
    **dict.fromkeys(_TIMES, _time),
    **dict.fromkeys(_SIZES, _size),
    "schema_version": _version,
    "attempt": _attempt,
    "parent_remote": _flag,
    "usage_may_repeat": _flag,
    "usage": _usage,
    "cost_usd": _cost,
    "attributes": _attributes,
    "documents": _documents,
}
