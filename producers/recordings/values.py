"""Python values as JSON, and back, without running code that a recording names.

A tagged object ``{"$": TAG, "v": ...}`` stands for what JSON has no form of. Classes are
restored by name only if the program has already imported their module, and only pydantic models,
dataclasses and exceptions. Pickle is not used: a recording is a file that may come from others.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import decimal
import math
import pathlib
import sys
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final

from stepstream.schemas.redaction import redacted_value
from stepstream.schemas.secret_forms import REDACTED

MAX_DEPTH: Final = 60
# Values that share parts have a path for every combination of them: 30 lists that each contain the
# next one twice have 2**30.
MAX_VALUES: Final = 1_000_000
TAG: Final = "$"
_OPAQUE: Final = "opaque"

_TEXTS: Final[dict[type, tuple[str, Callable[[Any], str]]]] = {
    bytes: ("bytes", lambda value: base64.b64encode(value).decode()),
    decimal.Decimal: ("decimal", str),
    datetime.datetime: ("datetime", datetime.datetime.isoformat),
    datetime.date: ("date", datetime.date.isoformat),
    uuid.UUID: ("uuid", str),
    pathlib.PosixPath: ("path", str),
    pathlib.WindowsPath: ("path", str),
}
_FROM_TEXT: Final[dict[str, Callable[[str], Any]]] = {
    "bytes": base64.b64decode,
    "decimal": decimal.Decimal,
    "datetime": datetime.datetime.fromisoformat,
    "date": datetime.date.fromisoformat,
    "uuid": uuid.UUID,
    "path": pathlib.Path,
    "float": float,
}
_SEQUENCES: Final[dict[type, str]] = {tuple: "tuple", set: "set", frozenset: "frozenset"}
_FROM_SEQUENCE: Final[dict[str, Callable[[list[Any]], Any]]] = {
    name: kind for kind, name in _SEQUENCES.items()
}


class ValueLost(ValueError):
    """A value that cannot be restored; the message names it."""


class RecordedError(Exception):
    """An exception of a recorded call whose class cannot be restored; its text has the name."""


class _Walk:
    """Bounds the work on one value that is encoded."""

    __slots__ = ("left", "open")

    def __init__(self) -> None:
        self.left = MAX_VALUES
        # The ids of the values that the current one is in.
        self.open: set[int] = set()

    def refuses(self, value: Any) -> bool:
        return self.left < 0 or len(self.open) > MAX_DEPTH or id(value) in self.open


def encode(value: Any) -> Any:
    """The value as JSON. What has no form is opaque: it keeps the name of its class only.

    So does a value that contains itself, and what exceeds ``MAX_DEPTH`` or ``MAX_VALUES``.
    """
    return _encoded(value, _Walk())


def _encoded(value: Any, walk: _Walk) -> Any:
    kind = type(value)
    walk.left -= 1
    if value is None or kind in {bool, int, str}:
        return value
    if kind is float:
        return value if math.isfinite(value) else {TAG: "float", "v": str(value)}
    if walk.refuses(value):
        return _opaque(kind)
    walk.open.add(id(value))
    try:
        return _encoded_parts(value, walk)
    finally:
        walk.open.discard(id(value))


def _encoded_parts(value: Any, walk: _Walk) -> Any:
    kind = type(value)
    if kind is list:
        return [_encoded(one, walk) for one in value]
    if kind is dict:
        return _encoded_dict(value, walk)
    if (as_text := _TEXTS.get(kind)) is not None:
        return {TAG: as_text[0], "v": as_text[1](value)}
    if (name := _SEQUENCES.get(kind)) is not None:
        found = [_encoded(one, walk) for one in value]
        # A set has no order of its own, and equal sets must have equal keys.
        return {TAG: name, "v": found if kind is tuple else sorted(found, key=repr)}
    return _encoded_object(value, walk)


def opaque_in(encoded: Any) -> str:
    """The class of the first opaque value in an encoded one; empty if there is none."""
    if isinstance(encoded, dict):
        if encoded.get(TAG) == _OPAQUE:
            return str(encoded.get("class", "an unknown class"))
        found = map(opaque_in, encoded.values())
    elif isinstance(encoded, list):
        found = map(opaque_in, encoded)
    else:
        return ""
    return next(filter(None, found), "")


def encode_error(error: BaseException) -> Any:
    """An exception: its class, arguments and plain attributes."""
    plain = {
        name: coded
        for name, value in vars(error).items()
        if not name.startswith("_") and not opaque_in(coded := encode(value))
    }
    args = [
        {TAG: _OPAQUE, "class": lost} if (lost := opaque_in(coded := encode(one))) else coded
        for one in error.args
    ]
    return {
        "class": _class_name(type(error)),
        "text": str(error),
        "args": args,
        "fields": plain,
    }


def decode_error(encoded: Mapping[str, Any]) -> BaseException:
    """The exception, of its own class where the program has imported it."""
    kind = _class_of(str(encoded["class"]))
    text = f"{encoded['class']}: {encoded['text']}"
    if kind is None or not issubclass(kind, Exception):
        return RecordedError(text)
    try:
        args = tuple(map(decode, encoded["args"]))
        fields = {name: decode(value) for name, value in encoded["fields"].items()}
        # Without its constructor, which may take other arguments than those that it stores.
        error = kind.__new__(kind, *args)
        error.args = args
        error.__dict__.update(fields)
    except Exception:  # whatever a class of the program raises: the text is still served
        return RecordedError(text)
    return error


def decode(encoded: Any) -> Any:
    """The value. Raises ``ValueLost``."""
    if isinstance(encoded, list):
        return [decode(one) for one in encoded]
    if not isinstance(encoded, dict):
        return encoded
    tag = encoded.get(TAG)
    if tag is None:
        return {name: decode(one) for name, one in encoded.items()}
    try:
        return _decoded(tag, encoded)
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        if isinstance(error, ValueLost):
            raise
        raise ValueLost(f"a value of the form {tag!r} cannot be restored: {error}") from None


def redacted(encoded: Any, hook: Callable[[str], str] | None) -> Any:
    """The encoded value without known forms of secrets, then with ``hook`` applied to its texts."""
    value = redacted_value(encoded)
    return value if hook is None else _hooked(value, hook)


def _hooked(value: Any, hook: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        try:
            return hook(value)
        except Exception:  # a text on which the hook fails is withheld, as in steps
            return REDACTED
    if isinstance(value, dict):
        # Not the tags and classes of values, without which nothing could be restored.
        kept = {TAG, "class"} if TAG in value or "args" in value else set()
        return {name: one if name in kept else _hooked(one, hook) for name, one in value.items()}
    if isinstance(value, list):
        return [_hooked(one, hook) for one in value]
    return value


def _decoded(tag: str, encoded: Mapping[str, Any]) -> Any:
    if tag in _FROM_TEXT:
        return _FROM_TEXT[tag](encoded["v"])
    if tag in _FROM_SEQUENCE:
        return _FROM_SEQUENCE[tag]([decode(one) for one in encoded["v"]])
    if tag == "dict":
        return {decode(name): decode(one) for name, one in encoded["v"]}
    if tag == _OPAQUE:
        raise ValueLost(f"a value of class {encoded['class']} has no recorded form")
    kind = _class_of(encoded["class"])
    if kind is None:
        raise ValueLost(f"its class {encoded['class']} is not imported by the program")
    if tag == "model" and hasattr(kind, "model_validate"):
        return kind.model_validate(decode(encoded["v"]))
    if tag == "dataclass" and dataclasses.is_dataclass(kind):
        made = object.__new__(kind)
        for name, one in encoded["v"].items():
            object.__setattr__(made, name, decode(one))
        return made
    raise ValueLost(f"{tag!r} is no form of a value")


def _encoded_dict(value: dict[Any, Any], walk: _Walk) -> Any:
    if all(type(name) is str for name in value) and TAG not in value:
        return {name: _encoded(one, walk) for name, one in value.items()}
    pairs = [[_encoded(name, walk), _encoded(one, walk)] for name, one in value.items()]
    return {TAG: "dict", "v": pairs}


def _encoded_object(value: Any, walk: _Walk) -> Any:
    kind = type(value)
    try:
        if callable(getattr(kind, "model_dump", None)) and hasattr(kind, "model_validate"):
            dumped = _encoded(value.model_dump(), walk)
            return {TAG: "model", "class": _class_name(kind), "v": dumped}
        if dataclasses.is_dataclass(kind):
            fields = {
                one.name: _encoded(getattr(value, one.name), walk)
                for one in dataclasses.fields(kind)
            }
            return {TAG: "dataclass", "class": _class_name(kind), "v": fields}
    except Exception:  # whatever the program's class raises while it is read
        return _opaque(kind)
    if isinstance(value, str):  # also members of string enumerations
        return str.__str__(value)
    return _opaque(kind)


def _opaque(kind: type) -> Any:
    return {TAG: _OPAQUE, "class": _class_name(kind)}


def _class_name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _class_of(name: str) -> type | None:
    """The class, if its module is imported already: a recording must not cause imports."""
    module_name, _, path = name.partition(":")
    found: Any = sys.modules.get(module_name)
    for part in path.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, type) else None
