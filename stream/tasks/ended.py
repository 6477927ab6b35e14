"""Ended tasks: a second submit with the id of one is the same task, for a week. Pure."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import msgspec

from stepstream.schemas.task_common import ID_MEMORY_US
from stepstream.schemas.task_state import TaskState

MAX_IDS: Final = 2_000_000
MAX_BYTES: Final = 128 * 1_048_576
"""Of more bytes of inputs and results the oldest tasks lose theirs; their ids stay known."""
FORGOTTEN: Final = "its input and result are no longer in the worker's memory"


class EndedTasks:
    """The ended tasks of a project, the oldest first."""

    def __init__(self) -> None:
        self._tasks: OrderedDict[str, TaskState] = OrderedDict()
        self._with_contents: OrderedDict[str, int] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._tasks)

    def get(self, task_id: str) -> TaskState | None:
        """The task as it ended; None where it is not known."""
        return self._tasks.get(task_id)

    def has_contents(self, task_id: str) -> bool:
        """Whether input and result of the task are in memory."""
        return task_id in self._with_contents

    def add(self, task: TaskState) -> None:
        """A task has ended."""
        self.pop(task.task_id)
        self._tasks[task.task_id] = task
        size = sum(len(bytes(part)) for part in (task.input, task.result) if part is not None)
        size += sum(len(bytes(part)) for part in task.once.values())
        self._with_contents[task.task_id] = size
        self._bytes += size
        while self._bytes > MAX_BYTES and len(self._with_contents) > 1:
            oldest, size = self._with_contents.popitem(last=False)
            self._bytes -= size
            self._tasks[oldest] = msgspec.structs.replace(  # type: ignore[type-var]
                self._tasks[oldest], input=None, result=None, once={}, attempts=[]
            )
        if len(self._tasks) > MAX_IDS:
            self.pop(next(iter(self._tasks)))

    def pop(self, task_id: str) -> TaskState | None:
        """Forget a task; it is submitted anew or runs again."""
        self._bytes -= self._with_contents.pop(task_id, 0)
        return self._tasks.pop(task_id, None)

    def forget_before(self, now_us: int) -> None:
        """Forget the tasks that ended more than a week before."""
        while self._tasks:
            task_id, task = next(iter(self._tasks.items()))
            if task.ended_at_us >= now_us - ID_MEMORY_US:
                return
            self.pop(task_id)
