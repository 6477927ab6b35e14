"""Runs whose numbers are known, stored as a sink stores them, for tests of questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

from stepstream.schemas.settings import Settings
from stepstream.sinks.batching.records import Record, Source
from stepstream.sinks.clickhouse.insert import Inserter
from stepstream.sinks.clickhouse.run_rows import build_runs
from stepstream.sinks.clickhouse.step_rows import build_steps

SECOND_US = 1_000_000


@dataclass
class KnownRun:
    """A run: a root and the steps below it, each a second after the one before it."""

    number: int
    start: datetime
    agent: str = "support"
    task: str = "refund"
    status: str = "ok"
    success: str = ""
    # Fields of all steps, such as user_id.
    about: dict[str, Any] = field(default_factory=dict)
    steps: list[dict[str, Any]] = field(default_factory=list)

    @property
    def trace_id(self) -> str:
        return f"{self.number + 0xA0:032x}"

    @property
    def start_us(self) -> int:
        return round(self.start.timestamp() * SECOND_US)

    def step_id(self, place: int) -> str:
        """Id of a step: 0 is the root."""
        return f"{self.number * 1_000 + place + 1:016x}"

    def add(self, kind: str, name: str, cost: str | None = None, **more: Any) -> str:
        """Add an ended step of half a second; returns its id."""
        place = len(self.steps) + 1
        begin = self.start_us + place * SECOND_US
        step = {
            "step_id": self.step_id(place),
            "parent_step_id": self.step_id(0),
            "kind": kind,
            "name": name,
            "start_time": begin,
            "end_time": begin + SECOND_US // 2,
            **({"tool": name} if kind == "tool_call" else {}),
            **({} if cost is None else {"cost_usd": cost, "cost_source": "given"}),
            **more,
        }
        self.steps.append(step)
        return str(step["step_id"])

    def events(self) -> list[dict[str, Any]]:
        """All steps as ended events, the root first."""
        end = self.start_us + (len(self.steps) + 1) * SECOND_US
        root = {
            "step_id": self.step_id(0),
            "kind": "agent",
            "name": self.agent,
            "start_time": self.start_us,
            "end_time": end,
            "status": self.status if self.status in ("ok", "error", "cancelled") else "ok",
        }
        shared = {"trace_id": self.trace_id, "agent": self.agent, "task": self.task, **self.about}
        return [
            {"phase": "end", "schema_version": 1, **shared, **step} for step in [root, *self.steps]
        ]

    def trajectory(self) -> dict[str, Any]:
        """The run's row."""
        events = self.events()
        usage = [event.get("usage") or {} for event in events]
        failed = [event for event in events if event.get("status") == "error"]
        return {
            "trace_id": self.trace_id,
            "revision": 2 * len(events),
            "status": self.status,
            "success": self.success,
            "closed": self.status != "running",
            "agent": self.agent,
            "task": self.task,
            **self.about,
            "root_step_id": self.step_id(0),
            "name": self.agent,
            "start_time": events[0]["start_time"],
            "end_time": events[0]["end_time"],
            "duration_us": events[0]["end_time"] - events[0]["start_time"],
            "first_append_time": events[0]["start_time"],
            "last_append_time": events[0]["end_time"],
            "steps": len(events),
            "ended_steps": len(events),
            "error_steps": len(failed),
            "llm_calls": sum(event["kind"] == "llm_call" for event in events),
            "tool_calls": sum(event["kind"] == "tool_call" for event in events),
            "unpriced_steps": sum(event.get("cost_source") == "unpriced" for event in events),
            "input_tokens": sum(one.get("input_tokens", 0) for one in usage),
            "output_tokens": sum(one.get("output_tokens", 0) for one in usage),
            "cost_usd": str(sum(Decimal(event.get("cost_usd") or 0) for event in events)),
            "tools": list(dict.fromkeys(e["tool"] for e in events if e.get("tool"))),
            "models": list(dict.fromkeys(e["model"] for e in events if e.get("model"))),
            "error_type": failed[-1].get("error_type", "") if failed else "",
            "error_message": failed[-1].get("error_message", "") if failed else "",
            "path": [
                {
                    "step_id": event["step_id"],
                    "parent_step_id": event.get("parent_step_id", ""),
                    "kind": event["kind"],
                    "name": event["name"],
                    "status": event.get("status", "ok"),
                }
                for event in events
            ],
        }


def store_runs(settings: Settings, runs: Sequence[KnownRun]) -> None:
    """Insert steps and runs through the sink's own row builders."""
    inserter = Inserter(settings)
    for topic, build, values in (
        ("steps", None, [event for run in runs for event in run.events()]),
        ("trajectories", build_runs, [run.trajectory() for run in runs]),
    ):
        records = [
            Record(
                offset,
                value["start_time"] // 1_000,
                value["trace_id"].encode(),
                msgspec.json.encode(value),
                None,
            )
            for offset, value in enumerate(values)
        ]
        source = Source(topic, 0)
        built = build(records, source) if build else build_steps(records, source, set())
        assert not built.refused, built.refused
        for number, block in enumerate(built.blocks):
            inserter.insert(block, f"{topic}:{number}:{runs[0].trace_id}")
