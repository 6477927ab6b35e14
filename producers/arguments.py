"""Arguments of tools, judged before the tool is called: by a pydantic model or type, or by a JSON Schema."""

from __future__ import annotations

from typing import Any, Final

from stepstream.producers.guard import complaints
from stepstream.producers.stops import ArgumentsRefused

MOST_PROBLEMS: Final = 5


def refuse(tool: str, schema: Any, arguments: Any) -> None:
    """Raise ``ArgumentsRefused`` where the schema does not allow the arguments."""
    found = problems(schema, {} if arguments is None else arguments)
    if found:
        raise ArgumentsRefused(tool, found)


def problems(schema: Any, arguments: Any) -> list[str]:
    """What is wrong with the arguments, in words; at most five, empty where all is well or the schema cannot be used."""
    if isinstance(schema, dict):
        return _by_json_schema(schema, arguments)
    try:
        from pydantic import TypeAdapter, ValidationError
    except ImportError:  # it is one of our own dependencies
        return []
    try:
        TypeAdapter(schema).validate_python(arguments)
    except ValidationError as error:
        return [_told(one) for one in error.errors(include_url=False, include_input=False)[:MOST_PROBLEMS]]
    except Exception as error:
        complaints.say("schema", f"stepstream: {schema!r:.80} is no schema that arguments can be judged by: {error}")
    return []


def schema_name(schema: Any) -> str:
    """What the step says of its schema."""
    return str(schema.get("title") or schema.get("name") or "json-schema") if isinstance(schema, dict) else schema_title(schema)


def schema_title(schema: Any) -> str:
    """The name of a model or type."""
    return str(getattr(schema, "__name__", schema))[:200]


def _by_json_schema(schema: dict[str, Any], arguments: Any) -> list[str]:
    from stepstream.schemas.json_schema import ToolSchema

    try:
        return ToolSchema(schema).errors(arguments)
    except Exception as error:
        complaints.say("schema", f"stepstream: a JSON Schema of a tool cannot be used: {error!r:.200}")
        return []


def _told(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    return f"{where}: {error['msg']}" if where else str(error["msg"])
