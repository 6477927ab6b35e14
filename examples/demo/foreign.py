"""A producer without the SDK: JSON to the steps topic, as from another language, with errors.

Its run arrives out of order, some events twice, one step after the run was closed. One more record
is not JSON: it must end up on the dead-letter topic and affect nothing else.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from confluent_kafka import Producer

from examples.demo.ledger import Account, Ledger
from examples.demo.scenarios import ENVIRONMENT, FOREIGN, PROJECT
from stepstream.common import kafka
from stepstream.schemas.ids import new_step_id, new_trace_id
from stepstream.schemas.settings import Settings
from stepstream.schemas.step import RECORD_HEADERS
from stepstream.schemas.topics import topic

AGENT: Final = "importer"
MODEL: Final = ("openai", "gpt-4o-mini", 1_200, 80)
GIVEN_USD: Final = "0.0125"
MALFORMED: Final = b'{"trace_id": "not closed'
WAIT_S: Final = 10.0


@dataclass
class Foreign:
    """The producer. ``repeats`` and ``malformed`` count what it sent besides the run's events."""

    settings: Settings
    ledger: Ledger
    repeats: int = 0
    malformed: int = 0
    trace_id: str = field(default_factory=new_trace_id)
    _sent: set[tuple[str, str]] = field(default_factory=set)
    _step_ids: dict[str, str] = field(default_factory=dict)

    def send_run(self) -> None:
        """Send everything but the late step, out of order."""
        account = self.ledger.open(self.trace_id, FOREIGN.name, AGENT, FOREIGN.task)
        now = time.time_ns() // 1_000
        start, end = self._start, self._end
        with_model = {
            "usage": {"input_tokens": MODEL[2], "output_tokens": MODEL[3]},
            "provider": MODEL[0],
            "model": MODEL[1],
        }
        events = [
            # Out of order and with repeats on purpose: any producer may send like this.
            end("fetch", "tool_call", now + 10_000, now + 60_000, tool="fetch"),
            start("read", "llm_call", now + 70_000),
            start("read", "llm_call", now + 70_000),
            start("root", "agent", now),
            end("read", "llm_call", now + 70_000, now + 300_000, **with_model),
            start("fetch", "tool_call", now + 10_000),
            end(
                "store", "tool_call", now + 310_000, now + 350_000, tool="store", cost_usd=GIVEN_USD
            ),
            end("root", "agent", now, now + 400_000, output="imported 3 articles"),
            end("root", "agent", now, now + 400_000, output="imported 3 articles"),
        ]
        account.spent(*MODEL)
        account.cost_usd += Decimal(GIVEN_USD)
        self._produce(account, events)
        account.status = "ok"

    def send_late(self) -> None:
        """Send one more step, long after the run was closed, and a malformed record."""
        account = self.ledger.account(self.trace_id)
        assert account is not None
        now = time.time_ns() // 1_000
        self._produce(
            account,
            [self._end("tidy", "state_update", now - 3_000_000, now - 2_990_000)],
            MALFORMED,
        )
        self.malformed += 1

    def _produce(self, account: Account, events: list[dict[str, Any]], *malformed: bytes) -> None:
        client = kafka.producer(self.settings)
        for event in events:
            self._count(account, event)
            self._put(client, json.dumps(event).encode())
        for value in malformed:
            self._put(client, value)
        left = client.flush(WAIT_S)
        client.close()
        if left:
            raise kafka.KafkaUnreachable(
                f"{left} records of the plain producer were not acknowledged"
            )

    def _put(self, client: Producer, value: bytes) -> None:
        name = topic(self.settings.topic_prefix, "steps")
        client.produce(name, value, key=self.trace_id.encode(), headers=list(RECORD_HEADERS))

    def _count(self, account: Account, event: dict[str, Any]) -> None:
        step_id, phase = event["step_id"], event["phase"]
        if (step_id, phase) in self._sent:
            self.repeats += 1
            return
        account.note_event(end=phase == "end")
        if (step_id, "start") not in self._sent and (step_id, "end") not in self._sent:
            account.started += 1
        if phase == "end":
            account.ended += 1
        self._sent.add((step_id, phase))

    def _start(self, name: str, kind: str, start_us: int, **more: Any) -> dict[str, Any]:
        return self._event("start", name, kind, start_us, more)

    def _end(self, name: str, kind: str, start_us: int, end_us: int, **more: Any) -> dict[str, Any]:
        return self._event("end", name, kind, start_us, {"end_time": end_us, **more})

    def _event(
        self, phase: str, name: str, kind: str, start_us: int, more: dict[str, Any]
    ) -> dict[str, Any]:
        step_id = self._step_ids.setdefault(name, new_step_id())
        parent = (
            {}
            if name == "root"
            else {"parent_step_id": self._step_ids.setdefault("root", new_step_id())}
        )
        who = {"project": PROJECT, "environment": ENVIRONMENT, "agent": AGENT, "task": FOREIGN.task}
        what = {
            "trace_id": self.trace_id,
            "step_id": step_id,
            "phase": phase,
            "kind": kind,
            "name": name,
            "start_time": start_us,
        }
        return {**what, **parent, **who, **more}
