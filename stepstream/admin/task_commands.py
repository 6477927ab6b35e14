"""Commands to the scheduler of tasks: cancel and retry a task, drain an executor."""

from __future__ import annotations

from stepstream.admin.commands import send_records
from stepstream.schemas.settings import Settings
from stepstream.schemas.task_messages import (
    CancelStruct,
    DrainStruct,
    Message,
    RetryStruct,
    encode_message,
)


def cancel_task(settings: Settings, project: str, task_id: str, *, by: str, reason: str) -> None:
    """End a task: a waiting one at once, a running one by stopping its attempt.

    Returns when Kafka has acknowledged the command, as the other functions do. Raises
    ``KafkaUnreachable``.
    """
    _send(settings, CancelStruct(project=project, task_id=task_id, by=by, reason=reason))


def retry_task(settings: Settings, project: str, task_id: str, *, by: str, reason: str) -> None:
    """Run a task again that has ended in another way than ok."""
    _send(settings, RetryStruct(project=project, task_id=task_id, by=by, reason=reason))


def drain_executor(
    settings: Settings, project: str, executor_id: str, *, by: str, deadline_us: int = 0
) -> None:
    """Give an executor no new attempts; it ends when its running ones have ended, or are handed
    over ``deadline_us`` later (0: never).
    """
    _send(
        settings,
        DrainStruct(project=project, executor_id=executor_id, by=by, deadline_us=deadline_us),
    )


def _send(settings: Settings, message: Message) -> None:
    send_records(settings, [("tasks", message.project.encode(), encode_message(message), [])])
