"""What a submit requests: its digest, its key, its task; and the attempt of a task. Pure."""

from __future__ import annotations

from hashlib import blake2b
from sys import intern
from typing import Any

import msgspec

from stepstream.schemas.task_bindings import RunAttemptStruct
from stepstream.schemas.task_common import AgentSpec, task_trace_id
from stepstream.schemas.task_messages import Submit
from stepstream.schemas.task_state import TaskState, TaskStateStruct

_INPUT_PREFIX = "input."
# A hundred thousand tasks wait in less memory if they share what is equal. The scheduler replaces
# lists and dicts of a task, and never changes them.
_NONE: list[Any] = []
_NOTHING: dict[str, Any] = {}
_sorted = msgspec.json.Encoder(order="sorted").encode


def digest_of(submit: Submit) -> str:
    """A digest of what is requested: the agent and its input, however its JSON is written."""
    value = None if submit.input is None else msgspec.json.decode(submit.input)
    asked = [submit.agent, submit.version, submit.input_ref, value]
    return blake2b(_sorted(asked), digest_size=16).hexdigest()


def new_task(submit: Submit, now_us: int, epoch: int) -> TaskState:
    """The task of a submit that was appended at ``now_us``."""
    deadline_us = now_us + submit.deadline_us if submit.deadline_us else 0
    return TaskStateStruct(
        project=intern(submit.project),
        task_id=submit.task_id,
        state="waiting",
        event="submitted",
        at_us=now_us,
        epoch=epoch,
        revision=0,
        agent=intern(submit.agent),
        version=intern(submit.version),
        input=None if submit.input is None else copied(submit.input),
        input_ref=submit.input_ref,
        input_digest=digest_of(submit),
        priority=submit.priority,
        after=submit.after or _NONE,
        attempts=_NONE,
        fallbacks=_NONE,
        once=_NOTHING,
        key=submit.key,
        on_busy=submit.on_busy,
        environment=intern(submit.environment),
        user_id=intern(submit.user_id),
        session_id=submit.session_id,
        parent_task_id=submit.parent_task_id,
        max_attempts=submit.attempts,
        timeout_us=submit.timeout_us,
        budget_usd=submit.budget_usd,
        submitted_by=submit.by,
        submitted_at_us=now_us,
        not_before_us=now_us + submit.delay_us if submit.delay_us else 0,
        deadline_at_us=deadline_us,
        target=intern(f"{submit.agent}@{submit.version}" if submit.version else submit.agent),
    )


def copied(raw: Any) -> Any:
    """The bytes of a ``Json`` field without the record that they were decoded from."""
    return msgspec.Raw(bytes(raw))


def key_of(task: TaskState, spec: AgentSpec) -> str:
    """The key of a task that was submitted without one: what the agent declares; may be empty."""
    name = spec.key_field
    if name in ("session_id", "user_id"):
        return str(getattr(task, name))
    if not name.startswith(_INPUT_PREFIX) or task.input is None:
        return ""
    value = msgspec.json.decode(task.input)
    found = value.get(name.removeprefix(_INPUT_PREFIX)) if isinstance(value, dict) else None
    return str(found)[:512] if isinstance(found, str | int) else ""


def flow_of(task: TaskState) -> str:
    """Tasks of one flow take turns with those of others: a key, else a user."""
    return task.key or task.user_id


def attempt_of(task: TaskState, spec: AgentSpec) -> RunAttemptStruct:
    """What an executor gets of a task that is bound to it."""
    return RunAttemptStruct(
        executor_id=task.executor_id,
        project=task.project,
        task_id=task.task_id,
        attempt=task.attempt,
        fence=task.fence,
        trace_id=task.trace_id,
        agent=task.run_agent,
        version=task.run_version,
        input=task.input,
        input_ref=task.input_ref,
        once=task.once,
        lease_us=task.lease_us or spec.lease_us,
        timeout_us=task.timeout_us or spec.timeout_us,
        deadline_at_us=task.deadline_at_us,
        budget_usd=task.budget_usd or spec.budget_usd,
        attempts=task.max_attempts or spec.retry.attempts,
        priority=task.priority,
        key=task.key,
        environment=task.environment,
        user_id=task.user_id,
        session_id=task.session_id,
        parent_task_id=task.parent_task_id,
        bound_at_us=task.bound_at_us,
    )


def trace_of(task: TaskState) -> str:
    """The trace id of the current attempt."""
    return task_trace_id(task.project, task.task_id, task.attempt)
