"""The types of expressions, and what is done with values whose type is known only when they are
read: parts of a JSON value (``dyn``).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

BOOL: Final = "bool"
INT: Final = "int"
DOUBLE: Final = "double"
STRING: Final = "string"
COUNTS: Final = "map(string, int)"
DYN: Final = "dyn"
"""A JSON value: a text, a number, true, false, null, a list or an object."""

Read = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Variable:
    """A name of the language. ``read`` gets what the expression is evaluated on."""

    type: str
    read: Read
    meaning: str


Variables = Mapping[str, Variable]
"""By name: ``run.steps``, or ``args`` for one without a point."""


class NoValue(Exception):
    """An operation on a JSON value that has no result; the message has nothing of the data."""


def is_number(value: Any) -> bool:
    """In JSON true and false are no numbers; in Python they are."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def field(value: Any, name: Any) -> Any:
    """A field of an object, or an item of a list."""
    if isinstance(value, dict):
        if name in value:
            return value[name]
        raise NoValue(f"there is no {name}" if isinstance(name, str) else "there is no such field")
    if isinstance(value, list) and isinstance(name, int) and not isinstance(name, bool):
        if 0 <= name < len(value):
            return value[name]
        raise NoValue("an item beyond the end of a list")
    raise NoValue(f"{kind(value)} has no field" + (f" {name}" if isinstance(name, str) else ""))


def has_field(value: Any, name: str) -> bool:
    return isinstance(value, dict) and name in value


def equal(one: Any, other: Any) -> bool:
    """Values of different types are not equal; an int and a double may be."""
    if is_number(one) and is_number(other):
        return bool(one == other)
    return type(one) is type(other) and bool(one == other)


def unequal(one: Any, other: Any) -> bool:
    return not equal(one, other)


def contains(items: Any, item: Any) -> bool:
    if isinstance(items, list):
        return any(equal(one, item) for one in items)
    if isinstance(items, dict):
        return isinstance(item, str) and item in items
    raise NoValue(f"nothing is in {kind(items)}")


def items_of(value: Any) -> Any:
    """What a macro goes through: the items of a list, the names of an object."""
    if isinstance(value, list | dict):
        return value
    raise NoValue(f"{kind(value)} has no items")


def text(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise NoValue(f"{kind(value)} is no string")


def truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise NoValue(f"{kind(value)} is neither true nor false")


def size(value: Any) -> int:
    if isinstance(value, str | list | dict):
        return len(value)
    raise NoValue(f"{kind(value)} has no size")


def number(value: Any) -> int | float:
    """The number that a JSON value is, or that its text is. Raises ``ValueError`` for a text."""
    if isinstance(value, str):
        # A longer text is no number; int() needs quadratic time for its digits.
        return float(value[:400])
    if is_number(value):
        return value  # type: ignore[no-any-return]
    raise NoValue(f"{kind(value)} is no number")


def negated(value: Any) -> int | float:
    if is_number(value):
        return -value  # type: ignore[no-any-return]
    raise NoValue(f"{kind(value)} is no number")


def ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    """A comparison of two values by size: numbers, or texts."""

    def compared(one: Any, other: Any) -> bool:
        if (is_number(one) and is_number(other)) or (
            isinstance(one, str) and isinstance(other, str)
        ):
            return compare(one, other)
        raise NoValue(f"{kind(one)} and {kind(other)} cannot be compared")

    return compared


def computed(compute: Callable[[Any, Any], Any], sign: str) -> Callable[[Any, Any], Any]:
    """An operation on two numbers; ``+`` also joins two texts."""

    def result(one: Any, other: Any) -> Any:
        if is_number(one) and is_number(other):
            return compute(one, other)
        if sign == "+" and isinstance(one, str) and isinstance(other, str):
            return one + other
        raise NoValue(f"{kind(one)} and {kind(other)} have no {sign}")

    return result


def kind(value: Any) -> str:
    """A value's type in words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a bool"
    if is_number(value):
        return "a number"
    names: dict[Any, str] = {str: "a string", list: "a list", dict: "an object"}
    return names.get(type(value), "this value")


COMPARING: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "==": equal,
    "!=": unequal,
    "<": ordered(operator.lt),
    "<=": ordered(operator.le),
    ">": ordered(operator.gt),
    ">=": ordered(operator.ge),
}
