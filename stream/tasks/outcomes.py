"""What follows an attempt that has ended: the end of the task, another attempt, or a fallback.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, Literal

from stepstream.schemas.task_common import AgentSpec, RetrySpec
from stepstream.schemas.task_state import TaskState, TaskStatus
from stepstream.schemas.times import MINUTE_US, SECOND_US

MAX_EXECUTORS_LOST: Final = 3
"""A task that ran on so many executors when they ended is dead: it may be what ends them."""
MAX_REFUSAL_WAIT_US: Final = MINUTE_US

Cause = Literal["exception", "timeout", "lost_lease", "criteria_failed", "alert"]


@dataclass(frozen=True, slots=True)
class End:
    """The task ends."""

    state: TaskStatus
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Again:
    """Another attempt, after a wait."""

    wait_us: int
    reason: str


@dataclass(frozen=True, slots=True)
class Fallback:
    """Another agent runs the task: its name, or agent@version."""

    target: str


Next = End | Again | Fallback


def after_failure(
    task: TaskState, spec: AgentSpec, cause: Cause, error_type: str, *, executor_lost: bool = False
) -> Next:
    """What follows an attempt that had started and did not end well.

    ``task.executors_lost`` and ``task.agent_attempts`` contain this attempt.
    """
    if executor_lost and task.executors_lost >= MAX_EXECUTORS_LOST:
        return End(
            "dead",
            "kills_executors",
            f"{task.executors_lost} executors ended while they ran it",
        )
    attempts = task.max_attempts or spec.retry.attempts
    may_repeat = _is_listed(spec.retry, cause, error_type) or (
        cause == "lost_lease" and spec.idempotent
    )
    if cause == "lost_lease" and spec.idempotent and not _is_listed(spec.retry, cause, error_type):
        # Nothing was wrong with the task, and its agent declares that a repetition does no harm.
        attempts = max(attempts, MAX_EXECUTORS_LOST)
    if may_repeat and task.agent_attempts < attempts:
        return Again(retry_wait_us(task, spec.retry), cause)
    # After a lost lease the attempt may still be acting: another agent must not begin either,
    # unless repetition was allowed.
    if spec.fallback and (cause != "lost_lease" or may_repeat):
        tried = [*task.fallbacks, task.run_agent]
        if spec.fallback.partition("@")[0] in tried:
            chain = " -> ".join([*tried, spec.fallback])
            return End("dead", "fallback_cycle", f"{chain} leads back")
        return Fallback(spec.fallback)
    if cause == "lost_lease":
        return End("dead", "lease_lost", "it had started, and its executor was lost")
    if may_repeat:
        return End("dead", "retries_used", f"{task.agent_attempts} of {attempts} attempts")
    return End("failed", "timed_out" if cause == "timeout" else cause)


def _is_listed(retry: RetrySpec, cause: Cause, error_type: str) -> bool:
    return cause in retry.on or (
        cause == "exception" and bool(error_type) and error_type in retry.on
    )


def retry_wait_us(task: TaskState, retry: RetrySpec) -> int:
    """Full jitter: between 0 and a limit that doubles with each attempt; the same in a replay."""
    doublings = min(40, max(0, task.agent_attempts - 1))
    limit_us = min(retry.wait_max_us, retry.wait_min_us << doublings)
    return _drawn(f"{task.project}\x1f{task.task_id}\x1f{task.attempt}", limit_us)


def refusal_wait_us(task: TaskState, refusals: int) -> int:
    """The wait after an executor refused an attempt: none at first, growing with repetition."""
    limit_us = min(MAX_REFUSAL_WAIT_US, SECOND_US << min(10, refusals)) if refusals > 1 else 0
    return _drawn(f"{task.project}\x1f{task.task_id}\x1frefused{refusals}", limit_us)


def _drawn(seed: str, limit_us: int) -> int:
    number = int.from_bytes(blake2b(seed.encode(), digest_size=8).digest())
    return number % (limit_us + 1)
