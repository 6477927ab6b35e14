"""What waits and runs of each agent, for metrics by which executors are started and ended. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from stepstream.schemas.task_state import TaskState

MAX_QUEUES: Final = 500
"""Queues that have metrics; of more those with most tasks."""

_WAITS_FOR_NO_ONE: Final = frozenset({"delay", "after", "retry"})
"""What no executor and no limit keeps a task from running."""

Queue = tuple[str, str]
"""Project and agent."""


@dataclass(slots=True)
class AgentBacklog:
    """The tasks of a queue that have not ended."""

    tasks: Counter[str] = field(default_factory=Counter)
    """By what they wait for, or ``bound`` or ``running``."""
    oldest_us: int = 0
    """Since when the first of them waits that could run, in log time; 0: none does."""

    def add(self, task: TaskState) -> None:
        """Count a task."""
        self.tasks[task.waiting_for or task.state] += 1
        if task.state == "waiting" and task.waiting_for not in _WAITS_FOR_NO_ONE:
            since_us = max(task.submitted_at_us, task.not_before_us)
            self.oldest_us = min(self.oldest_us or since_us, since_us)


def backlogs(
    tasks: Iterable[TaskState], offered: Iterable[Queue] = ()
) -> dict[Queue, AgentBacklog]:
    """The backlog of each agent that has tasks, and of those that executors offer."""
    found = {queue: AgentBacklog() for queue in offered}
    for task in tasks:
        queue = (task.project, agent_of(task))
        backlog = found.get(queue)
        if backlog is None:
            backlog = found[queue] = AgentBacklog()
        backlog.add(task)
    return found


def largest(found: dict[Queue, AgentBacklog]) -> dict[Queue, AgentBacklog]:
    """At most ``MAX_QUEUES`` of them, those with most tasks."""
    if len(found) <= MAX_QUEUES:
        return found
    ranked = sorted(found.items(), key=lambda item: -item[1].tasks.total())
    return dict(ranked[:MAX_QUEUES])


def agent_of(task: TaskState) -> str:
    """The agent that runs a task, or is to run it: the requested one or a fallback."""
    if task.state != "waiting" and task.run_agent:
        return task.run_agent
    return (task.target or task.agent).partition("@")[0]
