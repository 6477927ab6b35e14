"""Arguments of tools, judged before the tool is called: by a pydantic model or type, or by a JSON Schema."""

from __future__ import annotations

from typing import Any, Final

from stepstream.producers.exceptions import ArgumentsRefused
from stepstream.producers.misuse import misuse, shown
from stepstream.producers.values.failures import message_of
from stepstream.producers.values.inspection import simple_name

MOST_PROBLEMS: Final = 5


def refuse(tool: str, schema: Any, arguments: Any) -> None:
    """Raise ``ArgumentsRefused`` where the schema does not allow the arguments."""
    found = problems(schema, {} if arguments is None else arguments)
    if found:
        raise ArgumentsRefused(tool, found)


def problems(schema: Any, arguments: Any) -> list[str]:
    """What is wrong with the arguments, in words; at most five, empty where all is well or the schema cannot be used."""
    if issubclass(type(schema), dict):
        return _by_json_schema(schema, arguments)
    try:
        from pydantic import TypeAdapter, ValidationError
    except ImportError:  # it is one of our own dependencies
        return []
    try:
        TypeAdapter(schema).validate_python(arguments)
    except ValidationError as error:
        return [
            _told(one)
            for one in error.errors(include_url=False, include_input=False)[:MOST_PROBLEMS]
        ]
    except Exception as error:
        misuse(
            "schema",
            f"schema={shown(schema)} cannot be used: {message_of(error)}; write a pydantic model, a type or a JSON Schema",
        )
    return []


def schema_name(schema: Any) -> str:
    """What the step says of its schema."""
    if not issubclass(type(schema), dict):
        return schema_title(schema)
    title = dict.get(schema, "title") or dict.get(schema, "name")
    return title if type(title) is str else "json-schema"


def schema_title(schema: Any) -> str:
    """The name of a model or type."""
    return (simple_name(schema) if issubclass(type(schema), type) else str(schema))[:200]


def _by_json_schema(schema: dict[str, Any], arguments: Any) -> list[str]:
    from stepstream.schemas.json_schema import ToolSchema

    try:
        return ToolSchema(dict(dict.items(schema))).errors(arguments)
    except Exception as error:
        misuse("schema", f"the JSON Schema of a tool cannot be used: {message_of(error)}")
        return []


def _told(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    return f"{where}: {error['msg']}" if where else str(error["msg"])
