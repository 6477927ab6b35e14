"""Checks a tool's arguments before the call: by a pydantic model, a type or a JSON Schema."""

from __future__ import annotations

from typing import Any, Final

from stepstream.producers.exceptions import ArgumentsRefused
from stepstream.producers.misuse import misuse, shown
from stepstream.producers.values.failures import message_of
from stepstream.producers.values.inspection import simple_name

MOST_PROBLEMS: Final = 5
_NAME_CHARS: Final = 200


def check(tool: str, schema: Any, arguments: Any) -> None:
    """Raise ``ArgumentsRefused`` if the schema does not allow the arguments."""
    found = problems(schema, {} if arguments is None else arguments)
    if found:
        raise ArgumentsRefused(tool, found)


def problems(schema: Any, arguments: Any) -> list[str]:
    """What is wrong with the arguments: at most five texts.

    Empty if nothing is wrong. A schema that cannot be used is logged as misuse and allows
    everything.
    """
    if issubclass(type(schema), dict):
        return _by_json_schema(schema, arguments)
    try:
        from pydantic import TypeAdapter, ValidationError
    except ImportError:  # an installation with a broken pydantic: the tool still runs
        return []
    try:
        TypeAdapter(schema).validate_python(arguments)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        return [_text(one) for one in found[:MOST_PROBLEMS]]
    except Exception as error:
        misuse(
            "schema",
            f"schema={shown(schema)} cannot be used: {message_of(error)}; "
            "write a pydantic model, a type or a JSON Schema",
        )
    return []


def schema_name(schema: Any) -> str:
    """The name of a schema, as the step's ``tool_schema``."""
    if not issubclass(type(schema), dict):
        return schema_title(schema)
    title = dict.get(schema, "title") or dict.get(schema, "name")
    return title if type(title) is str else "json-schema"


def schema_title(schema: Any) -> str:
    """The name of a model or type."""
    text = simple_name(schema) if issubclass(type(schema), type) else str(schema)
    return text[:_NAME_CHARS]


def _by_json_schema(schema: dict[str, Any], arguments: Any) -> list[str]:
    from stepstream.schemas.json_schema import ToolSchema

    try:
        return ToolSchema(dict(dict.items(schema))).errors(arguments)
    except Exception as error:
        misuse("schema", f"the JSON Schema of a tool cannot be used: {message_of(error)}")
        return []


def _text(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    return f"{where}: {error['msg']}" if where else str(error["msg"])
