"""What decodes as a finding, an alert or the state of a task and still cannot be one: worker, sink
and notifier refuse the same records.

A decoder checks types. A time beyond all calendars, a name of a megabyte or a list of thousands
would raise, or fill memory and topics, wherever it is used later.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from stepstream.schemas.alert import AlertStruct, FindingStruct
from stepstream.schemas.delivery import DeliveryStruct
from stepstream.schemas.normalise import MAX_COUNT

MAX_TIME_US: Final = 4_000_000_000_000_000
"""October 2096. The columns of the store go as far, and no calendar raises before."""

MOMENTS: Final = ("next_try", "since", "told_at")
"""Times of a delivery that are 0 where there is none."""

STATE_TIMES: Final = frozenset(
    {
        "at_us", "submitted_at_us", "waiting_until_us", "not_before_us", "deadline_at_us",
        "bound_at_us", "started_at_us", "ended_at_us", "lease_until_us", "timeout_at_us",
        "last_beat_us", "drain_by_us",
    }
)  # fmt: skip
ATTEMPT_TIMES: Final = ("bound_at_us", "started_at_us", "ended_at_us")
_STATE_COUNTS: Final = {
    "epoch": 2**31 - 1,
    "revision": 2**32 - 1,
    "priority": 255,
    "max_attempts": 2**31 - 1,
    "executors_lost": 2**31 - 1,
    "attempt": 2**31 - 1,
    "running": 2**31 - 1,
    "pid": 2**31 - 1,
}
"""The columns of the store go as far."""

MAX_ID: Final = 256
MAX_NAME: Final = 4_096
MAX_WORDS: Final = 65_536
MAX_ITEMS: Final = 1_000

_NAMES: Final = (
    "project", "environment", "agent", "agent_version", "task", "user_id", "trace_id", "alert",
    "rule", "policy", "subject",
    "action", "by", "alert_id",
)  # fmt: skip


def finding_misfit(finding: FindingStruct) -> str:
    """Why a finding cannot be one; empty when it can."""
    for name in ("time", "until"):
        if not 0 <= getattr(finding, name) < MAX_TIME_US:
            return f"{name} is no time: {getattr(finding, name)}"
    if not 0 <= finding.baseline_runs <= MAX_COUNT:
        return f"baseline_runs is no count: {finding.baseline_runs}"
    if not 0 <= finding.policy_revision < 2**32:
        return f"policy_revision is no count: {finding.policy_revision}"
    if len(finding.finding_id) > MAX_ID:
        return f"finding_id is longer than {MAX_ID} characters"
    return _texts(finding, {"step_ids": finding.step_ids})


def alert_misfit(alert: AlertStruct) -> str:
    """Why an alert cannot be one; empty when it can."""
    for name in ("opened_at", "updated_at", "resolved_at", "silenced_until"):
        if not 0 <= getattr(alert, name) < MAX_TIME_US:
            return f"{name} is no time: {getattr(alert, name)}"
    for name in ("seq", "findings", "reopened", "runs", "baseline_runs"):
        if not 0 <= getattr(alert, name) <= MAX_COUNT:
            return f"{name} is no count: {getattr(alert, name)}"
    if not 0 <= alert.policy_revision < 2**32:
        return f"policy_revision is no count: {alert.policy_revision}"
    # -1 is "unknown"; the store's columns are Int32 and Int64.
    for name, most in (("source_partition", 2**31 - 1), ("source_offset", MAX_COUNT)):
        if not -1 <= getattr(alert, name) <= most:
            return f"{name} is no place: {getattr(alert, name)}"
    lists = {
        "step_ids": alert.step_ids,
        "trace_ids": alert.trace_ids,
        "finding_ids": alert.finding_ids,
    }
    return _texts(alert, lists)


def delivery_misfit(delivery: DeliveryStruct) -> str:
    """Why a delivery cannot be one; empty when it can."""
    for name in ("time", *MOMENTS):
        if not 0 <= getattr(delivery, name) < MAX_TIME_US:
            return f"{name} is no time: {getattr(delivery, name)}"
    for name, most in (
        ("seq", MAX_COUNT),
        ("latency_us", MAX_COUNT),
        ("told_seq", MAX_COUNT),
        ("attempts", 2**31 - 1),
    ):
        if not 0 <= getattr(delivery, name) <= most:
            return f"{name} is no count: {getattr(delivery, name)}"
    for name in ("subscription", "alert_id", "alert", "project", "environment", "agent"):
        if len(getattr(delivery, name)) > MAX_NAME:
            return f"{name} is longer than {MAX_NAME} characters"
    return alert_misfit(delivery.record) if delivery.record is not None else ""


def task_state_misfit(state: Any) -> str:
    """Why the state of a task or an executor, a struct of ``task_state``, cannot be one; empty when
    it can.
    """
    for name in state.__struct_fields__:
        value = getattr(state, name)
        if isinstance(value, str):
            if len(value) > MAX_WORDS:
                return f"{name} is longer than {MAX_WORDS} characters"
        elif name in STATE_TIMES:
            if not 0 <= value < MAX_TIME_US:
                return f"{name} is no time: {value}"
        elif isinstance(value, int) and not -1 <= value <= _STATE_COUNTS.get(name, MAX_COUNT):
            return f"{name} is no count: {value}"
    for attempt in getattr(state, "attempts", ()):
        if not all(0 <= getattr(attempt, name) < MAX_TIME_US for name in ATTEMPT_TIMES):
            return f"a time of attempt {attempt.attempt} is no time"
    return ""


def _texts(item: FindingStruct | AlertStruct, lists: dict[str, list[str]]) -> str:
    for name in _NAMES:
        if len(getattr(item, name)) > MAX_NAME:
            return f"{name} is longer than {MAX_NAME} characters"
    for name in ("message", "quoted", "detail"):
        if len(getattr(item, name)) > MAX_WORDS:
            return f"{name} is longer than {MAX_WORDS} characters"
    for name, items in lists.items():
        if len(items) > MAX_ITEMS or _longest(items) > MAX_ID:
            return (
                f"{name} has more than {MAX_ITEMS} items, or one of more than {MAX_ID} characters"
            )
    return ""


def _longest(items: Iterable[str]) -> int:
    return max(map(len, items), default=0)
