"""Checks a call's arguments against the tool's schema: the part of JSON Schema that tools use.

Not a library, because schemas come from agents: nothing is fetched (references lead only into the
schema itself), no code is generated, no regular expression is run, and the work is bounded
(``MAX_CHECKS``). Checked are type, enum, const, required, properties, additionalProperties, items,
bounds of numbers, texts and lists, anyOf, oneOf and allOf; other keywords are ignored. A parameter
that is not declared is an error unless additionalProperties allows it.
"""

from __future__ import annotations

from typing import Any, Final

from stepstream.schemas.suggestions import nearest_name

MAX_CHECKS: Final = 500
MAX_DEPTH: Final = 24
_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "null": (type(None),),
    "integer": (int,),
    "number": (int, float),
}


class ToolSchema:
    """The schema of one tool's arguments, in any of the forms in which tools are declared."""

    def __init__(self, declared: Any) -> None:
        self._root = parameters_of(declared)
        self._left = 0

    @property
    def is_empty(self) -> bool:
        """Whether it has nothing that can be checked."""
        return not self._root

    def errors(self, arguments: Any) -> list[str]:
        """What is wrong with the arguments, in words; at most five."""
        # Schemas come from agents: nested choices would take exponential time without a limit.
        self._left = MAX_CHECKS
        found: list[str] = []
        self._check(self._root, arguments, "", found, 0, top=True)
        return found[:5]

    def _check(
        self, schema: Any, value: Any, at: str, found: list[str], depth: int, *, top: bool = False
    ) -> None:
        self._left -= 1
        if not isinstance(schema, dict) or self._left < 0 or depth > MAX_DEPTH or len(found) >= 5:
            if schema is False:
                found.append(f"{_name(at)} must not be given")
            return
        schema = self._resolve(schema)
        if value is None and schema.get("nullable") is True:
            return
        if not self._check_type(schema, value, at, found):
            return
        self._check_value(schema, value, at, found)
        if isinstance(value, dict):
            self._check_object(schema, value, at, found, depth, top)
        elif isinstance(value, list):
            self._check_list(schema, value, at, found, depth)
        self._check_choices(schema, value, at, found, depth)

    def _resolve(self, schema: dict[str, Any]) -> dict[str, Any]:
        # References may form a circle.
        for _ in range(MAX_DEPTH):
            # Only references within the schema: others would have to be fetched.
            reference = schema.get("$ref")
            if not isinstance(reference, str) or not reference.startswith("#/"):
                return schema
            target: Any = self._root
            for part in reference[2:].split("/"):
                target = (
                    target.get(part.replace("~1", "/").replace("~0", "~"))
                    if isinstance(target, dict)
                    else None
                )
            if not isinstance(target, dict):
                return {}
            schema = target
        return {}

    def _check_type(self, schema: dict[str, Any], value: Any, at: str, found: list[str]) -> bool:
        wanted = schema.get("type")
        names = [wanted] if isinstance(wanted, str) else wanted if isinstance(wanted, list) else []
        names = [name for name in names if isinstance(name, str)]
        if not names or any(name not in _TYPES or _is_of(name, value) for name in names):
            return True
        found.append(f"{_name(at)} must be {' or '.join(names)}, not {_kind(value)}")
        return False

    def _check_value(self, schema: dict[str, Any], value: Any, at: str, found: list[str]) -> None:
        allowed = schema.get("enum")
        if (
            isinstance(allowed, list)
            and allowed
            and not any(_equal(value, item) for item in allowed)
        ):
            listed = ", ".join(str(item) for item in allowed[:6])
            found.append(f"{_name(at)} must be one of {listed}, not {_short(value)}")
        if "const" in schema and not _equal(value, schema["const"]):
            found.append(f"{_name(at)} must be {_short(schema['const'])}")
        if isinstance(value, int | float) and not isinstance(value, bool):
            self._check_bounds(
                value,
                schema,
                at,
                found,
                ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
                "",
            )
        elif isinstance(value, str):
            self._check_bounds(
                len(value), schema, at, found, ("minLength", "maxLength"), "length of "
            )
        elif isinstance(value, list):
            self._check_bounds(
                len(value), schema, at, found, ("minItems", "maxItems"), "length of "
            )

    def _check_bounds(
        self,
        value: float,
        schema: dict[str, Any],
        at: str,
        found: list[str],
        names: tuple[str, ...],
        what: str,
    ) -> None:
        for name in names:
            bound = schema.get(name)
            if not isinstance(bound, int | float) or isinstance(bound, bool):
                continue
            exclusive = name.startswith("exclusive")
            lower = "min" in name.lower()
            wrong = value < bound if lower else value > bound
            if wrong or (exclusive and value == bound):
                side = (
                    ("more than" if exclusive else "at least")
                    if lower
                    else ("less than" if exclusive else "at most")
                )
                found.append(f"{what}{_name(at)} must be {side} {bound}, not {value}")

    def _check_object(
        self,
        schema: dict[str, Any],
        value: dict[str, Any],
        at: str,
        found: list[str],
        depth: int,
        top: bool,
    ) -> None:
        required = schema.get("required")
        missing = [
            name for name in _list_of(required) if isinstance(name, str) and name not in value
        ]
        found += [f"{_name(_join(at, name))} is missing" for name in missing]
        properties = schema.get("properties")
        more = schema.get("additionalProperties")
        if not isinstance(properties, dict):
            if properties is not None or not isinstance(more, dict | bool):
                return
            properties = {}
        # These may allow further names, which this check does not evaluate.
        patterned = (
            "patternProperties" in schema
            or "allOf" in schema
            or "anyOf" in schema
            or "oneOf" in schema
        )
        for name, item in value.items():
            if name in properties:
                self._check(properties[name], item, _join(at, name), found, depth + 1)
            elif isinstance(more, dict):
                self._check(more, item, _join(at, name), found, depth + 1)
            elif (more is False or (more is None and top)) and not patterned:
                found.append(_unknown(name, at, list(properties)))

    def _check_list(
        self, schema: dict[str, Any], value: list[Any], at: str, found: list[str], depth: int
    ) -> None:
        items = schema.get("items")
        if isinstance(items, dict):
            # Errors repeat in every item; the first 50 show them.
            for number, item in enumerate(value[:50]):
                self._check(items, item, f"{at}[{number}]", found, depth + 1)

    def _check_choices(
        self, schema: dict[str, Any], value: Any, at: str, found: list[str], depth: int
    ) -> None:
        for part in _list_of(schema.get("allOf")):
            self._check(part, value, at, found, depth + 1)
        for word in ("anyOf", "oneOf"):
            choices = _list_of(schema.get(word))
            if not choices:
                continue
            fitting = 0
            for choice in choices:
                wrong: list[str] = []
                self._check(choice, value, at, wrong, depth + 1)
                fitting += not wrong
            # With the budget of checks used up, a choice was not checked to its end.
            if self._left >= 0 and (not fitting or (word == "oneOf" and fitting > 1)):
                found.append(
                    f"{_name(at)} fits {'more than one' if fitting else 'none'} of the forms it "
                    "may have"
                )


