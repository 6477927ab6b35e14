"""Synthetic runs: small runs with a loop, of which every worker must make an alert. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from stepstream.schemas.ids import new_step_id, new_trace_id
from stepstream.schemas.times import MINUTE_US, SECOND_US
from stepstream.sinks.notify.pipeline_monitor import PROBE_AGENT, PROJECT

INTERVAL_US: Final = MINUTE_US
CALLS: Final = 6
MARGIN_US: Final = 5 * SECOND_US
"""A missing alert is reported so long before the next run replaces the current one."""


def synthetic_run(trace_id: str, now_us: int) -> Iterator[bytes]:
    """Step events of a run that calls one tool again and again with the same input."""
    root = new_step_id()
    agent = {"step_id": root, "kind": "agent", "start_time": now_us}
    yield _event(trace_id, agent, phase="start")
    for _ in range(CALLS):
        yield _event(
            trace_id,
            {"step_id": new_step_id(), "parent_step_id": root, "kind": "tool_call"},
            phase="end",
            start_time=now_us,
            end_time=now_us,
            tool="probe",
            input="probe",
            output="same",
        )
    yield _event(trace_id, agent, phase="end", end_time=now_us + 1)


def _event(trace_id: str, step: dict[str, Any], **more: Any) -> bytes:
    return json.dumps(
        {
            "schema_version": 1,
            "trace_id": trace_id,
            "name": "probe",
            "project": PROJECT,
            "agent": PROBE_AGENT,
            "task": "probe",
            "status": "ok",
            **step,
            **more,
        }
    ).encode()


@dataclass(slots=True)
class SyntheticRuns:
    """The current synthetic run, and whether its alert has arrived."""

    limit_us: int
    trace_id: str = ""
    sent_us: int = 0
    arrived_us: int = 0
    latency_us: int = 0

    def due(self, now_us: int) -> str:
        """The trace id of a run to send now; empty if none is due."""
        if self.sent_us and now_us - self.sent_us < INTERVAL_US:
            return ""
        self.trace_id, self.sent_us, self.arrived_us = new_trace_id(), now_us, 0
        return self.trace_id

    def arrived(self, trace_id: str, now_us: int) -> None:
        """An alert about a synthetic run has arrived."""
        if trace_id == self.trace_id and not self.arrived_us:
            self.arrived_us, self.latency_us = now_us, now_us - self.sent_us

    def problem(self, now_us: int) -> str | None:
        """The error if an alert is missing; empty if it arrived; None while it may still arrive."""
        if self.arrived_us:
            return ""
        if self.sent_us and now_us - self.sent_us >= min(self.limit_us, INTERVAL_US - MARGIN_US):
            return (
                "the alert of a synthetic run did not arrive: steps are accepted and no alert "
                "comes out"
            )
        return None
