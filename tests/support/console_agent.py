"""An agent that works for a console, and the console over its engines."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stepstream.schemas.settings import Settings
from tests.support.console import Client, running
from tests.support.sink import encoded, send


def console_of(settings: Settings, folder: Path, **more: Any) -> Any:
    given = settings.model_dump(include={"kafka_brokers", "topic_prefix", "clickhouse_database"})
    given |= {
        "clickhouse_url": settings.clickhouse_url,
        "clickhouse_user": settings.clickhouse_user,
        "clickhouse_password": settings.clickhouse_password.get_secret_value(),
        "console_query_timeout": "60s",
    }
    return running(folder, **{**given, **more})


class Agent:
    """Sends the steps of one run, a few at a time."""

    def __init__(self, settings: Settings) -> None:
        self.trace_id = uuid.uuid4().hex
        self.sent: set[str] = set()
        self._settings = settings

    def work(self, steps: int, **fields: Any) -> None:
        """Begin and end some steps."""
        self.work_below([fields.pop("parent_step_id", None)] * steps, **fields)

    def work_below(self, parents: Sequence[str | None], **fields: Any) -> None:
        """Begin and end a step below each of these; None: below the first step."""
        records = []
        for parent in parents:
            number = len(self.sent)
            step_id = f"{number + 1:016x}"
            usual = "" if number == 0 else f"{1:016x}"
            now_us = time.time_ns() // 1_000
            begun = {
                "trace_id": self.trace_id,
                "step_id": step_id,
                "parent_step_id": usual if parent is None else parent,
                "kind": "tool_call",
                "name": f"step {number}",
                "project": "shop",
                "agent": "support",
                "start_time": now_us,
                **fields,
            }
            ended = {**begun, "phase": "end", "end_time": now_us + 5, "cost_usd": "0.001"}
            records.append((self.trace_id, encoded({**begun, "phase": "start"})))
            records.append((self.trace_id, encoded(ended)))
            self.sent.add(step_id)
        send(self._settings, records)


def stored(client: Client, agent: Agent) -> int:
    """How many steps the store has."""
    got = client.get(f"/api/v1/runs/{agent.trace_id}/steps")
    return (
        sum(end is not None for end in got.json["columns"]["end_time"]) if got.status == 200 else 0
    )
