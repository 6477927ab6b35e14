"""A quick test that arguments fit a JSON Schema of the usual form.

``ToolSchema`` explains what is wrong and knows more of JSON Schema; it takes 25 us for four
arguments. This test takes 2 us: each part of the schema becomes a function once. It is true only
for what ``ToolSchema`` finds nothing wrong with, and false where it does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from stepstream.schemas.json_schema import MAX_CHECKS, parameters_of

Test = Callable[[Any], bool]
MAX_ITEMS: Final = 50
"""Items of a list that ``ToolSchema`` checks."""
_KNOWN: Final = frozenset(
    {"type", "properties", "required", "additionalProperties", "items", "minimum", "maximum",
     "minLength", "maxLength", "title", "description", "default", "$schema"}
)  # fmt: skip
_EXACT: Final[dict[str, frozenset[type]]] = {
    "string": frozenset({str}),
    "boolean": frozenset({bool}),
    "integer": frozenset({int}),
    "number": frozenset({int, float}),
    "null": frozenset({type(None)}),
}


def quick_test(declared: Any) -> Test:
    """The test for a schema in any form in which tools are declared; never true for one that has
    other keywords.
    """
    try:
        parts = [0]
        test = _test(parameters_of(declared), 0, parts, top=True)
    except _Unknown:
        return _unknown
    # ToolSchema stops after MAX_CHECKS: what it would not reach is not to be compared.
    return test if parts[0] * MAX_ITEMS <= MAX_CHECKS or parts[0] < MAX_ITEMS else _unknown


class _Unknown(Exception):
    """The schema has a keyword, or a value of one, that the quick test does not know."""


def _unknown(_value: Any) -> bool:
    return False


def _test(schema: Any, depth: int, parts: list[int], *, top: bool = False) -> Test:
    parts[0] += 1
    if not isinstance(schema, dict) or not _KNOWN.issuperset(schema) or depth > 8:
        raise _Unknown
    kind = schema.get("type")
    if kind == "object" or (kind is None and top):
        return _object_test(schema, depth, parts, top)
    if kind == "array":
        return _list_test(schema, depth, parts)
    if kind not in _EXACT:
        raise _Unknown
    types = _EXACT[kind]
    low, high = _bounds(schema, kind)
    if kind == "string":
        return lambda value: type(value) is str and low <= len(value) <= high
    if low == -_ENDLESS and high == _ENDLESS:
        return lambda value: type(value) in types
    return lambda value: type(value) in types and low <= value <= high


_ENDLESS: Final = float("inf")


def _bounds(schema: Mapping[str, Any], kind: str) -> tuple[float, float]:
    names = ("minLength", "maxLength") if kind == "string" else ("minimum", "maximum")
    found = []
    for name, endless in zip(names, (-_ENDLESS, _ENDLESS), strict=True):
        bound = schema.get(name, endless)
        if not isinstance(bound, int | float) or isinstance(bound, bool):
            raise _Unknown
        found.append(bound)
    return found[0], found[1]


def _list_test(schema: Mapping[str, Any], depth: int, parts: list[int]) -> Test:
    if "items" not in schema:
        return lambda value: type(value) is list
    test = _test(schema["items"], depth + 1, parts)

    def fits(value: Any) -> bool:
        if type(value) is not list or len(value) > MAX_ITEMS:
            return False
        return all(map(test, value))

    return fits


def _object_test(schema: Mapping[str, Any], depth: int, parts: list[int], top: bool) -> Test:
    properties = schema.get("properties")
    required = schema.get("required", [])
    more = schema.get("additionalProperties", not top)
    if not (isinstance(properties, dict) and isinstance(required, list) and more in (True, False)):
        raise _Unknown
    needed = frozenset(name for name in required if isinstance(name, str))
    tests = {name: _test(part, depth + 1, parts) for name, part in properties.items()}

    def fits(value: Any) -> bool:
        if type(value) is not dict or not needed <= value.keys():
            return False
        for name, item in value.items():
            test = tests.get(name)
            if test is None:
                if not more:
                    return False
            elif not test(item):
                return False
        return True

    return fits
