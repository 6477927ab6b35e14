"""A handle on a task: its status and result, and commands to it."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from stepstream.producers.tasks.sender import NOT_SENT, Delivery
from stepstream.schemas.task_state import FINAL

if TYPE_CHECKING:
    from stepstream.producers.tasks.ways import Way
    from stepstream.schemas.task_state import TaskState

LONGEST_WAIT_S: Final = 20.0
"""The longest single wait for a state; a longer one is several of these."""


class TaskFailed(Exception):
    """The task has not ended well: ``status`` is failed, expired, dead, cancelled or refused."""

    def __init__(self, status: TaskStatus) -> None:
        why = status.detail or status.reason
        if status.error_type:
            error = f"{status.error_type}: {status.error_message}"
            why = f"{error} ({why})" if why else error
        super().__init__(f"task {status.task_id} ({status.agent}) is {status.state}: {why}")
        self.task = status
        self.status = status.state
        self.reason = status.reason
        self.error_type = status.error_type


class TaskCancelled(TaskFailed):
    """The task was cancelled."""


@dataclass(frozen=True)
class TaskStatus:
    """A task at a moment. ``state`` is ``submitted`` where the scheduler has not read it yet.

    ``waiting_for`` is ``delay``, ``retry``, ``slot``, ``executor``, ``limit``, ``budget``,
    ``after`` or ``key`` while ``state`` is ``waiting``. Times are microseconds since 1970, 0 where
    there is none.
    """

    project: str
    task_id: str
    state: str = "submitted"
    agent: str = ""
    version: str = ""
    waiting_for: str = ""
    reason: str = ""
    detail: str = ""
    attempt: int = 0
    trace_id: str = ""
    executor_id: str = ""
    error_type: str = ""
    error_message: str = ""
    submitted_at_us: int = 0
    started_at_us: int = 0
    ended_at_us: int = 0

    @property
    def is_final(self) -> bool:
        return self.state in FINAL

    def __str__(self) -> str:
        waits = f" for {self.waiting_for}" if self.waiting_for else ""
        more = self.detail or self.reason
        return f"{self.state}{waits}{f': {more}' if more else ''}"


def status_of(state: TaskState) -> TaskStatus:
    """What a state record reports to callers."""
    return TaskStatus(
        project=state.project,
        task_id=state.task_id,
        state=state.state,
        agent=state.run_agent or state.agent,
        version=state.run_version or state.version,
        waiting_for=state.waiting_for,
        reason=state.reason,
        detail=state.detail,
        attempt=state.attempt,
        trace_id=state.trace_id,
        executor_id=state.executor_id,
        error_type=state.error_type,
        error_message=state.error_message,
        submitted_at_us=state.submitted_at_us,
        started_at_us=state.started_at_us,
        ended_at_us=state.ended_at_us,
    )


class TaskHandle:
    """A task that was submitted. Its id is ``id``."""

    def __init__(self, way: Way, project: str, task_id: str, sent: Delivery = NOT_SENT) -> None:
        self.id = task_id
        self.project = project
        self._way = way
        self._sent = sent

    def status(self) -> TaskStatus:
        """The task now. Raises ``TaskNotSent`` where neither Kafka nor the gateway answers."""
        state = self._way.state(self.project, self.id, 0.0, self._sent)
        return TaskStatus(self.project, self.id) if state is None else status_of(state)

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the end, and return what the agent returned.

        Raises ``TaskCancelled``, ``TaskFailed`` for any other end than ok, ``TimeoutError`` after
        ``timeout`` seconds, and ``TaskNotSent`` where neither Kafka nor the gateway answers.
        """
        state = self._final(math.inf if timeout is None else timeout)
        if state is None:
            raise TimeoutError(f"task {self.id} has not ended within {timeout:g} s")
        if state.state == "ok":
            return msgspec.json.decode(state.result or b"null")
        kind = TaskCancelled if state.state == "cancelled" else TaskFailed
        raise kind(status_of(state))

    # The parameter as in ``result``.
    async def aresult(self, timeout: float | None = None) -> Any:  # noqa: ASYNC109
        """As ``result``, without blocking the event loop."""
        return await asyncio.to_thread(self.result, timeout)

    def cancel(self, reason: str = "") -> None:
        """Cancel it: a waiting task ends at once, a running one when its next step begins.

        Returns when the request is acknowledged. Does nothing to a task that has ended.
        """
        self._way.cancel(self.project, self.id, reason)

    def retry(self, reason: str = "") -> None:
        """Run a task again that has ended in another way than ok."""
        self._way.retry(self.project, self.id, reason)

    def _final(self, timeout_s: float) -> TaskState | None:
        from stepstream.producers.executor.steady import steady_s

        deadline_s = steady_s() + timeout_s
        while True:
            wait_s = max(0.0, min(LONGEST_WAIT_S, deadline_s - steady_s()))
            state = self._way.state(self.project, self.id, wait_s, self._sent)
            if state is not None and state.state in FINAL:
                return state
            if steady_s() >= deadline_s:
                return None

    def __repr__(self) -> str:
        return f"<TaskHandle {self.project}/{self.id}>"
