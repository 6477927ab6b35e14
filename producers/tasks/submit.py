"""``stepstream.submit``: asks for a run of an agent; ``stepstream.task``: a handle on a task."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from stepstream.common.person import who
from stepstream.producers.tasks.handle import TaskHandle
from stepstream.producers.tasks.requests import Duration, submit_record, task_id, text
from stepstream.producers.tasks.ways import now_us, way_of
from stepstream.producers.tracer import public_tracer

if TYPE_CHECKING:
    from stepstream.schemas.settings import Settings
    from stepstream.schemas.task_common import OnBusy


# Each is a field of the request, by name, so that editors and type checkers know it.
def submit(  # noqa: PLR0913
    agent: str,
    input: Any = None,
    *,
    id: str | None = None,
    version: str | None = None,
    priority: int = 0,
    delay: Duration | None = None,
    deadline: Duration | datetime | None = None,
    after: Sequence[str | TaskHandle] = (),
    key: str = "",
    on_busy: OnBusy | None = None,
    user_id: str = "",
    session_id: str = "",
    environment: str | None = None,
    attempts: int | None = None,
    timeout: Duration | None = None,
    budget_usd: Decimal | float | str | None = None,
    input_ref: str | None = None,
    project: str | None = None,
    settings: Settings | None = None,
) -> TaskHandle:
    """Ask for a run of an agent by an executor, and return at once with a handle on the task.

    - ``input``: any JSON value of at most 256 KiB; a larger one is stored elsewhere and named by
      ``input_ref``.
    - ``id``: a second submit with the same id is the same task, for seven days.
    - ``priority``: 0 to 9, higher ones first. ``delay``: time before it may run. ``deadline``: a
      duration or a time after which it expires. ``after``: tasks that must have ended well before.
    - ``key``: tasks with the same key run one after another; ``on_busy``: what this one does while
      another one with its key waits or runs: ``enqueue``, ``reject``, ``interrupt``, ``replace``.
    - ``attempts``, ``timeout``, ``budget_usd``: limits instead of those that the agent declares.

    The task is accepted when this returns: it ends in exactly one final state whatever fails.
    Raises ``ValueError`` for a wrong argument, and ``TaskNotSent``.
    """
    chosen = _settings(settings)
    fields = {
        "agent": agent,
        "input": input,
        "id": id,
        "version": version,
        "priority": priority,
        "delay": delay,
        "deadline": deadline,
        "after": after,
        "key": key,
        "on_busy": on_busy,
        "user_id": user_id,
        "session_id": session_id,
        "environment": chosen.environment if environment is None else environment,
        "attempts": attempts,
        "timeout": timeout,
        "budget_usd": budget_usd,
        "input_ref": input_ref,
    }
    record = submit_record(
        fields, project=project or chosen.project or "default", by=who(), now_us=now_us()
    )
    way = way_of(chosen)
    return TaskHandle(way, record.project, record.task_id, way.submit(record))


def task(id: str, *, project: str | None = None, settings: Settings | None = None) -> TaskHandle:
    """A handle on a task that was submitted before, also by another program.

    Raises ``ValueError`` for what cannot be an id, and ``TaskNotSent``.
    """
    chosen = _settings(settings)
    named = text("project", project or chosen.project or "default", required=True)
    return TaskHandle(way_of(chosen), named, task_id(id))


def _settings(given: Settings | None) -> Settings:
    return public_tracer().resolved_settings() if given is None else given
