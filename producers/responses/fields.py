"""Reads fields of model answers, from objects and dictionaries alike.

No client library is imported, and no code of the objects runs.
"""

from __future__ import annotations

import json
from enum import Enum
from typing import Any, Final

from stepstream.producers.values.inspection import field_of

MOST_DIGITS: Final = 40


def get(source: Any, *names: str) -> Any:
    """The first of the named fields that is present and not None; None if there is none."""
    if source is None:
        return None
    for name in names:
        value = field_of(source, name)
        if value is not None:
            return value
    return None


def first_of(*values: Any) -> Any:
    """The first value that is neither None nor an empty dictionary; None if there is none.

    The truth value of an object is not used, because that would run its code.
    """
    for value in values:
        if value is not None and not (is_a(value, dict) and not dict.__len__(value)):
            return value
    return None


def is_a(value: Any, kind: Any) -> bool:
    """True if the value's own type is one of ``kind``. Unlike ``isinstance`` it runs no code."""
    return issubclass(type(value), kind)


def text_of(source: Any, *names: str) -> str:
    """The first of the named fields that is a non-empty text; empty if there is none."""
    if source is None:
        return ""
    for name in names:
        value = field_of(source, name)
        if type(value) is str:
            if value:
                return value
        elif is_a(value, str) and str.__len__(value):
            return str.__str__(value)
    return ""


def items_of(source: Any, *names: str) -> list[Any]:
    """The items of a field that is a list or tuple; empty if it is not."""
    value = get(source, *names)
    for kind in (list, tuple):
        if is_a(value, kind):
            # The method of the base type: a subclass may have an __iter__ with side effects.
            return list(kind.__iter__(value))
    return []


def word_of(source: Any, *names: str) -> str:
    """A field that is text or an enum member: its value as text."""
    value = get(source, *names)
    if is_a(value, Enum):
        value = field_of(value, "_value_")
    return str.__str__(value) if is_a(value, str) else ""


def name_of(value: Any) -> str:
    """A text as it is, the name of an enum member; empty for anything else."""
    if is_a(value, Enum):
        return text_of(value, "_name_")
    return str.__str__(value) if is_a(value, str) else ""


def parsed(arguments: Any) -> Any:
    """The arguments of a call: parsed if they are JSON text, otherwise unchanged."""
    if is_a(arguments, dict):
        return dict(dict.items(arguments))
    if not is_a(arguments, str):
        return arguments
    text = str.__str__(arguments)
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def whole_number(text: Any) -> int | None:
    """The number in a text of ASCII digits; None for anything else."""
    if not is_a(text, str):
        return None
    plain = str.__str__(text)
    return (
        # int() of a long text takes quadratic time.
        int(plain) if plain.isascii() and plain.isdecimal() and len(plain) <= MOST_DIGITS else None
    )
