"""The attempts of an executor: which may begin, and which must be stopped. Pure: time is passed in.

The lock of the service is around every call.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple

from stepstream.producers.executor.outcome import Stop
from stepstream.schemas.task_common import epoch_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stepstream.producers.executor.bodies import Body
    from stepstream.producers.executor.declared import Agent
    from stepstream.schemas.task_bindings import ReleaseAttempt, RunAttempt

MOST_ENDED: Final = 10_000
"""Ended attempts that are remembered: a binding may arrive twice."""

Key = tuple[str, int, int]
"""Task id, attempt, fence."""


class State(Enum):
    """Where an attempt is."""

    CLAIMING = "claiming"  # its claim is not acknowledged yet
    RUNNING = "running"
    ENDING = "ending"  # its body has ended, and its end is not acknowledged yet


@dataclass(eq=False)
class Attempt:
    """One attempt that this executor was given."""

    binding: RunAttempt
    agent: Agent
    body: Body | None = None
    state: State = State.CLAIMING
    timeout_at_s: float = float("inf")
    stop: Stop | None = None
    kill_at_s: float = float("inf")

    @property
    def key(self) -> Key:
        return self.binding.task_id, self.binding.attempt, self.binding.fence

    def __str__(self) -> str:
        return f"attempt {self.binding.attempt} of task {self.binding.task_id} ({self.agent.label})"


class Refused(NamedTuple):
    """An attempt that does not begin, and why."""

    reason: str


class Attempts:
    """All attempts of one executor that have not ended."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._open: dict[Key, Attempt] = {}
        self._ended: OrderedDict[Key, None] = OrderedDict()
        self._epoch = 0
        self.draining = False

    def __iter__(self) -> Iterator[Attempt]:
        return iter(list(self._open.values()))

    def __len__(self) -> int:
        return len(self._open)

    @property
    def keys(self) -> list[Key]:
        """The attempts whose leases are to be renewed."""
        return list(self._open)

    @property
    def bodies(self) -> int:
        """How many slots are taken."""
        return sum(one.state is not State.ENDING for one in self._open.values())

    def new_epoch(self, epoch: int) -> None:
        """The project's tasks have a new owner: what earlier ones still send does not count."""
        self._epoch = max(self._epoch, epoch)

    def offer(self, binding: RunAttempt, agent: Agent | None) -> Attempt | Refused | None:
        """The attempt if it may begin, why it may not, or None where it is to be ignored."""
        key = binding.task_id, binding.attempt, binding.fence
        epoch = epoch_of(binding.fence)
        # It arrived twice, or from a worker that was replaced.
        if key in self._open or key in self._ended or epoch < self._epoch:
            return None
        self._epoch = epoch
        if agent is None:
            version = f"@{binding.version}" if binding.version else ""
            return Refused(f"this executor has no agent {binding.agent}{version}")
        if self.draining:
            return Refused("the executor is draining")
        if self.bodies >= self._slots:
            return Refused(f"all {self._slots} slots of the executor are taken")
        if agent.spec.slots and self._of(agent) >= agent.spec.slots:
            return Refused(f"all {agent.spec.slots} slots of {agent.label} are taken")
        attempt = self._open[key] = Attempt(binding, agent)
        return attempt

    def _of(self, agent: Agent) -> int:
        return sum(
            one.agent is agent and one.state is not State.ENDING for one in self._open.values()
        )

    def started(self, attempt: Attempt, now_s: float) -> None:
        """The body begins now, and with it the time of its limit."""
        attempt.state = State.RUNNING
        limit_us = attempt.binding.timeout_us or attempt.agent.spec.timeout_us
        if limit_us:
            attempt.timeout_at_s = now_s + limit_us / 1e6

    def extend(self, binding: RunAttempt, by_us: int) -> bool:
        """Move the time-out of a running attempt; False where it has ended."""
        attempt = self._open.get((binding.task_id, binding.attempt, binding.fence))
        if attempt is None:
            return False
        attempt.timeout_at_s += by_us / 1e6
        return True

    def find(self, binding: RunAttempt | ReleaseAttempt) -> Attempt | None:
        """The open attempt of a binding."""
        return self._open.get((binding.task_id, binding.attempt, binding.fence))

    def stop(self, attempt: Attempt, stop: Stop, now_s: float) -> bool:
        """Note that an attempt is to be stopped; False where it was before, or has ended."""
        if attempt.stop is not None or attempt.state is State.ENDING:
            return False
        attempt.stop = stop
        attempt.kill_at_s = now_s + attempt.agent.grace_s
        return True

    def timed_out(self, now_s: float) -> list[Attempt]:
        """Attempts beyond their limit that have not been stopped."""
        return [
            one
            for one in self._open.values()
            if one.state is State.RUNNING and one.stop is None and now_s >= one.timeout_at_s
        ]

    def overdue(self, now_s: float) -> list[Attempt]:
        """Attempts that were stopped and did not end within their grace; each once."""
        found = [
            one
            for one in self._open.values()
            if one.state is State.RUNNING and now_s >= one.kill_at_s
        ]
        for one in found:
            one.kill_at_s = float("inf")
        return found

    def ended(self, attempt: Attempt) -> None:
        """Forget an attempt whose end is acknowledged, or does not matter any more."""
        self._open.pop(attempt.key, None)
        self._ended[attempt.key] = None
        while len(self._ended) > MOST_ENDED:
            self._ended.popitem(last=False)