def parameters_of(declared: Any) -> dict[str, Any]:
    """The schema of the arguments: out of a declaration as model providers take it, or a table of
    parameters.
    """
    for _ in range(3):
        if not isinstance(declared, dict):
            return {}
        for name in (
            "function",
            "parameters",
            "input_schema",
            "inputSchema",
            "json_schema",
            "schema",
        ):
            if isinstance(declared.get(name), dict) and declared.get("type") in (
                None,
                "function",
                name,
            ):
                declared = declared[name]
                break
        else:
            break
    if not isinstance(declared, dict) or not declared:
        return {}
    parts = list(declared.values())
    if "properties" not in declared and all(
        isinstance(part, dict) and "type" in part for part in parts
    ):
        return {"type": "object", "properties": declared, "additionalProperties": False}
    return declared


def _is_of(name: str, value: Any) -> bool:
    # In Python a bool is an int, in JSON it is not a number.
    if isinstance(value, bool):
        return name == "boolean"
    if name == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[name])


def _equal(one: Any, other: Any) -> bool:
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _list_of(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _kind(value: Any) -> str:
    for name in ("boolean", "integer", "number", "string", "object", "array"):
        if _is_of(name, value):
            return f"{name} {_short(value)}" if name not in ("object", "array") else name
    return "null"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _join(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name


def _name(at: str) -> str:
    return repr(at) if at else "what was given"


def _unknown(name: str, at: str, known: list[str]) -> str:
    near = nearest_name(name, known)
    hint = (
        f"; did it mean {near!r}?"
        if near
        else f" (it has {', '.join(known[:6])})"
        if known
        else " (it has none)"
    )
    return f"there is no parameter {_join(at, name)!r}{hint}"
