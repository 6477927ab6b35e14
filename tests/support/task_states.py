"""Records of the topic taskstate: tasks and executors after each of their changes."""

from __future__ import annotations

import json
import time
from typing import Any, Final

from stepstream.common import kafka
from stepstream.schemas.settings import Settings
from stepstream.schemas.task_common import fence_of, task_trace_id
from stepstream.schemas.topics import topic

SECOND: Final = 1_000_000


def executor_state(executor_id: str, revision: int = 0, **fields: Any) -> dict[str, Any]:
    """An executor after a change."""
    now = time.time_ns() // 1_000
    agents = [
        {"name": name, "version": "v13", "timeout_us": 600 * SECOND}
        for name in fields.pop("runs", ["refund"])
    ]
    usual = {
        "kind": "executor", "project": "shop", "executor_id": executor_id, "state": "ready",
        "event": "hello", "at_us": now, "epoch": 1, "revision": revision, "host": "ex.example",
        "pid": 7, "slots": 4, "agents": agents, "started_at_us": now, "last_beat_us": now,
    }  # fmt: skip
    return usual | fields


class Story:
    """A task whose changes are written one after another, a second apart."""

    def __init__(self, task_id: str, agent: str = "refund", *, age_s: float = 60, **fields: Any):
        self.now_us = int(time.time() * SECOND - age_s * SECOND)
        self.records: list[dict[str, Any]] = []
        self._state: dict[str, Any] = {
            "kind": "task", "project": "shop", "task_id": task_id, "agent": agent, "epoch": 1,
            "submitted_at_us": self.now_us, "input": {"order": 7}, "attempts": [], **fields,
        }  # fmt: skip
        self.change("submitted", state="waiting", waiting_for="slot")

    def change(self, event: str, **fields: Any) -> Story:
        self._state |= {"event": event, "at_us": self.now_us, "revision": len(self.records)}
        self._state |= fields
        self.records.append({**self._state, "attempts": list(self._state["attempts"])})
        self.now_us += SECOND
        return self

    def bind(self, executor_id: str, **fields: Any) -> Story:
        """Give the next attempt to an executor, which starts it."""
        state = self._state
        attempt = int(state.get("attempt", 0)) + 1
        bound = {
            "state": "bound", "waiting_for": "", "attempt": attempt, "executor_id": executor_id,
            "fence": fence_of(state["epoch"], len(self.records)), "bound_at_us": self.now_us,
            "run_agent": state["agent"], "run_version": "v13", "started_at_us": 0,
            "trace_id": task_trace_id(state["project"], state["task_id"], attempt),
            "lease_us": 45 * SECOND,
        }  # fmt: skip
        self.change("bound", **bound | fields)
        return self.change("started", state="running", started_at_us=self.now_us)

    def end_attempt(self, status: str, event: str, **fields: Any) -> Story:
        """The attempt ends and the task changes, in one record. ``why``: the attempt's reason."""
        state = self._state
        names = ("attempt", "fence", "trace_id", "executor_id", "bound_at_us", "started_at_us")
        one = {name: state[name] for name in names}
        one |= {"agent": state["run_agent"], "version": state["run_version"], "status": status}
        one |= {"ended_at_us": self.now_us, "reason": fields.pop("why", "")}
        one |= {name: fields[name] for name in ("error_type", "error_message") if name in fields}
        return self.change(event, attempts=[*state["attempts"], one], **fields)

    def end(self, status: str, state: str, **fields: Any) -> Story:
        """The attempt ends, and the task with it."""
        return self.end_attempt(status, "ended", state=state, ended_at_us=self.now_us, **fields)


def refusal(task_id: str, refused: str, reason: str, **fields: Any) -> dict[str, Any]:
    """A submit or a command that changed nothing."""
    usual = {
        "kind": "refusal", "project": "shop", "task_id": task_id, "refused": refused,
        "reason": reason, "at_us": time.time_ns() // 1_000, "source_offset": 7,
    }  # fmt: skip
    return usual | fields


def send_states(settings: Settings, *records: dict[str, Any], partition: int = 0) -> None:
    """Write records to the topic, as the worker does: on one partition, keyed by their id."""
    producer = kafka.producer(settings)
    for record in records:
        key = record.get("task_id") or record.get("executor_id") or "?"
        producer.produce(
            topic(settings.topic_prefix, "taskstate"),
            json.dumps(record).encode(),
            key.encode(),
            partition,
        )
    assert producer.flush(30) == 0
