"""Decodes the known fields of JSON that a strict decoder refuses because of its characters."""

from __future__ import annotations

import json
import re
from itertools import accumulate
from typing import Any, Final, TypedDict, cast

import msgspec

from stepstream.schemas.normalise import TEXT, Repair, Repairs
from stepstream.schemas.step import StepEvent

# Levels of arrays and objects. Decoders stop where their stack ends, and stacks differ: without a
# limit of our own worker and sink could decide differently.
MAX_NESTING: Final = 200

_Known: Any = TypedDict("_Known", dict.fromkeys(StepEvent.model_fields, Any), total=False)  # type: ignore[misc]
_decode_known: Any = msgspec.json.Decoder(_Known).decode
# A string that is never closed matches as well: else the search takes quadratic time.
_STRINGS = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]|\\u[dD][89a-fA-F]")


def nesting(value: bytes) -> int:
    """The deepest level of arrays and objects."""
    brackets = _STRINGS.sub(b"", value).translate(None, _NOT_BRACKETS)
    return max(accumulate(1 if bracket in b"[{" else -1 for bracket in brackets), default=0)


def decode_fields(value: bytes, repairs: Repairs) -> dict[str, Any]:
    """The fields of a step event in a JSON object; others are left out.

    Accepts bytes that are not UTF-8, lone surrogates, control characters, NaN, and numbers with
    thousands of digits; replacements are added to ``repairs``. Raises ``ValueError`` for anything
    else that is not one JSON object.
    """
    try:
        return cast("dict[str, Any]", _decode_known(value))
    except (ValueError, RecursionError) as error:
        repaired = _decode_bad_text(value, repairs)
        if repaired is None:
            raise ValueError(str(error)) from error
        return repaired


def _decode_bad_text(value: bytes, repairs: Repairs) -> dict[str, Any] | None:
    """The known fields of JSON that only its characters make invalid; None if it is not JSON."""
    text = value.decode("utf-8", "replace").removeprefix("\ufeff")
    endless: list[str] = []

    def number(digits: str) -> int | float:
        try:
            return int(digits)
        except ValueError:  # Python refuses integers of more than 4,300 digits
            endless.append(digits)
            return float(digits)

    try:
        data = json.loads(text, strict=False, parse_int=number)
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict):
        return None
    known = {key: data[key] for key in StepEvent.model_fields if key in data}
    clean = _clean(known)
    if endless:
        repairs.append(
            Repair(
                TEXT,
                f"the record had a number of {len(endless[0]):,} characters; it counts as infinite",
            )
        )
    if "\ufffd" in text or clean != known or _CONTROL.search(value):
        repairs.append(
            Repair(TEXT, "the record had bytes or characters that no text may have; replaced")
        )
    return cast("dict[str, Any]", clean)


def _clean(value: Any) -> Any:
    """The same value with ``?`` for each lone surrogate."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {_clean(key): _clean(item) for key, item in value.items()}
    return value
