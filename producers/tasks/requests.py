"""A request to run an agent, checked: pure.

The same checks serve ``stepstream.submit``, the command line and the gateway. Each bad value raises
``ValueError`` with its name, what is wrong, and what to write instead.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, get_args

import msgspec

from stepstream.producers.tasks.json_values import NotJson, to_json
from stepstream.schemas.durations import parse_duration_us, write_duration
from stepstream.schemas.money import amount_nanos
from stepstream.schemas.suggestions import did_you_mean
from stepstream.schemas.task_common import (
    MAX_AFTER,
    MAX_ATTEMPTS,
    MAX_DELAY_US,
    MAX_DURATION_US,
    MAX_NAME_CHARS,
    MAX_PRIORITY,
    MAX_TASK_ID_CHARS,
    OnBusy,
)
from stepstream.schemas.task_messages import SubmitStruct

if TYPE_CHECKING:
    from stepstream.schemas.task_messages import Submit

Duration = str | float | int
_NEGATIVE: Final = re.compile(r"\s*-")
FIELDS: Final = (
    "agent", "input", "id", "version", "input_ref", "priority", "delay", "deadline", "after", "key",
    "on_busy", "environment", "user_id", "session_id", "attempts", "timeout", "budget_usd",
)  # fmt: skip
"""The names of a request's fields, as ``submit`` and the gateway take them."""


def new_task_id() -> str:
    """An id that no other task has."""
    return uuid.uuid4().hex


def submit_record(
    fields: Mapping[str, Any], *, project: str, by: str, now_us: int, parent_task_id: str = ""
) -> Submit:
    """The record of a request. Fields that are None or absent have their defaults.

    ``now_us`` is compared with a ``deadline`` that is a time. Raises ``ValueError``.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    unknown = next((name for name in given if name not in FIELDS), None)
    if unknown is not None:
        raise ValueError(f"there is no field {unknown!r}: {did_you_mean(unknown, FIELDS)}")
    if not given.get("agent"):
        raise ValueError("agent: the name of the agent that is to run")
    delay_us = _delay_us(given.get("delay", 0))
    deadline_us = _deadline_us(given.get("deadline"), now_us)
    if deadline_us and delay_us >= deadline_us:
        raise ValueError(
            f"deadline={given['deadline']!r}: the task would expire before its delay of "
            f"{write_duration(delay_us)} is over"
        )
    return SubmitStruct(
        project=text("project", project, required=True),
        task_id=task_id(given.get("id", "") or new_task_id()),
        agent=text("agent", given["agent"], required=True),
        version=text("version", given.get("version", "")),
        input_ref=text("input_ref", given.get("input_ref", "")),
        priority=_number("priority", given.get("priority", 0), 0, MAX_PRIORITY),
        delay_us=delay_us,
        deadline_us=deadline_us,
        after=_after(given.get("after", ())),
        key=text("key", given.get("key", "")),
        on_busy=_on_busy(given.get("on_busy", "")),
        environment=text("environment", given.get("environment", "")),
        user_id=text("user_id", given.get("user_id", "")),
        session_id=text("session_id", given.get("session_id", "")),
        attempts=_attempts(given.get("attempts")),
        timeout_us=0 if "timeout" not in given else _duration("timeout", given["timeout"]),
        budget_usd=_budget(given.get("budget_usd")),
        by=by[:MAX_NAME_CHARS],
        parent_task_id=parent_task_id,
        submitted_at_us=now_us,
        **_input(given),
    )


def _input(given: Mapping[str, Any]) -> dict[str, Any]:
    if "input" not in given:
        return {}
    if "input_ref" in given:
        raise ValueError("input_ref: a task has an input, or where it is, not both")
    try:
        return {"input": msgspec.Raw(to_json(given["input"], "the input"))}
    except NotJson as error:
        raise ValueError(f"input: {error}") from None


def task_id(given: object) -> str:
    """A task's id. Raises ``ValueError``."""
    if not isinstance(given, str) or not 1 <= len(given) <= MAX_TASK_ID_CHARS:
        raise ValueError(f"id={shown(given)}: a text of 1 to {MAX_TASK_ID_CHARS} characters")
    if not given.isprintable() or given != given.strip():
        raise ValueError(f"id={shown(given)}: without control characters and surrounding spaces")
    return given


