"""What documents and golden files contain about the step event, made from the models: ``python -m
tests.support.generated`` writes it.

Tests compare; nothing else in the project depends on this.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from stepstream.schemas.accept import CLAMPS, DEFAULT_LIMITS, MAX_NESTING, REASONS
from stepstream.schemas.content_limits import MAX_BYTES
from stepstream.schemas.partitioner import PARTITION_VECTORS
from stepstream.schemas.step import StepEvent
from tests.support.paths import ROOT

README: Final = ROOT / "schemas" / "README.md"
_MARKED = re.compile(
    r"<!-- begin (?P<name>[\w-]+) -->\n(?P<body>.*?)<!-- end (?P=name) -->", re.DOTALL
)

_PLAIN: Final = {
    bool: "boolean",
    str: "string",
    int: "integer",
    float: "number",
    Decimal: "decimal string",
}


def type_name(annotation: Any) -> str:
    """A field's type in JSON's words."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_name(args[0])
    if origin in (Union, types.UnionType):
        return " or ".join(type_name(arg) for arg in args if arg is not types.NoneType)
    if origin is list:
        return f"list of {type_name(args[0])}s"
    if origin is dict:
        return f"object of {type_name(args[1])}s"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "object"
    return _PLAIN[annotation]


def default_text(info: FieldInfo) -> str:
    """``required``, or the default as JSON has it; ``absent`` where there is none."""
    if info.is_required():
        return "required"
    if info.default_factory is not None:
        return "[]" if get_origin(info.annotation) is list else "{}"
    if info.default is None:
        return "absent"
    if isinstance(info.default, bool):
        return str(info.default).lower()
    return f'"{info.default}"' if isinstance(info.default, str) else str(info.default)


def flat_fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every field, those of objects inside as ``usage.input_tokens`` and ``documents[].id``."""
    for name, info in model.model_fields.items():
        yield prefix + name, info
        for inner in (info.annotation, *get_args(info.annotation)):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from flat_fields(
                    inner, f"{prefix}{name}{'[]' if get_origin(info.annotation) is list else ''}."
                )


def field_lines() -> list[str]:
    """The fields of the step event as the golden list has them: name, type, default."""
    return [
        f"{name}: {type_name(info.annotation)} = {default_text(info)}"
        for name, info in flat_fields(StepEvent)
    ]


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _code(text: str) -> str:
    return text if text in ("required", "absent") else f"`{text}`"


def _fields() -> str:
    rows = (
        (f"`{name}`", type_name(info.annotation), _code(default_text(info)), info.description or "")
        for name, info in flat_fields(StepEvent)
    )
    return _table(("field", "type", "default", "meaning"), rows)


def _vectors() -> str:
    rows = (
        (f"`{v.key}`" if v.key else "(empty)", f"`0x{v.murmur2:08x}`", str(v.of_4), str(v.of_12))
        for v in PARTITION_VECTORS
    )
    return _table(("key (UTF-8)", "murmur2", "of 4", "of 12"), rows)


def _limits() -> str:
    d = DEFAULT_LIMITS
    days = 1 / 86_400_000_000
    too_far = "rejected: `time_out_of_range`"
    rows = [
        (
            "a record's value",
            f"{d.max_record_bytes:,} bytes; more with `content_limits`",
            "rejected: `too_large`",
        ),
        (
            "`input`, `output`",
            f"{d.max_content_bytes:,} bytes of UTF-8 each; the setting `content_limits` allows "
            f"kinds of step up to {MAX_BYTES:,}",
            "cut; the size before is kept",
        ),
        ("`error_message`", f"{d.max_message_chars:,} characters", "cut"),
        ("every other name or id", f"{d.max_text_chars:,} characters", "cut"),
        (
            "`attributes`",
            f"{d.max_attributes} pairs; their texts are bounded by the record",
            "the first are kept",
        ),
        (
            "`documents`",
            f"{d.max_documents}; their texts are bounded by the record",
            "the first are kept",
        ),
        ("nesting of arrays and objects", f"{MAX_NESTING} levels", "rejected: `malformed_json`"),
        (
            "age of `start_time`",
            f"{d.max_age_us * days:.0f} days before the record's Kafka timestamp",
            too_far,
        ),
        ("`start_time`, `end_time` ahead", f"{d.max_future_us * days:.0f} day after it", too_far),
    ]
    return _table(("what", "at most", "beyond"), iter(rows))


def sections() -> dict[str, str]:
    """The generated sections of schemas/README.md, by the name in their markers."""
    return {
        "fields": _fields(),
        "vectors": _vectors(),
        "limits": _limits(),
        "reasons": _table(
            ("reason", "meaning"), ((f"`{slug}`", text) for slug, text in REASONS.items())
        ),
        "clamps": _table(
            ("clamp", "meaning"), ((f"`{slug}`", text) for slug, text in CLAMPS.items())
        ),
    }


def marked_sections(text: str) -> dict[str, str]:
    """What stands between ``<!-- begin NAME -->`` and ``<!-- end NAME -->``."""
    return {match["name"]: match["body"] for match in _MARKED.finditer(text)}


def refreshed(text: str) -> str:
    """The text with every marked section as it should be."""
    made = sections()
    return _MARKED.sub(
        lambda m: f"<!-- begin {m['name']} -->\n{made[m['name']]}<!-- end {m['name']} -->", text
    )


if __name__ == "__main__":
    README.write_text(refreshed(README.read_text()))
