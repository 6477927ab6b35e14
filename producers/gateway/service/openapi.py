"""The OpenAPI description of the gateway, published at ``/openapi.json``.

Written by hand, because generators that read the code cannot describe protobuf bodies and
backpressure.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, get_args

from stepstream.producers.gateway.otlp.answers import JSON, PROTOBUF
from stepstream.producers.gateway.service.control import ACTIONS
from stepstream.schemas.step import StepEvent
from stepstream.schemas.task_common import (
    MAX_AFTER,
    MAX_ATTEMPTS,
    MAX_JSON_BYTES,
    MAX_NAME_CHARS,
    MAX_PRIORITY,
    MAX_TASK_ID_CHARS,
    OnBusy,
)

PATH: Final = "/openapi.json"
_RETRY: Final = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "string"}}}
_ERROR: Final = {
    "type": "object",
    "properties": {"error": {"type": "string"}, "code": {"type": "string"}},
    "required": ["error", "code"],
}
_STATUS: Final = {
    "type": "object",
    "description": "google.rpc.Status",
    "properties": {"code": {"type": "integer"}, "message": {"type": "string"}},
}
_REASONS: Final = {
    "400": "The body cannot be used; sent again, it is refused again.",
    "401": "The key is missing or wrong.",
    "403": "The key does not allow this, or a web page has sent it.",
    "404": "There is nothing at this path.",
    "409": "The id is that of another task.",
    "408": "The body did not come in time.",
    "413": "The body is too large.",
    "415": "The Content-Type or the Content-Encoding is not known.",
    "429": "The project sends faster than it may: try again later.",
    "503": "Nothing was acknowledged: try again later.",
}


def _errors(*statuses: str, otlp: bool = False) -> dict[str, Any]:
    """The answers that are errors; before a request is routed they have our own form."""
    schema = {"anyOf": [_STATUS, _ERROR]} if otlp else _ERROR
    content: dict[str, Any] = {JSON: {"schema": schema}}
    if otlp:
        content[PROTOBUF] = {"schema": {"type": "string", "format": "binary"}}
    return {
        status: {
            "description": _REASONS[status],
            "content": content,
            **({"headers": _RETRY} if status in ("429", "503") else {}),
        }
        for status in statuses
    }


def _otlp(signal: str, rejected: str) -> dict[str, Any]:
    partial = {
        "type": "object",
        "properties": {
            "partialSuccess": {
                "type": "object",
                "properties": {
                    rejected: {"type": "string"},
                    "errorMessage": {"type": "string"},
                },
            }
        },
    }
    binary = {"schema": {"type": "string", "format": "binary"}}
    return {
        "post": {
            "operationId": f"export_{signal}",
            "summary": f"OTLP {signal}; answered when Kafka has acknowledged them.",
            "requestBody": {
                "required": True,
                "content": {PROTOBUF: binary, JSON: {"schema": {"type": "object"}}},
            },
            "responses": {
                "200": {
                    "description": "All or some items were taken; the body counts the others.",
                    "content": {JSON: {"schema": partial}, PROTOBUF: binary},
                },
                **_errors("400", "401", "403", "408", "413", "415", "429", "503", otlp=True),
            },
        }
    }


def _steps() -> dict[str, Any]:
    step = {"$ref": "#/components/schemas/StepEvent"}
    answer = {
        "type": "object",
        "properties": {
            "accepted": {"type": "integer"},
            "rejected": {"type": "integer"},
            "error": {"type": "string"},
            "code": {"type": "string"},
            "rejections": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"reason": {"type": "string"}, "detail": {"type": "string"}},
                },
            },
        },
    }
    return {
        "post": {
            "operationId": "send_steps",
            "summary": "Steps as JSON: an object, a list, or one object a line.",
            "requestBody": {
                "required": True,
                "content": {
                    JSON: {"schema": {"oneOf": [step, {"type": "array", "items": step}]}},
                    "application/x-ndjson": {"schema": {"type": "string"}},
                },
            },
            "responses": {
                "200": {
                    "description": "At least one step was taken.",
                    "content": {JSON: {"schema": answer}},
                },
                **_errors("400", "401", "403", "408", "413", "415", "429", "503"),
            },
        }
    }


def _control() -> dict[str, Any]:
    run = {
        "name": "trace_id",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": "^[0-9a-fA-F]{32}$"},
    }
    return {
        "post": {
            "operationId": "command_run",
            "summary": "Stop, pause, resume or warn a run; needs a key with the scope act.",
            "parameters": [run],
            **_command("by", "reason", "budget_usd"),
        }
    }


def _command(*fields: str) -> dict[str, Any]:
    """The body and the answers of a request that sends a command."""
    text = {"type": "string", "maxLength": 1000}
    schema = {
        "type": "object",
        "properties": {"action": {"enum": list(ACTIONS)}, **dict.fromkeys(fields, text)},
        "required": ["action"],
    }
    return {
        "requestBody": {"required": True, "content": {JSON: {"schema": schema}}},
        "responses": {
            "202": {
                "description": "Kafka has the command.",
                "content": {JSON: {"schema": {"type": "object"}}},
            },
            **_errors("400", "401", "403", "404", "413", "503"),
        },
    }


def _stream() -> dict[str, Any]:
    names = ("project", "agent", "trace_id", "guardrails")
    return {
        "post": {
            "operationId": "command_runs",
            "summary": "Stop, pause, resume or warn all runs of an agent or project; needs a key "
            "with the scope act.",
            **_command("by", "reason", "project", "agent", "environment", "for"),
        },
        "get": {
            "operationId": "follow_commands",
            "summary": "Commands as server-sent events, for agents without a route to Kafka; with "
            "guardrails=1 also the guardrails of policies.",
            "parameters": [
                {"name": name, "in": "query", "schema": {"type": "string"}} for name in names
            ],
            "responses": {
                "200": {
                    "description": "Events named command (and guardrail, guardrails-begin and "
                    "guardrails-end), until the client leaves.",
                    "content": {"text/event-stream": {"schema": {"type": "string"}}},
                },
                **_errors("401", "403", "503"),
            },
        },
    }


def _release() -> dict[str, Any]:
    etag = {"ETag": {"description": "The release's hash.", "schema": {"type": "string"}}}
    text = {"type": "string", "minLength": 1}
    return {
        "get": {
            "operationId": "read_release",
            "summary": "The release that a label, version or hash names; needs the scope releases.",
            "parameters": [
                *(
                    {"name": name, "in": "path", "required": True, "schema": text}
                    for name in ("agent", "name")
                ),
                {"name": "If-None-Match", "in": "header", "schema": {"type": "string"}},
            ],
            "responses": {
                "200": {
                    "description": "The release.",
                    "headers": etag,
                    "content": {JSON: {"schema": {"type": "object"}}},
                },
                "304": {"description": "It is the one that If-None-Match names."},
                **_errors("401", "403", "404", "503"),
            },
        }
    }


_TASK_ID: Final = {
    "name": "task_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "minLength": 1, "maxLength": MAX_TASK_ID_CHARS},
}
_PROJECT: Final = {"name": "project", "in": "query", "schema": {"type": "string"}}


def _tasks() -> dict[str, Any]:
    text = {"type": "string", "maxLength": MAX_NAME_CHARS}
    duration = {"type": ["string", "number"], "description": "such as 30s; a number is seconds"}
    schema = {
        "type": "object",
        "properties": {
            **dict.fromkeys(_TASK_TEXTS, text),
            "agent": {**text, "minLength": 1},
            "input": {"description": f"any JSON value of at most {MAX_JSON_BYTES:,} bytes"},
            "priority": {"type": "integer", "minimum": 0, "maximum": MAX_PRIORITY},
            "delay": duration,
            "deadline": {
                "type": ["string", "number"],
                "description": "a duration from now on, or a time such as 2026-12-01T10:00:00Z",
            },
            "timeout": duration,
            "attempts": {"type": "integer", "minimum": 1, "maximum": MAX_ATTEMPTS},
            "budget_usd": {"type": ["string", "number"]},
            "after": {"type": "array", "items": text, "maxItems": MAX_AFTER},
            "on_busy": {"enum": list(get_args(OnBusy))},
        },
        "required": ["agent"],
    }
    return {
        "post": {
            "operationId": "submit_task",
            "summary": "Ask for a run of an agent by an executor; needs a key with the scope act.",
            "parameters": [
                {
                    "name": "Idempotency-Key",
                    "in": "header",
                    "description": "The task's id: sent again, it is the same task.",
                    "schema": {"type": "string", "minLength": 1, "maxLength": MAX_TASK_ID_CHARS},
                }
            ],
            "requestBody": {"required": True, "content": {JSON: {"schema": schema}}},
            "responses": {
                "202": {
                    "description": "Kafka has the task: it ends in exactly one final state.",
                    "content": {JSON: {"schema": _TASK_PLACE}},
                },
                **_errors("400", "401", "403", "408", "409", "413", "415", "503"),
            },
        }
    }


def _task() -> dict[str, Any]:
    return {
        "get": {
            "operationId": "read_task",
            "summary": "The task's newest state, a record of the topic taskstate.",
            "parameters": [
                _TASK_ID,
                _PROJECT,
                {
                    "name": "wait",
                    "in": "query",
                    "description": "Seconds to wait for the final state.",
                    "schema": {"type": "number", "minimum": 0, "maximum": 60},
                },
            ],
            "responses": {
                "200": {
                    "description": "The task.",
                    "content": {JSON: {"schema": {"type": "object"}}},
                },
                **_errors("400", "401", "403", "404", "503"),
            },
        }
    }


def _task_events() -> dict[str, Any]:
    return {
        "get": {
            "operationId": "follow_task",
            "summary": "The task's states as server-sent events, until the final one.",
            "parameters": [_TASK_ID, _PROJECT],
            "responses": {
                "200": {
                    "description": "Events named state, then one named result.",
                    "content": {"text/event-stream": {"schema": {"type": "string"}}},
                },
                **_errors("400", "401", "403", "404", "503"),
            },
        }
    }


def _task_command(name: str, summary: str) -> dict[str, Any]:
    text = {"type": "string", "maxLength": 500}
    schema = {"type": "object", "properties": dict.fromkeys(("reason", "by", "project"), text)}
    return {
        "post": {
            "operationId": f"{name}_task",
            "summary": summary,
            "parameters": [_TASK_ID],
            "requestBody": {"required": False, "content": {JSON: {"schema": schema}}},
            "responses": {
                "202": {
                    "description": "Kafka has the command.",
                    "content": {JSON: {"schema": _TASK_PLACE}},
                },
                **_errors("400", "401", "403", "408", "413", "503"),
            },
        }
    }


_TASK_PLACE: Final = {
    "type": "object",
    "properties": {"task_id": {"type": "string"}, "project": {"type": "string"}},
    "required": ["task_id", "project"],
}
_TASK_TEXTS: Final = (
    "project", "id", "version", "input_ref", "key", "environment", "user_id", "session_id",
)  # fmt: skip


def document() -> dict[str, Any]:
    try:
        release = version("stepstream")
    except PackageNotFoundError:
        release = "0"
    step = StepEvent.model_json_schema(ref_template="#/components/schemas/{model}")
    nested = step.pop("$defs", {})
    return {
        "openapi": "3.1.0",
        "info": {"title": "Stepstream gateway", "version": release},
        "security": [{}, {"key": []}, {"bearer": []}, {"basic": []}],
        "paths": {
            "/v1/traces": _otlp("traces", "rejectedSpans"),
            "/v1/logs": _otlp("logs", "rejectedLogRecords"),
            "/v1/metrics": _otlp("metrics", "rejectedDataPoints"),
            "/v1/steps": _steps(),
            "/v1/runs/{trace_id}/control": _control(),
            "/v1/control": _stream(),
            "/v1/releases/{agent}/{name}": _release(),
            "/v1/tasks": _tasks(),
            "/v1/tasks/{task_id}": _task(),
            "/v1/tasks/{task_id}/events": _task_events(),
            "/v1/tasks/{task_id}/cancel": _task_command(
                "cancel", "End a waiting task; stop a running one when its next step begins."
            ),
            "/v1/tasks/{task_id}/retry": _task_command(
                "retry", "Run a task again that has ended in another way than ok."
            ),
        },
        "components": {
            "schemas": {"StepEvent": step, **nested},
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic"},
            },
        },
    }