def text(name: str, given: object, *, required: bool = False) -> str:
    """A short text. Raises ``ValueError``."""
    if not isinstance(given, str) or len(given) > MAX_NAME_CHARS or (required and not given):
        raise ValueError(f"{name}={shown(given)}: a text of at most {MAX_NAME_CHARS} characters")
    return given


def shown(value: object) -> str:
    """A value in an error message."""
    found = repr(value)
    return found if len(found) <= 60 else f"{found[:57]}..."


def _delay_us(given: object) -> int:
    if given in (0, "0", "0s"):
        return 0
    found = _duration("delay", given)
    if found > MAX_DELAY_US:
        raise ValueError(
            f"delay={shown(given)}: at most {write_duration(MAX_DELAY_US)}; submit it later, or "
            "use a schedule"
        )
    return found


def _deadline_us(given: object, now_us: int) -> int:
    if given is None:
        return 0
    if isinstance(given, datetime):
        left_us = round(given.timestamp() * 1e6) - now_us
        if left_us <= 0:
            raise ValueError(f"deadline={given.isoformat()}: it is in the past")
        return _checked_duration("deadline", given.isoformat(), left_us)
    if isinstance(given, str) and "T" in given:
        try:
            return _deadline_us(datetime.fromisoformat(given), now_us)
        except ValueError as error:
            if "past" in str(error):
                raise
            raise ValueError(f"deadline={shown(given)}: a duration such as 1h, or a time") from None
    return _duration("deadline", given)


def _duration(name: str, given: object) -> int:
    is_negative = (isinstance(given, str) and _NEGATIVE.match(given)) or (
        isinstance(given, int | float) and not isinstance(given, bool) and given < 0
    )
    if is_negative:
        raise ValueError(f"{name}={shown(given)}: it cannot be negative")
    try:
        found = parse_duration_us(given)
    except ValueError as error:
        raise ValueError(f"{name}={shown(given)}: {error}") from None
    return _checked_duration(name, given, found)


def _checked_duration(name: str, given: object, found: int) -> int:
    if found == 0:
        raise ValueError(f"{name}={shown(given)}: more than 0; leave it out for none")
    if found > MAX_DURATION_US:
        raise ValueError(f"{name}={shown(given)}: at most {write_duration(MAX_DURATION_US)}")
    return found


def _number(name: str, given: object, least: int, most: int) -> int:
    if not isinstance(given, int) or isinstance(given, bool) or not least <= given <= most:
        raise ValueError(f"{name}={shown(given)}: a whole number from {least} to {most}")
    return given


def _attempts(given: object) -> int:
    return 0 if given is None else _number("attempts", given, 1, MAX_ATTEMPTS)


def _budget(given: object) -> str:
    if given is None:
        return ""
    try:
        is_positive = not isinstance(given, bool) and amount_nanos(given) > 0  # type: ignore[arg-type]
    except (TypeError, ValueError, ArithmeticError):
        is_positive = False
    if not is_positive:
        raise ValueError(f"budget_usd={shown(given)}: dollars, more than 0, such as 0.50")
    return str(given)


def _after(given: object) -> list[str]:
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise ValueError(f"after={shown(given)}: a list of task ids")
    if len(given) > MAX_AFTER:
        raise ValueError(f"after: at most {MAX_AFTER} tasks")
    return [task_id(getattr(one, "id", one)) for one in given]


def _on_busy(given: object) -> Any:
    if given and given not in get_args(OnBusy):
        hint = did_you_mean(str(given), get_args(OnBusy))
        raise ValueError(f"on_busy={shown(given)}: {hint}")
    return given


def fields_of(record: Submit) -> dict[str, Any]:
    """The fields of a request, as a gateway takes them, with its project."""
    durations = {"delay": record.delay_us, "deadline": record.deadline_us}
    durations["timeout"] = record.timeout_us
    found: dict[str, Any] = {
        "id": record.task_id,
        **{name: getattr(record, name) for name in _SAME},
        **{name: write_duration(us) for name, us in durations.items() if us},
    }
    given = {name: value for name, value in found.items() if value}
    if record.input is not None:
        given["input"] = msgspec.json.decode(record.input)
    return given


_SAME: Final = (
    "project", "agent", "version", "input_ref", "priority", "after", "key", "on_busy",
    "environment", "user_id", "session_id", "attempts", "budget_usd",
)  # fmt: skip
