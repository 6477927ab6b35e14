"""Tasks with the same key run one at a time, as they became runnable. Pure."""

from __future__ import annotations

from collections import OrderedDict


class Keys:
    """Who owns each key, and who waits for it."""

    def __init__(self) -> None:
        self._queues: dict[str, OrderedDict[str, None]] = {}

    def enter(self, key: str, task_id: str) -> bool:
        """Queue for a key. Returns whether the task owns it."""
        queue = self._queues.setdefault(key, OrderedDict())
        queue.setdefault(task_id)
        return next(iter(queue)) == task_id

    def others(self, key: str, task_id: str) -> list[str]:
        """The owner and the waiting tasks of a key, besides this one, in sequence."""
        return [other for other in self._queues.get(key, ()) if other != task_id]

    def leave(self, key: str, task_id: str) -> str | None:
        """A task has ended. Returns the task that owns the key now, if that is another one."""
        queue = self._queues.get(key)
        if queue is None or task_id not in queue:
            return None
        was_owner = next(iter(queue)) == task_id
        del queue[task_id]
        if not queue:
            del self._queues[key]
            return None
        return next(iter(queue)) if was_owner else None

    def __len__(self) -> int:
        return len(self._queues)
