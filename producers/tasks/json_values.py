"""Inputs, results and kept values of tasks as JSON: pure."""

from __future__ import annotations

from typing import Any

import msgspec

from stepstream.schemas.task_common import MAX_JSON_BYTES


class NotJson(ValueError):
    """A value cannot be a task's input, result or kept value: the message has the reason."""


def to_json(value: Any, what: str) -> bytes:
    """A value as JSON. Dataclasses, pydantic models, dates and sets are converted.

    Raises ``NotJson``.
    """
    try:
        data = msgspec.json.encode(value, enc_hook=_converted)
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        raise NotJson(f"{what} is not JSON: {error}") from None
    if len(data) > MAX_JSON_BYTES:
        raise NotJson(
            f"{what} has {len(data):,} bytes of JSON, and at most {MAX_JSON_BYTES:,} are allowed: "
            "store it elsewhere and pass on where it is"
        )
    return data


def _converted(value: Any) -> Any:
    # pydantic is not imported here for a program that does not use it.
    dump = getattr(type(value), "model_dump", None)
    if dump is not None:
        return dump(value, mode="json")
    raise TypeError(f"objects of type {type(value).__name__} cannot be converted")
