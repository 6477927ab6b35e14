"""The tasks that may run now and wait for a slot, of one agent. Pure.

Classes of priority are served from the highest. A task rises by one class for each ``AGE_US`` that
it waits, so that none waits for ever. Within a class, flows (keys or users) take turns, one task
each: deficit round robin with equal costs. Within a flow the first task that came is the first.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final

from stepstream.schemas.task_common import MAX_PRIORITY
from stepstream.schemas.times import MINUTE_US

AGE_US: Final = MINUTE_US


class ReadyQueue:
    """Ids of tasks. Each is in it once."""

    __slots__ = ("_classes", "_waiting")

    def __init__(self) -> None:
        self._classes: dict[int, OrderedDict[str, deque[tuple[str, int]]]] = {}
        # Where each task is. An entry of a flow whose task is not here, or is here with another
        # time, was removed and is skipped.
        self._waiting: dict[str, tuple[int, str, int]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._waiting

    def push(self, task_id: str, *, priority: int, flow: str, since_us: int) -> None:
        """Add a task. ``since_us``: when it was submitted, from which it ages."""
        self._waiting[task_id] = (priority, flow, since_us)
        flows = self._classes.setdefault(priority, OrderedDict())
        flows.setdefault(flow, deque()).append((task_id, since_us))

    def remove(self, task_id: str) -> bool:
        """Take a task out; False where it is not in."""
        return self._waiting.pop(task_id, None) is not None

    def rank(self, now_us: int) -> tuple[int, int] | None:
        """How urgent the next task is, to be compared with other queues (lower is first); None for
        an empty queue.
        """
        found = self._next(now_us)
        return None if found is None else found[:2]

    def pop(self, now_us: int) -> str | None:
        """Take the next task out; None for an empty queue."""
        found = self._next(now_us)
        if found is None:
            return None
        _, _, priority, task_id = found
        flows = self._classes[priority]
        flow, tasks = next(iter(flows.items()))
        tasks.popleft()
        del self._waiting[task_id]
        if tasks:
            flows.move_to_end(flow)  # the others have their turn before its next task
        else:
            del flows[flow]
        return task_id

    def _next(self, now_us: int) -> tuple[int, int, int, str] | None:
        """Rank, time, class and id of the next task."""
        best: tuple[int, int, int, str] | None = None
        for priority in list(self._classes):
            head = self._head(priority)
            if head is None:
                del self._classes[priority]
                continue
            task_id, since_us = head
            aged = min(MAX_PRIORITY, priority + max(0, now_us - since_us) // AGE_US)
            rank = (-aged, since_us, priority, task_id)
            if best is None or rank < best:
                best = rank
        return best

    def _head(self, priority: int) -> tuple[str, int] | None:
        """The first task of the flow that has its turn."""
        flows = self._classes[priority]
        while flows:
            flow, tasks = next(iter(flows.items()))
            while tasks:
                task_id, since_us = tasks[0]
                if self._waiting.get(task_id) == (priority, flow, since_us):
                    return tasks[0]
                tasks.popleft()
            del flows[flow]
        return None
