"""How an attempt ended, and its result as JSON: pure."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from stepstream.producers.exceptions import BudgetExceeded, RunStopped
from stepstream.producers.tasks.json_values import NotJson, to_json
from stepstream.producers.values.failures import message_of, type_of
from stepstream.schemas.task_common import MAX_MESSAGE_CHARS, MAX_NAME_CHARS
from stepstream.schemas.task_messages import EndStatus

_REASON_CHARS: Final = 2_000


class Stop(NamedTuple):
    """Why an attempt is stopped: the status that it then ends with, and the reason in words."""

    status: EndStatus
    reason: str
    by: str = "executor"


class Outcome(NamedTuple):
    """The end of an attempt. ``result`` is JSON."""

    status: EndStatus
    result: bytes | None = None
    error_type: str = ""
    error_message: str = ""
    reason: str = ""
    side_effect_free: bool = False


def returned(result: Any) -> Outcome:
    """The outcome of a body that returned."""
    try:
        return Outcome("ok", to_json(result, "the result"))
    except NotJson as error:
        return Outcome("failed", error_type="NotJson", error_message=str(error))


def raised(error: BaseException, stop: Stop | None, causes: Sequence[str] = ()) -> Outcome:
    """The outcome of a body that raised. ``stop``: its attempt was stopped before.

    ``causes`` are those of the agent's ``Retry``: an error whose class or base class is among them
    is reported by that name.
    """
    named, message = type_of(error), message_of(error)
    listed = next((kind.__name__ for kind in type(error).__mro__ if kind.__name__ in causes), "")
    if listed:
        named, message = (
            listed,
            message if listed == type(error).__name__ else f"{named}: {message}",
        )
    named, message = named[:MAX_NAME_CHARS], message[:MAX_MESSAGE_CHARS]
    if stop is not None:
        return Outcome(
            stop.status, error_type=named, error_message=message, reason=stop.reason[:_REASON_CHARS]
        )
    if isinstance(error, RunStopped) and not isinstance(error, BudgetExceeded):
        # A person or a policy stopped the run: running it again would undo that.
        return Outcome(
            "cancelled", error_type=named, error_message=message, reason=str(error)[:_REASON_CHARS]
        )
    if isinstance(error, asyncio.CancelledError):
        return Outcome("failed", error_type=named, error_message="the agent cancelled itself")
    return Outcome("failed", error_type=named, error_message=message)
