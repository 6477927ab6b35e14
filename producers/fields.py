"""Fields of models' answers, read from objects and dictionaries alike. No library of theirs is imported."""

from __future__ import annotations

import json
from enum import Enum
from typing import Any

from stepstream.producers.foreign import field_of


def get(source: Any, *names: str) -> Any:
    """The first of the fields that is there; None where none is."""
    if source is None:
        return None
    for name in names:
        value = field_of(source, name)
        if value is not None:
            return value
    return None


def is_a(value: Any, kind: Any) -> bool:
    """Whether the value's own type is one of ``kind``: unlike ``isinstance`` it asks the value nothing."""
    return issubclass(type(value), kind)


def text_of(source: Any, *names: str) -> str:
    """The first of the fields that is text; empty where none is."""
    if source is None:
        return ""
    for name in names:
        value = field_of(source, name)
        if is_a(value, str) and value:
            return str(value)
    return ""


def items_of(source: Any, *names: str) -> list[Any]:
    """A field that is a list; empty where it is not."""
    value = get(source, *names)
    return list(value) if is_a(value, list | tuple) else []


def word_of(source: Any, *names: str) -> str:
    """A field that is text or a member of an enumeration: its value as text."""
    value = get(source, *names)
    if is_a(value, Enum):
        value = value.value
    return str(value) if is_a(value, str) else ""


def name_of(value: Any) -> str:
    """Text as it is, a member of an enumeration by its name; empty for anything else."""
    if is_a(value, Enum):
        return str(value.name)
    return str(value) if is_a(value, str) else ""


def parsed(arguments: Any) -> Any:
    """A call's arguments: JSON text as what it says, anything else as it is."""
    if not is_a(arguments, str):
        return dict(arguments) if is_a(arguments, dict) else arguments
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments
