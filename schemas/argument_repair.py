"""Arguments changed so that they fit a JSON Schema, where the schema itself states how.

A missing argument gets its ``default``, a number is moved to the bound that it exceeds, a text that
is a number or true or false is converted, and an argument that is not declared is left out. The
arguments of a call are repaired, not what is nested in them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from stepstream.schemas.json_schema import parameters_of

_WORDS: Final = {"true": True, "false": False}
_DIGITS: Final = 30
"""A longer text is not converted to a number."""


def repaired(schema: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments as far as they can be repaired; whether they fit is to be checked again."""
    declared = parameters_of(schema)
    properties = declared.get("properties")
    if not isinstance(properties, dict):
        return dict(arguments)
    is_open = bool(declared.get("additionalProperties", False))
    made = {
        name: _value(properties.get(name), value)
        for name, value in arguments.items()
        if name in properties or is_open
    }
    for name, part in properties.items():
        if name not in made and isinstance(part, dict) and "default" in part:
            made[name] = part["default"]
    return made


def _value(schema: Any, value: Any) -> Any:
    if not isinstance(schema, dict):
        return value
    kind = schema.get("type")
    if isinstance(value, str):
        value = _converted(kind, value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _bounded(schema, value)
    return value


def _converted(kind: Any, text: str) -> Any:
    stripped = text.strip()
    if kind == "boolean":
        return _WORDS.get(stripped.lower(), text)
    if kind not in ("integer", "number") or len(stripped) > _DIGITS:
        return text
    try:
        number = float(stripped)
    except ValueError:
        return text
    if not math.isfinite(number):
        return text
    return int(number) if number.is_integer() and (kind == "integer" or "." not in text) else number


def _bounded(schema: Mapping[str, Any], value: float) -> float:
    for name, choose in (("minimum", max), ("maximum", min)):
        bound: Any = schema.get(name)
        if isinstance(bound, int | float) and not isinstance(bound, bool):
            value = choose(value, bound)
    return value
