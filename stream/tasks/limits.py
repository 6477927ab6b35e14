"""The limits of ``kind: Queue`` documents, for the tasks of one project. Pure."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from typing import Final, NamedTuple

from stepstream.schemas.task_queue import Queue
from stepstream.stream.tasks.fleet import Target

TRY_AGAIN_US: Final = 1_000_000
_CACHED: Final = 10_000


class Blocked(NamedTuple):
    """Why an attempt may not begin now, and until when (0: until another one has ended)."""

    why: str
    until_us: int


class QueueState:
    """One queue: what runs, what the rate has left, and how attempts ended lately."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.running: Counter[str] = Counter()
        self.opened_at_us = 0
        """When the breaker paused the queue; 0 while it has not."""
        self._tokens = float(queue.rate.attempts) if queue.rate else 0.0
        self._tokens_at_us = 0
        self._ends: deque[tuple[int, bool]] = deque()

    def blocked(self, agent: str, now_us: int) -> Blocked | None:
        """What keeps an attempt of the agent from beginning; None if nothing does."""
        queue = self.queue
        if queue.paused:
            return Blocked(f"queue {queue.name} is paused", 0)
        if queue.concurrency and self.running.total() >= queue.concurrency:
            return Blocked(f"queue {queue.name} runs {queue.concurrency} attempts", 0)
        if queue.per_agent and self.running[agent] >= queue.per_agent:
            return Blocked(f"queue {queue.name} runs {queue.per_agent} attempts of {agent}", 0)
        return self._broken(now_us) or self._over_rate(now_us)

    def _broken(self, now_us: int) -> Blocked | None:
        breaker = self.queue.breaker
        if breaker is None or not self.opened_at_us:
            return None
        until_us = self.opened_at_us + breaker.pause
        if now_us < until_us:
            return Blocked(f"too many attempts failed in queue {self.queue.name}", until_us)
        if self.running.total():
            return Blocked(f"queue {self.queue.name} tries one attempt after failures", 0)
        return None

    def _over_rate(self, now_us: int) -> Blocked | None:
        rate = self.queue.rate
        if rate is None:
            return None
        self._refill(now_us)
        if self._tokens >= 1:
            return None
        wait_us = round((1 - self._tokens) * rate.per / rate.attempts) + 1
        return Blocked(f"queue {self.queue.name} begins {rate.attempts} attempts in its time",
                       now_us + wait_us)  # fmt: skip

    def _refill(self, now_us: int) -> None:
        rate = self.queue.rate
        if rate is None:
            return
        if self._tokens_at_us:
            gained = max(0, now_us - self._tokens_at_us) * rate.attempts / rate.per
            self._tokens = min(float(rate.attempts), self._tokens + gained)
        self._tokens_at_us = max(self._tokens_at_us, now_us)

    def began(self, agent: str, now_us: int) -> None:
        """An attempt was bound."""
        self.running[agent] += 1
        if self.queue.rate is not None:
            self._refill(now_us)
            self._tokens -= 1

    def ended(self, agent: str, now_us: int, *, failed: bool | None) -> str:
        """An attempt has ended; None: neither well nor badly. Returns ``opened`` or ``closed`` when
        that moved the breaker, else an empty text.
        """
        self.running[agent] -= 1
        if self.running[agent] <= 0:
            del self.running[agent]
        breaker = self.queue.breaker
        if breaker is None or failed is None:
            return ""
        if self.opened_at_us:
            # The attempt that was tried, or one from before the pause.
            if now_us < self.opened_at_us + breaker.pause:
                return ""
            self._ends.clear()
            self.opened_at_us = now_us if failed else 0
            return "" if failed else "closed"
        self._ends.append((now_us, failed))
        while self._ends and self._ends[0][0] < now_us - breaker.within:
            self._ends.popleft()
        while len(self._ends) > 10 * breaker.at_least:
            self._ends.popleft()
        bad = sum(one for _, one in self._ends)
        if len(self._ends) < breaker.at_least or bad < breaker.failures * len(self._ends):
            return ""
        self.opened_at_us = now_us
        return "opened"


class Limits:
    """The queues of one project's tasks."""

    def __init__(self, project: str) -> None:
        self._project = project
        self._queues: dict[str, QueueState] = {}
        self._of: dict[Target, list[QueueState]] = {}

    def change(self, queues: Iterable[Queue], running: Iterable[Target], now_us: int) -> None:
        """Take over other documents. ``running`` are the agents of the attempts that run; a queue
        that did not change keeps its rate and its breaker.
        """
        before, self._queues = self._queues, {}
        for queue in queues:
            known = before.get(queue.name)
            is_same = known is not None and known.queue == queue
            self._queues[queue.name] = known if known and is_same else QueueState(queue)
        self._of.clear()
        for state in self._queues.values():
            state.running.clear()
        for target in running:
            for state in self.of(target):
                state.running[target[0]] += 1

    def of(self, target: Target) -> list[QueueState]:
        """The queues that limit an agent and version."""
        found = self._of.get(target)
        if found is None:
            if len(self._of) >= _CACHED:
                self._of.clear()
            found = self._of[target] = [
                state
                for state in self._queues.values()
                if state.queue.match.matches(self._project, *target)
            ]
        return found

    def blocked(self, target: Target, now_us: int) -> Blocked | None:
        """What keeps an attempt from beginning; of several the one that lasts longest."""
        found = [state.blocked(target[0], now_us) for state in self.of(target)]
        blocked = [one for one in found if one is not None]
        return max(blocked, key=lambda one: one.until_us, default=None)

    def began(self, target: Target, now_us: int) -> None:
        """An attempt was bound."""
        for state in self.of(target):
            state.began(target[0], now_us)

    def ended(self, target: Target, now_us: int, *, failed: bool | None) -> list[tuple[str, str]]:
        """An attempt has ended. Returns the names of queues whose breaker moved, with how."""
        moved = [
            (state.queue.name, state.ended(target[0], now_us, failed=failed))
            for state in self.of(target)
        ]
        return [one for one in moved if one[1]]
